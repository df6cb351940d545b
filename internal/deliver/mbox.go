package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// toMbox appends a message to the mbox of the user's INBOX, or to that of a
// folder.
func (d *delivery) toMbox(ctx context.Context, m *draft) error {
	if m.changes {
		other, err := m.forMbox(ctx)
		if err != nil {
			return err
		}
		defer other.close()
		m = other
	}
	if delivered, err := d.toMboxFolder(ctx, m); delivered || err != nil {
		return err
	}
	dir, err := safefs.OpenFor(filepath.Dir(d.account.Spool), d.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	t := &target{delivery: d, dir: dir, name: filepath.Base(d.account.Spool)}
	return t.append(ctx, m)
}

// target is an mbox that gets a message.
type target struct {
	*delivery
	dir    *safefs.Dir
	name   string
	folder bool // it must be an mbox already, else errNoFolder; INBOX is made

	held *mbox.Held
	size int64 // of the mbox before
}

// append puts a message at the end of an mbox, durably. After an error the mbox
// ends where it did.
func (t *target) append(ctx context.Context, m *draft) (err error) {
	if err := t.lock(ctx); err != nil {
		return err
	}
	// When the message is on the disk it is delivered, whatever becomes of the locks.
	defer func() { _ = t.held.Release() }()
	from, err := t.place(m)
	if err != nil {
		return err
	}
	if err := t.still(ctx); err != nil {
		return err
	}
	if err := t.write(m, from); err != nil {
		return errors.Join(err, t.undo(m.end-from))
	}
	return nil
}

// lock locks the mbox, and makes it if it is missing: an empty one, which is no
// matter for anybody as long as we have the gate.
func (t *target) lock(ctx context.Context) (err error) {
	o := t.Locks
	o.Path, o.Owner, o.Timeout = filepath.Join(t.dir.Path(), t.name), t.account.UID, t.LockWait
	o.WithGroup = func(calls func() error) error { return t.inGroup(t.dir, calls) }
	for range 2 {
		t.held, err = mbox.Lock(ctx, t.dir.Fd(), t.name, o)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if t.folder {
			return errNoFolder
		}
		if err := t.inGroup(t.dir, t.make); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return err
}

// make makes an empty mbox. What looks for new mail compares its times, which
// must differ although it is written to at once (procmail sleeps for that,
// mailfold.c): so it was read a second before.
func (t *target) make() error {
	f, err := t.dir.Create(t.name, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		read := unix.NsecToTimespec(info.ModTime().Add(-1e9).UnixNano())
		times := []unix.Timespec{read, {Nsec: unix.UTIME_OMIT}}
		_ = unix.UtimesNanoAt(t.dir.Fd(), t.name, times, unix.AT_SYMLINK_NOFOLLOW) // a notifier's matter alone
	}
	return errors.Join(err, f.Close())
}

// place finds the end of the mbox, and what of the draft goes there.
func (t *target) place(m *draft) (from int64, err error) {
	f := t.held.File
	// Whoever waits for new mail knows it by an mbox that was written after it
	// was read. Its owner may read it without a trace.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETFL, unix.O_NOATIME)
	if t.size, err = f.Seek(0, 2); err != nil {
		return 0, err
	}
	if t.size == 0 {
		return m.from, nil
	}
	if err := t.isMbox(f); err != nil {
		return 0, err
	}
	missing, err := t.Profile.MissingLFs(f, t.size)
	return m.from - int64(missing), err
}

// isMbox tells whether a file with something in it begins as an mbox. The site's
// server opens no other one: nobody would see new mail in it.
func (t *target) isMbox(f *os.File) error {
	if begins, err := t.Profile.Begins(f); begins || err != nil {
		return err
	}
	if t.folder {
		return errNoFolder
	}
	return fmt.Errorf("%q does not begin with a From_ line: it is no mbox", f.Name())
}

// write writes to the end of the mbox and makes it durable.
func (t *target) write(m *draft, from int64) error {
	if err := m.writeTo(t.held.File, from, m.end); err != nil {
		return err
	}
	if err := t.held.File.Sync(); err != nil {
		return err
	}
	// An empty mbox may be what a delivery has left that did not get here.
	if t.size == 0 {
		if err := t.dir.Sync(); err != nil {
			return err
		}
	}
	return t.inPlace()
}

// inPlace reports whether the mbox was replaced meanwhile, by somebody who does
// not know our locks: then the message is nowhere.
func (t *target) inPlace() error {
	now, err := t.dir.Lstat(t.name)
	if err != nil {
		return err
	}
	written, err := t.held.File.Stat()
	if err == nil && !os.SameFile(now, written) {
		err = fmt.Errorf("%q was replaced while it was written to", written.Name())
	}
	return err
}

// undo cuts the mbox to where it ended before n bytes were to be written. What
// somebody else has written behind them is not ours to cut.
func (t *target) undo(n int64) error {
	info, err := t.held.File.Stat()
	if err != nil {
		return err
	}
	switch {
	case info.Size() <= t.size:
		return nil
	case info.Size() > t.size+n:
		return fmt.Errorf("somebody who does not know our locks has written to %q: what was begun there is left", info.Name())
	}
	for {
		if err = t.held.File.Truncate(t.size); err == nil {
			return t.held.File.Sync()
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// spoolGroup is the group that makes names in an account's spool, where only
// that lets users do so: a spool of mode 2775. 0 where they need none, or where
// the spool is no place to work in: if that matters, the user will see.
func spoolGroup(a account.Account) int {
	dir, err := safefs.OpenFor(filepath.Dir(a.Spool), a.UID)
	if err != nil {
		return 0
	}
	defer dir.Close()
	gid, _ := groupOf(dir)
	return gid
}

func groupOf(dir *safefs.Dir) (int, error) {
	info, err := dir.Stat()
	if err != nil {
		return 0, err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid == 0 && st.Mode&0o022 == 0o020 {
		return int(st.Gid), nil
	}
	return 0, nil
}

// inGroup runs calls that make or remove names in a directory with its group,
// if they need it.
func (d *delivery) inGroup(dir *safefs.Dir, calls func() error) error {
	gid, err := groupOf(dir)
	if err != nil {
		return err
	}
	switch {
	case gid == 0:
		return calls()
	case d.SpoolGroup == gid && unix.Getuid() != 0:
		return withSavedGroup(gid, calls)
	}
	return safefs.WithGroup(gid, calls)
}

// withSavedGroup runs calls with the group that a setgid program was started
// with, in this thread, which AsUser has made for this work alone.
func withSavedGroup(gid int, calls func() error) error {
	own := unix.Getegid()
	if err := setegid(gid); err != nil {
		return err
	}
	err := calls()
	if back := setegid(own); back != nil {
		panic(back) // not one call more with that group
	}
	return err
}

// setegid changes the effective group of this thread.
func setegid(gid int) error {
	const keep = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, keep, uintptr(gid), keep); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", gid, errno)
	}
	return nil
}
