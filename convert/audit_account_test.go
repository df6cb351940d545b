package convert

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// movedUser is a user who was converted, and his Maildir.
type movedUser struct {
	spot
	site Site
	a    account.Account
	loc  dovecottest.Location
}

// The mailboxes of movedUser besides INBOX, which has goodMessages.
var goodFolders = map[string]string{
	"Sent": "From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: 1600000001 0000000003\nX-UID: 2\nSubject: sent\n\nsent\n\n" +
		"From a@example.org Mon Jan  2 03:04:06 2023\nX-UID: 3\nSubject: sent too\n\nsent too\n",
	"Lists/golang": "From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: 1600000002 0000000001\nX-UID: 1\nSubject: list\n\nlist\n",
	"Empty":        "",
	"unseen":       "From a@example.org Mon Jan  2 03:04:05 2023\nSubject: never\n\nserved\n\nFrom a@example.org Mon Jan  2 03:04:05 2023\nSubject: by\n\nIMAP\n",
}

// newMovedUser converts the user whom Dovecot works for in tests.
func newMovedUser(t *testing.T, inbox string) *movedUser {
	t.Helper()
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 3, FirstUID: dovecottest.UID})
	a := p.accounts[0]
	u := &movedUser{spot: spot{t, a.Maildir}, site: p.site, a: a, loc: locationOf(a)}
	u.check(errors.Join(os.Remove(a.Spool), os.RemoveAll(a.Folders[0])))
	writeFile(t, a.Spool, inbox)
	for name, content := range goodFolders {
		writeFile(t, filepath.Join(a.Folders[0], name), content)
	}
	u.own(a.Spool)
	u.own(a.Folders[0])
	convertNow(t, p, a)
	return u
}

func locationOf(a account.Account) dovecottest.Location {
	return dovecottest.Location{Mail: "maildir:" + a.Maildir, ListEscape: true}
}

func convertNow(t *testing.T, p *place, a account.Account) {
	t.Helper()
	cut, err := ready(t, p, a).do(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(cut.Warnings) > 0 {
		t.Fatal(cut.Warnings)
	}
}

// own gives a tree to the user.
func (u *movedUser) own(path string) {
	u.Helper()
	u.check(filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(name, u.a.UID, u.a.GID))
	}))
}

func (u *movedUser) audit() *AuditReport {
	u.Helper()
	r, err := u.site.Audit(context.Background(), u.a)
	if err != nil {
		u.Fatal(err)
	}
	return r
}

// expect demands the counts of all mailboxes: by directory, or if that is gone, by name.
func (u *movedUser) expect(want map[string]AuditCounts) *AuditReport {
	u.Helper()
	r := u.audit()
	for _, d := range r.Differences {
		u.Errorf("%s", d)
	}
	got := map[string]AuditCounts{}
	for _, m := range r.Mailboxes {
		got[cmp.Or(m.Folder, m.Name)] = m.AuditCounts
	}
	for folder, counts := range want {
		if got[folder] != counts {
			u.Errorf("%s: got %+v, want %+v", folder, got[folder], counts)
		}
		delete(got, folder)
	}
	delete(got, "Empty")
	for folder, counts := range got {
		u.Errorf("%s: got %+v, want nothing", folder, counts)
	}
	return r
}

// atTheFlip are the counts before anything happened.
func atTheFlip() map[string]AuditCounts {
	return map[string]AuditCounts{
		".": {Messages: 4, Kept: 4}, ".Sent": {Messages: 2, Kept: 2}, ".Lists.golang": {Messages: 1, Kept: 1},
		".Empty": {}, ".unseen": {Messages: 2, Kept: 2},
	}
}

func TestAuditFindsAllMessagesAfterTheFlip(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	r := u.expect(atTheFlip())
	if want := u.a.Name + ": 9 messages: 9 kept; no difference"; r.String() != want {
		t.Errorf("got %q, want %q", r, want)
	}
}

