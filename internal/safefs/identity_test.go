package safefs

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Users without an entry in the user database, each with a group of his own.
var (
	alice = Identity{UID: 40001, GID: 40001}
	bob   = Identity{UID: 40002, GID: 40002}
)

const team = 40010 // a group

// asRoot reports whether the test can take the identity of users.
func asRoot(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can work as somebody else")
	}
	return os.Geteuid() == 0
}

// place is a temporary directory of root's that everybody can search.
func place(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	return dir
}

// give makes a directory of its own for each user and returns the path.
func give(t *testing.T, dir, name string, uid, gid int, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	must(t, os.Mkdir(path, 0o700), os.Chown(path, uid, gid), os.Chmod(path, mode))
	return path
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// credentials reads what the kernel knows of a thread ("thread-self", or
// "self/task/TID").
func credentials(task string) (map[string]string, error) {
	b, err := os.ReadFile("/proc/" + task + "/status")
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	return status, nil
}

func TestWorkHasTheUsersIdentityAndNoPower(t *testing.T) {
	if !asRoot(t) {
		return
	}
	var status map[string]string
	id := Identity{UID: 40001, GID: 40003, Groups: []int{team, 40011}, Spool: 8}
	must(t, AsUser(id, func() (err error) {
		status, err = credentials("thread-self")
		return err
	}))
	for key, want := range map[string]string{
		"Uid":    "0 40001 0 40001", // real, effective, saved, of the filesystem
		"Gid":    "0 40003 8 40003",
		"Groups": "40010 40011",
		"CapEff": "0000000000000000",
	} {
		if status[key] != want {
			t.Errorf("%s: %q, want %q", key, status[key], want)
		}
	}
	if os.Geteuid() != 0 || os.Getegid() != 0 {
		t.Errorf("the caller is uid %d, gid %d afterwards", os.Geteuid(), os.Getegid())
	}
}

func TestPermissionsAreTheUsers(t *testing.T) {
	if !asRoot(t) {
		return
	}
	dir := place(t)
	home := give(t, dir, "alice", alice.UID, alice.GID, 0o700)
	give(t, dir, "bob", bob.UID, bob.GID, 0o700)
	give(t, dir, "team", 0, team, 0o770)
	give(t, dir, "rootgroup", 0, 0, 0o770) // root's own groups must not remain
	for _, tt := range []struct {
		where  string
		groups []int
		want   error
	}{
		{"alice", nil, nil},
		{".", nil, unix.EACCES},
		{"bob", nil, unix.EACCES},
		{"team", nil, unix.EACCES},
		{"team", []int{team}, nil},
		{"rootgroup", []int{team}, unix.EACCES},
	} {
		id := Identity{UID: alice.UID, GID: alice.GID, Groups: tt.groups}
		err := AsUser(id, func() error {
			return os.WriteFile(filepath.Join(dir, tt.where, "new"), nil, 0o600)
		})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s with groups %v: %v, want %v", tt.where, tt.groups, err, tt.want)
		}
		os.Remove(filepath.Join(dir, tt.where, "new"))
	}
	secret := filepath.Join(home, "unreadable")
	must(t, os.WriteFile(secret, nil, 0), os.Chown(secret, alice.UID, alice.GID))
	if err := AsUser(alice, func() error { _, err := os.ReadFile(secret); return err }); !errors.Is(err, unix.EACCES) {
		t.Errorf("a file of mode 0: %v", err)
	}
}

func TestFilesAreBornTheUsers(t *testing.T) {
	if !asRoot(t) {
		return
	}
	home := give(t, place(t), "alice", alice.UID, alice.GID, 0o700)
	old := unix.Umask(0)
	defer unix.Umask(old)
	must(t, AsUser(alice, func() error {
		d, err := OpenFor(home, alice.UID)
		if err != nil {
			return err
		}
		defer d.Close()
		sub, err := d.Mkdir("sub", 0o700)
		if err != nil {
			return err
		}
		defer sub.Close()
		f, err := sub.Create("file", 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}))
	for path, mode := range map[string]fs.FileMode{"sub": fs.ModeDir | 0o700, "sub/file": 0o600} {
		info, err := os.Lstat(filepath.Join(home, path))
		must(t, err)
		st := info.Sys().(*syscall.Stat_t)
		if int(st.Uid) != alice.UID || int(st.Gid) != alice.GID || info.Mode() != mode {
			t.Errorf("%s: %v of %d:%d", path, info.Mode(), st.Uid, st.Gid)
		}
	}
}

func TestNumbersThatAreNoUsersAreRefused(t *testing.T) {
	for _, id := range []Identity{
		{UID: 0, GID: 1}, {UID: 1, GID: 0}, {}, {UID: -1, GID: 1}, {UID: 1, GID: -1},
		{UID: math.MaxUint32, GID: 1},     // all ones: keep root's
		{UID: math.MaxUint32 + 1, GID: 1}, // 0 in 32 bits
		{UID: 1, GID: math.MaxUint32},
		{UID: 1, GID: math.MaxUint32 + 1},
		{UID: 1, GID: 1, Groups: []int{1, math.MaxUint32 + 1}},
		{UID: 1, GID: 1, Groups: []int{-1}},
		{UID: 1, GID: 1, Spool: -1},
	} {
		err := AsUser(id, func() error { t.Errorf("%+v: work runs as uid %d", id, unix.Geteuid()); return nil })
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%+v: %v", id, err)
		}
	}
}

