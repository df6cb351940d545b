package safefs

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"
)

// Identity is whom the kernel is to take a thread for.
type Identity struct {
	UID, GID int
	Groups   []int // supplementary groups, the user's own
	Spool    int   // the group of a group-writable spool, which WithGroup may take; 0 for none
}

// AsUser runs work with the user's identity, so that permissions and quota are
// the kernel's to enforce, and returns its error. work runs in a thread of its
// own that ends with it: there is no way back to forget.
//
// Inside, no goroutine may be started and no program executed: a goroutine
// runs in another thread, as root, and a program could regain root from the
// real uid; internal/tools/aswork looks for both. What work opens keeps the
// user's permissions afterwards, but quota and root's reserve go by who
// writes: so all is written inside. A panic of work becomes an error.
//
// uid 0 and gid 0 are refused, and so is a call inside of work. When this
// process is not root, work runs as whoever it is, if that is the user.
func AsUser(id Identity, work func() error) error {
	if err := id.check(); err != nil {
		return err
	}
	if ruid, euid, _ := unix.Getresuid(); ruid != euid {
		return fmt.Errorf("working as uid %d: the thread already works as uid %d", id.UID, euid)
	}
	err := errors.New("the work left its goroutine (runtime.Goexit)")
	inThread(func() {
		if failed := become(id); failed != nil {
			err = failed
			return
		}
		err = guarded(work)
	})
	return err
}

// check refuses root, and numbers that are no ids: the kernel takes 32 bits of
// them, and all ones for "as before".
func (id Identity) check() error {
	noID := func(n int) bool { return n < 0 || n >= math.MaxUint32 }
	ids := append([]int{id.UID, id.GID, id.Spool}, id.Groups...)
	if id.UID == 0 || id.GID == 0 || slices.ContainsFunc(ids, noID) {
		return fmt.Errorf("working as uid %d, gid %d: refused", id.UID, id.GID)
	}
	return nil
}

// inThread runs f in a thread of its own, which ends with f, and waits for it.
//
// The main thread can't end: the runtime parks it for good as it is then. A
// goroutine that finds itself there keeps it busy until f has run in another.
func inThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			inThread(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
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

// keep leaves an id as it is.
const keep = -1

// become gives this thread the identity, and proves it. The calls are raw:
// those of package syscall change all threads (Postfix set_eugid.c and Dovecot
// restrict-access.c do the same by process). The real and saved uid stay
// root's, so that the user can neither signal nor trace us.
func become(id Identity) error {
	ruid, euid, suid := unix.Getresuid()
	if ruid != euid || euid != suid || euid != 0 && euid != id.UID {
		return fmt.Errorf("working as uid %d: this process is uid %d and not root", id.UID, euid)
	}
	if euid != 0 {
		return powerless()
	}
	rgid, _, sgid := unix.Getresgid()
	if id.Spool != 0 {
		sgid = id.Spool
	}
	if err := unix.Setgroups(id.Groups); err != nil { // a raw call
		return fmt.Errorf("setgroups for uid %d: %w", id.UID, err)
	}
	if err := setres(unix.SYS_SETRESGID, keep, id.GID, sgid); err != nil {
		return fmt.Errorf("setresgid %d: %w", id.GID, err)
	}
	if err := setres(unix.SYS_SETRESUID, keep, id.UID, keep); err != nil {
		return fmt.Errorf("setresuid %d: %w", id.UID, err)
	}
	if err := prove([3]int{0, id.UID, 0}, [3]int{rgid, id.GID, sgid}); err != nil {
		panic(err) // the thread is neither root nor the user: nothing may go on
	}
	return nil
}

// setres is setresuid(2) or setresgid(2) for this thread alone.
func setres(trap uintptr, real, effective, saved int) error {
	if _, _, errno := unix.RawSyscall(trap, uintptr(real), uintptr(effective), uintptr(saved)); errno != 0 {
		return errno
	}
	return nil
}

// prove reads the real, effective and saved ids back.
func prove(uids, gids [3]int) error {
	var u, g [3]int
	u[0], u[1], u[2] = unix.Getresuid()
	g[0], g[1], g[2] = unix.Getresgid()
	if u != uids || g != gids {
		return fmt.Errorf("the thread has uids %v and gids %v where %v and %v were set", u, g, uids, gids)
	}
	return powerless()
}

// powerless fails if this thread has a capability in effect, with which the
// kernel would not enforce permissions or quota (capabilities(7)).
func powerless() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if data[0].Effective|data[1].Effective != 0 {
		return fmt.Errorf("the thread still has capabilities %#x%08x", data[1].Effective, data[0].Effective)
	}
	return nil
}

// WithGroup runs calls with another group, in this thread, as is needed to make
// and remove files in a group-writable spool. It is called inside of AsUser,
// for the group that Identity.Spool grants; any other one is an error. Outside,
// and in a process that is not root, it only runs calls.
//
// The thread keeps that group as its saved gid and exchanges the two, which
// takes no privilege (Dovecot's mail_privileged_group).
func WithGroup(gid int, calls func() error) error {
	own := unix.Getegid()
	if unix.Getuid() != 0 || unix.Geteuid() == 0 || own == gid {
		return calls()
	}
	_, _, granted := unix.Getresgid()
	if gid == 0 || gid != granted {
		return fmt.Errorf("working with group %d: it was not granted", gid)
	}
	if err := setres(unix.SYS_SETRESGID, keep, gid, own); err != nil {
		return fmt.Errorf("setresgid %d: %w", gid, err)
	}
	defer func() {
		if err := setres(unix.SYS_SETRESGID, keep, own, gid); err != nil {
			panic(fmt.Errorf("setresgid back to %d: %w", own, err))
		}
	}()
	return calls()
}
