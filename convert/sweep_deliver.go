package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// deliver moves what is in staging to new of the folder, or what has flags to cur,
// in order of the names, durably. It runs as the user.
func (t *taking) deliver() (err error) {
	if t.staging == nil {
		gone, err := t.openStaging()
		if gone || err != nil {
			return err
		}
	}
	root, err := t.maildir()
	if err != nil {
		return err
	}
	defer root.Close()
	to, err := t.openFolder(root)
	if err != nil {
		return err
	}
	defer func() {
		if to != nil {
			err = errors.Join(err, to.close())
		}
	}()
	for _, name := range t.names {
		err := t.rename(name, to)
		if errors.Is(err, fs.ErrNotExist) {
			if _, gone := t.staging.Lstat(name); gone != nil {
				continue // its owner removed it
			}
		}
		if errors.Is(err, fs.ErrNotExist) && t.record.Folder != "." { // a client has just removed the folder
			if err := errors.Join(to.new.Sync(), to.cur.Sync(), to.close()); err != nil {
				return err
			}
			t.toInbox()
			if to, err = t.openFolder(root); err != nil {
				return err
			}
			err = t.rename(name, to)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(to.new.Sync(), to.cur.Sync(), t.staging.Sync())
}

func (t *taking) rename(name string, folder *liveDir) error {
	to := folder.new
	if strings.Contains(name, maildir.InfoPrefix) {
		to = folder.cur
	}
	for {
		err := unix.Renameat2(t.staging.Fd(), name, to.Fd(), name, unix.RENAME_NOREPLACE)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EEXIST && t.isDelivered(name, to) {
			err = t.staging.Unlink(name)
		}
		if err != nil {
			return &fs.PathError{Op: "deliver to", Path: filepath.Join(to.Path(), name), Err: err}
		}
		return nil
	}
}

// isDelivered reports whether a message has both names: after a loss of power btrfs
// gives back the directory that was synced, and the other as it was.
func (t *taking) isDelivered(name string, to *safefs.Dir) bool {
	there, err := to.LstatRegular(name)
	here, herr := t.staging.LstatRegular(name)
	return err == nil && herr == nil && os.SameFile(there, here)
}

// openStaging opens the staging directory of a killed sweep, with what is still
// to be delivered.
func (t *taking) openStaging() (gone bool, err error) {
	if t.parent, err = safefs.OpenFor(t.record.Parent, t.account.UID); err != nil {
		return false, err
	}
	t.staging, err = t.parent.Sub(t.record.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	err = t.staging.Names(func(name string) error {
		if _, err := t.staging.LstatRegular(name); err == nil {
			t.names = append(t.names, name)
		}
		return nil
	})
	slices.Sort(t.names) // they begin with the time, in digits
	return false, err
}

func (t *taking) maildir() (*safefs.Dir, error) {
	if t.parent == nil {
		return nil, errNoMaildir
	}
	root, err := t.parent.Sub(filepath.Base(t.account.Maildir))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", errNoMaildir, err)
	}
	return root, err
}

var errNoMaildir = errors.New("there is no Maildir to deliver to")

// openFolder opens the folder, or INBOX if a client has removed it.
func (t *taking) openFolder(root *safefs.Dir) (*liveDir, error) {
	live, err := openLive(root, t.record.Folder)
	if errors.Is(err, fs.ErrNotExist) && t.record.Folder != "." {
		t.toInbox()
		live, err = openLive(root, t.record.Folder)
	}
	if err != nil || live.new != nil {
		return live, err
	}
	if live.new, err = live.dir.Mkdir("new", 0o700); err != nil {
		return nil, errors.Join(err, live.close())
	}
	return live, nil
}

func (t *taking) toInbox() {
	t.record.Folder = "."
	t.taken.Folder = folderName(nil)
}

// finish notes that all was delivered, and parks the source. What can't be
// parked stays, and is known by its inode.
func (t *taking) finish() error {
	soak := sweepSoak(t.soak, t.record, t.account)
	if err := journal.WriteSoak(t.State, soak); err != nil {
		return err
	}
	t.soak, t.recorded = soak, true
	if t.record.Path == t.record.Park {
		return nil
	}
	if err := t.park(); err != nil {
		t.taken.Warning = fmt.Sprintf("could not be parked, and is left where it is: %v", err)
		return nil
	}
	t.taken.Parked = t.record.Park
	return nil
}

// park renames the locked source, as the user where he may.
func (t *taking) park() error {
	if len(t.c.locks) == 0 {
		return nil
	}
	l := t.c.locks[0]
	rename := func() error {
		if err := l.Check(); err != nil {
			return err
		}
		if err := inGroup(l.dir, func() error { return l.dir.Rename(l.src.file, filepath.Base(t.record.Park), false) }); err != nil {
			return err
		}
		return errors.Join(l.File.Chmod(0o600), l.dir.Sync())
	}
	err := t.c.asUser(rename)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if gid, gerr := groupOf(l.dir); gerr != nil || gid != 0 {
		return errors.Join(err, gerr)
	}
	if !rootsAlone(l.dir) {
		return err
	}
	return rename()
}

// rootsAlone reports whether only root can make names in a directory.
func rootsAlone(dir *safefs.Dir) bool {
	info, err := dir.Stat()
	return err == nil && ownerOf(info) == 0 && info.Mode().Perm()&0o022 == 0
}

// recoverSweep finishes or undoes what a killed sweep has left of a user, and
// tells what it did; "" if there was nothing. The caller holds the run lock, and
// no run is at work. While somebody else is changing his semaphore, the error is
// semaphore.ErrBusy.
func (s Site) recoverSweep(ctx context.Context, a account.Account) (did string, err error) {
	if _, err := journal.ReadSweep(s.State, a.Name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return s.recovering(a, func(w *sweep, _ *semaphore.Semaphore) (string, error) {
		if err := w.readSoak(); err != nil {
			return "", err
		}
		return w.resume(ctx)
	})
}

// recovering resolves what a killed sweep has left of a user, while nobody else can
// change his semaphore.
func (s Site) recovering(a account.Account, resolve func(*sweep, *semaphore.Semaphore) (string, error)) (did string, err error) {
	w, err := s.newSweep(a, SweepOptions{Alone: true, Wait: unlockLimit})
	if err != nil {
		return "", err
	}
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		return "", err
	}
	free, err := exclude(sem)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, free()) }()
	return resolve(w, sem)
}

