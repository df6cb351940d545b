package safefs

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Identity is whom the kernel is to take a thread for.
type Identity struct {
	UID, GID int
	Groups   []int // supplementary groups, the user's own
}

// AsUser runs work with the user's identity, so that permissions and quota are
// the kernel's to enforce, and returns its error. work runs in a thread of its
// own that ends with it: there is no way back to forget.
//
// Inside, no goroutine may be started and no program executed: a goroutine
// runs in another thread, as root, and a program could regain root from the
// real uid. What work opens keeps the user's access afterwards. A panic of
// work becomes an error.
//
// uid 0 and gid 0 are refused. When this process is not root, work runs as
// whoever it is, if that is the user.
func AsUser(id Identity, work func() error) error {
	if id.UID <= 0 || id.GID <= 0 {
		return fmt.Errorf("working as uid %d, gid %d: refused", id.UID, id.GID)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := become(id)
		if err == nil {
			err = guarded(work)
		}
		done <- err
	}()
	return <-done
}

// guarded turns a panic into an error.
func guarded(work func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bug: %v\n%s", p, debug.Stack())
		}
	}()
	return work()
}

// become gives this thread the identity, and proves it. The calls are raw:
// those of package syscall change all threads (safety.md 2.4 has the recipe,
// Postfix set_eugid.c and Dovecot restrict-access.c do the same by process).
func become(id Identity) error {
	if unix.Geteuid() != 0 {
		if unix.Geteuid() != id.UID {
			return fmt.Errorf("working as uid %d: this process is uid %d and not root", id.UID, unix.Geteuid())
		}
		return nil
	}
	groups := make([]uint32, len(id.Groups)+1) // never empty, so that it has an address
	for i, g := range id.Groups {
		groups[i] = uint32(g)
	}
	if err := rawcall(unix.SYS_SETGROUPS, uintptr(len(id.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0); err != nil {
		return fmt.Errorf("setgroups for uid %d: %w", id.UID, err)
	}
	keep := ^uintptr(0) // -1: the real and saved ids stay root's, so that the user can't signal or trace us
	if err := rawcall(unix.SYS_SETRESGID, keep, uintptr(id.GID), keep); err != nil {
		return fmt.Errorf("setresgid %d: %w", id.GID, err)
	}
	if err := rawcall(unix.SYS_SETRESUID, keep, uintptr(id.UID), keep); err != nil {
		return fmt.Errorf("setresuid %d: %w", id.UID, err)
	}
	if err := prove(id); err != nil {
		panic(err) // the thread is neither root nor the user: nothing may go on
	}
	return nil
}

// prove reads the identity back.
func prove(id Identity) error {
	_, euid, _ := unix.Getresuid()
	_, egid, _ := unix.Getresgid()
	if euid != id.UID || egid != id.GID {
		return fmt.Errorf("the thread is uid %d, gid %d after it became uid %d, gid %d", euid, egid, id.UID, id.GID)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	if data[0].Effective|data[1].Effective != 0 {
		return errors.New("the thread still has capabilities")
	}
	return nil
}

// WithGroup runs calls with another group, in this thread, as is needed to make
// and remove files in a group-writable spool. It is called inside of AsUser.
func WithGroup(gid int, calls func() error) error {
	own := unix.Getegid()
	if unix.Getuid() != 0 || own == gid {
		return calls()
	}
	if err := setGroup(gid); err != nil {
		return err
	}
	err := calls()
	if back := setGroup(own); back != nil {
		panic(fmt.Errorf("setresgid back to %d: %w", own, back))
	}
	return err
}

// setGroup sets the effective group, for which this thread must be root for
// an instant: the saved uid is.
func setGroup(gid int) error {
	keep := ^uintptr(0)
	uid := unix.Geteuid()
	if err := rawcall(unix.SYS_SETRESUID, keep, 0, keep); err != nil {
		return err
	}
	err := rawcall(unix.SYS_SETRESGID, keep, uintptr(gid), keep)
	if back := rawcall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); back != nil {
		panic(fmt.Errorf("setresuid back to %d: %w", uid, back))
	}
	return err
}

// rawcall is a system call for this thread alone.
func rawcall(trap, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(trap, a, b, c); errno != 0 {
		return errno
	}
	return nil
}
