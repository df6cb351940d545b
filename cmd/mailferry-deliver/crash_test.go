package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// broken is the program with bugs: one that a caller can recover from, and ones
// that nobody can.
func broken() {
	settle()
	switch os.Args[1] {
	case "panic":
		os.Exit(run(nil, func(string) (string, bool) { panic("a bug\nof two lines") }, os.Stdin, os.Stdout, os.Stderr))
	case "goroutine":
		go panic("a bug")
	case "runtime":
		var stack func(int) int
		stack = func(n int) int { return stack(n+1) + 1 }
		stack(0)
	}
	select {}
}

func TestABugOfOursLosesNoMail(t *testing.T) {
	for _, bug := range []string{"panic", "goroutine", "runtime"} {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -c 0; exec broken-deliver "$0"`, bug)
		var log strings.Builder
		cmd.Stderr = &log
		_ = cmd.Run()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if bug == "panic" {
			if status.ExitStatus() != 75 || !strings.HasPrefix(log.String(), "mailferry-deliver: bug: a bug; of two lines; ") || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("%v, %q", cmd.ProcessState, &log)
			}
		} else if status.Signal() != syscall.SIGABRT {
			t.Errorf("%s: %v; want a signal", bug, cmd.ProcessState)
		}
	}
}

func TestABigMessageDoesNotLiveInMemory(t *testing.T) {
	s := newScene(t)
	text := big(50) + "From me\n"
	s.put(s.path("message"), text)
	for _, state := range []string{"mbox", "maildir"} {
		s.say(state)
		f, err := os.Open(s.path("message"))
		s.must(err)
		cmd := s.command("", "-d", "alice")
		cmd.Stdin = f
		s.must(cmd.Start())
		peak := make(chan int)
		go func() { peak <- peakKiB(cmd.Process.Pid) }()
		s.must(cmd.Wait())
		f.Close()
		if kib := <-peak; kib == 0 || kib > 32<<10 {
			t.Errorf("%s: %d KiB of memory", state, kib)
		}
	}
	want := strings.Replace(text, "\nFrom", "\n>From", 1)
	if list := s.inMbox(s.inbox()); len(list) != 1 || list[0] != want {
		t.Error("the mbox has something else")
	}
	if list := s.inMaildir(s.home("Maildir")); len(list) != 1 || list[0] != text {
		t.Error("the Maildir has something else")
	}
	s.clean()
}

// peakKiB is the highest VmHWM that is seen of a process until it is gone.
func peakKiB(pid int) (peak int) {
	for ; ; time.Sleep(time.Millisecond) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, ok := strings.Cut(string(status), "VmHWM:")
		if err != nil || !ok {
			return peak
		}
		var kib int
		if comm, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); comm != "" {
			fmt.Sscan(rest, &kib)
		}
		peak = max(peak, kib)
	}
}

// In a spool of mode 2775 only its group makes dotlocks. Called by an MTA as the
// recipient, the program has that group if it is setgid, as procmail is.
func TestASetgidProgramHasTheSpoolAndNothingElse(t *testing.T) {
	s := newScene(t)
	program, err := os.Executable()
	s.must(err)
	content, err := os.ReadFile(program)
	s.must(err)
	path := s.path("mailferry-deliver")
	s.must(os.WriteFile(path, content, 0o755))
	as := func(args ...string) *exec.Cmd {
		cmd := s.command(hello, args...)
		cmd.Path = path
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd
	}
	if code, log := s.run(as("-d", "alice")); code != 75 || !strings.Contains(log, "permission denied") {
		t.Errorf("without the group: %d, %s", code, log)
	}
	s.must(errors.Join(os.Chown(path, 0, mailGID), os.Chmod(path, 0o755|os.ModeSetgid)))
	if code, log := s.run(as("-d", "alice")); code != 75 || !strings.Contains(log, "--config is refused") {
		t.Errorf("with a user's configuration: %d, %s", code, log)
	}
	s.same("mbox", s.inMbox(s.inbox()))
	s.must(errors.Join(os.Chown(path, uid, 0), os.Chmod(path, 0o755|os.ModeSetuid)))
	cmd := as("-d", "alice")
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 20002, Gid: 20002}
	if code, log := s.run(cmd); code != 75 || !strings.Contains(log, "must not be setuid") {
		t.Errorf("setuid: %d, %s", code, log)
	}
	var st unix.Stat_t
	if unix.Stat(s.inbox(), &st) == nil {
		t.Error("an mbox was made")
	}
}

// A user who may choose what the name service answers would make mboxes in the
// names of others.
func TestASetgidProgramAsksNoGetentOfItsCaller(t *testing.T) {
	s := newScene(t)
	program, err := os.Executable()
	s.must(err)
	content, err := os.ReadFile(program)
	s.must(err)
	path := s.path("mailferry-deliver")
	s.must(os.WriteFile(path, content, 0o755))
	s.must(errors.Join(os.Chown(path, 0, mailGID), os.Chmod(path, 0o755|os.ModeSetgid)))
	s.put(s.path("mailferry.toml"), strings.Replace(s.config(), "file:"+s.path("users"), "passwd", 1))
	s.must(os.Mkdir(s.path("bin"), 0o755))
	s.must(os.WriteFile(s.path("bin/getent"), fmt.Appendf(nil, "#!/bin/sh\necho carol:x:%d:%d::%s:\n", uid, uid, s.home("")), 0o755))
	s.put(s.path("semaphores/carol"), "MAILSTATE=mbox\n")
	cmd := exec.Command("/bin/sh", "-c", `mount -t tmpfs none /etc && mkdir /etc/mailferry && cp "$0" /etc/mailferry/ &&
		echo root:x:0:0::/root: >/etc/passwd && echo passwd: files >/etc/nsswitch.conf &&
		PATH="$3:$PATH" exec setpriv --reuid=$1 --regid=$1 --clear-groups "$2" -d carol`, s.path("mailferry.toml"), fmt.Sprint(uid), path, s.path("bin"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stdin = strings.NewReader(hello)
	s.wantsRun(67, cmd)
	s.clean()
}

func TestASetgidProgramDelivers(t *testing.T) {
	s := newScene(t)
	program, err := os.Executable()
	s.must(err)
	content, err := os.ReadFile(program)
	s.must(err)
	path := s.path("mailferry-deliver")
	s.must(os.WriteFile(path, content, 0o755))
	s.must(errors.Join(os.Chown(path, 0, mailGID), os.Chmod(path, 0o755|os.ModeSetgid)))
	for _, state := range []string{"mbox", "mbox", "maildir"} {
		s.say(state)
		// The site's own configuration, for this process alone.
		cmd := exec.Command("/bin/sh", "-c", `mount -t tmpfs none /etc && mkdir /etc/mailferry && cp "$0" /etc/mailferry/ &&
			exec setpriv --reuid=$1 --regid=$1 --clear-groups "$2" -d alice -f bob@example.org`, s.path("mailferry.toml"), fmt.Sprint(uid), path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
		cmd.Stdin = strings.NewReader(hello)
		s.wantsRun(0, cmd)
	}
	s.same("mbox", s.inMbox(s.inbox()), stored, stored)
	s.same("Maildir", s.inMaildir(s.home("Maildir")), stored)
	names, err := os.ReadDir(s.home("Maildir/new"))
	s.must(err)
	for path, gid := range map[string]uint32{s.inbox(): mailGID, s.home("Maildir/new/" + names[0].Name()): uid} {
		var st unix.Stat_t
		s.must(unix.Stat(path, &st))
		if st.Uid != uid || st.Gid != gid || st.Mode&0o777 != 0o600 {
			t.Errorf("%s: uid %d, gid %d, mode %o", path, st.Uid, st.Gid, st.Mode)
		}
	}
	s.clean()
}