// All that clients do is counted, and is no difference.
func TestAuditCountsWhatDovecotDid(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(u *movedUser, s *dovecottest.Session)
		want map[string]AuditCounts
	}{
		{"looks", func(u *movedUser, s *dovecottest.Session) {
			dovecottest.DumpIMAP(u, u.loc)
			dovecottest.DumpPOP3(u, u.loc)
		}, nil},
		{"flags", func(u *movedUser, s *dovecottest.Session) {
			s.Command("SELECT INBOX")
			s.Command(`STORE 3:4 +FLAGS (\Answered)`)
			s.Command("STORE 1 -FLAGS ($Forwarded)")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 4, Reflagged: 3}}},
		{"new keywords", func(u *movedUser, s *dovecottest.Session) {
			s.Command("SELECT Sent")
			s.Command("STORE 2 +FLAGS (Later $MDNSent)")
		}, map[string]AuditCounts{".Sent": {Messages: 2, Kept: 2, Reflagged: 1}}},
		{"deletion", func(u *movedUser, s *dovecottest.Session) {
			s.Command("SELECT INBOX")
			s.Command(`STORE 2:3 +FLAGS (\Deleted)`)
			s.Command("EXPUNGE")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 2, Deleted: 2}}},
		{"deletion of all", func(u *movedUser, s *dovecottest.Session) {
			s.Command("SELECT INBOX")
			s.Command(`STORE 1:* +FLAGS (\Deleted)`)
			s.Command("EXPUNGE")
		}, map[string]AuditCounts{".": {Messages: 4, Deleted: 4}}},
		{"mail coming", func(u *movedUser, s *dovecottest.Session) {
			s.Command("APPEND INBOX {6}\r\na: b\r\n")
			u.write("new/1.M1P1.host", "a: b\n")
			s.Command("SELECT INBOX")
			u.write("new/2.M1P1.host", "a: b\n")
			u.write(".Sent/cur/2.M1P1.host", "a: b\n")
			u.write(".Sent/cur/2.M2P1.host:2,ZS", "a: b\n")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 4, Came: 3}, ".Sent": {Messages: 2, Kept: 2, Came: 2}}},
		{"moves", func(u *movedUser, s *dovecottest.Session) {
			s.Command("CREATE Archive")
			s.Command("SELECT INBOX")
			s.Command("MOVE 1:2 Archive")
			s.Command("MOVE 2 Sent")
			s.Command("APPEND Archive {6}\r\na: b\r\n")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 1, Moved: 3}, ".Archive": {Came: 1}}},
		{"a move by copy", func(u *movedUser, s *dovecottest.Session) {
			s.Command("SELECT INBOX")
			s.Command("COPY 3:4 Sent")
			s.Command(`STORE 3 +FLAGS (\Deleted)`)
			s.Command("EXPUNGE") // the second message is \Deleted by the mbox
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 2, Moved: 1, Deleted: 1}, ".Sent": {Messages: 2, Kept: 2, Came: 1}}},
		{"moves away and back", func(u *movedUser, s *dovecottest.Session) {
			s.Command("CREATE Trash")
			s.Command("SELECT INBOX")
			s.Command("MOVE 1:2 Trash")
			s.Command("SELECT Trash")
			s.Command("MOVE 1:2 INBOX")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 2, Returned: 2}}},
		{"moves away and back when the list has forgotten them", func(u *movedUser, s *dovecottest.Session) {
			s.Command("CREATE Trash")
			s.Command("SELECT INBOX")
			s.Command("MOVE 1:2 Trash")
			for range 3 { // each makes Dovecot write the list anew
				s.Command("APPEND INBOX {6}\r\na: b\r\n")
				s.Command("NOOP")
				s.Command("STORE * +FLAGS (\\Deleted)")
				s.Command("EXPUNGE")
			}
			s.Command("SELECT Trash")
			s.Command("MOVE 1:2 INBOX")
		}, map[string]AuditCounts{".": {Messages: 4, Kept: 2, Returned: 2}}},
		{"renaming a folder", func(u *movedUser, s *dovecottest.Session) {
			s.Command("RENAME Sent Gesendet")
			s.Command("SELECT Gesendet")
			s.Command(`STORE 1 +FLAGS (\Deleted)`)
			s.Command("EXPUNGE")
		}, map[string]AuditCounts{".Sent": {}, ".Gesendet": {Messages: 2, Kept: 1, Deleted: 1}}},
		{"renaming a folder to the name of one that was deleted", func(u *movedUser, s *dovecottest.Session) {
			s.Command("DELETE Lists/golang")
			s.Command("RENAME Sent Lists/golang")
		}, map[string]AuditCounts{".Sent": {}, ".Lists.golang": {Messages: 2, Kept: 2}, "Lists/golang": {Messages: 1, Deleted: 1}}},
		{"renaming a folder that no server had seen", func(u *movedUser, s *dovecottest.Session) {
			s.Command("RENAME unseen seen")
		}, map[string]AuditCounts{".unseen": {}, "unseen": {Messages: 2, Moved: 2}}},
		{"deleting a folder", func(u *movedUser, s *dovecottest.Session) {
			s.Command("DELETE Sent")
			s.Command("DELETE Empty")
			s.Command("DELETE Lists/golang")
		}, map[string]AuditCounts{".Sent": {}, ".Empty": {}, ".Lists.golang": {}, "Empty": {}, "Sent": {Messages: 2, Deleted: 2}, "Lists/golang": {Messages: 1, Deleted: 1}}},
		{"deleting a folder and making it anew", func(u *movedUser, s *dovecottest.Session) {
			s.Command("DELETE Sent")
			s.Command("CREATE Sent")
			s.Command("APPEND Sent {6}\r\na: b\r\n")
			s.Command("APPEND Sent {6}\r\na: c\r\n")
			s.Command("APPEND Sent {6}\r\na: d\r\n")
		}, map[string]AuditCounts{".Sent": {Messages: 2, Deleted: 2, Came: 3}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newMovedUser(t, strings.Join(goodMessages, ""))
			s := dovecottest.Start(t, u.loc)
			tt.do(u, s)
			u.own(u.a.Maildir)
			want := atTheFlip()
			for folder, counts := range tt.want {
				want[folder] = counts
			}
			u.expect(want) // in the middle of a session
			s.Close()
			u.expect(want)
			dovecottest.DumpIMAP(t, u.loc) // which takes what came into account
			t.Log(u.expect(want))
		})
	}
}

