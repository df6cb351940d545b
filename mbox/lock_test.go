package mbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

func TestLockExcludesASecondLockInThisProcess(t *testing.T) {
	for _, tt := range lockKinds {
		t.Run(string(tt.kind), func(t *testing.T) {
			s := newLockSpool(t)
			held := s.mustLock(tt.opts)
			if got, err := io.ReadAll(held.File); err != nil || string(got) != lockBody {
				t.Fatalf("read %q, %v through the lock", got, err)
			}
			_, err := s.lock(tt.opts)
			s.wantFault(err, LockBusy, tt.kind, "; mbox unchanged")
			_, err = s.lock(allLocks)
			s.wantFault(err, LockBusy, tt.kind, "")
			s.must(errors.Join(held.Check(), held.Refresh(), held.Release(), held.Release()))
			s.must(s.mustLock(tt.opts).Release())
			s.wantFiles("mbox")
			s.wantMbox(lockBody)
		})
	}
}

func TestLockNamesTheProcessThatHoldsIt(t *testing.T) {
	for _, tt := range lockKinds {
		t.Run(string(tt.kind), func(t *testing.T) {
			s := newLockSpool(t)
			cmd, end := s.holder(tt.kind)
			_, err := s.lock(allLocks)
			pid := cmd.Process.Pid
			if tt.kind == KindFcntl {
				pid = 0 // the kernel does not name holders of open-file-description locks
			}
			if e := s.wantFault(err, LockBusy, tt.kind, ""); e.Holder.PID != pid {
				t.Errorf("holder %+v, want pid %d", e.Holder, pid)
			}
			end()
			s.must(s.mustLock(allLocks).Release())
		})
	}
}

func TestLockTakesOverFromAKilledProcess(t *testing.T) {
	s := newLockSpool(t)
	cmd, end := s.holder(KindDotlock)
	s.must(cmd.Process.Kill())
	end()
	held := s.mustLock(allLocks)
	if want := fmt.Sprintf("made by pid %d on %s", cmd.Process.Pid, s.host); !strings.Contains(held.Broken, want) {
		t.Errorf("Broken is %q, want %q in it", held.Broken, want)
	}
	s.must(held.Release())
	s.wantFiles("mbox")
}

func TestLockNamesThePOSIXLockHolder(t *testing.T) {
	s := newLockSpool(t)
	f, err := os.OpenFile(s.mbox, os.O_RDWR, 0)
	s.must(err)
	defer f.Close()
	s.must(unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}))
	_, err = s.lock(allLocks)
	s.wantFault(err, LockBusy, KindFcntl, fmt.Sprintf("fcntl lock held by pid %d", os.Getpid()))
}

