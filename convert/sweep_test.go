package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
)

// swept is a user who was moved, and to whom mail comes at the old place.
type swept struct {
	*place
	a     account.Account
	count map[string]int // how often each id has to be in his Maildir, by "FOLDER ID"
	sent  int
}

// newSwept moves a user with folders.
func newSwept(t *testing.T) *swept {
	t.Helper()
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 21})
	for i, u := range p.Users {
		if len(u.Mailboxes) < 2 || u.Mailboxes[0].Name != "INBOX" {
			continue
		}
		c := ready(t, p, p.accounts[i])
		cut, err := c.do(context.Background())
		if err != nil || len(cut.Warnings) > 0 {
			t.Fatal(err, cut)
		}
		if err := errors.Join(c.stage.close(), journal.RemoveStaging(p.site.State, u.Name)); err != nil {
			t.Fatal(err)
		}
		s := &swept{place: p, a: p.accounts[i]}
		s.count = s.ids(t)
		return s
	}
	t.Fatal("no user has folders")
	return nil
}

// ids counts the messages of the Maildir, by folder and id.
func (s *swept) ids(t *testing.T) map[string]int {
	t.Helper()
	count := map[string]int{}
	for path, id := range allIDs(t, s.a.Maildir) {
		folder, err := filepath.Rel(s.a.Maildir, filepath.Dir(filepath.Dir(path)))
		if err != nil {
			t.Fatal(err)
		}
		count[folder+" "+id]++
	}
	return count
}

// mail makes a message that is to come to a folder.
func (s *swept) mail(folder string) string {
	s.sent++
	id := fmt.Sprintf("gen-beef-%d", s.sent)
	s.count[folder+" "+id] = 1
	return "From late@example.org Mon Jan  2 03:04:05 2023\nSubject: late\nX-UID: 77\n\nId: " + id + "\n>From here on\n\n"
}