// In layout fs folders lie within folders, and one that is deleted leaves its
// directory to those.
func TestAuditOfLayoutFS(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 3, FirstUID: dovecottest.UID})
	p.site.Folders = maildir.Folders{Layout: maildir.FS}
	a := p.accounts[0]
	u := &movedUser{spot: spot{t, a.Maildir}, site: p.site, a: a, loc: dovecottest.Location{Mail: "maildir:" + a.Maildir + ":LAYOUT=fs"}}
	u.check(errors.Join(os.RemoveAll(a.Spool), os.RemoveAll(a.Folders[0])))
	writeFile(t, a.Spool, strings.Join(goodMessages, ""))
	two := goodFolders["Sent"]
	for _, name := range []string{"Entw&APw-rfe", "with.dot/a", "with.dot/b"} {
		writeFile(t, filepath.Join(a.Folders[0], name), two)
	}
	u.own(a.Spool)
	u.own(a.Folders[0])
	convertNow(t, p, a)
	want := map[string]AuditCounts{".": {Messages: 4, Kept: 4}, "Entw&APw-rfe": {Messages: 2, Kept: 2}, "with.dot/a": {Messages: 2, Kept: 2}, "with.dot/b": {Messages: 2, Kept: 2}}
	u.expect(want)
	s := dovecottest.Start(t, u.loc)
	s.Command("CREATE with.dot/a/below")
	s.Command("SELECT INBOX")
	s.Command("MOVE 1 with.dot/a/below")
	s.Command("DELETE with.dot/a")
	s.Command("DELETE Entw&APw-rfe")
	s.Close()
	u.expect(map[string]AuditCounts{
		".": {Messages: 4, Kept: 3, Moved: 1}, "with.dot/b": {Messages: 2, Kept: 2},
		"Entwürfe": {Messages: 2, Deleted: 2}, "with.dot/a": {Messages: 2, Deleted: 2},
	})
}

