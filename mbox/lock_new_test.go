package mbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newBox is a directory with an mbox under a temporary name, open.
func newBox(t *testing.T) (dir int, path string) {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, ".temp"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, filepath.Join(root, "box")
}

var everyLock = LockOptions{Dotlock: true, Fcntl: true, Flock: true}

// Who holds it before it has its name holds it afterwards, without a moment in
// between.
func TestAnMboxIsLockedBeforeItHasItsName(t *testing.T) {
	dir, path := newBox(t)
	held, err := LockNew(context.Background(), dir, ".temp", "box", everyLock)
	if err != nil {
		t.Fatal(err)
	}
	if err := held.CheckNew(); err != nil {
		t.Error(err)
	}
	if err := unix.Renameat(dir, ".temp", dir, "box"); err != nil {
		t.Fatal(err)
	}
	if err := held.Check(); err != nil {
		t.Error(err)
	}
	var busy *LockError
	if _, err := Lock(context.Background(), dir, "box", LockOptions{Fcntl: true}); !errors.As(err, &busy) || !busy.Busy() {
		t.Errorf("somebody else locked it: %v", err)
	}
	if err := held.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path + ".lock"); !errors.Is(err, os.ErrNotExist) {
		t.Error("the dotlock is left:", err)
	}
}

func TestANameThatIsTakenIsNotLockedForANewMbox(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a file":      func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a symlink":   func(path string) error { return os.Symlink("nowhere", path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, path := newBox(t)
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			var fault *LockError
			if _, err := LockNew(context.Background(), dir, ".temp", "box", everyLock); !errors.As(err, &fault) || fault.Fault != LockRefused {
				t.Error(err)
			}
			if _, err := os.Lstat(path + ".lock"); !errors.Is(err, os.ErrNotExist) {
				t.Error("the dotlock is left:", err)
			}
		})
	}
}

// A dotlock of somebody who lives is respected, and what comes to the name under
// the lock is noticed.
func TestTheLockOfANewMboxIsOneAmongOthers(t *testing.T) {
	dir, path := newBox(t)
	if err := os.WriteFile(path+".lock", []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	var busy *LockError
	if _, err := LockNew(context.Background(), dir, ".temp", "box", everyLock); !errors.As(err, &busy) || !busy.Busy() {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	held, err := LockNew(context.Background(), dir, ".temp", "box", everyLock)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("stray"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := held.CheckNew(); !errors.As(err, &busy) || busy.Fault != LockLost {
		t.Error(err)
	}
	if err := held.Release(); err != nil {
		t.Error(err)
	}
}

// A dotlock beside nothing is judged by itself: it may be all that a loss of power has
// left of somebody.
func TestADeadDotlockWhereNothingLiesIsTakenOver(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	was := sinceBoot
	defer func() { sinceBoot = was }()
	for name, test := range map[string]struct {
		content string
		booted  bool // since it was made
		taken   bool
	}{
		"of a process that is dead":         {"999999999:" + host, false, true},
		"empty, from before the boot":       {"", true, true},
		"empty, of now":                     {"", false, false},
		"of a process that is alive":        {"1:" + host, false, false},
		"of another host, before our boot ": {"1:elsewhere", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			sinceBoot = was
			if test.booted {
				sinceBoot = func() time.Duration { return -2 * time.Second }
			}
			dir, path := newBox(t)
			if err := os.WriteFile(path+".lock", []byte(test.content), 0o644); err != nil {
				t.Fatal(err)
			}
			held, err := LockNew(context.Background(), dir, ".temp", "box", everyLock)
			var fault *LockError
			if test.taken && err != nil || !test.taken && !(errors.As(err, &fault) && fault.Busy()) {
				t.Fatal(err)
			}
			if test.taken {
				if err := held.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
