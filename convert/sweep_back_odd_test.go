package convert

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
)

// Where it can't be known that it came late, nothing is taken, and that is told.
func TestWhatIsNotCertainlyLateMailStaysInTheMaildir(t *testing.T) {
	for name, do := range map[string]func(*backAgain, string){
		"flags of an old message": func(b *backAgain, _ string) {
			list, err := filepath.Glob(filepath.Join(b.aside, "cur", "*"))
			b.check(err)
			b.check(os.Rename(list[0], list[0]+"T"))
		},
		"another name of an old message": func(b *backAgain, path string) {
			list, err := filepath.Glob(filepath.Join(b.aside, "cur", "*"))
			b.check(err)
			b.check(os.Link(list[0], path))
			b.check(os.Remove(list[0]))
		},
		"a copy that keeps its times": func(b *backAgain, path string) {
			b.put(path, lateText)
			b.check(os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
		},
		"a second link": func(b *backAgain, path string) {
			b.put(path, lateText)
			b.check(os.Link(path, filepath.Join(b.aside, "link")))
		},
		"another's file": func(b *backAgain, path string) {
			b.put(path, lateText)
			b.check(os.Chown(path, nobody+1, nobody))
		},
		"another's file by a link": func(b *backAgain, path string) {
			other := filepath.Join(b.Dir, "other")
			b.check(os.WriteFile(other, []byte(lateText), 0o644))
			b.check(os.Link(other, path))
		},
		"an empty file":   func(b *backAgain, path string) { b.put(path, "") },
		"a hidden file":   func(b *backAgain, path string) { b.put(filepath.Join(filepath.Dir(path), ".1.a.b"), lateText) },
		"less than it is": func(b *backAgain, path string) { b.put(path+",S=4000", lateText) },
		"a directory in the place of what was set aside": func(b *backAgain, path string) {
			b.check(os.Rename(b.aside, filepath.Join(b.Dir, "moved")))
			for _, dir := range []string{b.aside, filepath.Join(b.aside, "new")} {
				b.check(errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, b.a.UID, b.a.GID)))
			}
			b.put(path, lateText)
		},
		"a message that was begun before the flip": func(b *backAgain, path string) {
			b.check(os.WriteFile(filepath.Join(b.aside, "tmp", "x"), []byte(lateText), 0o600))
			b.check(os.Chown(filepath.Join(b.aside, "tmp", "x"), nobody, nobody))
			soak := b.soak()
			time.Sleep(2 * clockTick)
			soak.Back = time.Now()
			for i := range soak.Aside {
				soak.Aside[i].Back = soak.Back
			}
			time.Sleep(2 * clockTick)
			b.check(errors.Join(journal.WriteSoak(b.site.State, soak), os.Rename(filepath.Join(b.aside, "tmp", "x"), path)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackAgain(t)
			do(b, filepath.Join(b.aside, "new", "1.a.b"))
			r := b.sweep()
			if r.Messages() > 0 || len(r.Differences) != 1 || r.Differences[0].Path != b.aside {
				t.Errorf("%+v", r)
			}
			b.came(b.a.Spool)
			if due, err := b.site.SweepDue(b.a); err != nil || !due {
				t.Errorf("due: %t, %v", due, err)
			}
		})
	}
}

// Where files have no birth nobody knows when they came: ramfs is such a filesystem.
func TestWhereFilesHaveNoBirthLateMailIsNamed(t *testing.T) {
	b := newBackAgain(t)
	dir := filepath.Join(b.aside, "new")
	b.check(unix.Mount("none", dir, "ramfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	b.check(os.Chown(dir, b.a.UID, b.a.GID))
	path := filepath.Join(dir, "1.a.b")
	b.put(path, lateText)
	if r := b.sweep(); r.Messages() > 0 || len(r.Differences) != 1 || r.Differences[0].Path != b.aside || !exists(t, path) {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool)
}

// What is no message is passed over, and nothing is followed.
func TestBaitInAMaildirIsNotTaken(t *testing.T) {
	b := newBackAgain(t)
	other := filepath.Join(b.Dir, "other")
	b.check(errors.Join(os.Mkdir(other, 0o755), os.WriteFile(filepath.Join(other, "1.a.b"), []byte(lateText), 0o644)))
	b.check(errors.Join(os.Mkdir(b.inMaildir(), 0o700), os.Chown(b.inMaildir(), b.a.UID, b.a.GID)))
	b.check(os.Symlink(other, b.inMaildir("new")))
	b.check(unix.Mkfifo(filepath.Join(b.aside, "new", "2.a.b"), 0o600))
	b.check(os.Symlink(filepath.Join(other, "1.a.b"), filepath.Join(b.aside, "new", "3.a.b")))
	b.check(os.Mkdir(filepath.Join(b.aside, "new", "4.a.b"), 0o700))
	if r := b.sweep(); r.Messages() > 0 {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool)
}

// What lies at the place of the mbox and is none is not written to.
func TestLateMailWaitsForAnMboxThatIsOne(t *testing.T) {
	for name, do := range map[string]func(*backAgain){
		"no mbox":     func(b *backAgain) { b.put(b.a.Spool, "no mail\n") },
		"a symlink":   func(b *backAgain) { b.remove(b.a.Spool); b.check(os.Symlink("mail/Sent", b.a.Spool)) },
		"a FIFO":      func(b *backAgain) { b.remove(b.a.Spool); b.check(unix.Mkfifo(b.a.Spool, 0o600)) },
		"a directory": func(b *backAgain) { b.remove(b.a.Spool); b.check(os.Mkdir(b.a.Spool, 0o700)) },
		"two names":   func(b *backAgain) { b.check(os.Link(b.a.Spool, b.a.Spool+".other")) },
		"another's":   func(b *backAgain) { b.check(os.Chown(b.a.Spool, nobody+1, nobody)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackAgain(t)
			do(b)
			path := filepath.Join(b.aside, "new", "1.a.b")
			b.put(path, lateText)
			sent := b.were[b.sent()]
			r := b.sweep()
			if r.Messages() > 0 || len(r.Differences) != 1 || !exists(t, path) {
				t.Errorf("%+v", r)
			}
			b.were[b.sent()] = sent
			b.came(b.sent())
		})
	}
}
