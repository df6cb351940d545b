package convert

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/safefs"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// moved is a place of which all users were migrated, and what their mboxes were.
func moved(t *testing.T, o mailgen.SiteOptions) (*place, map[string]mailgen.SnapshotTree) {
	t.Helper()
	p := newPlace(t, o)
	before := map[string]mailgen.SnapshotTree{}
	for _, u := range p.Users {
		tree, err := u.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		before[u.Name] = tree
	}
	_, w := doRun(t, p, Migrate, p.accounts...)
	for _, a := range p.accounts {
		w.mustBe(t, a.Name, journal.Done, "")
	}
	return p, before
}

// wentBack demands that a user is on mbox, and that nothing but what was set
// aside is left of the Maildir.
func wentBack(t *testing.T, p *place, w *told, a account.Account) {
	t.Helper()
	w.mustBe(t, a.Name, journal.Done, "")
	if authority, mirror := stateOf(t, a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
		t.Errorf("%s: semaphore %s, mirror %s", a.Name, authority, mirror)
	}
	for _, path := range leavings(t, p) {
		if strings.Contains(path, a.Name) {
			t.Errorf("%s: left %s", a.Name, path)
		}
	}
	if exists(t, a.Maildir) {
		t.Errorf("%s: the Maildir was not set aside", a.Name)
	}
	if _, err := journal.ReadRollback(p.site.State, a.Name); !os.IsNotExist(err) {
		t.Errorf("%s: the record of the rollback is left: %v", a.Name, err)
	}
	if soak, err := journal.ReadSoak(p.site.State, a.Name); err != nil || soak.Back.IsZero() || len(soak.Aside) == 0 {
		t.Errorf("%s: soak record %+v, %v", a.Name, soak, err)
	}
}

// With nothing changed since the flip each mbox is what it was, to the byte,
// with the permissions that it had.
func TestAUserWhoDidNothingGetsHisMboxesBackToTheByte(t *testing.T) {
	p, before := moved(t, mailgen.SiteOptions{Users: 12, Seed: 5})
	_, w := doRun(t, p, Rollback, p.accounts...)
	for i, a := range p.accounts {
		wentBack(t, p, w, a)
		after, err := p.Users[i].Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		now := withoutTimes(after)
		for path := range now {
			if strings.Contains(path, ".mailferry-") {
				if strings.HasPrefix(path, a.Folders[0]+"/") {
					t.Errorf("%s: %s is among the folders", a.Name, path)
				}
				delete(now, path)
			}
		}
		was := withoutTimes(before[a.Name])
		for _, diff := range was.Diff(now) {
			if !strings.Contains(diff, "time") {
				t.Errorf("%s: %s", a.Name, diff)
			}
		}
	}
}

// backUser is one user who was migrated: INBOX of five messages, a folder
// "Sent" and one "lists/go".
func backUser(t *testing.T) (*stand, func() *told) {
	t.Helper()
	p, a := servedPlace(t, 700)
	s := &stand{t, p, a}
	s.migrated()
	return s, func() *told { _, w := doRun(t, p, Rollback, a); return w }
}

func (s *stand) put(path, text string) {
	s.Helper()
	s.check(errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chown(path, s.a.UID, s.a.GID)))
}

func (s *stand) inMaildir(parts ...string) string {
	return filepath.Join(append([]string{s.a.Maildir}, parts...)...)
}

func (s *stand) folder(name string) {
	s.Helper()
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		dir := s.inMaildir(name, sub)
		s.check(errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, s.a.UID, s.a.GID)))
	}
}

// first is a file of INBOX's cur.
func (s *stand) first() string {
	s.Helper()
	list, err := filepath.Glob(s.inMaildir("cur", "*"))
	if err != nil || len(list) == 0 {
		s.Fatal(list, err)
	}
	return list[0]
}

func (s *stand) parkedAs(live string) string {
	s.Helper()
	list, err := filepath.Glob(live + ".mailferry-*")
	if err != nil || len(list) != 1 {
		s.Fatal(list, err)
	}
	return list[0]
}

const late = "From a@example.org Sat Nov 21 01:30:00 2026\nSubject: late\n\nlate\n\n"

