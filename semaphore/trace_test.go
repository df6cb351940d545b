package semaphore

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// changes are the calls that change what is on the disk, and how they name it.
var changes = map[uint64]func(c *call) string{
	unix.SYS_OPENAT:    (*call).creation,
	unix.SYS_WRITE:     func(c *call) string { return c.ofFile("write", 0) },
	unix.SYS_FCHMOD:    func(c *call) string { return c.ofFile("chmod", 0) },
	unix.SYS_FSYNC:     func(c *call) string { return c.ofFile("fsync", 0) },
	unix.SYS_UNLINKAT:  func(c *call) string { return "unlink " + c.text(1) },
	unix.SYS_LINKAT:    func(c *call) string { return "link " + c.text(1) + " " + c.text(3) },
	unix.SYS_RENAMEAT:  func(c *call) string { return "rename " + c.text(1) + " " + c.text(3) },
	unix.SYS_RENAMEAT2: func(c *call) string { return "exchange " + c.text(1) + " " + c.text(3) },
}

// call is a system call that a traced thread is about to make.
type call struct {
	tid  int
	dir  string // calls for files elsewhere don't count
	args [6]uint64
}

// text is the string that an argument points at.
func (c *call) text(arg int) string {
	var buf [256]byte
	n, _ := syscall.PtracePeekData(c.tid, uintptr(c.args[arg]), buf[:])
	s, _, _ := strings.Cut(string(buf[:n]), "\x00")
	before, _, temp := strings.Cut(s, tempInfix)
	if temp {
		return before + tempInfix + "RANDOM"
	}
	return s
}

func (c *call) creation() string {
	if c.args[2]&unix.O_CREAT == 0 || c.path(0) != c.dir {
		return ""
	}
	return "create " + c.text(1)
}

func (c *call) path(arg int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.tid, int32(c.args[arg])))
	return path
}

func (c *call) ofFile(what string, arg int) string {
	path := c.path(arg)
	if !strings.HasPrefix(path, c.dir) {
		return ""
	}
	name, _, temp := strings.Cut(filepath.Base(path), tempInfix)
	if temp {
		name += tempInfix + "RANDOM"
	}
	return what + " " + name
}

// nextCall asks what a stopped thread is about to do (ptrace(2),
// PTRACE_GET_SYSCALL_INFO); "" when that changes nothing in dir.
func nextCall(tid int, dir string) string {
	const getSyscallInfo, entry = 0x420e, 1
	var info [88]byte
	_, _, errno := syscall.RawSyscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info[0] != entry {
		return ""
	}
	describe := changes[binary.NativeEndian.Uint64(info[24:])]
	if describe == nil {
		return ""
	}
	c := &call{tid: tid, dir: dir}
	for i := range c.args {
		c.args[i] = binary.NativeEndian.Uint64(info[32+8*i:])
	}
	return describe(c)
}

// trace runs a process and lists its calls that change something in dir. Before
// the one with the number kill, from 0, the process is killed.
func trace(t *testing.T, cmd *exec.Cmd, dir string, kill int) (calls []string) {
	t.Helper()
	runtime.LockOSThread() // the kernel knows one thread as tracer
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := cmd.Process.Pid
	defer cmd.Process.Release()
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	const options = syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | unix.PTRACE_O_EXITKILL
	if err := syscall.PtraceSetOptions(child, options); err != nil {
		t.Fatal(err)
	}
	for tid := child; ; {
		signal := 0
		if status.Stopped() && status.StopSignal() == syscall.SIGTRAP|0x80 {
			if what := nextCall(tid, dir); what != "" {
				if len(calls) == kill {
					cmd.Process.Kill()
				}
				calls = append(calls, what)
			}
		} else if status.Stopped() && status.StopSignal() != syscall.SIGTRAP && status.StopSignal() != syscall.SIGSTOP {
			signal = int(status.StopSignal())
		}
		if status.Stopped() {
			syscall.PtraceSyscall(tid, signal) // fails if the thread was killed
		}
		var err error
		if tid, err = syscall.Wait4(-1, &status, unix.WALL|unix.WNOTHREAD, nil); err != nil {
			t.Fatal(err)
		}
		if tid == child && (status.Exited() || status.Signaled()) {
			if kill < 0 && status.ExitStatus() != 0 {
				t.Fatalf("%v: %v", cmd.Args, status)
			}
			return calls
		}
	}
}
