package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// lockOrMake is lock, and makes the mbox if there is none, as a delivery would: whoever
// finds it empty has to wait for the gate.
func (b *bringing) lockOrMake(ctx context.Context) error {
	err := b.lock(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.make(); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return b.c.asUser(func() error { return b.lockBox(ctx) })
}

// lock takes the gate and the locks of the mbox, as a delivery does.
func (b *bringing) lock(ctx context.Context) error {
	if err := b.c.asUser(func() error { return b.c.takeGate(ctx) }); err != nil {
		return err
	}
	return b.c.asUser(func() error { return b.lockBox(ctx) })
}

func (b *bringing) lockBox(ctx context.Context) error {
	dir, err := safefs.OpenFor(filepath.Dir(b.record.Live), b.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(b.record.Live)
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return &Unfit{b.record.Live, "stray-irregular", fmt.Sprintf("is no file, but has mode %v", info.Mode())}
	}
	if err := fit(info, b.record.Live, b.account.UID); err != nil {
		return err
	}
	l, err := b.c.lock(ctx, source{path: b.record.Live, root: dir, file: name, owner: b.account.UID})
	if err != nil {
		return err
	}
	b.c.locks = append(b.c.locks, l)
	return nil
}

// make makes an empty mbox: as the user, or in a directory that is root's alone as
// root, for him.
func (b *bringing) make() error {
	var dir *safefs.Dir
	err := b.c.asUser(func() (err error) {
		if dir, err = safefs.OpenFor(filepath.Dir(b.record.Live), b.account.UID); err != nil {
			return err
		}
		return inGroup(dir, func() error {
			f, err := dir.Create(filepath.Base(b.record.Live), 0o600)
			if err != nil {
				return err
			}
			return errors.Join(f.Close(), dir.Sync())
		})
	})
	if dir != nil {
		defer dir.Close()
	}
	if !errors.Is(err, fs.ErrPermission) || dir == nil || rootsOwn(dir) != nil {
		return err
	}
	// It gets its name when it is the user's: a kill leaves no INBOX of root's.
	fd, err := unix.Openat(dir.Fd(), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "make", Path: b.record.Live, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fchown(fd, b.account.UID, b.account.GID); err != nil {
		return &fs.PathError{Op: "chown", Path: b.record.Live, Err: err}
	}
	err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir.Fd(), filepath.Base(b.record.Live), unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &fs.PathError{Op: "link", Path: b.record.Live, Err: err}
	}
	return dir.Sync()
}