func TestLockJudgesDotlocks(t *testing.T) {
	host, _ := os.Hostname()
	const staleAfter = 100 * time.Millisecond
	live, dead := fmt.Sprint(os.Getppid()), fmt.Sprint(lockDead)
	for _, tt := range []struct {
		name, content string
		old           bool
		uid           int
		fault         LockFault // "": taken over
		text          string
	}{
		{"dead pid of this host is stale at once", dead + ":" + host, false, lockNobody, "", dead + " on " + host},
		{"live pid of this host is respected for ever", live + ":" + host, true, lockNobody, LockBusy, "pid " + live + " on " + host + ", which is alive"},
		{"live pid of root is respected", live + ":" + host, true, 0, LockBusy, "which is alive"},
		{"our own pid in a dotlock that is not ours is of an earlier process", fmt.Sprintf("%d:%s", os.Getpid(), host), false, lockNobody, "", "made by pid"},
		{"live pid without host is respected for ever", live + "\n", true, lockNobody, LockBusy, "pid " + live + ", which is alive"},
		{"dead pid without host is respected while young", dead + "\n", false, lockNobody, LockBusy, "unchanged for 100ms"},
		{"dead pid without host is stale when old", dead + "\n", true, lockNobody, "", "pid " + dead},
		{"dead pid of another host is respected while young", dead + ":elsewhere", false, lockNobody, LockBusy, "on elsewhere"},
		{"pid of another host is stale when old", live + ":elsewhere", true, lockNobody, "", "on elsewhere"},
		{"empty is respected while young", "", false, lockNobody, LockBusy, "an unknown program"},
		{"empty is stale when old", "", true, lockNobody, "", "an unknown program"},
		{"procmail's 0 is respected while young", "0", false, lockNobody, LockBusy, "an unknown program"},
		{"procmail's 0 is stale when old", "0", true, lockNobody, "", "an unknown program"},
		{"dead pid with terminal escapes is unknown", dead + ":\x1b[31m" + host, false, lockNobody, LockBusy, "an unknown program"},
		{"dotlock of another user is refused", dead + ":" + host, true, 12345, LockRefused, "belongs to uid 12345"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			s.write(s.dotlock, tt.content)
			s.must(os.Chmod(s.dotlock, 0)) // as Postfix and mutt make them; root reads on
			s.must(os.Chown(s.dotlock, tt.uid, -1))
			if tt.old {
				time.Sleep(staleAfter + 20*time.Millisecond)
			}
			opts := LockOptions{Dotlock: true, StaleAfter: staleAfter, Path: "/var/mail/alice"}
			held, err := s.lock(opts)
			if tt.fault != "" {
				s.wantFault(err, tt.fault, KindDotlock, tt.text)
				if got, err := os.ReadFile(s.dotlock); err != nil || string(got) != tt.content {
					t.Errorf("the dotlock now holds %q, %v", got, err)
				}
				s.wantFiles("mbox", "mbox.lock")
				return
			}
			s.must(err)
			if !strings.Contains(held.Broken, tt.text) {
				t.Errorf("Broken is %q, want %q in it", held.Broken, tt.text)
			}
			s.wantFiles("mbox", "mbox.lock")
			if got, _ := os.ReadFile(s.dotlock); string(got) != fmt.Sprintf("%d:%s", os.Getpid(), host) {
				t.Errorf("our dotlock holds %q", got)
			}
			s.must(held.Release())
			s.wantFiles("mbox")
		})
	}
}

func TestLockRespectsAnOldDotlockWhileTheMboxChangesOrIsLocked(t *testing.T) {
	s := newLockSpool(t)
	opts := LockOptions{Dotlock: true, StaleAfter: 100 * time.Millisecond}
	s.write(s.dotlock, "")
	time.Sleep(120 * time.Millisecond)
	s.write(s.mbox, lockBody)
	_, err := s.lock(opts)
	s.wantFault(err, LockBusy, KindDotlock, "an unknown program")

	time.Sleep(120 * time.Millisecond)
	_, end := s.holder(KindFcntl)
	_, err = s.lock(opts)
	s.wantFault(err, LockBusy, KindFcntl, "held by")
	s.wantFiles("mbox", "mbox.lock")
	end()
	s.must(s.mustLock(opts).Release())
}

func TestLockRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(s *lockSpool) error
		fault LockFault
		kind  LockKind
		text  string
	}{
		{"a symbolic link", func(s *lockSpool) error {
			return errors.Join(os.Rename(s.mbox, s.mbox+"2"), os.Symlink("mbox2", s.mbox))
		}, LockRefused, "", "is a symbolic link"},
		{"a dangling link", func(s *lockSpool) error { return errors.Join(os.Remove(s.mbox), os.Symlink("x", s.mbox)) }, LockRefused, "", "is a symbolic link"},
		{"a second hard link", func(s *lockSpool) error { return os.Link(s.mbox, s.mbox+"2") }, LockRefused, "", "has 2 hard links"},
		{"a FIFO", func(s *lockSpool) error { return errors.Join(os.Remove(s.mbox), unix.Mkfifo(s.mbox, 0o600)) }, LockRefused, "", "is a FIFO"},
		{"a directory", func(s *lockSpool) error { return errors.Join(os.Remove(s.mbox), os.Mkdir(s.mbox, 0o700)) }, LockRefused, "", "is a directory"},
		{"another user's mbox", func(s *lockSpool) error { return os.Chown(s.mbox, 12345, -1) }, LockRefused, "", "belongs to uid 12345, not to uid 65534"},
		{"no mbox", func(s *lockSpool) error { return os.Remove(s.mbox) }, LockFailed, "", "no such file"},
		{"a dotlock that is a directory", func(s *lockSpool) error { return os.Mkdir(s.dotlock, 0o700) }, LockRefused, KindDotlock, "is a directory"},
		{"a dotlock that is a symbolic link", func(s *lockSpool) error { return os.Symlink("mbox", s.dotlock) }, LockRefused, KindDotlock, "is a symbolic link"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			s.must(tt.spoil(s))
			_, err := Lock(t.Context(), s.dir, "mbox", LockOptions{Dotlock: true, Fcntl: true, Owner: lockNobody, Timeout: time.Minute})
			s.wantFault(err, tt.fault, tt.kind, tt.text)
			if got := errors.Is(err, fs.ErrNotExist); got != (tt.fault == LockFailed) {
				t.Errorf("is ErrNotExist: %v", got)
			}
		})
	}
}

