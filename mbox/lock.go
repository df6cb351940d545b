package mbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Locking an mbox
//
// Mail programs agree on three locks and not on their order: procmail takes
// the dotlock and then fcntl, Dovecot as Debian ships it fcntl and then the
// dotlock. Who holds one and waits for the other stops both. So all wanted
// locks are taken together or not at all: one attempt opens the mbox, tries
// each lock without blocking and, when somebody has one, lets go of all of them
// before it sleeps.
//
// fcntl as an open-file-description lock conflicts with the POSIX locks of the
// peers but is not dropped when some other descriptor of the file is closed
// (fcntl(2)), and excludes another Lock in the same process.
//
// The kernel locks come first because a failed attempt shows them to nobody who
// sleeps: a peer that meets a dotlock for an instant sleeps 8 s (procmail), one
// that meets a kernel lock waits in the kernel for that instant. It also means
// that a dotlock is judged stale only by someone who holds the kernel locks,
// as in dovecot file-dotlock.c and mbox-lock.c.

// RefreshEvery is how often a holder calls [Held.Refresh]: four times within
// the shortest time after which a peer calls an untouched dotlock stale
// (Dovecot, mbox_dotlock_change_timeout, 2 minutes).
const RefreshEvery = 30 * time.Second

// DefaultStaleAfter is how long a dotlock with no usable holder, and its mbox,
// must lie unchanged before the lock is taken over. It is the longest time that
// any peer trusts its own untouched lock (Exim lockfile_timeout, 30 minutes;
// procmail 1024 s, Postfix 500 s, c-client 300 s, Dovecot 120 s): waiting longer
// costs a retry, breaking a live lock can cost mail.
const DefaultStaleAfter = 30 * time.Minute

// LockOptions says which locks Lock takes and how long it tries. At least one of
// Dotlock, Fcntl and Flock is needed; they should be those of the site's delivery
// agents and servers. Over NFS, where Linux turns flock into fcntl, use Dotlock
// and Fcntl only.
type LockOptions struct {
	Dotlock bool // NAME.lock beside the mbox
	Fcntl   bool // fcntl write lock on the whole file
	Flock   bool // flock, exclusive

	Path       string        // how messages name the mbox; default its name
	Owner      int           // uid that must own the mbox; 0: any, since mail of uid 0 is never converted
	Hostname   string        // this host in dotlocks; default os.Hostname
	Timeout    time.Duration // how long to retry while busy; 0: one attempt
	StaleAfter time.Duration // see DefaultStaleAfter, used when 0

	// WithGroup runs the calls that create and remove dotlocks, in this
	// thread, with the group that may write to the spool. nil: as is.
	WithGroup func(calls func() error) error
}

// Held is a locked mbox. It belongs to the goroutine that called Lock, whose
// thread has the user's identity; its methods must be called from there.
type Held struct {
	// File is the mbox, open for reading and writing, at offset 0. It is
	// closed by Release and by nobody else.
	File *os.File
	// Broken says which stale dotlock was taken over; "" when there was none.
	Broken string

	dir  int
	name string
	opts LockOptions
	fd   int          // of the mbox
	st   unix.Stat_t  // of the mbox when it was opened
	own  *dotlockFile // our dotlock; nil when there is none
	free bool         // nothing may have the name
}

// Lock locks the mbox called name, a single component, in the directory dir, a
// descriptor that must stay open until Release. It retries while a lock is busy,
// until opts.Timeout has passed or ctx is done, and never sleeps or blocks while
// it holds any of the locks. Nothing is written to the mbox; it is opened O_RDWR
// because F_OFD_SETLK with F_WRLCK, and flock over NFS, demand a descriptor open
// for writing.
//
// A symbolic link, anything but a regular file, a file with more than one link
// or of another owner than opts.Owner is refused at once. Errors are or wrap a
// [*LockError], except for unusable options and a ctx that is done at the start;
// a missing mbox satisfies errors.Is(err, fs.ErrNotExist).
func Lock(ctx context.Context, dir int, name string, opts LockOptions) (*Held, error) {
	if err := opts.complete(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: locking: %w", printable(opts.Path), err)
	}
	start := time.Now()
	for {
		held, err := attemptLock(dir, name, opts)
		var fault *LockError
		if !errors.As(err, &fault) || !fault.Busy() {
			return held, err
		}
		if !pause(ctx, opts.Timeout-time.Since(start)) {
			fault.Waited, fault.Err = time.Since(start), ctx.Err()
			return nil, fault
		}
	}
}

// complete checks the options and fills in the defaults.
func (o *LockOptions) complete(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("locking %q: not the name of a file in a directory", name)
	}
	if !o.Dotlock && !o.Fcntl && !o.Flock {
		return fmt.Errorf("locking %q: no kind of lock chosen", name)
	}
	if o.Path == "" {
		o.Path = name
	}
	if o.StaleAfter == 0 {
		o.StaleAfter = DefaultStaleAfter
	}
	if o.WithGroup == nil {
		o.WithGroup = func(calls func() error) error { return calls() }
	}
	if o.Hostname != "" {
		return nil
	}
	var err error
	o.Hostname, err = os.Hostname()
	return err
}

// pause sleeps 50 to 150 ms, random so that two who keep meeting part, and
// reports whether there is time left for another attempt.
func pause(ctx context.Context, left time.Duration) bool {
	nap := 50*time.Millisecond + rand.N(100*time.Millisecond)
	if left <= nap {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(nap):
		return true
	}
}

