package convert

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
)

// At an old path nobody reads mail: what is mail there, or may be, is a difference
// with what to do about it, and hides nothing else.
func TestAuditNamesWhatMayBeMailAtAnOldPath(t *testing.T) {
	folder := func(u *movedUser, name string) string { return filepath.Join(u.a.Folders[0], name) }
	for _, tt := range []struct {
		name, at string // the old path, as a folder; "" for the spool
		put      func(u *movedUser, path string)
		want     string
		do       string
	}{
		{"mail", "", func(u *movedUser, path string) { u.own(writeFile(u, path, goodMessages[0])) }, "mail that nobody reads any more", "run mailferry sweep"},
		{"mail for a folder", "Sent", func(u *movedUser, path string) { u.own(writeFile(u, path, goodMessages[0])) }, "mail that nobody reads any more", "run mailferry sweep"},
		{"a file of root's", "", func(u *movedUser, path string) { writeFile(u, path, goodMessages[0]) }, "belongs to uid 0", "with chown"},
		{"a symlink", "", func(u *movedUser, path string) { u.check(os.Symlink("/etc/passwd", path)) }, "is no file", "move it away"},
		{"a FIFO", "", func(u *movedUser, path string) { u.check(unix.Mkfifo(path, 0o600)); u.own(path) }, "is no file", "move it away"},
		{"what is no mbox", "", func(u *movedUser, path string) { u.own(writeFile(u, path, "hello world\n")) }, "not an mbox", "see what wrote it"},
		{"a directory", "", func(u *movedUser, path string) { u.check(os.Mkdir(path, 0o700)); u.own(path) }, "is no file", "move it away"},
		{"a directory for a folder", "Sent", func(u *movedUser, path string) { u.check(os.Mkdir(path, 0o700)); u.own(path) }, "is no file", "move it away"},
		{"a file for the directory of a folder", "Lists/golang", func(u *movedUser, path string) {
			u.check(os.Rename(filepath.Dir(path), filepath.Dir(path)+"-was"))
			writeFile(u, filepath.Dir(path), "x")
		}, "not a directory", "move"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := newMovedUser(t, strings.Join(goodMessages, ""))
			path := u.a.Spool
			if tt.at != "" {
				path = folder(u, tt.at)
			}
			tt.put(u, path)
			u.own(writeFile(t, folder(u, "NewBox"), goodMessages[0]))
			r := u.audit()
			said := map[string]string{}
			for _, d := range r.Differences {
				said[d.File] = d.Got
			}
			if got := said[path]; !strings.Contains(got, tt.want) || !strings.Contains(got, tt.do) {
				t.Errorf("said %q, want %q, %q", got, tt.want, tt.do)
			}
			if got := said[folder(u, "NewBox")]; got != "mail that nobody reads any more: run mailferry sweep" {
				t.Errorf("of a new mailbox: %q", got)
			}
			if !slices.Contains(r.Unparked, path) || r.Kept == 0 && tt.at != "Lists/golang" {
				t.Errorf("at old paths %q; %v", r.Unparked, r.AuditCounts)
			}
			u.check(journal.RemoveStaging(u.site.State, u.a.Name))
			s, err := u.site.Sweep(context.Background(), u.a, SweepOptions{})
			if err == nil && s.Messages() == 0 {
				t.Errorf("a sweep takes nothing: %+v", s)
			}
			if after := u.audit(); err == nil && slices.Contains(after.Unparked, folder(u, "NewBox")) {
				t.Errorf("after the sweep %q", after.Unparked)
			}
		})
	}
}

// procmail makes an empty file before it has read its rules.
func TestAnEmptyFileAtAnOldPathIsNoDifference(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	u.own(writeFile(t, u.a.Spool, ""))
	u.own(writeFile(t, filepath.Join(u.a.Folders[0], "Sent"), ""))
	if r := u.audit(); r.Differing > 0 || len(r.Unparked) > 0 {
		t.Errorf("%v, %q", r.Differences, r.Unparked)
	}
}

// Mail that was there before the flip no sweep takes: the audit does not send anybody
// to one.
func TestMailFromBeforeTheFlipIsNotSentToASweep(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	path := filepath.Join(u.a.Folders[0], "Old")
	u.own(writeFile(t, path, goodMessages[0]))
	soak, err := journal.ReadSoak(u.site.State, u.a.Name)
	u.check(err)
	soak.Flipped = time.Now().Add(time.Hour)
	u.check(journal.WriteSoak(u.site.State, soak))
	r := u.audit()
	if len(r.Differences) != 1 || r.Differences[0].File != path || !strings.Contains(r.Differences[0].Got, "move it away") {
		t.Errorf("%v", r.Differences)
	}
}

// What the tree of live mboxes holds and can't be one is told.
func TestAuditTellsWhatItPassedOverInTheFolders(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	path := filepath.Join(u.a.Folders[0], "link")
	u.check(os.Symlink("/etc/passwd", path))
	r := u.audit()
	if r.Differing > 0 || len(r.Skips) != 1 || r.Skips[0].Path != path || r.Skips[0].Reason != "is a symlink, not a regular file" {
		t.Errorf("%v; %v", r.Differences, r.Skips)
	}
}

// A record tells where a file belongs that lies at its old path still.
func TestAnMboxThatCouldNotBeParkedIsNamedWithItsPlace(t *testing.T) {
	u := newMovedUser(t, strings.Join(goodMessages, ""))
	soak, err := journal.ReadSoak(u.site.State, u.a.Name)
	u.check(err)
	i := slices.IndexFunc(soak.Parked, func(p journal.Parked) bool { return p.Live == u.a.Spool })
	u.check(os.Rename(soak.Parked[i].Path, u.a.Spool))
	r := u.audit()
	if len(r.Differences) != 1 || r.Differences[0].File != u.a.Spool || !strings.Contains(r.Differences[0].Got, "move it to \""+soak.Parked[i].Path) {
		t.Errorf("%v", r.Differences)
	}
}

// Mail that came to a parked mbox is a difference until it is swept.
func TestAnAuditNoticesMailThatIsNotInTheMaildir(t *testing.T) {
	s, _ := backUser(t)
	s.appendTo(s.parkedAs(s.a.Spool), "From late@example.org Mon Jan  2 03:04:05 2023\n\nlate\n\n")
	report, err := s.site.Audit(context.Background(), s.a)
	if err != nil || report.Differing != 1 || report.Differences[0].Got != "mail that is not in the Maildir: run mailferry sweep" {
		t.Errorf("%v, %v, %+v", report, err, report.Differences)
	}
	if _, err := s.site.Sweep(context.Background(), s.a, SweepOptions{}); err != nil {
		t.Error(err)
	}
	if report, err = s.site.Audit(context.Background(), s.a); err != nil || report.Differing > 0 || report.Came != 1 {
		t.Errorf("%v, %v, %+v", report, err, report.Differences)
	}
}
