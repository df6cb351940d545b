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

	"mailferry/internal/quotafs"
)

// trouble is something that stands in a delivery's way, in a state.
type trouble struct {
	state string
	make  func(s *scene) // makes it
	says  string         // in what the MTA gets to read
	left  []string       // beside the mailboxes
}

func TestWhatStandsInTheWayMakesTheMTAKeepTheMessage(t *testing.T) {
	for name, tt := range map[string]trouble{
		"mbox a symlink": {"mbox", func(s *scene) {
			s.own(s.home("mail/other"), "")
			s.must(os.Symlink(s.home("mail/other"), s.inbox()))
		}, "symbolic link", nil},
		"mbox a dangling symlink": {"mbox", func(s *scene) { s.must(os.Symlink(s.home("mail/none"), s.inbox())) }, "symbolic link", nil},
		"mbox with another name": {"mbox", func(s *scene) {
			s.own(s.inbox(), "")
			s.must(os.Link(s.inbox(), s.home("mail/other")))
		}, "hard links", nil},
		"mbox a FIFO":             {"mbox", func(s *scene) { s.must(unix.Mkfifo(s.inbox(), 0o666)) }, "FIFO", nil},
		"mbox a directory":        {"mbox", func(s *scene) { s.must(os.Mkdir(s.inbox(), 0o777)) }, "directory", nil},
		"mbox of somebody else":   {"mbox", func(s *scene) { s.put(s.inbox(), ""); s.must(os.Chmod(s.inbox(), 0o666)) }, "belongs to uid 0", nil},
		"mbox may not be written": {"mbox", func(s *scene) { s.own(s.inbox(), ""); s.must(os.Chmod(s.inbox(), 0o400)) }, "permission denied", nil},
		"spool missing":           {"mbox", func(s *scene) { s.must(os.Remove(s.spool())) }, "no such file", nil},
		"spool not writable":      {"mbox", func(s *scene) { s.must(os.Chmod(s.spool(), 0o755)) }, "permission denied", nil},
		"mbox has a dotlock":      {"mbox", func(s *scene) { s.own(s.inbox(), ""); s.own(s.inbox()+".lock", fmt.Sprint(os.Getpid())) }, "busy", []string{"spool/alice.lock"}},
		"mbox has a lock": {"mbox", func(s *scene) {
			s.own(s.inbox(), "")
			f, err := os.OpenFile(s.inbox(), os.O_RDWR, 0)
			s.must(err)
			s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
			s.Cleanup(func() { f.Close() })
		}, "busy", nil},
		"gate busy":         {"mbox", func(s *scene) { s.own(s.gate(), fmt.Sprint(os.Getpid())) }, "gate is busy", []string{"home/alice/.mailstate.lock"}},
		"gate a directory":  {"maildir", func(s *scene) { s.must(os.Mkdir(s.gate(), 0o755)) }, "gate is refused", []string{"home/alice/.mailstate.lock"}},
		"semaphore missing": {"mbox", func(s *scene) { s.must(os.Remove(s.path("semaphores/alice"))) }, "no such file", nil},
		"semaphore garbage": {"mbox", func(s *scene) { s.put(s.path("semaphores/alice"), "MAILSTATE=mbox") }, "MAILSTATE=mbox", nil},
		"semaphore empty":   {"mbox", func(s *scene) { s.put(s.path("semaphores/alice"), "") }, "semaphore", nil},
		"semaphore a FIFO": {"mbox", func(s *scene) {
			s.must(errors.Join(os.Remove(s.path("semaphores/alice")), unix.Mkfifo(s.path("semaphores/alice"), 0o666)))
		}, "semaphore", nil},
		"semaphore not readable": {"mbox", func(s *scene) { s.must(os.Chmod(s.path("semaphores/alice"), 0o600)) }, "permission denied", nil},
		"semaphore says hold":    {"hold", func(*scene) {}, "held", nil},
		"home missing":           {"mbox", func(s *scene) { s.must(os.Rename(s.home(""), s.path("away"))); s.unmade(s.home("")) }, "no such file", nil},
		"home of somebody else":  {"mbox", func(s *scene) { s.must(os.Chown(s.home(""), 20002, 20002)) }, "belongs to uid 20002", nil},
		"home not accessible":    {"maildir", func(s *scene) { s.must(os.Chmod(s.home(""), 0)) }, "permission denied", nil},
		"Maildir missing":        {"maildir", func(s *scene) { s.must(os.RemoveAll(s.home("Maildir"))); s.unmade(s.home("Maildir")) }, "no such file", nil},
		"Maildir without new":    {"maildir", func(s *scene) { s.must(os.Rename(s.home("Maildir/new"), s.home("Maildir/old"))) }, "no such file", nil},
		"Maildir without cur":    {"maildir", func(s *scene) { s.must(os.Rename(s.home("Maildir/cur"), s.home("Maildir/old"))) }, "no such file", nil},
		"Maildir a symlink": {"maildir", func(s *scene) {
			s.must(errors.Join(os.Rename(s.home("Maildir"), s.home("mail/Maildir")), os.Symlink("mail/Maildir", s.home("Maildir"))))
		}, "symlink", nil},
		"new a symlink": {"maildir", func(s *scene) {
			s.must(errors.Join(os.Rename(s.home("Maildir/new"), s.home("mail/new")), os.Symlink("../mail/new", s.home("Maildir/new"))))
		}, "not a directory", nil},
		"new not writable":  {"maildir", func(s *scene) { s.must(os.Chmod(s.home("Maildir/new"), 0o500)) }, "permission denied", nil},
		"config unknown":    {"mbox", func(s *scene) { s.put(s.path("mailferry.toml"), s.config()+"nonsense = 1\n") }, "nonsense", nil},
		"config missing":    {"mbox", func(s *scene) { s.must(os.Remove(s.path("mailferry.toml"))) }, "no such file", nil},
		"uid too low":       {"mbox", func(s *scene) { s.put(s.path("mailferry.toml"), s.config()+"min-uid = 30000\n") }, "min-uid", nil},
		"users missing":     {"mbox", func(s *scene) { s.must(os.Remove(s.path("users"))) }, "no such file", nil},
		"users empty":       {"mbox", func(s *scene) { s.put(s.path("users"), "") }, "empty", nil},
		"user root":         {"mbox", func(s *scene) { s.put(s.path("users"), "alice:0:0:/root\n") }, "min-uid", nil},
		"user malformed":    {"mbox", func(s *scene) { s.put(s.path("users"), "alice:x:1:/home/alice\n") }, "uid", nil},
		"user twice":        {"mbox", func(s *scene) { s.put(s.path("users"), "alice:20001:20001:/a\nalice:20002:20002:/b\n") }, "twice", nil},
		"user without home": {"mbox", func(s *scene) { s.put(s.path("users"), "alice:20001:20001:\n") }, "home", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.say(tt.state)
			tt.make(s)
			if log := s.wants(75, hello); !strings.Contains(log, tt.says) {
				t.Errorf("says %q, want %q", log, tt.says)
			}
			if info, err := os.Lstat(s.inbox()); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
				t.Errorf("the mbox has %d bytes", info.Size())
			}
			for _, box := range []string{"Maildir", "mail/Maildir"} {
				if _, err := os.Stat(s.home(box + "/new")); err == nil {
					s.same(box, s.inMaildir(s.home(box)))
				}
			}
			var beside []string
			for _, name := range tt.left {
				beside = append(beside, s.path(name))
			}
			if !strings.Contains(name, "missing") {
				s.clean(beside...)
			}
		})
	}
}

