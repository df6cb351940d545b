package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// An mbox that was made and is not going to be used loses its name and is
// deleted. Mail that came behind its own bytes, from somebody who ignores
// semaphores and locks, is to be found under the name that it was meant for, and
// a sweep takes it from there:
//
//	the mbox gets the name back that it was built under; synced
//	what came is copied to a file of its own; synced
//	it is cut off the mbox; synced
//	its file gets the name; synced
//
// Whatever a kill leaves of that, it can be done again: once the mbox is as long
// as it was made, the file, if there is one, is whole.

// takeBack takes its name from an mbox that was made.
func takeBack(dir *safefs.Dir, f journal.RollbackFile) error {
	name := filepath.Base(f.Live)
	info, err := entryOf(dir, name)
	if err != nil {
		return err
	}
	if !isMade(dir, name, info, f) {
		return nil
	}
	if err := inGroup(dir, func() error { return dir.Rename(name, f.Temp, false) }); err != nil {
		return err
	}
	return errors.Join(dir.Sync(), unlessWaits(keepTail(dir, f)))
}

// entryOf is LstatRegular that returns nil if there is nothing, or no file.
func entryOf(dir *safefs.Dir, name string) (fs.FileInfo, error) {
	info, err := dir.LstatRegular(name)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		return nil, nil
	}
	return info, err
}

// isMade reports whether a file is the one that was made: the number of an inode
// is used again.
func isMade(dir *safefs.Dir, name string, info fs.FileInfo, f journal.RollbackFile) bool {
	if info == nil || f.Ino == 0 {
		return false
	}
	id := idOf(info)
	return id.ino == f.Ino && (f.Dev == 0 || id.dev == f.Dev) && (f.Born == 0 || bornAt(dir.Fd(), name) == f.Born)
}

// tailName is the name of the file for what came to an mbox: like the one that
// the mbox was built under, and known by it.
func tailName(temp string) string {
	if last := len(temp) - 1; strings.HasSuffix(temp, "0") {
		return temp[:last] + "1"
	} else {
		return temp[:last] + "0"
	}
}

// keepTail takes what came to an mbox out of it, which has no name any more, and
// had one. What is shorter than it was made was altered by a program that took it
// for its own: that is for the admin to look at, and errWaits.
func keepTail(dir *safefs.Dir, f journal.RollbackFile) error {
	info, err := entryOf(dir, f.Temp)
	if err != nil {
		return err
	}
	if isMade(dir, f.Temp, info, f) {
		switch {
		case info.Size() > f.Size:
			err = cutTail(dir, f)
		case info.Size() < f.Size:
			err = fmt.Errorf("%q, which was made for %q in a rollback that is undone, was made shorter by somebody: take out what is in no other place, and remove it; %w", filepath.Join(dir.Path(), f.Temp), f.Live, errWaits)
		}
		if err != nil {
			return err
		}
	}
	return nameTail(dir, f)
}

// cutTail moves what came to an mbox to a file of its own.
func cutTail(dir *safefs.Dir, f journal.RollbackFile) (err error) {
	from, err := dir.OpenUpdate(f.Temp)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := makeTail(dir, f, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := from.Seek(f.Size, io.SeekStart); err != nil {
		return err
	}
	for n := int64(1); n > 0; { // until nothing came since the last sync
		if n, err = io.Copy(to, from); err == nil && n > 0 {
			err = to.Sync()
		}
		if err != nil {
			return err
		}
	}
	if err := dir.Sync(); err != nil {
		return err
	}
	return errors.Join(from.Truncate(f.Size), from.Sync())
}

// makeTail makes the file for what came, like the one that it came to.
func makeTail(dir *safefs.Dir, f journal.RollbackFile, like *os.File) (to *os.File, err error) {
	info, err := like.Stat()
	if err != nil {
		return nil, err
	}
	name := tailName(f.Temp)
	err = inGroup(dir, func() error {
		if err := dir.Unlink(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		to, err = dir.Create(name, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if st := info.Sys().(*syscall.Stat_t); to.Chown(int(st.Uid), int(st.Gid)) == nil { // else it is the user's alone
		err = to.Chmod(info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return to, nil
}

// nameTail gives the file with what came the name that it was meant for. If that
// is taken, the error is errWaits.
func nameTail(dir *safefs.Dir, f journal.RollbackFile) error {
	name := tailName(f.Temp)
	info, err := entryOf(dir, name)
	if err != nil || info == nil {
		return err
	}
	err = inGroup(dir, func() error { return dir.Rename(name, filepath.Base(f.Live), false) })
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("mail for %q is in %q, for something else came there: run mailferry sweep, and mailferry recover again; %w", f.Live, name, errWaits)
	}
	return errors.Join(err, dir.Sync())
}

// errWaits is about mail that came to an mbox of a rollback that is undone. It ends
// the hold all the same, and the record stays.
var errWaits = errors.New("it stays until then")

// unlessWaits is for who has to end a hold.
func unlessWaits(err error) error {
	if errors.Is(err, errWaits) {
		return nil
	}
	return err
}

// discard removes an mbox that was made and has no name. named says that it may
// have had one: then only what nobody has written to goes.
func discard(dir *safefs.Dir, f journal.RollbackFile, named bool) error {
	named = named && !f.List
	if named {
		if err := keepTail(dir, f); err != nil {
			return err
		}
	}
	info, err := entryOf(dir, f.Temp)
	switch {
	case err != nil || info == nil:
		return err
	case f.Ino != 0 && !isMade(dir, f.Temp, info, f):
		return nil // another's
	case named && info.Size() != f.Size:
		return fmt.Errorf("%q, which was made for a rollback, is being written to", filepath.Join(dir.Path(), f.Temp))
	}
	return inGroup(dir, func() error { return dir.Unlink(f.Temp) })
}

// discardFiles removes what is left under temporary names, and the directories
// that were made.
func (c *cutover) discardFiles(way journal.Rollback) error {
	err := c.eachMade(way, func(dir *safefs.Dir, f journal.RollbackFile) error {
		return discard(dir, f, !way.Seen.IsZero())
	})
	return errors.Join(err, c.asUser(func() (err error) {
		for _, path := range slices.Backward(way.Dirs) {
			err = errors.Join(err, removeEmpty(path, c.account.UID))
		}
		return err
	}))
}

// takeAllBack takes their names from all mboxes that were made.
func (c *cutover) takeAllBack(way journal.Rollback) error {
	return c.eachMade(way, func(dir *safefs.Dir, f journal.RollbackFile) error {
		if f.List {
			return nil
		}
		if err := takeBack(dir, f); err != nil || way.Seen.IsZero() {
			return err
		}
		return unlessWaits(keepTail(dir, f)) // one that was killed has taken the name
	})
}

// eachMade calls do for each recorded file whose directory is there: as the user,
// or, where nobody else may change names, as root.
func (c *cutover) eachMade(way journal.Rollback, do func(*safefs.Dir, journal.RollbackFile) error) error {
	var roots []journal.RollbackFile
	err := c.asUser(func() error {
		return eachFile(way, c.account.UID, func(dir *safefs.Dir, f journal.RollbackFile) error {
			if rootsOwn(dir) == nil {
				roots = append(roots, f)
				return nil
			}
			return do(dir, f)
		})
	})
	way.Files = roots
	return errors.Join(err, eachFile(way, c.account.UID, func(dir *safefs.Dir, f journal.RollbackFile) error {
		if err := rootsOwn(dir); err != nil {
			return err
		}
		return do(dir, f)
	}))
}
