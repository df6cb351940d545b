package openfiles

import (
	"bufio"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mailferry/internal/safefs"

	"golang.org/x/sys/unix"
)

// nobody is who runs the processes of these tests when they run as root.
const nobody = 65534

// mailbox makes a file of nobody's in dir, and returns its path.
func mailbox(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "mbox")
	if err := os.WriteFile(path, []byte("From a@b Mon Jan  2 03:04:05 2023\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// elsewhere are directories on filesystems of several kinds.
func elsewhere(t *testing.T) []string {
	t.Helper()
	memory, err := os.MkdirTemp("/dev/shm", "openfiles")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	return []string{t.TempDir(), memory}
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// peer starts a shell that opens path as redirections say, and waits until it
// has. It is killed at the latest when the test ends.
func peer(t *testing.T, path, redirections string) *exec.Cmd {
	t.Helper()
	return peerCalled(t, "/bin/sh", path, redirections)
}

// peerCalled is peer for a shell of another name.
func peerCalled(t *testing.T, shell, path, redirections string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(shell, "-c", "exec "+redirections+"; echo ready; read x")
	if _, err := cmd.StdinPipe(); err != nil { // which never ends
		t.Fatal(err)
	}
	cmd.Dir = filepath.Dir(path)
	if os.Geteuid() == 0 {
		// The directories above as far as they are the test's own.
		for dir := cmd.Dir; dir != os.TempDir() && dir != "/dev/shm"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestInUseSeesEveryOtherDescriptor(t *testing.T) {
	for _, dir := range elsewhere(t) {
		for _, mode := range []struct {
			name  string
			flags int
		}{{"read", os.O_RDONLY}, {"write", os.O_WRONLY}, {"both", os.O_RDWR}} {
			path := mailbox(t, dir)
			f := open(t, path, mode.flags)
			is := func(when string, want bool) {
				t.Helper()
				if used, err := InUse(f); used != want || err != nil {
					t.Errorf("%s: our descriptor to %s, %s: %v, %v", dir, mode.name, when, used, err)
				}
			}
			is("alone", false)
			for _, how := range []string{"3<mbox", "3>>mbox", "3<>mbox", "3<mbox 3<&-", "3<mbox 4<&3 3<&-"} {
				cmd := peer(t, path, how)
				is("a process with "+how, how != "3<mbox 3<&-")
				end(cmd)
				is("after a process with "+how, false)
			}
			second := open(t, path, os.O_RDONLY)
			is("another descriptor of ours", true)
			second.Close()
			is("which was closed", false)
			copied, err := unix.Dup(int(f.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			is("a copy of it", false)
			unix.Close(copied)
			is("mapped and closed", mapped(t, path, func() { is("while mapped", true) }))
			f.Close()
		}
	}
}

// mapped runs f while path is mapped and not open, and returns false.
func mapped(t *testing.T, path string, f func()) bool {
	t.Helper()
	opened := open(t, path, os.O_RDONLY)
	data, err := unix.Mmap(int(opened.Fd()), 0, 1, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	opened.Close()
	f()
	if err := unix.Munmap(data); err != nil {
		t.Fatal(err)
	}
	return false
}

// TestInUseTroublesNobody asks all the time while another process opens the
// file again and again: its opens wait, and the signals do nothing.
func TestInUseTroublesNobody(t *testing.T) {
	path := mailbox(t, t.TempDir())
	f := open(t, path, os.O_RDONLY)
	cmd := exec.Command("/bin/sh", "-c", `i=0; while [ $i -lt 5000 ]; do echo $i >>mbox || exit 1; read -r x <mbox || exit 1; i=$((i+1)); done`)
	cmd.Dir = filepath.Dir(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	free, used := 0, 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the process: %v", err)
			}
			if free == 0 || used == 0 {
				t.Errorf("%d times free, %d times used", free, used)
			}
			data, err := os.ReadFile(path)
			if err != nil || strings.Count(string(data), "\n") != 5001 || !strings.HasSuffix(string(data), "\n4999\n") {
				t.Errorf("%d bytes, %v", len(data), err)
			}
			return
		default:
		}
		switch is, err := InUse(f); {
		case err != nil:
			t.Fatal(err)
		case is:
			used++
		default:
			free++
		}
	}
}

func TestInUseOfAFileWithoutLeasesIsUnknown(t *testing.T) {
	if used, err := InUse(open(t, "/proc/self/status", os.O_RDONLY)); used || !errors.Is(err, ErrUnknown) {
		t.Errorf("%v, %v", used, err)
	}
	if _, err := InUse(open(t, t.TempDir(), os.O_RDONLY)); !errors.Is(err, ErrUnknown) {
		t.Errorf("directory: %v", err)
	}
}

func TestInUseWorksAsTheOwnerAlone(t *testing.T) {
	f := open(t, mailbox(t, t.TempDir()), os.O_RDWR)
	ask := func(uid int) (used bool, err error) {
		err = safefs.AsUser(safefs.Identity{UID: uid, GID: nobody}, func() (err error) {
			used, err = InUse(f)
			return err
		})
		return used, err
	}
	owner := nobody
	if uid := os.Geteuid(); uid != 0 {
		owner = uid
	}
	if used, err := ask(owner); used || err != nil {
		t.Errorf("owner: %v, %v", used, err)
	}
	if _, err := ask(owner + 1); err == nil {
		t.Error("another user: no error")
	}
}

func TestInUseOfAClosedFile(t *testing.T) {
	f := open(t, mailbox(t, t.TempDir()), os.O_RDWR)
	f.Close()
	if used, err := InUse(f); used || err == nil {
		t.Errorf("%v, %v", used, err)
	}
}

func identityOf(t *testing.T, path string) ID {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := info.Sys().(*syscall.Stat_t)
	return ID{uint64(s.Dev), s.Ino}
}

// holders asks for holders. Besides those of these tests there may be processes
// that even root may not look at.
func holders(t *testing.T, ids ...ID) map[ID][]Holder {
	t.Helper()
	found, err := Holders(ids...)
	if err != nil && !errors.Is(err, ErrPartial) {
		t.Fatal(err)
	}
	return found
}

func TestHoldersAreNamed(t *testing.T) {
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
	}
	for _, dir := range elsewhere(t) {
		path := mailbox(t, dir)
		other := filepath.Join(dir, "other")
		for name, perm := range map[string]os.FileMode{other: 0o644, filepath.Join(dir, "free"): 0o666} {
			if err := os.WriteFile(name, nil, perm); err != nil {
				t.Fatal(err)
			}
		}
		one, two, free := identityOf(t, path), identityOf(t, other), identityOf(t, filepath.Join(dir, "free"))
		open(t, path, os.O_RDWR) // ours does not count
		reader := peer(t, path, "3<mbox")
		writer := peer(t, path, "3<mbox 4>>mbox 5<mbox 6<other")
		want := map[ID][]Holder{
			one: {{reader.Process.Pid, "sh", uid, false}, {writer.Process.Pid, "sh", uid, true}},
			two: {{writer.Process.Pid, "sh", uid, false}},
		}
		slices.SortFunc(want[one], func(a, b Holder) int { return a.PID - b.PID })
		if got := holders(t, one, two, free); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %v, want %v", dir, got, want)
		}
		end(reader)
		if got := holders(t, one)[one]; !slices.Equal(got, []Holder{{writer.Process.Pid, "sh", uid, true}}) {
			t.Errorf("%s: after one ended: %v", dir, got)
		}
		end(writer)
		if got := holders(t, one, two); len(got) != 0 {
			t.Errorf("%s: after both ended: %v", dir, got)
		}
	}
}

func TestHoldersOfARemovedFileAreFound(t *testing.T) {
	path := mailbox(t, t.TempDir())
	id := identityOf(t, path)
	cmd := peer(t, path, "3<>mbox")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := holders(t, id)[id]; len(got) != 1 || got[0].PID != cmd.Process.Pid || !got[0].Write {
		t.Errorf("%v", got)
	}
}

func TestHoldersWhoseNameIsOddAreToldAsTheyAre(t *testing.T) {
	path := mailbox(t, t.TempDir())
	odd := filepath.Join(filepath.Dir(path), "a b\n) Z")
	if err := os.Symlink("/bin/sh", odd); err != nil {
		t.Fatal(err)
	}
	peerCalled(t, odd, path, "3<mbox")
	id := identityOf(t, path)
	if got := holders(t, id)[id]; len(got) != 1 || got[0].Command != "a b\n) Z" {
		t.Errorf("%+v", got)
	}
}

func TestHoldersSeenByAUserArePartial(t *testing.T) {
	uid := os.Geteuid()
	if uid == 0 {
		uid = nobody
	}
	path := mailbox(t, t.TempDir())
	id, cmd := identityOf(t, path), peer(t, path, "3<mbox")
	err := safefs.AsUser(safefs.Identity{UID: uid, GID: nobody}, func() error {
		found, err := Holders(id)
		if list := found[id]; len(list) != 1 || list[0].PID != cmd.Process.Pid {
			t.Errorf("%v", found)
		}
		return err
	})
	if !errors.Is(err, ErrPartial) {
		t.Errorf("%v", err)
	}
}

// TestProcessesThatEndMeanwhileAreNoErrors looks while processes come and go.
func TestProcessesThatEndMeanwhileAreNoErrors(t *testing.T) {
	path := mailbox(t, t.TempDir())
	id := identityOf(t, path)
	cmd := exec.Command("/bin/sh", "-c", `while :; do /bin/true 3<mbox 4<mbox & /bin/true 5<mbox; done`)
	cmd.Dir = filepath.Dir(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	seen := 0
	for range 200 {
		seen += len(holders(t, id)[id])
	}
	if seen == 0 {
		t.Error("not one of them was ever seen")
	}
}

func BenchmarkInUse(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "mbox"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := InUse(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHolders(b *testing.B) {
	for b.Loop() {
		if _, err := Holders(ID{1, 2}); err != nil && !errors.Is(err, ErrPartial) {
			b.Fatal(err)
		}
	}
}
