package mbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (h *Held) lockFcntl() error {
	if !h.opts.Fcntl {
		return nil
	}
	return h.takeFcntl()
}

// fcntl is the fcntl(2) lock call for the whole file: Len 0 is to the end,
// wherever that will be. It returns who is in the way, for F_OFD_GETLK.
func (h *Held) fcntl(cmd int, typ int16) (pid int, err error) {
	lock := unix.Flock_t{Type: typ, Whence: unix.SEEK_SET}
	err = unix.FcntlFlock(uintptr(h.fd), cmd, &lock)
	return max(int(lock.Pid), 0), err // -1: an open-file-description lock
}

// takeFcntl takes the fcntl lock; having it already is success.
func (h *Held) takeFcntl() error {
	_, err := h.fcntl(unix.F_OFD_SETLK, unix.F_WRLCK)
	switch {
	case err == nil:
		return nil
	case !wouldBlock(err):
		return h.failed(KindFcntl, "taking the fcntl lock", err)
	}
	pid, _ := h.fcntl(unix.F_OFD_GETLK, unix.F_WRLCK)
	return h.busyKernelLock(KindFcntl, pid)
}

func (h *Held) lockFlock() error {
	if !h.opts.Flock {
		return nil
	}
	switch err := unix.Flock(h.fd, unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return nil
	case wouldBlock(err):
		return h.busyKernelLock(KindFlock, flockHolder(&h.st))
	default:
		return h.failed(KindFlock, "taking the flock", err)
	}
}

// wouldBlock: fcntl(2) may answer EACCES too, and EINTR where a server keeps the lock.
func wouldBlock(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINTR)
}

func (h *Held) busyKernelLock(kind LockKind, pid int) error {
	holder := LockHolder{PID: pid}
	e := h.fault(LockBusy, kind, fmt.Sprintf("%s held by %s", kind, holder))
	e.Holder = holder
	e.Hint = "to look at the holder: lslocks -u; fuser -v " + printable(h.opts.Path)
	return e
}

// flockHolder finds in /proc/locks who holds the flock of the file, 0 if that can't
// be told: flock(2) itself does not say. Its lines read
// `6: FLOCK  ADVISORY  WRITE 4121 fe:00:9978631 0 EOF` (proc_locks(5)).
func flockHolder(st *unix.Stat_t) int {
	table, _ := os.ReadFile("/proc/locks")
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[5] == file {
			pid, _ := strconv.Atoi(f[4])
			return max(pid, 0)
		}
	}
	return 0
}
