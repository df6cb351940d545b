package mbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	lockBody   = "From a@example.org Mon Jan  1 00:00:00 2024\nSubject: here\n\nhello\n\n"
	lockNobody = 65534
	lockDead   = 1<<31 - 1 // above any pid_max
)

var allLocks = LockOptions{Dotlock: true, Fcntl: true, Flock: true}

// lockSpool is a directory with one mbox, both of a user who is not root.
type lockSpool struct {
	*testing.T
	path, mbox, dotlock string
	dir                 int
	host                string
}

func newLockSpool(t *testing.T) *lockSpool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: locks of several users are tested")
	}
	s := &lockSpool{T: t, path: t.TempDir()}
	s.mbox, s.dotlock = filepath.Join(s.path, "mbox"), filepath.Join(s.path, "mbox.lock")
	s.must(os.Chmod(filepath.Dir(s.path), 0o755))
	s.must(os.Chown(s.path, lockNobody, lockNobody))
	s.write(s.mbox, lockBody)
	var err error
	s.dir, err = unix.Open(s.path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	s.must(err)
	t.Cleanup(func() { unix.Close(s.dir) })
	s.host, err = os.Hostname()
	s.must(err)
	return s
}

func (s *lockSpool) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// check is must for other goroutines than the test's.
func (s *lockSpool) check(err error) {
	s.Helper()
	if err != nil {
		s.Error(err)
	}
}

// write makes or changes a file of the spool's user.
func (s *lockSpool) write(path, content string) {
	s.Helper()
	s.must(os.WriteFile(path, []byte(content), 0o600))
	s.must(os.Lchown(path, lockNobody, lockNobody))
}

func (s *lockSpool) lock(opts LockOptions) (*Held, error) {
	return Lock(context.Background(), s.dir, "mbox", opts)
}

func (s *lockSpool) mustLock(opts LockOptions) *Held {
	s.Helper()
	held, err := s.lock(opts)
	s.must(err)
	return held
}

// wantFault checks what kind of error err is and that it names what it should.
func (s *lockSpool) wantFault(err error, fault LockFault, kind LockKind, text string) *LockError {
	s.Helper()
	var e *LockError
	if !errors.As(err, &e) {
		s.Fatalf("got %v, want a LockError", err)
	}
	if e.Fault != fault || e.Kind != kind || !strings.Contains(e.Error(), text) || e.Busy() != (fault == LockBusy) {
		s.Fatalf("got %q, fault %q, kind %q; want %q, %q, %q", e, e.Fault, e.Kind, text, fault, kind)
	}
	return e
}

// wantFiles checks that the spool holds exactly these files: no temporary is left.
func (s *lockSpool) wantFiles(want ...string) {
	s.Helper()
	entries, err := os.ReadDir(s.path)
	s.must(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.Fatalf("files in the spool: %v, want %v", got, want)
	}
}

func (s *lockSpool) wantMbox(want string) {
	s.Helper()
	if got, err := os.ReadFile(s.mbox); err != nil || string(got) != want {
		s.Fatalf("mbox is %q (%v), want %q", got, err, want)
	}
}

// TestLockHolderProcess is no test: started by another test, it is a process that
// holds a lock until its standard input is closed.
func TestLockHolderProcess(t *testing.T) {
	path := os.Getenv("MBOX_LOCK_HOLDER")
	if path == "" {
		return
	}
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kind := LockKind(os.Getenv("MBOX_LOCK_KIND"))
	held, err := Lock(t.Context(), dir, "mbox", LockOptions{Dotlock: kind == KindDotlock, Fcntl: kind == KindFcntl, Flock: kind == KindFlock})
	fmt.Println("locked:", err)
	io.Copy(io.Discard, os.Stdin)
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
}

// holder starts a process that holds the lock; end lets it release and waits for it.
func (s *lockSpool) holder(kind LockKind) (cmd *exec.Cmd, end func()) {
	s.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestLockHolderProcess$")
	cmd.Env = append(os.Environ(), "MBOX_LOCK_HOLDER="+s.path, "MBOX_LOCK_KIND="+string(kind))
	stdin, err := cmd.StdinPipe()
	s.must(err)
	stdout, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	end = sync.OnceFunc(func() { stdin.Close(); cmd.Wait() })
	s.Cleanup(end)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked: <nil>\n" {
		s.Fatalf("the other process says %q, %v", line, err)
	}
	return cmd, end
}

// as runs work on a thread of its own with another effective uid and gid.
func (s *lockSpool) as(uid, gid int, work func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for ever: the thread ends with its changed identity
		setThreadID(uid, gid)
		work()
	}()
	<-done
}

// setThreadID changes this thread only, unlike syscall.Setresuid.
func setThreadID(uid, gid int) {
	const keep = ^uintptr(0)
	unix.RawSyscall(unix.SYS_SETRESUID, keep, 0, keep)
	unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(gid), keep)
	unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep)
}

var lockKinds = []struct {
	kind LockKind
	opts LockOptions
}{
	{KindDotlock, LockOptions{Dotlock: true}},
	{KindFcntl, LockOptions{Fcntl: true}},
	{KindFlock, LockOptions{Flock: true}},
}