func TestLockRefusesOptionsThatMakeNoSense(t *testing.T) {
	s := newLockSpool(t)
	for _, name := range []string{"", ".", "..", "a/b", "/mbox", "a\x00"} {
		if _, err := Lock(t.Context(), s.dir, name, allLocks); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
	if _, err := s.lock(LockOptions{}); err == nil {
		t.Error("no kind of lock was accepted")
	}
}

func TestLockFollowsAnMboxReplacedMeanwhile(t *testing.T) {
	s := newLockSpool(t)
	opts := allLocks
	opts.Timeout = 10 * time.Second
	replace := sync.OnceFunc(func() {
		s.write(s.mbox+".new", "new")
		s.must(os.Rename(s.mbox+".new", s.mbox))
	})
	opts.WithGroup = func(calls func() error) error { // runs after the old file was opened and locked
		replace()
		return calls()
	}
	held := s.mustLock(opts)
	if got, _ := io.ReadAll(held.File); string(got) != "new" {
		t.Errorf("the locked file holds %q", got)
	}
	s.must(errors.Join(held.Check(), held.Release()))
	s.wantFiles("mbox")
}

func TestHeldNoticesLoss(t *testing.T) {
	for _, tt := range []struct {
		name      string
		do        func(s *lockSpool) error
		kind      LockKind
		onRelease bool
		left      string
	}{
		{"dotlock removed", func(s *lockSpool) error { return os.Remove(s.dotlock) }, KindDotlock, true, "mbox"},
		{"dotlock replaced by a peer's", func(s *lockSpool) error {
			s.write(s.dotlock+"2", "0")
			return os.Rename(s.dotlock+"2", s.dotlock)
		}, KindDotlock, true, "mbox mbox.lock"},
		{"mbox renamed", func(s *lockSpool) error { return os.Rename(s.mbox, s.mbox+".parked") }, "", false, "mbox.parked"},
		{"mbox replaced", func(s *lockSpool) error {
			s.write(s.mbox+"2", "")
			return os.Rename(s.mbox+"2", s.mbox)
		}, "", false, "mbox"},
		{"mbox linked", func(s *lockSpool) error { return os.Link(s.mbox, s.mbox+"2") }, "", false, "mbox mbox2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			held := s.mustLock(allLocks)
			s.must(tt.do(s))
			s.wantFault(held.Check(), LockLost, tt.kind, "lock lost")
			if tt.onRelease {
				s.wantFault(held.Refresh(), LockLost, tt.kind, "removed or replaced by another program")
				s.wantFault(held.Release(), LockLost, tt.kind, "lock lost")
			} else {
				s.must(errors.Join(held.Refresh(), held.Release()))
			}
			s.wantFiles(strings.Fields(tt.left)...)
		})
	}
}

