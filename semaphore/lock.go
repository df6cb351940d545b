package semaphore

import (
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"golang.org/x/sys/unix"
)

// Processes exclude each other by kernel locks on bytes of the file .lock, at
// an offset that is a hash of user and purpose. Two with one hash wait for each
// other, no more.
//
// One file for all users is never removed, so that nobody can hold a lock on a
// file that has lost its name; bytes of it, so that the changes of many users
// share the disk's flushes instead of queueing for one lock; and mode 0600,
// since whoever can open a file or directory for reading can keep a flock on
// it (the directory is 0755). Open-file-description locks exclude goroutines of
// one process as well, and end with the process, however it ends (fcntl(2)).
const lockName = ".lock"

// lockPatience is how long a change waits for another of the same user. A
// change takes six flushes; only a disk in trouble takes seconds for these.
const lockPatience = 10 * time.Second

// locked is an open .lock with the locks that were taken by it.
type locked struct{ fd int }

func openLock(dir *directory) (*locked, error) {
	fd, err := openat(dir.fd, lockName, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the semaphores: %w", err)
	}
	return &locked{fd}, nil
}

// try takes the lock of a user for a purpose, or returns ErrBusy.
func (l *locked) try(user, purpose string) error {
	err := l.call(unix.F_WRLCK, user, purpose)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("semaphore of %q: %w: another process is at it (%s)", user, ErrBusy, purpose)
	}
	return err
}

// wait is try with patience.
func (l *locked) wait(user, purpose string) error {
	for begin, nap := time.Now(), time.Millisecond; ; nap = min(2*nap, 50*time.Millisecond) {
		err := l.try(user, purpose)
		if !errors.Is(err, ErrBusy) || time.Since(begin) > lockPatience {
			return err
		}
		time.Sleep(nap)
	}
}

// free gives up one lock. Close alone would leave it to a child between fork
// and exec, who has the descriptor too.
func (l *locked) free(user, purpose string) error { return l.call(unix.F_UNLCK, user, purpose) }

func (l *locked) call(typ int16, user, purpose string) error {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s", user, purpose)
	lock := unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: int64(h.Sum64() >> 2), Len: 1}
	_, err := retry(func() (int, error) { return 0, unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_SETLK, &lock) })
	return err
}

// Close gives up all locks taken by l, once they have been freed in children.
func (l *locked) Close() error { return unix.Close(l.fd) }