// unmade looks, in the end, for what must not have been made.
func (s *scene) unmade(path string) {
	s.Cleanup(func() {
		if _, err := os.Lstat(path); err == nil {
			s.Errorf("%s was made", path)
		}
	})
}

func TestOnlyTheAbsentAreUnknown(t *testing.T) {
	for name, code := range map[string]int{
		"carol":                  67,
		"ali":                    67,
		"alice ":                 75,
		"../alice":               75,
		"a/b":                    75,
		"..":                     75,
		"-x":                     75,
		"alice\n":                75,
		"al\x00ice":              -1, // no argument can hold it
		strings.Repeat("x", 300): 75,
	} {
		if code < 0 {
			continue
		}
		s := newScene(t)
		s.wants(code, hello, "-d", name)
		s.clean()
	}
}

func TestAWrongCallIsNoFailureForGood(t *testing.T) {
	s := newScene(t)
	for _, args := range [][]string{{"-x"}, {"alice"}, {"-d"}, {"-d", ""}, {"--wait"}, {"--wait", "1x"}, {"-d", "alice", "-d", "bob"}, {"--help"}, {"-h"}, {"--version"}} {
		if code, log := s.deliver(hello, args...); code != 75 {
			t.Errorf("%q: %d, %s", args, code, log)
		}
	}
	s.wants(75, "", "-d", "alice")
	s.wants(75, "From a@b Sat Nov 21 18:00:00 2026\n", "-d", "alice")
	s.wants(75, hello, "-d", "alice", "-f", strings.Repeat("x", 2000))
	s.same("mbox", s.inMbox(s.inbox()))
}