func TestRefreshKeepsTheDotlockYoung(t *testing.T) {
	s := newLockSpool(t)
	held := s.mustLock(allLocks)
	defer held.Release()
	s.must(os.Chtimes(s.dotlock, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	s.must(held.Refresh())
	if st, err := os.Stat(s.dotlock); err != nil || time.Since(st.ModTime()) > time.Second {
		t.Errorf("dotlock is of %v, %v", st.ModTime(), err)
	}
}

// The window between judging and taking over, made wide: what is in place by then
// stays there.
func TestTakeOverPutsAFreshDotlockBack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between func(s *lockSpool) error
		want    string // content of the dotlock afterwards
	}{
		{"replaced by another file", func(s *lockSpool) error {
			s.must(os.Remove(s.dotlock))
			s.write(s.dotlock, "0")
			return nil
		}, "0"},
		{"touched by its holder", func(s *lockSpool) error { return os.Chtimes(s.dotlock, time.Time{}, time.Now()) }, "stale"},
		{"removed", func(s *lockSpool) error { return os.Remove(s.dotlock) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			s.write(s.dotlock, "stale")
			h := &Held{dir: s.dir, name: "mbox", opts: allLocks, fd: -1}
			s.must(h.opts.complete("mbox"))
			old, err := h.findDotlock()
			s.must(err)
			defer unix.Close(old.fd)
			err = h.placeDotlock(func(tmp string, own *dotlockFile) error {
				s.must(tt.between(s))
				return h.takeOver(tmp, own, old)
			})
			s.wantFault(err, LockBusy, KindDotlock, "has just been")
			if got, _ := os.ReadFile(s.dotlock); string(got) != tt.want {
				t.Errorf("the dotlock holds %q, want %q", got, tt.want)
			}
			s.wantFiles(strings.Fields("mbox " + map[bool]string{true: "mbox.lock"}[tt.want != ""])...)
		})
	}
}

// Several lockers and a procmail-like peer meet on a mailbox where programs keep
// dying with their dotlock in place; never do two have it at a time.
func TestOnlyOneTakesOver(t *testing.T) {
	s := newLockSpool(t)
	var inside, entries, planted atomic.Int32
	enter := func() {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d at once", n)
		}
		time.Sleep(time.Millisecond)
		entries.Add(1)
		inside.Add(-1)
	}
	link := func(content string) bool {
		tmp := filepath.Join(s.path, "tmp"+content)
		s.check(os.WriteFile(tmp, []byte(content), 0o600))
		defer os.Remove(tmp)
		return os.Link(tmp, s.dotlock) == nil
	}
	// Until enough has happened, or something is wrong.
	end := time.Now().Add(20 * time.Second)
	enough := func() bool {
		return entries.Load() >= 200 && planted.Load() >= 20 || time.Now().After(end)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for ; !enough(); time.Sleep(time.Millisecond) {
				if held, err := s.lock(LockOptions{Dotlock: true}); err == nil {
					enter()
					s.check(held.Release())
				}
			}
		})
	}
	group.Go(func() {
		for ; !enough(); time.Sleep(time.Millisecond) {
			if link("0") {
				enter()
				s.check(os.Remove(s.dotlock))
			}
		}
	})
	group.Go(func() {
		for ; !enough(); time.Sleep(time.Millisecond) {
			if link(fmt.Sprintf("%d:%s", lockDead, s.host)) {
				planted.Add(1)
			}
		}
	})
	group.Wait()
	if entries.Load() < 200 || planted.Load() < 20 {
		t.Errorf("%d entries, %d dotlocks of dead programs: too few in 20 s", entries.Load(), planted.Load())
	}
}

// ABBA: a peer that waits for one lock while it holds the other, in either order,
// is not stopped by us, since we never wait with a lock in hand.
func TestLockNeverWaitsWhileHolding(t *testing.T) {
	for _, first := range []LockKind{KindFcntl, KindDotlock} {
		t.Run("against a peer that takes first the "+string(first), func(t *testing.T) {
			s := newLockSpool(t)
			f, err := os.OpenFile(s.mbox, os.O_RDWR, 0)
			s.must(err)
			defer f.Close()
			take := map[LockKind]func(){
				KindFcntl: func() { s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})) },
				KindDotlock: func() {
					for unix.Mknodat(s.dir, "mbox.lock", unix.S_IFREG|0o600, 0) != nil {
						time.Sleep(time.Millisecond)
					}
				},
			}
			second := map[LockKind]LockKind{KindFcntl: KindDotlock, KindDotlock: KindFcntl}[first]
			stop := make(chan struct{})
			var locked atomic.Int32
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					for ; ; locked.Add(1) {
						select {
						case <-stop:
							return
						default:
						}
						opts := allLocks
						opts.Timeout = 10 * time.Second
						held, err := s.lock(opts)
						if err != nil {
							t.Error(err)
							return
						}
						s.check(held.Release())
					}
				})
			}
			for range 50 {
				start := time.Now()
				take[first]()
				time.Sleep(2 * time.Millisecond)
				take[second]()
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("the peer waited %v", took)
				}
				s.must(os.Remove(s.dotlock))
				s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
				time.Sleep(5 * time.Millisecond)
			}
			close(stop)
			group.Wait()
			if locked.Load() == 0 {
				t.Error("nobody else ever got the locks: nothing was tested")
			}
		})
	}
}

