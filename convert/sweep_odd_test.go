package convert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// holding are the messages of the Maildir that hold a text, by path in it.
func (s *swept) holding(t *testing.T, text string) (paths []string) {
	t.Helper()
	for path := range allIDs(t, s.a.Maildir) {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
			rel, _ := filepath.Rel(s.a.Maildir, path)
			paths = append(paths, rel)
		}
	}
	return paths
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An agent that writes without a lock is in the midst of a message.
func TestHalfAMessageIsNotTaken(t *testing.T) {
	half := func(text string) (first, rest string) {
		at := strings.Index(text, "\n>From here on")
		return text[:at-3], text[at-3:]
	}
	for name, tt := range map[string]struct {
		stays bool // with the file open
	}{"of a file that is open": {true}, "of a file that was closed just now": {false}} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			first, rest := half(s.mail("."))
			s.appendTo(t, s.a.Spool, first)
			f, err := os.OpenFile(s.a.Spool, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			if !tt.stays {
				must(t, f.Close())
			}
			r, err := s.site.Sweep(context.Background(), s.a, SweepOptions{Wait: 200 * time.Millisecond})
			if reason := reasonOf(err); reason != reasonBusy && reason != reasonInUse || len(r.Taken) > 0 {
				t.Errorf("%+v, %v", r, err)
			}
			if tt.stays {
				must(t, f.Close())
			}
			s.appendTo(t, s.a.Spool, rest)
			if r := s.sweep(t); r.Messages() != 1 || len(r.Differences) > 0 {
				t.Errorf("%+v", r)
			}
			s.mustHaveAll(t)
		})
	}
}

// One mailbox that is in use does not keep the others from their mail.
func TestAMailboxInUseConcernsNoOther(t *testing.T) {
	s := newSwept(t)
	live, dir := s.folderOf(t)
	s.appendTo(t, s.parked(t, s.a.Spool), s.mail("."))
	s.appendTo(t, s.parked(t, live), s.mail(dir))
	f, err := os.Open(s.parked(t, s.a.Spool))
	must(t, err)
	r, err := s.site.Sweep(context.Background(), s.a, SweepOptions{Wait: 200 * time.Millisecond})
	if r.Messages() != 1 || reasonOf(err) != reasonInUse {
		t.Errorf("%+v, %v", r, err)
	}
	must(t, f.Close())
	if r := s.sweep(t); r.Messages() != 1 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

// A last line without an end is all that comes, after a while.
func TestAnUnendedLineIsTakenInTheEnd(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, strings.TrimRight(s.mail("."), "\n"))
	old := time.Now().Add(-2 * lineTime)
	must(t, os.Chtimes(s.a.Spool, old, old))
	if r := s.sweep(t); r.Messages() != 1 || len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

// The wait begins anew with each event, and ends.
func TestAUserIsLookedAtWhenItIsQuiet(t *testing.T) {
	now := time.Now()
	g := &graced{due: now.Add(time.Hour), until: now.Add(time.Hour)}
	g.stir()
	first := g.due
	time.Sleep(2 * time.Millisecond)
	if g.stir(); !g.due.After(first) {
		t.Errorf("due at %v, and at %v with another event", first, g.due)
	}
	if g.stirred = now.Add(-sweepPatient); true {
		g.stir()
	}
	if g.due.After(time.Now()) {
		t.Errorf("due in %v", time.Until(g.due))
	}
}

// A filesystem gives the number of an inode that is gone to the next file. Here the
// record is altered instead.
func TestAnInodeThatWasUsedAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		born  int64 // recorded
		taken int64 // recorded; how much of the new file a record says to be in the Maildir
		code  string
		all   bool // of the new file is delivered
	}{
		"another birth, and the new file is longer":  {1, 10, "parked-gone", true},
		"another birth, and the new file is shorter": {1, 1 << 20, "parked-gone", true},
		"no births known, longer":                    {0, 10, "stray-doubt", false},
		"no births known, shorter":                   {0, 1 << 20, "stray-doubt", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			must(t, os.Remove(s.parked(t, s.a.Spool)))
			s.appendTo(t, s.a.Spool, s.mail("."))
			info, err := os.Stat(s.a.Spool)
			must(t, err)
			soak, err := journal.ReadSoak(s.site.State, s.a.Name)
			must(t, err)
			for i, p := range soak.Parked {
				if p.Live == s.a.Spool {
					soak.Parked[i].Ino, soak.Parked[i].Born, soak.Parked[i].Taken = idOf(info).ino, tt.born, tt.taken
				}
			}
			must(t, journal.WriteSoak(s.site.State, soak))
			if !tt.all {
				delete(s.count, ". gen-beef-1")
			}
			r := s.sweep(t)
			if len(r.Differences) != 1 || r.Differences[0].code != tt.code || (r.Messages() == 1) != tt.all {
				t.Errorf("%+v", r)
			}
			s.mustHaveAll(t)
		})
	}
}

