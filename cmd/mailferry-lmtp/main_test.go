package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// site is a directory short enough for sockets, with a configuration.
func site(t *testing.T) (dir string, args []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lmtp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "mailferry.toml"), []byte("state = \""+dir+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, []string{"--config", filepath.Join(dir, "mailferry.toml"), "--lmtp", filepath.Join(dir, "socket")}
}

// start runs the server until the function that it returns is called.
func start(t *testing.T, dir string, args []string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, args, os.Stderr) }()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(dir, "socket"))
		if err == nil {
			conn.Close()
			return func() error { cancel(); return <-ended }
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal(err)
		}
	}
}

func TestASocketThatNobodyAnswersIsTakenOver(t *testing.T) {
	dir, args := site(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as after a kill
	l.Close()
	stop := start(t, dir, args)
	info, err := os.Stat(filepath.Join(dir, "socket"))
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info, err)
	}
	if err := run(t.Context(), args, os.Stderr); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("a second server: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "socket")); err == nil {
		t.Error("the socket is left")
	}
}

// Of several servers that start where one was killed, one serves, and its socket
// is the one that is there.
func TestServersThatStartAtOnceLeaveOneServing(t *testing.T) {
	for range 20 {
		dir, _ := site(t)
		path := filepath.Join(dir, "socket")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		serving := make(chan net.Listener, 8)
		var all sync.WaitGroup
		for range cap(serving) {
			all.Go(func() {
				if l, err := listen(path); err == nil {
					serving <- l
				}
			})
		}
		all.Wait()
		if len(serving) != 1 {
			t.Errorf("%d serve", len(serving))
		}
		if conn, err := net.Dial("unix", path); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
		for len(serving) > 0 {
			(<-serving).Close()
		}
		if left, err := os.ReadDir(dir); len(left) != 1 || err != nil { // the configuration
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// Others may be able to open the directory, and to lock what they can open.
func TestALockOnTheDirectoryKeepsNoServerFromStarting(t *testing.T) {
	dir, args := site(t)
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_SH); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir, args)(); err != nil {
		t.Error(err)
	}
}

// What lies where the lock is made is neither followed nor waited for.
func TestTheLockIsAFileOfItsOwn(t *testing.T) {
	for name, obstacle := range map[string]func(path string) error{
		"a link":              func(path string) error { return os.Symlink(path+".target", path) },
		"a pipe":              func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":         func(path string) error { return os.Mkdir(path, 0o700) },
		"open to others":      func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o644)) },
		"another user's file": func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, 65534, -1)) },
	} {
		dir, _ := site(t)
		path := filepath.Join(dir, "socket")
		if err := obstacle(path + ".lock"); err != nil {
			t.Fatal(err)
		}
		if l, err := listen(path); err == nil {
			l.Close()
			t.Errorf("%s is taken for the lock", name)
		} else if !strings.Contains(err.Error(), path+".lock") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path + ".lock.target"); err == nil {
			t.Errorf("%s is followed", name)
		}
	}
	dir, args := site(t)
	if err := os.WriteFile(filepath.Join(dir, "socket.lock"), nil, 0o600); err != nil { // of a server that was killed as it started
		t.Fatal(err)
	}
	stop := start(t, dir, args)
	if _, err := os.Lstat(filepath.Join(dir, "socket.lock")); err == nil {
		t.Error("the lock is left") // Postfix complains of a file of root's in its queue
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// main runs this program instead of the tests where a test asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("MAILFERRY_LMTP_TEST") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A --lmtp in what an MTA calls for a message makes this program the agent.
func TestWhoCallsItForAMessageKeepsIt(t *testing.T) {
	dir, args := site(t)
	stop := start(t, dir, args)
	for _, call := range [][]string{args, {"--lmtp"}, {"--lmtp", filepath.Join(dir, "socket"), "alice"}, {"-h"}, {"--help"}, {"--unknown"}} {
		cmd := exec.Command(os.Args[0], call...)
		cmd.Env, cmd.Stdin = append(os.Environ(), "MAILFERRY_LMTP_TEST=1"), strings.NewReader("mail")
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 75 {
			t.Errorf("%q: %v, %s", call, err, out)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHelpIsGivenWhereNoMessageWaits(t *testing.T) {
	for _, option := range []string{"-h", "--help"} {
		cmd := exec.Command(os.Args[0], option)
		cmd.Env = append(os.Environ(), "MAILFERRY_LMTP_TEST=1")
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), "usage: mailferry-deliver --lmtp SOCKET ") {
			t.Errorf("%s: %q, %v", option, out, err)
		}
		for _, name := range []string{"--config", "--wait", "--lock-wait", "--extension-folders", "--recipient-delimiter"} {
			if !strings.Contains(string(out), "\n  "+name) {
				t.Errorf("%s is not explained: %s", name, out)
			}
		}
	}
}

func TestNoOtherFileIsRemoved(t *testing.T) {
	dir, args := site(t)
	path := filepath.Join(dir, "socket")
	if err := os.WriteFile(path, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), args, os.Stderr); err == nil {
		t.Error("it serves")
	}
	if text, err := os.ReadFile(path); string(text) != "mail" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestAWrongCallSaysWhatIsWrong(t *testing.T) {
	_, args := site(t)
	for call, want := range map[string]string{
		"":                         "usage: ",
		"--lmtp":                   "needs an argument",
		"--lmtp x alice":           "usage: ",
		"--lmtp x -d alice":        "not defined",
		"--lmtp x --wait 1h":       "would not wait",
		"--lmtp x --lock-wait -1s": "would not wait",
		"--lmtp x --config /none":  "no such file",
		"--lmtp /none/x " + args[0] + "=" + args[1]: "no such file",
	} {
		var log bytes.Buffer
		if err := run(t.Context(), strings.Fields(call), &log); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", call, err, want)
		}
	}
}