func TestLockGivesUp(t *testing.T) {
	s := newLockSpool(t)
	held := s.mustLock(allLocks)
	defer held.Release()
	opts := allLocks
	opts.Timeout = 400 * time.Millisecond
	start := time.Now()
	_, err := s.lock(opts)
	took := time.Since(start)
	if e := s.wantFault(err, LockBusy, KindFcntl, "held by"); took > 2*time.Second || e.Waited < 200*time.Millisecond {
		t.Errorf("gave up after %v, says %v", took, e.Waited)
	}

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	opts.Timeout = time.Hour
	if _, err = Lock(ctx, s.dir, "mbox", opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to be context.Canceled", err)
	}
	s.wantFault(err, LockBusy, KindFcntl, "held by")
	if _, err = Lock(ctx, s.dir, "mbox", opts); !errors.Is(err, context.Canceled) {
		t.Errorf("with a ctx that is done: %v", err)
	}
}

func TestLockInAGroupWritableSpoolNeedsItsGroup(t *testing.T) {
	s := newLockSpool(t)
	const mail = 8
	s.must(errors.Join(os.Chown(s.path, 0, mail), os.Chmod(s.path, 0o775|fs.ModeSetgid)))
	s.as(lockNobody, lockNobody, func() {
		opts := LockOptions{Dotlock: true, Fcntl: true, Path: "/var/mail/alice", Timeout: time.Minute}
		_, err := s.lock(opts)
		var e *LockError
		want := "/var/mail/alice: refused: cannot create dotlock mbox.lock: its directory belongs to uid 0, gid 8, mode 2775; " +
			"this is uid 65534, gid 65534: permission denied; mbox unchanged"
		if !errors.As(err, &e) || e.Error() != want || !errors.Is(err, fs.ErrPermission) || e.Hint != "dotlocks there need gid 8, the spool's group" {
			t.Errorf("got  %v\nwant %v", err, want)
		}
		opts.WithGroup = func(calls func() error) error {
			setThreadID(lockNobody, mail)
			defer setThreadID(lockNobody, lockNobody)
			return calls()
		}
		held, err := s.lock(opts)
		if err != nil {
			t.Error(err)
			return
		}
		s.check(errors.Join(held.Check(), held.Refresh(), held.Release()))
	})
	s.wantFiles("mbox")
}

func TestLockErrorReadsWell(t *testing.T) {
	e := &LockError{Path: "/var/mail/al\x1bice", Fault: LockBusy, Kind: KindFcntl, Reason: "fcntl lock held by pid 4121", Waited: 30 * time.Second}
	want := `"/var/mail/al\x1bice": busy: fcntl lock held by pid 4121; waited 30s; mbox unchanged`
	if e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
}

func FuzzParseHolder(f *testing.F) {
	for _, tt := range []struct {
		content string
		want    LockHolder
	}{
		{"4121:mx1.example.org", LockHolder{4121, "mx1.example.org"}},
		{"4121:mx1\n", LockHolder{4121, "mx1"}},
		{"4121\n", LockHolder{4121, ""}},
		{"4121", LockHolder{4121, ""}},
		{"0", LockHolder{}},
		{"", LockHolder{}},
		{"-1:mx1", LockHolder{}},
		{"99999999999:mx1", LockHolder{}},
		{"4121:", LockHolder{}},
		{"4121:mx 1", LockHolder{}},
		{"4121\nmx1", LockHolder{}},
	} {
		f.Add(tt.content)
		if got := parseHolder(tt.content); got != tt.want {
			f.Errorf("parseHolder(%q) = %+v, want %+v", tt.content, got, tt.want)
		}
	}
	f.Fuzz(func(t *testing.T, content string) {
		got := parseHolder(content)
		if got.PID < 0 || got.PID == 0 && got.Host != "" || printable(got.String()) != got.String() {
			t.Errorf("parseHolder(%q) = %+v", content, got)
		}
	})
}