// Whose Maildir is not what counts, or whose mboxes are gone, has nothing to be
// audited, and the report says so.
func TestAuditOfOthersSaysWhyThereIsNone(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 3})
	a := p.accounts[0]
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	note := func(want string) {
		t.Helper()
		r, err := p.site.Audit(context.Background(), a)
		if err != nil || r.Note == "" || !strings.Contains(r.String(), want) || len(r.Mailboxes)+r.Differing > 0 {
			t.Errorf("got %v, %+v; want %s", err, r, want)
		}
	}
	note("on his mbox")
	mustOpen(t, p, a).mustFill(t)
	note("on his mbox")
	if err := sem.Hold(semaphore.Meta{Epoch: 2, Deadline: time.Now().Add(time.Minute)}); err != nil {
		t.Fatal(err)
	}
	note("is held")
	if err := sem.Set(semaphore.Maildir, semaphore.Meta{Epoch: 3}); err != nil {
		t.Fatal(err)
	}
	// His mail is at the old path, and nobody reads it.
	if r, err := p.site.Audit(context.Background(), a); err != nil || !strings.Contains(r.Note, "no parked mbox") || r.Differing == 0 || len(r.Unparked) != r.Differing {
		t.Errorf("got %v, %+v", err, r)
	}
	b := a
	b.Semaphore += "x"
	a = b
	note("not enrolled")
}

// Of several mboxes that were parked, the last one counts.
func TestAuditTakesTheMboxThatWasParkedLast(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	for _, path := range []string{u.a.Spool, filepath.Join(u.a.Folders[0], "Sent"), filepath.Join(u.a.Folders[0], "Lists/golang")} {
		for _, day := range []string{"20240102T030405Z", "20230102T030405Z"} {
			u.own(writeFile(t, path+".mailferry-"+day, "From a@b Mon Jan  2 03:04:05 2023\nSubject: old\n\nold\n"))
		}
	}
	r := u.expect(atTheFlip())
	if len(r.Skips) != 4 { // the spool's directory has others' mail, too, and is not told of
		t.Errorf("skips: %v", r.Skips)
	}
}

// Where nothing of Dovecot's is, a folder that is gone was deleted.
func TestAuditCountsAFolderThatAnotherServerDeleted(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	u.remove(".Sent")
	want := atTheFlip()
	delete(want, ".Sent")
	want["Sent"] = AuditCounts{Messages: 2, Deleted: 2}
	r := u.expect(want)
	if !strings.Contains(r.String(), `folder "Sent" is gone`) {
		t.Errorf("got %q", r)
	}
}

// Mail at the old path is named, and compared with nothing.
func TestAuditNamesMailAtTheOldPath(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	writeFile(t, u.a.Spool, goodMessages[0])
	u.own(u.a.Spool)
	r := u.audit()
	if r.Differing != 1 || len(r.Differences) != 1 || r.Differences[0].File != u.a.Spool || r.Kept != r.Messages {
		t.Errorf("differences %v; %v", r.Differences, r.AuditCounts)
	}
	if !slices.Equal(r.Unparked, []string{u.a.Spool}) || !strings.Contains(r.String(), "at its old path") {
		t.Errorf("got %q in %q", r.Unparked, r)
	}
}