func (s *swept) sweep(t *testing.T) *Swept {
	t.Helper()
	r, err := s.site.Sweep(context.Background(), s.a, SweepOptions{Wait: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustHaveAll demands that all mail is in the Maildir once, and nothing of the
// sweep is left.
func (s *swept) mustHaveAll(t *testing.T) {
	t.Helper()
	got := s.ids(t)
	for id, want := range s.count {
		if got[id] != want {
			t.Errorf("%s is there %d times, want %d", id, got[id], want)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Errorf("unknown messages %v", got)
	}
	for _, path := range leavings(t, s.place) {
		t.Errorf("left %s", path)
	}
	if left, err := journal.ListSweep(s.site.State); err != nil || len(left) > 0 {
		t.Errorf("left the record %+v, %v", left, err)
	}
}

// parked is where an mbox lies now.
func (s *swept) parked(t *testing.T, live string) string {
	t.Helper()
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range soak.Parked {
		if p.Live == live {
			return p.Path
		}
	}
	t.Fatalf("%s was not parked: %+v", live, soak)
	return ""
}

// folderOf is an mbox of the user that is not INBOX, and its directory in the
// Maildir.
func (s *swept) folderOf(t *testing.T) (live, dir string) {
	t.Helper()
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range soak.Parked {
		if p.Live != s.a.Spool {
			w := &sweep{Site: s.site, account: s.a}
			dir, name := w.folder(p.Live)
			if name != p.Mailbox {
				t.Errorf("%s is the folder %q, and was converted to %q", p.Live, name, p.Mailbox)
			}
			return p.Live, dir
		}
	}
	t.Fatal("no folder")
	return "", ""
}

// appendTo writes behind what a file holds, as its owner's agent does.
func (s *swept) appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chown(s.a.UID, s.a.GID), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestMailAtTheOldPlaceIsTakenOnce(t *testing.T) {
	s := newSwept(t)
	live, dir := s.folderOf(t)
	s.appendTo(t, s.parked(t, s.a.Spool), s.mail(".")+s.mail("."))
	s.appendTo(t, s.parked(t, live), s.mail(dir))
	s.appendTo(t, s.a.Spool, s.mail("."))
	r := s.sweep(t)
	if r.Messages() != 4 || len(r.Taken) != 3 || len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
	for range 2 { // one is left at the old path again
		if r := s.sweep(t); r.Messages() != 0 || len(r.Differences) > 0 {
			t.Errorf("%+v", r)
		}
	}
	late := s.a.Spool + strings.TrimPrefix(s.parked(t, s.a.Spool), s.a.Spool) + "-late1"
	s.appendTo(t, late, s.mail(".")) // by who had it open
	s.appendTo(t, s.a.Spool, s.mail("."))
	if r := s.sweep(t); r.Messages() != 2 || len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

// It is delivered as new mail: in new, with the date of its From_ line, the
// server's fields hidden, the sizes in the name.
func TestSweptMailIsNewMail(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, s.mail("."))
	s.sweep(t)
	files, err := filepath.Glob(filepath.Join(s.a.Maildir, "new", "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	const want = "Subject: late\n\nId: gen-beef-1\n>From here on\n"
	content, err := os.ReadFile(files[0])
	if err != nil || string(content) != want {
		t.Errorf("%q, %v", content, err)
	}
	name, err := maildir.ParseName(filepath.Base(files[0]))
	if err != nil || name.Size != int64(len(want)) || name.VSize != int64(len(want)+strings.Count(want, "\n")) || name.Flags != 0 {
		t.Errorf("%+v, %v", name, err)
	}
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != s.a.UID || info.Mode() != 0o600 || info.ModTime().UTC().Format(time.DateTime) != time.Date(2023, 1, 2, 3, 4, 5, 0, time.Local).UTC().Format(time.DateTime) {
		t.Errorf("uid %d, %v, %v", st.Uid, info.Mode(), info.ModTime())
	}
}

// What is not as it was left is told, and not touched.
func TestWhatASweepLeavesAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*testing.T, *swept)
		code  string
	}{
		"a parked mbox that became shorter": {func(t *testing.T, s *swept) {
			if err := os.Truncate(s.parked(t, s.a.Spool), 10); err != nil {
				t.Fatal(err)
			}
		}, "parked-shrunk"},
		"a parked mbox that is another file": {func(t *testing.T, s *swept) {
			path := s.parked(t, s.a.Spool)
			s.appendTo(t, path+"x", s.mail("."))
			delete(s.count, ". gen-beef-1")
			if err := os.Rename(path+"x", path); err != nil {
				t.Fatal(err)
			}
		}, "parked-replaced"},
		"bytes that begin no message": {func(t *testing.T, s *swept) {
			s.appendTo(t, s.parked(t, s.a.Spool), "what is this?\n")
		}, "stray-format"},
		"a file at the old path that is no mbox": {func(t *testing.T, s *swept) {
			s.appendTo(t, s.a.Spool, "what is this?\n")
		}, "stray-format"},
		"a symlink at the old path": {func(t *testing.T, s *swept) {
			if err := os.Symlink("/etc/passwd", s.a.Spool); err != nil {
				t.Fatal(err)
			}
		}, "stray-irregular"},
		"a file of another at the old path": {func(t *testing.T, s *swept) {
			if err := os.WriteFile(s.a.Spool, []byte(s.mail(".")), 0o666); err != nil {
				t.Fatal(err)
			}
			delete(s.count, ". gen-beef-1")
		}, "mbox-owner"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			tt.spoil(t, s)
			r := s.sweep(t)
			if len(r.Taken) > 0 || len(r.Differences) != 1 || r.Differences[0].code != tt.code {
				t.Fatalf("%+v", r)
			}
			if reason := r.Differences[0].Reason; strings.Contains(reason, "; left there: ") == (tt.code == "parked-gone") || !strings.HasSuffix(reason, advice(tt.code, s.a.Name)) {
				t.Errorf("does not say what to do: %s", reason)
			}
			s.mustHaveAll(t)
		})
	}
}

func TestAnEmptyFileAtTheOldPathIsLeft(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, "")
	if r := s.sweep(t); len(r.Taken)+len(r.Differences) > 0 || !exists(t, s.a.Spool) {
		t.Errorf("%+v", r)
	}
}

// Without a record nobody knows what of the parked mboxes is in the Maildir;
// what is new at the old path is new.
func TestASweepWithoutARecord(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.parked(t, s.a.Spool), "From late@example.org Mon Jan  2 03:04:05 2023\n\nId: gen-dead-1\n\n")
	if err := journal.RemoveSoak(s.site.State, s.a.Name); err != nil {
		t.Fatal(err)
	}
	s.appendTo(t, s.a.Spool, s.mail("."))
	for range 2 {
		r := s.sweep(t)
		if len(r.Differences) == 0 || r.Differences[0].code != "parked-unrecorded" {
			t.Errorf("%+v", r)
		}
	}
	s.mustHaveAll(t)
}

func TestMailForAFolderThatIsGoneGoesToINBOX(t *testing.T) {
	s := newSwept(t)
	live, dir := s.folderOf(t)
	for id := range s.count {
		if strings.HasPrefix(id, dir+" ") {
			delete(s.count, id)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.a.Maildir, dir)); err != nil {
		t.Fatal(err)
	}
	s.appendTo(t, s.parked(t, live), s.mail("."))
	if r := s.sweep(t); len(r.Taken) != 1 || r.Taken[0].Folder != "INBOX" {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}
