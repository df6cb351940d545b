package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// Holder is who holds the lock of a state directory.
type Holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Run   string    `json:"run"`
	Verb  string    `json:"verb"`
	Since time.Time `json:"since"`
}

// ErrLocked is what a *Locked is.
var ErrLocked = errors.New("another run is at work")

// Locked says that another run holds the lock.
type Locked struct {
	Path   string // of the lock
	Holder Holder // zero if it could not be read
}

func (e *Locked) Error() string {
	h := e.Holder
	if h.PID == 0 {
		return fmt.Sprintf("%v: %s is locked", ErrLocked, e.Path)
	}
	return fmt.Sprintf("%v: %s holds %s since %s: pid %d on %s", ErrLocked, h.Verb, e.Path, h.Since.Format(time.RFC3339), h.PID, h.Host)
}

// Is makes a *Locked an ErrLocked.
func (e *Locked) Is(target error) bool { return target == ErrLocked }

const lockName = "lock"

// patience is how long a lock is asked for again: a reader that asks who is at
// work holds it for an instant, and a new holder has to write who it is.
const patience = 100 * time.Millisecond

// openLock opens the lock file, which is never removed: who would lock a
// removed one, locks nothing.
func openLock(state *safefs.Dir, create int) (*os.File, error) {
	path := filepath.Join(state.Path(), lockName)
	fd, err := unix.Openat(state.Fd(), lockName, unix.O_RDWR|create|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// takeLock locks the state directory for as long as the file is open, in this
// process only: programs that it starts don't inherit the file.
func takeLock(state *safefs.Dir) (*os.File, error) {
	f, err := openLock(state, unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(patience / 10) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		if time.Now().After(deadline) {
			defer f.Close()
			return nil, &Locked{f.Name(), readHolder(f)}
		}
	}
}

// writeHolder says who holds the lock. What was there is overwritten before it
// is cut off, so that no reader finds nothing, nor a full disk stops it.
func writeHolder(f *os.File, h Holder) error {
	line, err := encode(h)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(line, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(line)))
}

// readHolder is zero for what it can't read: it is told, not relied on.
func readHolder(f *os.File) (h Holder) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil || json.NewDecoder(bytes.NewReader(data)).Decode(&h) != nil {
		return Holder{}
	}
	return h
}

// Active returns who holds the lock of a state directory, nil if nobody does.
func Active(state string) (*Holder, error) {
	dir, err := openState(state)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := openLock(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err {
	case nil:
		return nil, nil
	case unix.EWOULDBLOCK:
		h := readHolder(f)
		return &h, nil
	default:
		return nil, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
}