// What came late to an old place is swept into the Maildir first, and goes back
// with the rest.
func TestLateMailGoesBackToo(t *testing.T) {
	for name, deliver := range map[string]func(*stand){
		"to the old path of INBOX":    func(s *stand) { s.put(s.a.Spool, late) },
		"to the old path of a folder": func(s *stand) { s.put(filepath.Join(s.a.Folders[0], "Sent"), late) },
		"to a parked mbox": func(s *stand) {
			f, err := os.OpenFile(s.parkedAs(s.a.Spool), os.O_WRONLY|os.O_APPEND, 0)
			s.check(err)
			_, err = f.WriteString(late)
			s.check(errors.Join(err, f.Close()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, rollback := backUser(t)
			deliver(s)
			rollback().mustBe(t, s.a.Name, journal.Done, "")
			found := 0
			for _, path := range []string{s.a.Spool, filepath.Join(s.a.Folders[0], "Sent")} {
				content, err := os.ReadFile(path)
				s.check(err)
				found += strings.Count(string(content), "Subject: late\n")
			}
			if found != 1 {
				t.Errorf("the late message is in the mboxes %d times", found)
			}
		})
	}
}

// Whoever can't go back as he is stays on his Maildir, untouched, and is told why.
func TestWhoCanNotGoBackIsNamedAndLeftAlone(t *testing.T) {
	for _, test := range []struct {
		name, outcome, reason string
		make                  func(*stand)
	}{
		{"something else at the old path of INBOX", journal.Skipped, "stray", func(s *stand) { s.put(s.a.Spool, "no mail\n") }},
		{"a directory at the old path", journal.Skipped, "folder-collides", func(s *stand) { s.check(os.Mkdir(filepath.Join(s.a.Folders[0], "Sent"), 0o755)) }},
		{"a folder below one that holds mail", journal.Skipped, "folder-collides", func(s *stand) { s.folder(".Sent.Below") }},
		{"a folder with a name of metadata", journal.Skipped, "folder-name", func(s *stand) { s.folder(".dovecot-uidvalidity") }},
		{"two files of one name", journal.Skipped, "maildir-odd", func(s *stand) { s.put(uniqueOf(s.first())+":2,DF", "x") }},
		{"a list of UIDs that no server reads", journal.Skipped, "maildir-odd", func(s *stand) { s.put(s.inMaildir("dovecot-uidlist"), "7\n") }},
		{"a directory among the messages", journal.Skipped, "maildir-odd", func(s *stand) { s.check(os.Mkdir(s.inMaildir("cur", "1.2.3:2,"), 0o700)) }},
		{"no Maildir", journal.Skipped, "no-maildir", func(s *stand) { s.check(os.Rename(s.a.Maildir, s.a.Maildir+"-gone")) }},
		{"on mbox", journal.Skipped, "not-migrated", func(s *stand) { s.check(s.site.SetSemaphore(s.a, semaphore.Mbox)) }},
		{"held", journal.Skipped, "held", func(s *stand) { s.check(s.site.HoldSemaphore(s.a, time.Hour)) }},
		{"a lock at the old path", journal.Failed, reasonBusy, func(s *stand) { s.put(s.a.Spool+".lock", fmt.Sprint(os.Getppid())) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, rollback := backUser(t)
			test.make(s)
			before, err := mailgen.Snapshot(s.a.Home)
			s.check(err)
			was, _ := stateOf(t, s.a)
			w := rollback()
			w.mustBe(t, s.a.Name, test.outcome, test.reason)
			t.Log(w.users[s.a.Name].Text)
			if now, mirror := stateOf(t, s.a); now != was || now != mirror && test.name != "held" {
				t.Errorf("semaphore %s, was %s, mirror %s", now, was, mirror)
			}
			after, err := mailgen.Snapshot(s.a.Home)
			s.check(err)
			for _, diff := range withoutTimes(before).Diff(withoutTimes(after)) {
				if !strings.Contains(diff, ".mailstate") {
					t.Error(diff)
				}
			}
			if list, err := journal.ListRollback(s.site.State); err != nil || len(list) > 0 {
				t.Errorf("%+v, %v", list, err)
			}
		})
	}
}

// An agent that makes an empty mbox before it reads its rules is no obstacle.
func TestAnEmptyFileAtTheOldPathGivesWay(t *testing.T) {
	s, rollback := backUser(t)
	s.put(s.a.Spool, "")
	wentBack(t, s.place, rollback(), s.a)
}

// What is done to the Maildir between the first look and the hold is carried over.
func TestMailThatComesWhileTheMboxesAreBuiltIsInThem(t *testing.T) {
	s, _ := backUser(t)
	r, w := newTestRun(t, s.place, Rollback)
	betweenPrecopyAndHold(t, r, w, func() {
		s.put(s.inMaildir("new", "1700000000.M1P1.host"), "Return-Path: <late@example.org>\nSubject: late\n\nFrom here on\n")
		base, _, _ := strings.Cut(s.first(), ":2,")
		s.check(os.Rename(s.first(), base+":2,DT"))
	})
	finish(t, r, []account.Account{s.a})
	wentBack(t, s.place, w, s.a)
	content, err := os.ReadFile(s.a.Spool)
	s.check(err)
	if !strings.Contains(string(content), "\nFrom late@example.org  ") || !strings.Contains(string(content), "X-Status: TD\n") && !strings.Contains(string(content), "X-Status: DT\n") {
		t.Errorf("what came late is not in it: %q\n%q", content[:2000], content[len(content)-2000:])
	}
}

// Without parked mboxes all comes from the Maildir, and From_ lines from the
// side-car.
func TestARetiredUserGoesBackFromTheMaildirAlone(t *testing.T) {
	s, rollback := backUser(t)
	before := dump(t, maildirOf(s.a))
	_, want := fromLinesOf(s, s.parkedAs(s.a.Spool))
	side, err := journal.NewFromLines(s.site.State, s.a.Name, "INBOX")
	s.check(err)
	for _, l := range want {
		s.check(side.Add(l))
	}
	s.check(side.Commit())
	for _, root := range []string{filepath.Dir(s.a.Spool), s.a.Folders[0]} {
		s.check(filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			if _, parked := unparked(path); err == nil && parked && !e.IsDir() {
				err = os.Remove(path)
			}
			return err
		}))
	}
	s.check(journal.RemoveSoak(s.site.State, s.a.Name))
	wentBack(t, s.place, rollback(), s.a)
	_, got := fromLinesOf(s, s.a.Spool)
	if !slices.Equal(got, want) {
		t.Errorf("From_ lines\n%+v, should be\n%+v", got, want)
	}
	sameBack(t, dump(t, mboxesOf(s.a)), before)
}