func TestARecordOfAParkedMboxHasItsBirth(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, s.mail("."))
	s.sweep(t)
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	must(t, err)
	for _, p := range soak.Parked {
		f, err := os.Open(p.Path)
		must(t, err)
		if born := bornOf(f); born == 0 || p.Born != born {
			t.Errorf("%s was born %d, recorded is %d", p.Path, born, p.Born)
		}
		must(t, f.Close())
	}
}

// A sweep could not park what it had taken, since the name was taken.
func TestMailBehindAFileThatCouldNotBeParked(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, s.mail("."))
	s.sweep(t)
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	must(t, err)
	late := soak.Parked[len(soak.Parked)-1].Path
	must(t, os.Rename(late, s.a.Spool))
	s.appendTo(t, late, "something else\n")
	s.appendTo(t, s.a.Spool, s.mail("."))
	if r := s.sweep(t); r.Messages() != 1 || len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

func TestMailOfAMailboxThatWasMadeSinceTheFlip(t *testing.T) {
	long := strings.Repeat("x", 240) // to park it
	for name, tt := range map[string]struct {
		file   string // below the folders
		dir    string // that gets the mail
		folder string // as told, if it is not the mailbox
	}{
		"which becomes a folder":       {"brand/new", ".brand.new", ""},
		"which the layout can't spell": {"brand and new/" + strings.Repeat("x", 244), ".", "INBOX"},
		"whose name leaves no room":    {long, "." + long, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			path := filepath.Join(s.a.Folders[0], tt.file)
			must(t, errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Chown(filepath.Dir(path), s.a.UID, s.a.GID)))
			s.appendTo(t, filepath.Join(s.a.Folders[0], "notes"), "no mail\n")
			s.appendTo(t, path, s.mail(tt.dir))
			r := s.sweep(t)
			if r.Messages() != 1 || len(r.Differences) > 0 || r.Taken[0].Folder != tt.folder {
				t.Errorf("%+v", r)
			}
			for range 2 {
				s.mustHaveAll(t)
				s.appendTo(t, path, s.mail(tt.dir))
				if r := s.sweep(t); r.Messages() != 1 {
					t.Errorf("%+v", r)
				}
			}
			s.mustHaveAll(t)
		})
	}
}

// What was there before the flip, and was no mailbox then, may be anything.
func TestAnOldFileThatBecameAMailboxIsTold(t *testing.T) {
	s := newSwept(t)
	path := filepath.Join(s.a.Folders[0], "old")
	s.appendTo(t, path, "From late@example.org Mon Jan  2 03:04:05 2023\n\nId: gen-dead-1\n\n")
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	must(t, err)
	soak.Flipped = time.Now().Add(time.Second)
	must(t, journal.WriteSoak(s.site.State, soak))
	if r := s.sweep(t); len(r.Taken) > 0 || len(r.Differences) != 1 || r.Differences[0].code != "stray-doubt" {
		t.Errorf("%+v", r)
	}
	soak.Flipped = time.Now().Add(time.Hour) // it has not changed since
	must(t, journal.WriteSoak(s.site.State, soak))
	if r := s.sweep(t); len(r.Taken)+len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

// Mail that a session puts there has flags, and lies in cur.
func TestFlagsOfSweptMail(t *testing.T) {
	for name, tt := range map[string]struct{ status, glob string }{
		"seen and flagged": {"Status: RO\nX-Status: F\n", "cur/*:2,FS"},
		"old":              {"Status: O\n", "new/*"},
		"none":             {"", "new/*"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			s.appendTo(t, s.a.Spool, strings.Replace(s.mail("."), "Subject: late\n", "Subject: late\n"+tt.status, 1))
			s.sweep(t)
			s.mustHaveAll(t)
			paths := s.holding(t, "Id: gen-beef-1\n")
			if len(paths) != 1 {
				t.Fatal(paths)
			}
			if ok, err := filepath.Match(tt.glob, paths[0]); !ok || err != nil {
				t.Errorf("%s, want %s", paths[0], tt.glob)
			}
		})
	}
}

