//go:build linux && amd64

package stepper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programs are what the tests step through: this binary, run again with the name
// of one in the environment, in the directory that is watched.
var programs = map[string]func() error{
	"everything": everything,
	"threads":    threads,
	"identity":   identity,
	"writer":     func() error { return write("file", "0123456789") },
	"sleeper":    func() error { time.Sleep(time.Hour); return nil },
	"appender":   appender,
}

const programVariable = "STEPPER_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if do := programs[os.Getenv(programVariable)]; do != nil {
		if err := do(); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write makes a file by calls that the runtime does not repeat.
func write(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, []byte(text))
	fmt.Printf("wrote %d\n", n)
	return errors.Join(err, unix.Close(fd))
}

// everything makes calls of each kind, and some that change nothing here.
func everything() error {
	dir, err := os.Open(".")
	if err != nil {
		return err
	}
	d := int(dir.Fd())
	f, err := os.Create("a")
	if err != nil {
		return err
	}
	b, err := unix.Openat2(d, "b", &unix.OpenHow{Flags: unix.O_RDWR | unix.O_CREAT, Mode: 0o600})
	if err != nil {
		return err
	}
	outside, err := os.CreateTemp(os.TempDir(), "")
	if err != nil {
		return err
	}
	_, written := f.WriteString("text")
	_, elsewhere := outside.WriteString("text")
	_, at := unix.Pwrite(b, []byte("xy"), 0)
	_, vectors := unix.Writev(b, [][]byte{[]byte("x"), []byte("y")})
	_, read := os.ReadFile("a")
	return errors.Join(written, elsewhere, at, vectors, read,
		f.Truncate(2), f.Chmod(0o640), f.Chown(0, 0), f.Sync(), unix.Fdatasync(b), unix.Syncfs(b), unix.Fallocate(b, 0, 0, 9),
		unix.Mkdirat(d, "dir", 0o700), unix.Renameat2(d, "a", d, "dir/a", unix.RENAME_NOREPLACE),
		unix.Linkat(d, "dir/a", d, "c", 0), unix.Symlinkat("to", d, "link"),
		unix.UtimesNanoAt(d, "b", []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0), unix.Fchmodat(d, "b", 0o640, 0),
		unix.Rename(filepath.Join(outside.Name()), "d"), unix.Unlinkat(d, "c", 0), unix.Rmdir("nothing there"),
		os.Remove("link"), f.Close(), dir.Close())
}

// threads make files, each on a thread of its own.
func threads() error {
	var wait sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wait.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this
			for n := range 10 {
				errs[i] = errors.Join(errs[i], write(fmt.Sprintf("%d-%d", i, n), "text"))
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// identity makes a file on a thread that has become somebody else.
func identity() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, 20001, keep); errno != 0 {
			done <- errno
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, 20001, keep); errno != 0 {
			done <- errno
			return
		}
		done <- write("his", "text")
	}()
	return <-done
}

// appender writes until it can't any more.
func appender() error {
	for n := range 5 {
		if err := write(fmt.Sprint(n), "text"); err != nil {
			fmt.Println(err)
		}
	}
	return nil
}

func program(t *testing.T, name string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, out := exec.Command(self), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env = append(os.Environ(), programVariable+"="+name)
	return cmd, out
}

// step runs a program, and returns what it printed.
func step(t *testing.T, name string, o Options) (*Result, string, string) {
	t.Helper()
	cmd, out := program(t, name)
	o.Below = cmd.Dir
	r, err := Run(t.Context(), cmd, o)
	if err != nil {
		t.Fatal(err, out)
	}
	return r, cmd.Dir, out.String()
}

func spelled(calls []Call) (list []string) {
	for _, c := range calls {
		list = append(list, c.String())
	}
	return list
}

func TestCallsAreCountedInOrder(t *testing.T) {
	r, _, out := step(t, "everything", Options{})
	if r.Exit.ExitStatus() != 3 || out != "no such file or directory\n" { // rmdir's
		t.Errorf("%v: %s", r.Exit, out)
	}
	got := spelled(r.Calls)
	for i, s := range got {
		if strings.HasPrefix(s, "rename") && strings.HasSuffix(s, " -> d") { // the name is random
			got[i] = "rename from outside"
		}
	}
	want := []string{
		"openat a", "openat2 b", "write a (4)", "pwrite64 b (2)", "writev b (2)", "ftruncate a", "fchmod a", "fchown a", "fsync a",
		"fdatasync b", "syncfs b", "fallocate b", "mkdirat dir", "renameat2 a -> dir/a", "linkat dir/a -> c", "symlinkat link",
		"utimensat b", "fchmodat b", "rename from outside", "unlinkat c", "unlinkat nothing there", "unlinkat link",
	}
	if !slices.Equal(got, want) {
		t.Errorf("counted %q\nwant %q", got, want)
	}
}

