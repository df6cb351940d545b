package journal

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ahead is how much space is allocated at a time, in bytes: some thousand
// lines.
const ahead = 1 << 20

// appender appends lines to a file and makes them durable. Lines of several
// goroutines share a sync.
type appender struct {
	f *os.File

	mu       sync.Mutex // guards the fields below
	end      int64      // of the lines
	space    int64      // the file is allocated up to here
	promised int64      // bytes of that which are reserved
	broken   error      // nothing that is written from now on can be relied on

	syncing sync.Mutex // guards synced, and is held during a sync
	synced  int64
}

// newAppender appends to a file that was just made.
func newAppender(f *os.File) *appender {
	// btrfs writes what is overwritten, as a block is by each line in it,
	// elsewhere, however much is allocated: unless it is told not to. Other
	// filesystems don't know the flag and don't need it.
	if flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS); err == nil {
		unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags|nocow))
	}
	return &appender{f: f}
}

const nocow = 0x00800000 // FS_NOCOW_FL of linux/fs.h

// append writes lines with one write and syncs them. own of their bytes are
// taken from those that have been promised.
func (a *appender) append(lines []byte, own int64) error {
	end, err := a.write(lines, own)
	if err != nil {
		return err
	}
	return a.sync(end)
}

func (a *appender) write(lines []byte, own int64) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return 0, a.broken
	}
	size := int64(len(lines))
	if err := a.room(size - own); err != nil {
		return 0, err
	}
	if _, err := a.f.WriteAt(lines, a.end); err != nil {
		return 0, errors.Join(err, a.undo())
	}
	a.end += size
	a.promised -= own
	return a.end, nil
}

// undo takes back what a failed write left, or the next line would be written
// over it. How much that is, only the file knows: os.File.WriteAt does not
// count what came before an error. Cutting off gives allocated space back, so
// it is done only if need be.
func (a *appender) undo() error {
	info, err := a.f.Stat()
	if err == nil && info.Size() != a.end {
		a.space = a.end
		err = a.f.Truncate(a.end)
	}
	a.broken = err
	return err
}

// room makes sure that bytes more can be written, beside those that are
// promised.
func (a *appender) room(bytes int64) error {
	need := a.end + a.promised + bytes
	if need <= a.space {
		return nil
	}
	for _, to := range []int64{need + ahead, need} {
		err := a.allocate(to)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) || to == need {
			return err
		}
	}
	return nil
}

// allocate gets the space up to an offset, while the file's size stays. Where
// the filesystem can't, lines are written as long as there is space: the
// journal is not needed for safety.
func (a *appender) allocate(to int64) error {
	for {
		err := unix.Fallocate(int(a.f.Fd()), unix.FALLOC_FL_KEEP_SIZE, a.end, to-a.end)
		switch err {
		case nil:
			a.space = to
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			a.space = math.MaxInt64
			return nil
		default:
			return &os.PathError{Op: "fallocate", Path: a.f.Name(), Err: err}
		}
	}
}

// sync makes what is written up to an offset durable. Who waits here while
// another syncs is mostly served by the next one's sync.
func (a *appender) sync(to int64) error {
	a.syncing.Lock()
	defer a.syncing.Unlock()
	if a.synced >= to {
		return nil
	}
	a.mu.Lock()
	end, err := a.end, a.broken
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if err := a.f.Sync(); err != nil {
		// A second fsync would succeed and mean nothing (safety.md 3.3).
		err = fmt.Errorf("nothing more is written there: %w", err)
		a.mu.Lock()
		a.broken = err
		a.mu.Unlock()
		return err
	}
	a.synced = end
	return nil
}

// promise reserves bytes.
func (a *appender) promise(bytes int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return a.broken
	}
	if err := a.room(bytes); err != nil {
		return err
	}
	a.promised += bytes
	return nil
}

// forgive takes a promise back.
func (a *appender) forgive(bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.promised -= bytes
}

// close gives back the space that was not needed.
func (a *appender) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.broken = os.ErrClosed
	return errors.Join(a.f.Truncate(a.end), a.f.Close())
}