const internalData = "From MAILER-DAEMON Sat Nov 21 01:30:00 2026\nDate: 21 Nov 2026 01:30:00 +0000\nFrom: Mail System Internal Data <MAILER-DAEMON@x>\n" +
	"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1700000000 0000000001\nStatus: RO\n\nId: gen-beef-0\n\n"

// It is a mailbox's own where a mailbox begins; anywhere else it is mail.
func TestInternalDataOfASweptMailbox(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, internalData+s.mail("."))
	if r := s.sweep(t); r.Messages() != 1 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
	s.appendTo(t, s.parked(t, s.a.Spool), internalData)
	s.count[". gen-beef-0"] = 1
	if r := s.sweep(t); r.Messages() != 1 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

func TestLineEndsBeforeTheFirstMessageOfATail(t *testing.T) {
	for _, lead := range []string{"\n", "\r\n", "\n\n"} {
		s := newSwept(t)
		s.appendTo(t, s.parked(t, s.a.Spool), lead+s.mail("."))
		if r := s.sweep(t); r.Messages() != 1 || len(r.Differences) > 0 {
			t.Errorf("%q: %+v", lead, r)
		}
		s.mustHaveAll(t)
	}
}

// At the end of the soak only the time of the flip is kept.
func TestMailAfterTheEndOfTheSoak(t *testing.T) {
	s := newSwept(t)
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	must(t, err)
	for _, p := range soak.Parked {
		must(t, os.Remove(p.Path))
	}
	live, dir := s.folderOf(t)
	soak.Parked = nil
	must(t, journal.WriteSoak(s.site.State, soak))
	s.appendTo(t, s.a.Spool, s.mail("."))
	s.appendTo(t, live, s.mail(dir))
	due, err := s.site.SweepDue(s.a)
	if r := s.sweep(t); err != nil || !due || r.Messages() != 2 || len(r.Differences) > 0 {
		t.Errorf("%v, %v; %+v", due, err, r)
	}
	s.mustHaveAll(t)
}

// After a loss of power a message may have its name in staging and the one in the
// Maildir. Another file of that name is none of ours.
func TestAMessageWithBothNamesIsDelivered(t *testing.T) {
	for _, same := range []bool{true, false} {
		root := t.TempDir()
		open := func(name string) *safefs.Dir {
			path := filepath.Join(root, name)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			dir, err := safefs.OpenDir(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { dir.Close() })
			return dir
		}
		w := &taking{staging: open("staging")}
		to := &liveDir{new: open("new"), cur: open("cur")}
		here, there := filepath.Join(root, "staging", "1.a.b"), filepath.Join(root, "new", "1.a.b")
		err := os.WriteFile(here, []byte("ours"), 0o600)
		if same {
			err = errors.Join(err, os.Link(here, there))
		} else {
			err = errors.Join(err, os.WriteFile(there, []byte("another's"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := w.rename("1.a.b", to); (err == nil) != same {
			t.Errorf("one file %t: %v", same, err)
		}
		if exists(t, here) == same || !exists(t, there) {
			t.Errorf("one file %t: in staging %t, delivered %t", same, exists(t, here), exists(t, there))
		}
	}
}