func TestAVersionIsToldWhereNoMessageWaits(t *testing.T) {
	cmd := exec.Command("mailferry-deliver", "--version")
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), "mailferry-deliver ") {
		t.Errorf("%q, %v", out, err)
	}
}

func TestHelpIsGivenWhereNoMessageWaits(t *testing.T) {
	for _, option := range []string{"--help", "-h"} {
		cmd := exec.Command("mailferry-deliver", option)
		out, err := cmd.Output()
		if err != nil || string(out) != help {
			t.Errorf("%s: %q, %v", option, out, err)
		}
		cmd = exec.Command("mailferry-deliver", option)
		cmd.Stdin = strings.NewReader(hello)
		out, err = cmd.Output()
		if cmd.ProcessState.ExitCode() != 75 || string(out) != help {
			t.Errorf("%s, and a message: %q, %v", option, out, err)
		}
	}
}

func TestNobodyNeedListen(t *testing.T) {
	s := newScene(t)
	s.say("hold")
	for _, state := range []string{"mbox", "hold"} {
		s.say(state)
		cmd := s.command(hello)
		r, w, err := os.Pipe()
		s.must(err)
		s.must(r.Close())
		cmd.Stdout, cmd.Stderr = w, w
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != map[string]int{"mbox": 0, "hold": 75}[state] {
			t.Errorf("%s: %v", state, cmd.ProcessState)
		}
		w.Close()
	}
	// Closed descriptors: what is opened must not be taken for them.
	cmd := s.command(hello)
	shell := exec.Command("/bin/sh", append([]string{"-c", `exec "$@" >&- 2>&-`, "sh"}, cmd.Args...)...)
	shell.Stdin, shell.Env = cmd.Stdin, cmd.Env
	s.say("maildir")
	s.wantsRun(0, shell)
	s.same("Maildir", s.inMaildir(s.home("Maildir")), stored)
}

func (s *scene) wantsRun(code int, cmd *exec.Cmd) {
	s.Helper()
	if got, log := s.run(cmd); got != code {
		s.Errorf("exit code %d, want %d: %s", got, code, log)
	}
}

func TestATermEndsItAtOnceAndLeavesNothing(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		s := newScene(t)
		r, w, err := os.Pipe()
		s.must(err)
		cmd := s.command("")
		cmd.Stdin = r
		s.must(cmd.Start())
		_, err = w.WriteString("Subject: a slow one\n\nbody") // its writer never ends
		s.must(err)
		for left := 1; left > 0; time.Sleep(5 * time.Millisecond) { // until it has read that, and more
			left, err = unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
			s.must(err)
		}
		time.Sleep(50 * time.Millisecond)
		if _, err := os.Lstat(s.gate()); err == nil {
			t.Error("the gate is held while the message comes")
		}
		s.must(cmd.Process.Signal(signal))
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 75 {
			t.Errorf("%v: %v", signal, cmd.ProcessState)
		}
		w.Close()
		s.same("mbox", s.inMbox(s.inbox()))
		s.clean()
	}
}

// big is a message of so many MiB.
func big(mib int) string {
	line := strings.Repeat("0123456789abcdef", 4)[:63] + "\n"
	return "Subject: big\n\n" + strings.Repeat(line, mib<<20/64)
}