func fromLinesOf(s *stand, path string) (n int, lines []journal.FromLine) {
	s.Helper()
	content, err := os.ReadFile(path)
	s.check(err)
	in, err := mbox.NewScanner(bytes.NewReader(content), int64(len(content)), s.site.Scan)
	s.check(err)
	defer in.Close()
	track := mbox.NewTracker(in)
	for {
		e, err := in.Next()
		if err != nil {
			return len(lines), lines
		}
		if state := track.State(e); !state.Pseudo {
			lines = append(lines, journal.FromLine{UID: state.UID, From: string(e.From.Raw)})
		}
	}
}

// Mail that somebody has written behind an mbox that is taken back keeps the
// name, and nothing else does.
func TestMailBehindAnMboxThatIsTakenBackStays(t *testing.T) {
	root := t.TempDir()
	dir, err := safefs.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, test := range []struct{ made, came, live, temp string }{
		{strings.Repeat(late, 3), "", "", strings.Repeat(late, 3)},
		{strings.Repeat(late, 3), late, late, strings.Repeat(late, 3)},
		{late, strings.Repeat(late, 3), strings.Repeat(late, 3), late},
		{late, late, late, late},
		{"", late, late, ""},
	} {
		path := filepath.Join(root, "box")
		if err := os.WriteFile(path, []byte(test.made+test.came), 0o600); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		f := journal.RollbackFile{Live: path, Temp: ".box.mailferry-0123456789abcdef", Ino: idOf(info).ino, Size: int64(len(test.made))}
		if err := takeBack(dir, f); err != nil {
			t.Error(err)
		}
		live, _ := os.ReadFile(path)
		temp, _ := os.ReadFile(filepath.Join(root, f.Temp))
		if string(live) != test.live || string(temp) != test.temp {
			t.Errorf("live %q, temporary %q", live, temp)
		}
		os.Remove(path)
		os.Remove(filepath.Join(root, f.Temp))
	}
}
