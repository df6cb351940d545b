package convert

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// found is a file as it was found.
type found struct {
	fs.FileInfo       // nil: there is none
	born        int64 // as of journal.Parked
}

// changed is when its inode was changed last, by a rename too.
func (f found) changed() time.Time { return time.Unix(f.Sys().(*syscall.Stat_t).Ctim.Unix()) }

// entry looks at a file by its path. What can't be looked at is a difference.
func (w *sweep) entry(path string) (f found, err error) {
	dir, err := safefs.OpenFor(filepath.Dir(path), w.account.UID)
	if err != nil {
		return found{}, w.unlessUntrusted(path, err)
	}
	defer dir.Close()
	info, err := dir.Lstat(filepath.Base(path))
	if err != nil {
		return found{}, w.unlessUntrusted(path, err)
	}
	return found{info, bornAt(dir.Fd(), filepath.Base(path))}, nil
}

func (w *sweep) unlessUntrusted(path string, err error) error {
	var untrusted *safefs.Untrusted
	switch {
	case errors.As(err, &untrusted):
		w.differ(path, "sweep-directory", "%v", err)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// bornOf is when the inode of an open file was made, in ns since 1970; 0 where the
// filesystem keeps no such time (statx(2), stx_btime).
func bornOf(f *os.File) (born int64) {
	raw, err := f.SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { born = bornAt(int(fd), "") })
	}
	return born
}

// bornAt is bornOf for a name in a directory; "" is the descriptor itself.
func bornAt(dir int, name string) int64 {
	var st unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

// likeness is how sure it is that a file is the one of a record.
type likeness int

const (
	another likeness = iota
	perhaps          // it has the number of the inode, which may have been used again
	itself
)

// like compares a file with a record. A filesystem gives the number of an inode
// that was removed to the next one, which only its birth tells from the first.
// Where no births are known, a file that ends where the mail that was taken of it
// does is the one of the record: nothing is to be done with it. The number of the
// device says nothing: that of btrfs is another after each mount.
func like(p journal.Parked, f found) likeness {
	if f.FileInfo == nil {
		return another
	}
	switch {
	case idOf(f).ino != p.Ino:
		return another
	case p.Born != 0 && f.born != 0 && p.Born != f.born:
		return another
	case p.Born != 0 && f.born != 0 || f.Size() == p.Taken:
		return itself
	}
	return perhaps
}

// likeAny is like for all records.
func (w *sweep) likeAny(f found) (is likeness) {
	for _, p := range w.soak.Parked {
		is = max(is, like(p, f))
	}
	return is
}
