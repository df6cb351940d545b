package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// retire is a run that deletes what is of such an age.
func (s *stand) retire(age time.Duration, dry bool) *told {
	s.Helper()
	r, w := newTestRun(s.T, s.place, Retire)
	r.OlderThan, r.DryRun = age, dry
	finish(s.T, r, append(s.accounts, s.a))
	return w
}

// kept are the paths of what is parked or set aside, whatever it is.
func (s *stand) kept() (list []string) {
	s.Helper()
	s.check(filepath.WalkDir(s.Dir, func(path string, _ fs.DirEntry, err error) error {
		if path == s.site.State {
			return fs.SkipDir
		}
		if _, parked := parseParked(filepath.Base(path)); parked {
			list = append(list, path)
		}
		return err
	}))
	return list
}

func (s *stand) soak() journal.Soak {
	s.Helper()
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	s.check(err)
	return soak
}

func (s *stand) appendTo(path, text string) {
	s.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	s.check(err)
	_, err = f.WriteString(text)
	s.check(errors.Join(err, f.Close()))
}

// space is what the files take on the disk, and their directories.
func (s *stand) space(paths ...string) (bytes int64) {
	s.Helper()
	for _, root := range paths {
		s.check(filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
			return err
		}))
	}
	return bytes
}

// retiredAll demands that a retirement has deleted exactly these, and left
// nothing.
func (s *stand) retiredAll(w *told, paths []string, bytes int64) {
	s.Helper()
	w.mustBe(s.T, s.a.Name, journal.Done, "")
	u := w.users[s.a.Name]
	slices.Sort(u.Retired)
	if !slices.Equal(u.Retired, paths) || u.Freed != bytes || u.Dry || len(paths) == 0 {
		s.Errorf("deleted %q, %d bytes; want %q, %d", u.Retired, u.Freed, paths, bytes)
	}
	if left := s.kept(); len(left) > 0 {
		s.Errorf("left %q", left)
	}
	if soak, err := journal.ReadSoak(s.site.State, s.a.Name); err != nil || soak.Flipped.IsZero() || len(soak.Parked)+len(soak.Aside) > 0 {
		s.Errorf("the record of the soak: %+v, %v", soak, err)
	}
	if state, err := s.semaphore().Get(); err != nil || state != semaphore.Maildir {
		s.Error(state, err)
	}
	for _, path := range leavings(s.T, s.place) {
		s.Errorf("left %s", path)
	}
}

// maildirNow is the user's Maildir, with his semaphore.
func (s *stand) maildirNow() mailgen.SnapshotTree {
	s.Helper()
	tree, err := mailgen.Snapshot(s.a.Maildir)
	s.check(err)
	return tree
}

func TestWhatIsParkedIsDeletedAtTheEndOfTheSoak(t *testing.T) {
	s, _ := backUser(t)
	before, paths := s.maildirNow(), s.kept()
	bytes := s.space(paths...)
	if len(paths) < 3 {
		t.Fatal(paths)
	}
	w := s.retire(0, true)
	w.mustBe(t, s.a.Name, journal.Done, "")
	u := w.users[s.a.Name]
	slices.Sort(u.Retired)
	if now := s.kept(); !slices.Equal(now, paths) || !slices.Equal(u.Retired, paths) || u.Freed != bytes || !u.Dry {
		t.Errorf("a dry run left %q of %q, and tells of %q, %d bytes of %d", now, paths, u.Retired, u.Freed, bytes)
	}
	s.soak()

	s.retiredAll(s.retire(0, false), paths, bytes)
	for _, diff := range before.Diff(s.maildirNow()) {
		t.Error(diff)
	}
	w = s.retire(0, false)
	w.mustBe(t, s.a.Name, journal.Done, "retired")
	if !w.users[s.a.Name].Already {
		t.Error("retired twice")
	}
}