// attemptLock takes all the locks or none, without blocking.
func attemptLock(dir int, name string, opts LockOptions) (*Held, error) {
	h := &Held{dir: dir, name: name, opts: opts, fd: -1}
	for _, step := range []func() error{h.openMbox, h.lockFcntl, h.lockFlock, h.lockDotlock, h.recheck} {
		if err := step(); err != nil {
			if left := h.letGo(); left != nil {
				return nil, left // worse than busy: something of ours may still be there
			}
			return nil, err
		}
	}
	return h, nil
}

// openMbox opens the mbox and refuses what is not a plain file of its owner. It
// looks before it opens, since opening a device or FIFO has effects, and again at
// what it has opened.
func (h *Held) openMbox() error {
	st, err := h.statName(h.name)
	if err != nil {
		return h.failed("", "looking for the mbox", err)
	}
	if why := h.unfit(&st); why != "" {
		return h.fault(LockRefused, "", why)
	}
	const flags = unix.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(h.dir, h.name, flags, 0)
	if err != nil {
		return h.failed("", "opening the mbox for reading and writing", err)
	}
	h.fd, h.File = fd, os.NewFile(uintptr(fd), h.opts.Path)
	if err := errors.Join(unix.SetNonblock(h.fd, false), unix.Fstat(h.fd, &h.st)); err != nil {
		return h.failed("", "looking at the open mbox", err)
	}
	if inodeOf(&st) != inodeOf(&h.st) {
		return h.fault(LockBusy, "", "the mbox is being replaced")
	}
	if why := h.unfit(&h.st); why != "" {
		return h.fault(LockRefused, "", why)
	}
	return nil
}

func (h *Held) dotlockName() string { return h.name + ".lock" }

// statName is fstatat(2) without following a symbolic link.
func (h *Held) statName(name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(h.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// unfit says why a file can't be the mbox; "" when it can.
func (h *Held) unfit(st *unix.Stat_t) string {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return "the mbox is " + fileType(st)
	case st.Nlink > 1:
		return fmt.Sprintf("the mbox has %d hard links", st.Nlink)
	case h.opts.Owner != 0 && int(st.Uid) != h.opts.Owner:
		return fmt.Sprintf("the mbox belongs to uid %d, not to uid %d", st.Uid, h.opts.Owner)
	}
	return ""
}

// replaced says what became of the mbox; "" when its name still leads to the open file.
func (h *Held) replaced() string {
	st, err := h.statName(h.name)
	switch {
	case err != nil:
		return fmt.Sprintf("the mbox is not to be found at its name any more: %v", err)
	case inodeOf(&st) != inodeOf(&h.st):
		return "the mbox was replaced by another file"
	}
	return h.unfit(&st)
}

// fileType names what is not a regular file.
func fileType(st *unix.Stat_t) string {
	names := map[uint32]string{
		unix.S_IFLNK: "a symbolic link", unix.S_IFDIR: "a directory", unix.S_IFIFO: "a FIFO",
		unix.S_IFSOCK: "a socket", unix.S_IFCHR: "a device", unix.S_IFBLK: "a device",
	}
	return names[st.Mode&unix.S_IFMT] + ", not a regular file"
}

// recheck is the second look: mutt, c-client and qpopper replace the mbox by
// rename, and who waited for a lock may then hold it on a file without a name.
func (h *Held) recheck() error {
	if why := h.replaced(); why != "" {
		return h.fault(LockBusy, "", why)
	}
	return nil
}

// Check reports whether the mbox is still the locked one: the name leads to the
// open file, regular, with one link, and the dotlock is ours. It is the last call
// before a step that relies on the lock. The error is a LockError with Fault
// LockLost.
func (h *Held) Check() error {
	if why := h.replaced(); why != "" {
		return h.fault(LockLost, "", why)
	}
	return h.checkDotlock()
}

// Refresh tells the peers that the lock is alive: it sets the time of the dotlock
// to now, and is to be called every RefreshEvery. A dotlock that is gone or not
// ours any more is an error with Fault LockLost. Without a dotlock there is
// nothing to refresh.
func (h *Held) Refresh() error {
	if err := h.checkDotlock(); err != nil || h.own == nil {
		return err
	}
	// By name, since utimensat(2) takes a descriptor alone only from Linux 5.8 on.
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(h.dir, h.dotlockName(), now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return h.failed(KindDotlock, "touching the dotlock", err)
	}
	return h.checkDotlock()
}

// Release gives up all locks and closes File. Only a dotlock that is still ours is
// removed; one that is not is an error with Fault LockLost, after all else has
// been released. A second Release does nothing. The mbox may have been renamed in
// between.
func (h *Held) Release() error {
	if h.fd == -1 {
		return nil
	}
	return h.letGo()
}

// letGo gives up whatever is held. The dotlock goes first, while the fcntl lock
// keeps others of us from taking it over. The kernel locks are dropped by call and
// not by close alone, since a child between fork and exec has the descriptor too;
// if a call fails, close still does it.
func (h *Held) letGo() error {
	err := h.opts.WithGroup(h.dropDotlock)
	if h.fd == -1 {
		return err
	}
	h.fcntl(unix.F_OFD_SETLK, unix.F_UNLCK)
	unix.Flock(h.fd, unix.LOCK_UN)
	h.fd = -1
	return errors.Join(err, h.File.Close())
}
