package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bareArgument makes this program the bare loop: bench bare-loop LIST DIR.
const bareArgument = "bare-loop"

// phasesVariable asks the bare loop to take the CPU time of each call.
const phasesVariable = "MAILFERRY_BENCH_PHASES"

// bareReport is what the bare loop says of itself on stdout: the time of the
// loop and the syncfs, without the start of the process and reading the list.
type bareReport struct {
	Wall, CPU time.Duration
	Phases    map[string]time.Duration `json:",omitempty"` // CPU by call
}

// bareFile is an entry made ready: nothing is left to do but system calls.
type bareFile struct {
	name  *byte
	size  int
	mtime [2]unix.Timespec
}

// bareMain creates, writes, sets the mtime of and closes the files of the list
// in dir/cur, then syncs the filesystem: the least that any writer must do.
func bareMain(listPath, dir string, out io.Writer) error {
	list, err := readList(listPath)
	if err != nil {
		return err
	}
	files, buffer, err := makeReady(list)
	if err != nil {
		return err
	}
	dirfd, err := makeMaildir(dir)
	if err != nil {
		return err
	}
	clock := &phases{on: os.Getenv(phasesVariable) != "", spent: map[string]time.Duration{}}
	runtime.LockOSThread() // the phases are taken from the thread's clock
	debug.SetGCPercent(-1) // nothing is allocated from here on

	start, cpu := time.Now(), cpuTime(unix.RUSAGE_SELF)
	if err := bareLoop(dirfd, files, buffer, clock); err != nil {
		return err
	}
	clock.enter("syncfs")
	if err := unix.Syncfs(dirfd); err != nil {
		return fmt.Errorf("syncfs: %w", err)
	}
	clock.enter("")
	r := bareReport{Wall: time.Since(start), CPU: cpuTime(unix.RUSAGE_SELF) - cpu}
	if clock.on {
		r.Phases = clock.spent
	}
	return json.NewEncoder(out).Encode(r)
}

func makeReady(list []entry) ([]bareFile, []byte, error) {
	files := make([]bareFile, len(list))
	largest := 1
	for i, e := range list {
		name, err := unix.BytePtrFromString(e.name)
		if err != nil {
			return nil, nil, err
		}
		t := unix.Timespec{Sec: e.mtime}
		files[i] = bareFile{name, e.size, [2]unix.Timespec{t, t}}
		largest = max(largest, e.size)
	}
	buffer := make([]byte, largest)
	for i := range buffer {
		buffer[i] = "The quick brown fox jumps over the lazy dog\n"[i%44]
	}
	return files, buffer, nil
}

func makeMaildir(dir string) (curfd int, err error) {
	for _, d := range []string{dir, dir + "/cur", dir + "/new", dir + "/tmp"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return -1, err
		}
	}
	return unix.Open(filepath.Join(dir, "cur"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// bareLoop uses raw system calls, which the scheduler does not see: no Go
// program can spend less on them.
func bareLoop(dirfd int, files []bareFile, buffer []byte, clock *phases) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	for i := range files {
		f := &files[i]
		clock.enter("create")
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(dirfd), uintptr(unsafe.Pointer(f.name)), flags, 0o600, 0, 0)
		if errno != 0 {
			return fmt.Errorf("create: %w", errno)
		}
		clock.enter("write")
		for rest := buffer[:f.size]; len(rest) > 0; {
			n, _, errno := unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
			if errno != 0 {
				return fmt.Errorf("write: %w", errno)
			}
			rest = rest[n:]
		}
		clock.enter("set mtime")
		_, _, errno = unix.RawSyscall6(unix.SYS_UTIMENSAT, fd, 0, uintptr(unsafe.Pointer(&f.mtime)), 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("futimens: %w", errno)
		}
		clock.enter("close")
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
			return fmt.Errorf("close: %w", errno)
		}
		clock.enter("")
	}
	return nil
}

// phases adds up the CPU time of this thread between calls of enter.
type phases struct {
	on    bool
	name  string
	since time.Duration
	spent map[string]time.Duration
}

func (p *phases) enter(name string) {
	if !p.on {
		return
	}
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // fails for no clock that exists
	now := time.Duration(t.Nano())
	if p.name != "" {
		p.spent[p.name] += now - p.since
	}
	p.name, p.since = name, now
}

// cpuTime is the user and system time of who.
func cpuTime(who int) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(who, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