// Whoever is not ready keeps all, and is told why.
func TestNothingIsDeletedOfWhoIsNotReady(t *testing.T) {
	const late = "From late@example.org Mon Jan  2 03:04:05 2023\n\nlate\n\n"
	elsewhere := t.TempDir()
	for _, test := range []struct {
		name string
		make func(*stand)
		age  time.Duration
		dry  bool
		why  string
	}{
		{"not old enough", func(*stand) {}, 9 * 24 * time.Hour, false, "and has to be 9d old: it may go from 20"},
		{"a message has another byte", func(s *stand) {
			content, err := os.ReadFile(s.first())
			s.check(err)
			content[0] ^= 1
			s.check(os.WriteFile(s.first(), content, 0o600))
		}, 0, false, "the audit finds"},
		{"no Maildir", func(s *stand) { s.check(os.Rename(s.a.Maildir, s.a.Maildir+"-gone")) }, 0, false, "the audit finds"},
		{"another file at a parked path", func(s *stand) {
			path := s.parkedAs(s.a.Spool)
			s.check(os.Rename(path, path+"-mine"))
			s.put(path, late)
		}, 0, false, "INBOX.mailferry-"},
		{"a symlink at a parked path", func(s *stand) {
			path := s.parkedAs(s.a.Spool)
			s.check(os.Rename(path, path+"-mine"))
			s.put(filepath.Join(elsewhere, "x"), late)
			s.check(os.Symlink(filepath.Join(elsewhere, "x"), path))
		}, 0, false, "INBOX.mailferry-"},
		{"a directory at a parked path", func(s *stand) {
			path := s.parkedAs(s.a.Spool)
			s.check(errors.Join(os.Rename(path, path+"-mine"), os.Mkdir(path, 0o755)))
		}, 0, false, "INBOX.mailferry-"},
		{"a symlink for the directory of folders", func(s *stand) {
			root := s.a.Folders[0]
			s.check(errors.Join(os.Rename(root, root+"-mine"), os.Symlink(root+"-mine", root), os.Lchown(root, s.a.UID, s.a.GID)))
		}, 0, false, "mail"},
		{"a parked mbox became shorter", func(s *stand) { s.check(os.Truncate(s.parkedAs(s.a.Spool), 100)) }, 0, false, "has 100 bytes"},
		{"no mail at the old path, but something else", func(s *stand) { s.put(s.a.Spool, "no mail\n") }, 0, false, "mail at the old path"},
		{"a symlink at the old path", func(s *stand) { s.check(os.Symlink("/etc/passwd", s.a.Spool)) }, 0, false, "is no file at the old path"},
		{"a FIFO at the old path, in a dry run", func(s *stand) { s.check(syscall.Mkfifo(s.a.Spool, 0o600)) }, 0, true, "is no file at the old path"},
		{"a directory at the old path", func(s *stand) {
			s.check(os.MkdirAll(filepath.Join(s.a.Spool, "new"), 0o755))
			s.put(filepath.Join(s.a.Spool, "new", "1"), late)
		}, 0, false, "is no file at the old path"},
		{"a directory at the old path of a folder, in a dry run", func(s *stand) {
			s.check(os.Mkdir(filepath.Join(s.a.Folders[0], "Sent"), 0o755))
		}, 0, true, "is no file at the old path"},
		{"another's empty file at the old path", func(s *stand) {
			s.check(os.WriteFile(s.a.Spool, nil, 0o644))
		}, 0, false, "belongs to uid 0"},
		{"a spool that there was not, in a dry run", func(s *stand) {
			soak := s.soak()
			soak.Parked = slices.DeleteFunc(soak.Parked, func(p journal.Parked) bool { return p.Live == s.a.Spool })
			s.check(journal.WriteSoak(s.site.State, soak))
			s.check(os.Mkdir(s.a.Spool, 0o755))
		}, 0, true, "is no file at the old path"},
		{"late mail, in a dry run", func(s *stand) { s.put(s.a.Spool, late) }, 0, true, "mail at the old path"},
		{"mail in a parked mbox, in a dry run", func(s *stand) { s.appendTo(s.parkedAs(s.a.Spool), late) }, 0, true, "are in the Maildir: run mailferry sweep"},
		{"on mbox", func(s *stand) { s.check(s.site.SetSemaphore(s.a, semaphore.Mbox)) }, 0, false, "says mbox"},
		{"held", func(s *stand) { s.check(s.site.HoldSemaphore(s.a, time.Hour)) }, 0, false, "says hold"},
		{"not enrolled", func(s *stand) { s.remove(s.a.Semaphore); s.remove(s.a.Semaphore + ".meta") }, 0, false, "not enrolled"},
		{"no record, and a parked mbox was written to", func(s *stand) {
			s.check(journal.RemoveSoak(s.site.State, s.a.Name))
			s.appendTo(s.parkedAs(s.a.Spool), late)
			then := time.Now().Add(time.Hour)
			s.check(os.Chtimes(s.parkedAs(s.a.Spool), then, then))
		}, 0, false, "no record tells"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := backUser(t)
			test.make(s)
			before, err := mailgen.Snapshot(s.a.Home)
			s.check(err)
			w := s.retire(test.age, test.dry)
			w.mustBe(t, s.a.Name, journal.Skipped, reasonUnready)
			if text := w.users[s.a.Name].Text; !strings.Contains(text, test.why) {
				t.Errorf("told %q, want %q", text, test.why)
			}
			after, err := mailgen.Snapshot(s.a.Home)
			s.check(err)
			for _, diff := range withoutTimes(before).Diff(withoutTimes(after)) {
				t.Error(diff)
			}
			if len(w.users[s.a.Name].Retired) > 0 {
				t.Errorf("told of %q", w.users[s.a.Name].Retired)
			}
		})
	}
}