// resume goes on where a sweep was killed.
func (w *sweep) resume(ctx context.Context) (did string, err error) {
	record, err := journal.ReadSweep(w.State, w.account.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	t := w.taking(record)
	t.taken.Agent = "unknown"
	defer func() { err = errors.Join(err, t.close()) }()
	if !record.Ready {
		return "a sweep that had delivered nothing was undone", errors.Join(t.unlockDead(ctx), t.abandon())
	}
	if err := t.c.asUser(t.deliver); err != nil {
		return "", err
	}
	if t.staging == nil && !t.isDone() {
		w.differ(record.Path, "sweep-lost", "was being swept; the staging directory %q, with up to %d of its messages, was removed by somebody: they are still in it, between offset %d and %d",
			filepath.Join(record.Parent, record.Name), record.Messages, record.From, record.To)
	}
	if err := t.relock(ctx); err != nil {
		return "", err
	}
	if err := t.finish(); err != nil {
		return "", err
	}
	return "a sweep was finished", errors.Join(t.c.asUser(t.unlock), t.unlockDead(ctx), t.end())
}

// isDone reports whether the soak record says already that all was delivered:
// only then is staging removed.
func (t *taking) isDone() bool {
	return slices.ContainsFunc(t.soak.Parked, func(p journal.Parked) bool {
		return p.Path == t.record.Park && p.Ino == t.record.Ino && p.Taken >= t.record.To
	})
}

// relock locks a source that is still to be parked. One that is somewhere else
// by now needs no lock.
func (t *taking) relock(ctx context.Context) error {
	if t.record.Path == t.record.Park {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, t.opts.Wait)
	defer cancel()
	return t.c.asUser(func() error {
		f, err := t.entry(t.record.Path)
		if err != nil || t.isSource(f) != itself {
			return err
		}
		if err := t.lock(limited); err != nil {
			return err
		}
		if f.FileInfo, err = t.source.Stat(); err == nil && t.isSource(found{f.FileInfo, bornOf(t.source)}) != itself {
			err = &Busy{t.record.Path}
		}
		return err
	})
}

// isSource is how sure it is that a file is what a killed sweep took.
func (t *taking) isSource(f found) likeness {
	r := t.record
	return like(journal.Parked{Ino: r.Ino, Born: r.Born, Taken: r.To}, f)
}

// unlockDead removes the gate and the dotlocks that a dead sweep has left.
func (t *taking) unlockDead(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, t.opts.Wait)
	defer cancel()
	return t.c.asUser(func() error {
		if t.c.gateDir == nil { // else it was taken over, and released
			// A gate that can't be had is another's by now.
			if err := t.c.takeGate(limited); err == nil {
				err = t.c.gate.Release()
				t.c.gate = nil
				if err != nil {
					return err
				}
			}
		}
		return t.dropDead()
	})
}

func (t *taking) dropDead() error {
	dir, err := safefs.OpenFor(filepath.Dir(t.record.Live), t.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	lock := filepath.Base(t.record.Live) + ".lock"
	// What had not got its name yet first: the dotlock may be a second name of it,
	// and the age of the two is one.
	err = inGroup(dir, func() error { return semaphore.Sweep(dir.Fd(), time.Since(started), lock) })
	if isDead(dir, lock) || isLostAndEmpty(dir, lock) {
		err = errors.Join(err, inGroup(dir, func() error { return dir.Unlink(lock) }))
	}
	if err == nil && t.opts.Alone {
		err = dropDotlocks(source{root: dir, file: filepath.Base(t.record.Park)})
	}
	return err
}
