package mbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

func TestLockGivesUp(t *testing.T) {
	s := newLockSpool(t)
	held := s.mustLock(allLocks)
	defer held.Release()
	opts := allLocks
	opts.Timeout = 400 * time.Millisecond
	watchdog, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	_, err := Lock(watchdog, s.dir, "mbox", opts)
	if e := s.wantFault(err, LockBusy, KindFcntl, "held by"); watchdog.Err() != nil || e.Waited < 200*time.Millisecond {
		t.Errorf("says that it gave up after %v; the watchdog: %v", e.Waited, watchdog.Err())
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
		if got := ParseHolder(tt.content); got != tt.want {
			f.Errorf("ParseHolder(%q) = %+v, want %+v", tt.content, got, tt.want)
		}
	}
	f.Fuzz(func(t *testing.T, content string) {
		got := ParseHolder(content)
		if got.PID < 0 || got.PID == 0 && got.Host != "" || printable(got.String()) != got.String() {
			t.Errorf("ParseHolder(%q) = %+v", content, got)
		}
	})
}
