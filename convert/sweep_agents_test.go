package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// Postfix local opens the mbox and waits for the lock; when it gets it, the
// mbox has another name.
func TestAnAgentThatWaitsForTheParkedInode(t *testing.T) {
	s := newSwept(t)
	path := s.parked(t, s.a.Spool)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	held, err := mbox.Lock(context.Background(), int(dir.Fd()), filepath.Base(path), mbox.LockOptions{Fcntl: true})
	if err != nil {
		t.Fatal(err)
	}
	const agent = `
import fcntl, sys, time
f = open(sys.argv[1], "ab")
print("open", flush=True)
fcntl.lockf(f, fcntl.LOCK_EX)
for part in sys.argv[2].splitlines(True):
    f.write(part.encode()); f.flush(); time.sleep(0.02)
print("locked", flush=True); sys.stdin.readline()
f.close()`
	cmd := exec.Command("python3", "-c", agent, path, s.mail("."))
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fscanln(out, new(string))
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	fmt.Fscanln(out, new(string))
	if r, err := s.site.Sweep(context.Background(), s.a, SweepOptions{Wait: 200 * time.Millisecond}); err == nil {
		t.Errorf("a sweep while the agent writes: %+v", r)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if r := s.sweep(t); r.Messages() != 1 {
		t.Errorf("%+v", r)
	}
	s.mustHaveAll(t)
}

// procmail makes a new file at the old path.
func TestProcmailAtTheOldPath(t *testing.T) {
	s := newSwept(t)
	spool, err := os.Stat(filepath.Dir(s.a.Spool))
	if err != nil {
		t.Fatal(err)
	}
	rc := writeFile(t, filepath.Join(s.a.Home, "rc"), ":0:\n"+s.a.Spool+"\n")
	for range 3 {
		text := s.mail(".")
		cmd := exec.Command("procmail", "-m", rc)
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		cmd.Stdin = strings.NewReader(text)
		cmd.Dir = s.a.Home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.a.UID), Gid: spool.Sys().(*syscall.Stat_t).Gid}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v, %s", err, out)
		}
		if r := s.sweep(t); r.Messages() != 1 || len(r.Differences) > 0 {
			t.Errorf("%+v", r)
		}
	}
	s.mustHaveAll(t)
}

// What lies in staging when the record is ready was not delivered; what was, a
// client may have moved or expunged.
func TestAKilledSweepIsFinished(t *testing.T) {
	for _, alive := range []bool{false, true} {
		t.Run(fmt.Sprint("resumed by a sweep: ", alive), func(t *testing.T) {
			s := newSwept(t)
			s.appendTo(t, s.a.Spool, s.mail(".")+s.mail(".")+s.mail(".")+s.mail("."))
			s.killBeforeDelivery(t)
			staged, err := filepath.Glob(filepath.Join(s.a.Home, ".Maildir.mailferry-*", "*"))
			if err != nil || len(staged) != 4 {
				t.Fatal(staged, err)
			}
			if err := os.Remove(staged[0]); err != nil { // delivered, and expunged
				t.Fatal(err)
			}
			delete(s.count, ". gen-beef-1")
			read := filepath.Join(s.a.Maildir, "cur", filepath.Base(staged[1])+":2,S") // delivered, and read
			if err := os.Rename(staged[1], read); err != nil {
				t.Fatal(err)
			}
			s.appendTo(t, s.a.Spool, s.mail(".")) // behind what the dead sweep had seen
			if alive {
				s.sweep(t)
			} else if did, err := s.site.recoverSweep(context.Background(), s.a); err != nil || did == "" {
				t.Fatal(did, err)
			}
			if r := s.sweep(t); len(r.Differences) > 0 {
				t.Errorf("%+v", r)
			}
			s.mustHaveAll(t)
		})
	}
}

// killBeforeDelivery leaves what a sweep has that is killed when its record is
// ready.
func (s *swept) killBeforeDelivery(t *testing.T) {
	t.Helper()
	w, err := s.site.newSweep(s.a, SweepOptions{Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.begin(); err != nil {
		t.Fatal(err)
	}
	strays, err := w.look()
	if err != nil || len(strays) != 1 {
		t.Fatal(strays, err)
	}
	x := w.takingOf(strays[0])
	if err := errors.Join(journal.WriteSweep(w.State, x.record), x.prepare(context.Background()), x.promise(), x.close()); err != nil {
		t.Fatal(err)
	}
}

// A full quota or disk costs nothing but time.
func TestASweepThatCanNotWrite(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, s.mail("."))
	if err := unix.Mount("none", filepath.Join(s.a.Maildir, "new"), "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	_, err := s.site.Sweep(context.Background(), s.a, SweepOptions{})
	if uerr := unix.Unmount(filepath.Join(s.a.Maildir, "new"), 0); uerr != nil {
		t.Fatal(uerr)
	}
	if !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v", err)
	}
	s.sweep(t)
	s.mustHaveAll(t)
}

func TestUsersWhoAreNotOnMaildirAreNotSwept(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, "From a@b Mon Jan  2 03:04:05 2023\n\nx\n")
	for _, state := range []semaphore.State{semaphore.Mbox, semaphore.Hold} {
		var err error
		if state == semaphore.Hold {
			err = s.site.HoldSemaphore(s.a, time.Minute)
		} else {
			err = s.site.SetSemaphore(s.a, state)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := s.sweep(t); r.Note == "" || len(r.Taken) > 0 {
			t.Errorf("%s: %+v", state, r)
		}
	}
	s.mustHaveAll(t)
}

// After a rollback, mail that comes to a directory of which it is not known whether it
// is the Maildir that was set aside is told; what is made at the old path is late.
func TestMailForAMaildirThatWasSetAsideIsTold(t *testing.T) {
	s := newSwept(t)
	soak, err := journal.ReadSoak(s.site.State, s.a.Name)
	if err != nil {
		t.Fatal(err)
	}
	aside := parkedName(s.a.Maildir, time.Now())
	if err := os.Rename(s.a.Maildir, aside); err != nil {
		t.Fatal(err)
	}
	soak.Back, soak.Aside = time.Now(), []journal.Aside{{Path: aside}}
	if err := errors.Join(journal.WriteSoak(s.site.State, soak), s.site.SetSemaphore(s.a, semaphore.Mbox)); err != nil {
		t.Fatal(err)
	}
	if r := s.sweep(t); len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	time.Sleep(2 * clockTick)
	s.appendTo(t, filepath.Join(aside, "new", "1.a.b"), "Subject: late\n\nx\n")
	if err := os.MkdirAll(filepath.Join(s.a.Maildir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(s.a.Maildir, s.a.UID, s.a.GID), os.Chown(filepath.Join(s.a.Maildir, "new"), s.a.UID, s.a.GID)); err != nil {
		t.Fatal(err)
	}
	s.appendTo(t, filepath.Join(s.a.Maildir, "new", "2.a.b"), "Subject: late\n\nx\n")
	r := s.sweep(t)
	if len(r.Differences) != 1 || r.Differences[0].Path != aside || len(r.Taken) != 1 || filepath.Dir(filepath.Dir(r.Taken[0].Path)) != s.a.Maildir {
		t.Errorf("%+v", r)
	}
}