// Mail that came late is swept before anything is deleted, and what held it is
// deleted with the rest.
func TestLateMailIsInTheMaildirBeforeAnythingIsDeleted(t *testing.T) {
	s, _ := backUser(t)
	late := func(n int) string {
		return fmt.Sprintf("From late@example.org Mon Jan  2 03:04:05 2023\nSubject: late\n\nlate %d\n\n", n)
	}
	s.put(s.a.Spool, late(1))
	s.appendTo(s.parkedAs(s.a.Spool), late(2))
	s.put(filepath.Join(s.a.Folders[0], "Sent"), late(3))
	w := s.retire(0, false)
	u := w.users[s.a.Name]
	lates := 0
	for _, path := range u.Retired {
		if isLate(path) {
			lates++
		}
	}
	if lates != 2 {
		t.Errorf("of what was swept, %d were deleted: %q", lates, u.Retired)
	}
	s.retiredAll(w, slices.Sorted(slices.Values(u.Retired)), u.Freed)
	for n := 1; n <= 3; n++ {
		found := 0
		s.check(filepath.WalkDir(s.a.Maildir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			found += bytes.Count(content, fmt.Appendf(nil, "late %d\n", n))
			return err
		}))
		if found != 1 {
			t.Errorf("late %d is in the Maildir %d times", n, found)
		}
	}
	if !strings.Contains(strings.Join(w.notes, "\n"), "came to") {
		t.Errorf("told %q", w.notes)
	}
}

func TestNothingIsDeletedThatAProgramHasOpen(t *testing.T) {
	for name, flags := range map[string]int{"to read": os.O_RDONLY, "to write": os.O_WRONLY | os.O_APPEND} {
		t.Run(name, func(t *testing.T) {
			s, _ := backUser(t)
			paths := s.kept()
			f, err := os.OpenFile(s.parkedAs(s.a.Spool), flags, 0)
			s.check(err)
			w := s.retire(0, false)
			w.mustBe(t, s.a.Name, journal.Skipped, reasonUnready)
			if now := s.kept(); !slices.Equal(now, paths) || !strings.Contains(w.users[s.a.Name].Text, "is open in") {
				t.Errorf("left %q of %q: %s", now, paths, w.users[s.a.Name].Text)
			}
			s.check(f.Close())
			bytes := s.space(paths...)
			s.retiredAll(s.retire(0, false), paths, bytes)
		})
	}
}

