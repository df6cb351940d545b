package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/mailgen"
	"mailferry/maildir"
)

// The big mailbox takes long enough to stop the process that converts it in
// the middle.
const bigMessages = 1500

var bigMailbox = sync.OnceValues(func() ([]byte, error) {
	var b bytes.Buffer
	_, err := mailgen.Fixed(&b, 7, bigMessages, 500)
	return b.Bytes(), err
})

// converting is mailferry convert at work on the big mailbox.
type converting struct {
	*exec.Cmd
	dir            string
	stdout, stderr bytes.Buffer
}

// convertBig begins to convert, and stops the process in the middle, to be
// continued by the test.
func convertBig(t *testing.T) *converting {
	t.Helper()
	r := newConverting(t)
	r.begin(t, &r.stderr)
	return r
}

func newConverting(t *testing.T) *converting {
	t.Helper()
	box, err := bigMailbox()
	if err != nil {
		t.Fatal(err)
	}
	r := &converting{dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(r.dir, "box"), box, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// begin tries again if the last message was written before the run could be
// stopped: the test has to share the processors with it.
func (r *converting) begin(t *testing.T, stderr io.Writer) {
	t.Helper()
	for range 5 {
		r.start(t, stderr)
		if n := r.staged(); n > 0 && n < bigMessages {
			return
		}
		r.signal(t, syscall.SIGCONT)
		r.Wait()
		if err := os.RemoveAll(filepath.Join(r.dir, "Maildir")); err != nil {
			t.Fatal(err)
		}
		r.stdout.Reset()
	}
	t.Fatal("no run was stopped in the middle")
}

// start returns once the staging Maildir holds messages, or is published, and
// the run is stopped.
func (r *converting) start(t *testing.T, stderr io.Writer) {
	t.Helper()
	r.Cmd = exec.Command("mailferry", "convert", "box", "Maildir")
	r.Dir = r.dir
	r.Stdout, r.Stderr = &r.stdout, stderr
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Process.Kill(); r.Wait() })
	for deadline := time.Now().Add(20 * time.Second); r.staged() == 0 && !r.published(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no message in a staging directory")
		}
	}
	r.signal(t, syscall.SIGSTOP)
}

// staged counts the messages in the staging directory.
func (r *converting) staged() int {
	list, _ := filepath.Glob(filepath.Join(r.dir, ".Maildir"+maildir.StagingMark+"*", "cur", "*")) // a good pattern
	return len(list)
}

func (r *converting) published() bool {
	_, err := os.Lstat(filepath.Join(r.dir, "Maildir"))
	return !errors.Is(err, fs.ErrNotExist)
}

func (r *converting) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// left lists what is in the directory beside the mailbox.
func (r *converting) left(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "box" {
			names = append(names, e.Name())
		}
	}
	return names
}

// mustSucceed converts and verifies what a run left behind.
func (r *converting) mustSucceed(t *testing.T) {
	t.Helper()
	for _, verb := range []string{"convert", "verify"} {
		cmd := exec.Command("mailferry", verb, "box", "Maildir")
		cmd.Dir = r.dir
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), fmt.Sprintf("1 mailbox, %d messages, ", bigMessages)) {
			t.Errorf("%s: %v\n%s", verb, err, out)
		}
	}
}

func TestInterruptsLeaveNothing(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			r := convertBig(t)
			r.signal(t, s)
			r.signal(t, syscall.SIGCONT)
			if err := r.Wait(); r.ProcessState.ExitCode() != exitInterrupted {
				t.Errorf("%v, want exit code %d", err, exitInterrupted)
			}
			if left := r.left(t); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if r.stdout.Len() > 0 || !strings.HasPrefix(r.stderr.String(), "mailferry: interrupted: ") || strings.Count(r.stderr.String(), "\n") != 1 {
				t.Errorf("told %q, %q", &r.stdout, &r.stderr)
			}
			if s == syscall.SIGINT {
				r.mustSucceed(t)
			}
		})
	}
}

