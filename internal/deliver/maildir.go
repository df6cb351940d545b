package deliver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// toMaildir puts a message into new of the user's Maildir, or of a folder of it.
func (d *delivery) toMaildir(ctx context.Context, m *draft) error {
	root, err := safefs.OpenFor(d.account.Maildir, d.account.UID)
	if err != nil {
		return err
	}
	defer root.Close()
	if delivered, err := d.toMaildirFolder(ctx, root, m); delivered || err != nil {
		return err
	}
	return d.into(ctx, root, m)
}

// into delivers to a Maildir, which must be one: where its directories are
// missing something is wrong, and a new one would hide it.
func (d *delivery) into(ctx context.Context, root *safefs.Dir, m *draft) error {
	var dirs [3]*safefs.Dir
	for i, name := range []string{"tmp", "new", "cur"} {
		dir, err := root.Sub(name)
		if err != nil {
			return err
		}
		defer dir.Close()
		dirs[i] = dir
	}
	if err := d.still(ctx); err != nil {
		return err
	}
	for {
		// A name that somebody has is not taken twice: its time goes on.
		if err := put(dirs[0], dirs[1], nextName(m), m); !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.still(ctx); err != nil {
			return err
		}
	}
}

// put writes a message to tmp and moves it to new, durably.
func put(tmp, to *safefs.Dir, name string, m *draft) error {
	f, err := tmp.Create(name, 0o600)
	if err != nil {
		return err
	}
	err = m.writeTo(f, m.message, m.end-1)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = move(tmp, to, name)
	}
	if err != nil {
		return errors.Join(err, tmp.Unlink(name))
	}
	if err = to.Sync(); err != nil {
		return errors.Join(err, to.Unlink(name))
	}
	return nil
}

// move gives a file its place, which must be free.
func move(from, to *safefs.Dir, name string) (err error) {
	for {
		err = unix.Renameat2(from.Fd(), name, to.Fd(), name, unix.RENAME_NOREPLACE)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS): // a filesystem that can't, as NFS
			if err = unix.Linkat(from.Fd(), name, to.Fd(), name, 0); err == nil {
				_ = from.Unlink(name) // what stays in tmp is no message
			}
		}
		if err != nil {
			return &fs.PathError{Op: "rename", Path: filepath.Join(to.Path(), name), Err: err}
		}
		return nil
	}
}

// named is the time in the last name that this process has given.
var named struct {
	sync.Mutex
	time.Time
}

// nextName is a new name for a message, with its sizes.
func nextName(m *draft) string {
	named.Lock()
	defer named.Unlock()
	now := time.Now().Truncate(time.Microsecond)
	if !now.After(named.Time) {
		now = named.Add(time.Microsecond)
	}
	named.Time = now
	host, _ := os.Hostname() // without one, the Namer takes localhost
	return string(maildir.NewNamer(now, os.Getpid(), host).Append(nil, m.sizes.Size, m.sizes.VSize))
}