// What earlier rollbacks have set aside, or taken out of the folders, is deleted
// too.
func TestWhatEarlierRollbacksSetAsideIsDeletedToo(t *testing.T) {
	s, rollback := backUser(t)
	wentBack(t, s.place, rollback(), s.a)
	s.migrated()
	aside := 0
	for _, a := range s.soak().Aside {
		if exists(t, a.Path) {
			aside++
		}
	}
	paths := s.kept()
	if aside < 4 || aside != len(s.soak().Aside) {
		t.Fatalf("%d of %+v are there", aside, s.soak().Aside)
	}
	all := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".mail.") })
	bytes := s.space(all...)
	s.retiredAll(s.retire(0, false), all, bytes)
}

// The record of the soak is made anew of the names.
func TestALostRecordOfTheSoakIsMadeOfTheNames(t *testing.T) {
	s, _ := backUser(t)
	paths := s.kept()
	then := time.Now().Add(-time.Hour)
	for _, path := range paths {
		s.check(os.Chtimes(path, then, then))
	}
	s.check(journal.RemoveSoak(s.site.State, s.a.Name))
	bytes := s.space(paths...)
	s.retiredAll(s.retire(0, false), paths, bytes)
}

func TestInASpoolOfRootsRootDeletes(t *testing.T) {
	s, _ := backUser(t)
	spool := filepath.Join(s.Dir, "spool")
	s.check(os.Mkdir(spool, 0o755))
	path := s.parkedAs(s.a.Spool)
	to := filepath.Join(spool, filepath.Base(path))
	s.check(os.Rename(path, to))
	s.a.Spool = filepath.Join(spool, "INBOX")
	soak := s.soak()
	for i, p := range soak.Parked {
		if p.Path == path {
			soak.Parked[i].Path, soak.Parked[i].Live = to, s.a.Spool
		}
	}
	s.check(journal.WriteSoak(s.site.State, soak))
	paths := s.kept()
	bytes := s.space(paths...)
	s.retiredAll(s.retire(0, false), paths, bytes)
}

// Nobody changes the semaphore of a user whose soak ends, and it ends of nobody
// whose semaphore is being changed.
func TestARetirementExcludesAllOthers(t *testing.T) {
	s, _ := backUser(t)
	paths := s.kept()
	free, err := exclude(s.semaphore())
	s.check(err)
	if done, err := s.site.Retire(context.Background(), s.a, 0, false); !errors.Is(err, semaphore.ErrBusy) || len(done.Paths) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
	s.check(free())
	r := &retirement{Site: s.site, account: s.a}
	free, err = r.begin()
	s.check(err)
	if err := s.site.SetSemaphore(s.a, semaphore.Mbox); !errors.Is(err, semaphore.ErrBusy) {
		t.Error(err)
	}
	if now := s.kept(); !slices.Equal(now, paths) {
		t.Errorf("left %q of %q", now, paths)
	}
	s.check(errors.Join(r.do(context.Background()), free()))
}

// What is left when a retirement is killed, the next one finishes; what was
// audited goes last.
func TestARetirementGoesOnWhereAnotherWasKilled(t *testing.T) {
	s, rollback := backUser(t)
	wentBack(t, s.place, rollback(), s.a)
	s.migrated()
	soak := s.soak()
	for _, p := range soak.Parked[:2] {
		s.remove(p.Path)
	}
	s.remove(soak.Aside[0].Path)
	left := slices.DeleteFunc(s.kept(), func(path string) bool { return strings.HasPrefix(filepath.Base(path), ".mail.") })
	bytes := s.space(left...)
	s.retiredAll(s.retire(0, false), left, bytes)
}

// From the Maildir alone all comes back, with the From_ lines that there were.
func TestAfterARetirementAllComesBackFromTheMaildir(t *testing.T) {
	s, rollback := backUser(t)
	before := dump(t, maildirOf(s.a))
	_, want := fromLinesOf(s, s.parkedAs(s.a.Spool))
	s.retire(0, false).mustBe(t, s.a.Name, journal.Done, "")
	wentBack(t, s.place, rollback(), s.a)
	if _, got := fromLinesOf(s, s.a.Spool); !slices.Equal(got, want) {
		t.Errorf("From_ lines\n%+v, should be\n%+v", got, want)
	}
	sameBack(t, dump(t, mboxesOf(s.a)), before)
}