func TestAFullDiskLeavesNothing(t *testing.T) {
	for _, state := range []string{"mbox", "maildir"} {
		for where, dir := range map[string]func(s *scene) string{"home": func(s *scene) string { return s.home("") }, "spool": (*scene).spool} {
			s := newScene(t)
			s.inRoom(dir(s), 64<<10)
			if where == "home" {
				s.furnishHome()
			}
			const box = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none\n\n"
			s.own(s.inbox(), box)
			s.say(state)
			text := "Subject: 200 KiB\n\n" + strings.Repeat("x\n", 100<<10)
			fits := (state == "mbox") != (where == "spool")
			s.wants(map[bool]int{true: 0, false: 75}[fits], text)
			if !fits {
				if content, _ := os.ReadFile(s.inbox()); string(content) != box {
					t.Errorf("%s, full %s: the mbox holds %d bytes", state, where, len(content))
				}
				s.same("Maildir", s.inMaildir(s.home("Maildir")))
			}
			s.clean()
			fits = where == "spool" && state == "maildir" // a big one goes to the home first
			s.wants(map[bool]int{true: 0, false: 75}[fits], big(1))
			s.clean()
		}
	}
}

func (s *scene) furnishHome() {
	s.Helper()
	for _, d := range []string{"mail", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
		s.must(errors.Join(os.Mkdir(s.home(d), 0o700), os.Chown(s.home(d), uid, uid)))
	}
}

func TestAQuotaIsTheKernelsToEnforce(t *testing.T) {
	for _, state := range []string{"mbox", "maildir"} {
		t.Run(state, func(t *testing.T) {
			s := newScene(t)
			behind := s.dir
			s.dir = t.TempDir()
			q, err := quotafs.Mount(behind, s.dir)
			s.must(err)
			defer q.Close()
			s.put(s.path("users"), fmt.Sprintf("alice:%d:%d:%s\n", uid, uid, s.home("")))
			s.put(s.path("mailferry.toml"), s.config())
			s.say(state)
			q.Limit(uid, 100<<10)
			s.wants(0, hello)
			if log := s.wants(75, "Subject: 200 KiB\n\n"+strings.Repeat("x\n", 100<<10)); !strings.Contains(log, "quota") {
				t.Errorf("says %q", log)
			}
			s.wants(0, hello)
			s.wants(75, big(1))
			s.same("mail", append(s.inMbox(s.inbox()), s.inMaildir(s.home("Maildir"))...), stored, stored)
			s.clean()
		})
	}
}

// Postfix sets mailbox_size_limit as the limit of all files.
func TestAFileSizeLimitIsNoDeath(t *testing.T) {
	for _, state := range []string{"mbox", "maildir"} {
		for _, text := range []string{"Subject: 200 KiB\n\n" + strings.Repeat("x\n", 100<<10), big(1)} {
			s := newScene(t)
			s.say(state)
			cmd := s.command(text)
			shell := exec.Command("/bin/sh", append([]string{"-c", `ulimit -f 100; exec "$@"`, "sh"}, cmd.Args...)...)
			shell.Stdin, shell.Env = cmd.Stdin, cmd.Env
			if code, log := s.run(shell); code != 75 || !strings.Contains(log, "file too large") {
				t.Errorf("%d, %s", code, log)
			}
			s.same("mail", append(s.inMbox(s.inbox()), s.inMaildir(s.home("Maildir"))...))
			s.clean()
		}
	}
}

func TestTheRecipientMayDeliverToHimselfAlone(t *testing.T) {
	s := newScene(t)
	s.must(os.Chmod(s.spool(), 0o777|os.ModeSticky))
	s.put(s.path("users"), fmt.Sprintf("alice:%d:%d:%s\ncarol:20002:20002:%s\n", uid, uid, s.home(""), s.path("carol")))
	program, err := os.Executable()
	s.must(err)
	content, err := os.ReadFile(program)
	s.must(err)
	s.must(os.WriteFile(s.path("mailferry-deliver"), content, 0o755))
	as := func(user string) *exec.Cmd {
		cmd := s.command(hello, "-d", user, "-f", "bob@example.org")
		cmd.Path = s.path("mailferry-deliver")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd
	}
	for _, state := range []string{"mbox", "maildir"} {
		s.say(state)
		s.wantsRun(0, as("alice"))
	}
	s.same("mail", append(s.inMbox(s.inbox()), s.inMaildir(s.home("Maildir"))...), stored, stored)
	s.wantsRun(75, as("carol"))
	s.wantsRun(67, as("nobody-of-that-name"))
	s.clean()
}