func TestAKillLeavesOnlyStaging(t *testing.T) {
	r := convertBig(t)
	r.signal(t, syscall.SIGKILL)
	r.Wait()
	left := r.left(t)
	if len(left) != 1 || !strings.HasPrefix(left[0], ".Maildir"+maildir.StagingMark) {
		t.Errorf("left: %q", left)
	}
	r.mustSucceed(t)
	if again := r.left(t); len(again) != 2 || again[0] != left[0] || again[1] != "Maildir" {
		t.Errorf("after another run: %q", again)
	}
}

func TestAGrowingMailboxIsBusy(t *testing.T) {
	r := convertBig(t)
	f, err := os.OpenFile(filepath.Join(r.dir, "box"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("From a@example.org Mon Jan  2 03:04:05 2023\nSubject: new\n\nmail\n\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	r.signal(t, syscall.SIGCONT)
	if err := r.Wait(); r.ProcessState.ExitCode() != exitBusy {
		t.Errorf("%v, want exit code %d", err, exitBusy)
	}
	if want := "mailferry: box changed while it was read; run it again when the mailbox is at rest\n"; r.stderr.String() != want {
		t.Errorf("told %q, want %q", &r.stderr, want)
	}
	if left := r.left(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Without a terminal nothing is told that was not asked for.
func TestSIGUSR1TellsHowFarItIs(t *testing.T) {
	r := convertBig(t)
	r.signal(t, syscall.SIGUSR1)
	r.signal(t, syscall.SIGCONT)
	if err := r.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &r.stderr)
	}
	line := regexp.MustCompile(`^convert: \d+ messages, \d+(\.\d)? k?M?B of \d+(\.\d)? [kM]?B, \d+ MB/s\n$`)
	if !line.MatchString(r.stderr.String()) {
		t.Errorf("told %q", &r.stderr)
	}
	if strings.Count(r.stdout.String(), "\n") != 2 {
		t.Errorf("printed %q", &r.stdout)
	}
}

// It may come at any time, before the first message and after the last.
func TestSIGUSR1KillsNoRun(t *testing.T) {
	dir := t.TempDir()
	box := filepath.Join(dir, "box")
	if err := os.WriteFile(box, []byte("From a@example.org Mon Jan  2 03:04:05 2023\n\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("mailferry", "convert", box, filepath.Join(dir, "Maildir"))
	ready, told, err := os.Pipe() // full: the summary can't be written until it is read
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	fill(t, told)
	cmd.Stdout = told
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told.Close()
	for {
		if _, err := os.Stat(filepath.Join(dir, "Maildir")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // it is past its progress display
	cmd.Process.Signal(syscall.SIGUSR1)
	go io.Copy(io.Discard, ready)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// fill writes to a pipe until there is no room.
func fill(t *testing.T, pipe *os.File) {
	t.Helper()
	size, err := unix.FcntlInt(pipe.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pipe.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
}

// terminal opens a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 100}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "ptmx"), slave
}

func TestABarIsDrawnOnTerminalsOnly(t *testing.T) {
	r := newConverting(t)
	master, slave := terminal(t)
	r.begin(t, slave)
	slave.Close()
	time.Sleep(300 * time.Millisecond) // for the next tick to be due
	r.signal(t, syscall.SIGCONT)
	shown, _ := io.ReadAll(master) // ends with EIO when the other end closes
	if err := r.Wait(); err != nil {
		t.Errorf("%v\n%s", err, shown)
	}
	bar := regexp.MustCompile(`\rconvert: \d+ messages +\d+% \|[^|]*\|`)
	if !bar.Match(shown) {
		t.Errorf("shown: %q", shown)
	}
	if strings.ContainsAny(r.stdout.String(), "\r\x1b\b") || strings.Count(r.stdout.String(), "\n") != 2 {
		t.Errorf("printed %q", &r.stdout)
	}
	// What stays on the line is nothing.
	last := shown[bytes.LastIndexByte(bytes.TrimRight(shown, "\r"), '\r')+1:]
	if len(bytes.TrimSpace(last)) > 0 {
		t.Errorf("left on the line: %q", last)
	}
}