func TestWorkInsideOfWorkIsRefused(t *testing.T) {
	if !asRoot(t) {
		return
	}
	for _, inner := range []Identity{alice, bob} {
		err := AsUser(alice, func() error {
			return AsUser(inner, func() error { t.Error("it runs"); return nil })
		})
		if err == nil || !strings.Contains(err.Error(), "already works as uid 40001") {
			t.Errorf("%v", err)
		}
	}
}

func TestHoweverWorkEndsTheCallerLearns(t *testing.T) {
	if !asRoot(t) {
		return
	}
	failure := errors.New("failure")
	for name, tt := range map[string]struct {
		work func() error
		want string
	}{
		"error":  {func() error { return failure }, "failure"},
		"panic":  {func() error { panic("out of range") }, "bug: out of range"},
		"fault":  {func() error { return first(nil) }, "bug: runtime error: index out of range"},
		"goexit": {func() error { runtime.Goexit(); return nil }, "left its goroutine"},
	} {
		if err := AsUser(alice, tt.work); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func first(results []error) error { return results[0] }

// Threads of the user end with the work: the main one, which can't, is never
// used, whatever else the process does meanwhile.
func TestNoThreadIsLeftBehind(t *testing.T) {
	if !asRoot(t) {
		return
	}
	const calls, workers = 10_000, 4
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rss := vmRSS(t)
	stop := make(chan struct{})
	var bystanders, workersDone sync.WaitGroup
	var strangers atomic.Int64
	for range 3 {
		bystanders.Go(func() { // root's own work goes on
			for {
				select {
				case <-stop:
					return
				default:
				}
				if ruid, euid, _ := unix.Getresuid(); ruid != 0 || euid != 0 {
					strangers.Add(1)
				}
				os.Stat("/") // a call that may block, and changes the thread
				runtime.Gosched()
			}
		})
	}
	for n := range workers {
		workersDone.Go(func() {
			for i := range calls / workers {
				id := Identity{UID: 40001 + n, GID: 40001 + n}
				err := AsUser(id, func() error {
					if euid := unix.Geteuid(); euid != id.UID || unix.Gettid() == unix.Getpid() {
						return fmt.Errorf("call %d runs as uid %d in thread %d of process %d", i, euid, unix.Gettid(), unix.Getpid())
					}
					_, err := os.Stat("/")
					return err
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workersDone.Wait()
	close(stop)
	bystanders.Wait()
	if n := strangers.Load(); n > 0 {
		t.Errorf("%d times another goroutine was somebody else than root", n)
	}
	tasks := rootTasks(t)
	if tasks > 60 {
		t.Errorf("%d threads are left of %d calls", tasks, calls)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if grown := vmRSS(t) - rss; grown > 64<<20 {
		t.Errorf("resident memory grew by %d bytes", grown)
	}
}

// rootTasks counts the threads of this process, all of which must be root's
// once those that are ending have ended.
func rootTasks(t *testing.T) int {
	t.Helper()
	var foreign []string
	for range 100 {
		tasks, err := os.ReadDir("/proc/self/task")
		must(t, err)
		foreign = nil
		for _, task := range tasks {
			status, err := credentials("self/task/" + task.Name())
			if err == nil && (status["Uid"] != "0 0 0 0" || status["Gid"] != "0 0 0 0") && status["State"] != "X (dead)" {
				foreign = append(foreign, task.Name()+" of uids "+status["Uid"]+", state "+status["State"])
			}
		}
		if foreign == nil {
			return len(tasks)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("threads of users are left: %q (the process is %d)", foreign, os.Getpid())
	return 0
}

func vmRSS(t *testing.T) int64 {
	t.Helper()
	status, err := credentials("self")
	must(t, err)
	kib, err := strconv.ParseInt(strings.TrimSuffix(status["VmRSS"], " kB"), 10, 64)
	must(t, err)
	return kib << 10
}

// The uid that a process was started with decides whom a user may signal or
// trace (kill(2), ptrace(2), prlimit(2)), and that stays root's.
func TestTheUserCanNotStopUs(t *testing.T) {
	if !asRoot(t) {
		return
	}
	working, done := make(chan int), make(chan struct{})
	go AsUser(alice, func() error { working <- unix.Gettid(); <-done; return nil })
	defer close(done)
	tid := strconv.Itoa(<-working)
	for _, args := range [][]string{
		{"kill", "-STOP", strconv.Itoa(os.Getpid())},
		{"kill", "-KILL", tid},
		{"prlimit", "--nofile=3", "--pid", tid},
		{"renice", "-n", "19", "-p", tid},
		{"taskset", "-p", "-c", "0", tid},
		{"ls", "/proc/" + tid + "/fd"},
		{"cat", "/proc/" + tid + "/environ"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(alice.UID), Gid: uint32(alice.GID)}}
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%q as the user: %s", args, out)
		}
	}
}

// iter.Pull looks like a goroutine and is none: it stays in the thread.
func TestPulledIteratorsStayWithTheUser(t *testing.T) {
	if !asRoot(t) {
		return
	}
	must(t, AsUser(alice, func() error {
		next, stop := iter.Pull(func(yield func(int) bool) { yield(unix.Geteuid()) })
		defer stop()
		if euid, ok := next(); !ok || euid != alice.UID {
			return fmt.Errorf("the iterator runs as uid %d", euid)
		}
		return nil
	}))
}