func TestEveryThreadIsCounted(t *testing.T) {
	if r, _, _ := step(t, "threads", Options{}); len(r.Calls) != 80 || !r.Exit.Exited() {
		t.Errorf("%d calls, want 80; %v", len(r.Calls), r.Exit)
	}
	for at := 1; at <= 81; at += 4 {
		r, dir, _ := step(t, "threads", Options{At: at, Do: Kill})
		// Every call but the last was executed, unless its thread had not come to it.
		made, created := entries(t, dir), 0
		for _, c := range r.Calls[:min(at, 80)-1] {
			if c.Name == "openat" {
				created++
			}
		}
		if at == 81 {
			if r.Reached || !r.Exit.Exited() || len(made) != 40 {
				t.Errorf("after its end: %+v, %d files", r.Exit, len(made))
			}
			continue
		}
		if !r.Reached || r.Exit.Signal() != syscall.SIGKILL || len(made) > created || len(made) < created-3 {
			t.Errorf("killed at %d: %v, %d files of %d", at, r.Exit, len(made), created)
		}
		if last := r.Calls[at-1]; last.Name == "openat" && slices.Contains(made, last.Paths[0]) {
			t.Errorf("killed at %d: %s was executed", at, last)
		}
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestAThreadOfAnotherIdentityIsCounted(t *testing.T) {
	r, dir, out := step(t, "identity", Options{})
	if got := spelled(r.Calls); !slices.Equal(got, []string{"openat his", "write his (4)"}) {
		t.Errorf("%q, %s", got, out)
	}
	if info, err := os.Stat(filepath.Join(dir, "his")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 20001 {
		t.Errorf("%+v, %v", info, err)
	}
	if r, dir, _ := step(t, "identity", Options{At: 1, Do: Kill}); !r.Reached || len(entries(t, dir)) > 0 {
		t.Errorf("%v, %q", r.Exit, entries(t, dir))
	}
}

func TestWhatIsDoneToACall(t *testing.T) {
	for _, test := range []struct {
		name    string
		o       Options
		reached bool
		out     string
		file    string
	}{
		{"nothing", Options{}, false, "wrote 10\n", "0123456789"},
		{"nothing, for it is never reached", Options{At: 3, Do: Kill}, false, "wrote 10\n", "0123456789"},
		{"the making fails", Options{At: 1, Do: Fail(unix.EDQUOT)}, true, "disk quota exceeded\n", ""},
		{"the write fails", Options{At: 2, Do: Fail(unix.ENOSPC)}, true, "wrote -1\nno space left on device\n", ""},
		{"the write is short", Options{At: 2, Do: Short}, true, "wrote 5\n", "01234"},
		{"the write is none", Options{At: 2, Do: Lie}, true, "wrote 10\n", ""},
		{"the making can't be short", Options{At: 1, Do: Short}, false, "wrote 10\n", "0123456789"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, dir, out := step(t, "writer", test.o)
			file, _ := os.ReadFile(filepath.Join(dir, "file"))
			if r.Reached != test.reached || out != test.out || string(file) != test.file {
				t.Errorf("reached %t, printed %q, wrote %q", r.Reached, out, file)
			}
		})
	}
}

func TestLaterCallsFailToo(t *testing.T) {
	full := func(c Call) bool { return c.Name == "write" }
	r, dir, out := step(t, "appender", Options{At: 4, Do: Fail(unix.ENOSPC), Also: full})
	if strings.Count(out, "wrote 4\n") != 1 || strings.Count(out, "no space left on device\n") != 4 || !r.Reached {
		t.Errorf("printed %q", out)
	}
	if got := entries(t, dir); !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("made %q", got)
	}
}

func TestTheWatcherSeesFilesAtTheMoment(t *testing.T) {
	cmd, _ := program(t, "appender")
	var seen []int
	_, err := Run(t.Context(), cmd, Options{Below: cmd.Dir, Watch: func(c Call) {
		if c.Name == "openat" {
			seen = append(seen, len(entries(t, cmd.Dir)))
		}
	}})
	if err != nil || !reflect.DeepEqual(seen, []int{0, 1, 2, 3, 4}) {
		t.Errorf("%v, %v", seen, err)
	}
}

func TestAProgramThatHangsIsKilled(t *testing.T) {
	cmd, _ := program(t, "sleeper")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r, err := Run(ctx, cmd, Options{Below: cmd.Dir})
	if !errors.Is(err, context.DeadlineExceeded) || r.Exit.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", err, r)
	}
}

func TestWhatCannotRun(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, cmd := range map[string]*exec.Cmd{"no file": exec.Command(filepath.Join(dir, "none")), "no program": exec.Command(text)} {
		cmd.Stdout = io.Discard
		if r, err := Run(t.Context(), cmd, Options{Below: dir}); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if _, err := Run(t.Context(), exec.Command("true"), Options{Below: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing to look at: %v", err)
	}
}
