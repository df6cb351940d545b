package convert

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// retired is something that is going to be deleted: a parked mbox, or what an
// earlier rollback has set aside.
type retired struct {
	path    string
	ino     uint64
	bytes   int64    // of disk space
	audited bool     // only what the audit has read may go
	file    *os.File // of an mbox, until it is known that nobody else has it open
}

// look demands that what is going to be deleted is what was parked, that nothing
// came to it or to its old path, and that nobody has it open. What is gone
// already is no fault: an earlier retirement was killed.
//
// What the audit needs comes last: what a kill leaves is then audited again.
func (r *retirement) look() error {
	r.list = nil
	err := asUser(r.account, func() error {
		if err := r.oldPathsFree(); err != nil {
			return err
		}
		for _, p := range r.soak.Aside {
			if err := r.lookAside(p); err != nil {
				return err
			}
		}
		for _, late := range []bool{true, false} {
			for _, p := range r.soak.Parked {
				if isLate(p.Path) != late {
					continue
				}
				if err := r.lookAt(p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return r.unused(err)
}

// unused demands that nobody has one of the files open, unless it is known
// already that they stay, and closes them.
func (r *retirement) unused(known error) error {
	err := known
	for i := range r.list {
		t := &r.list[i]
		if t.file == nil {
			continue
		}
		if err == nil {
			err = notOpen(t.path, t.file)
			var used *InUse
			if errors.As(err, &used) {
				err = unready("%s", used.Error())
			}
		}
		err = errors.Join(err, t.file.Close())
		t.file = nil
	}
	return err
}

func (r *retirement) lookAt(p journal.Parked) error {
	t, info, err := r.find(p.Path, p.From, p.Ino)
	switch {
	case t == nil || err != nil:
		return err
	case !info.Mode().IsRegular():
		return unready("%q is not the file that was parked", t.path)
	case info.Size() != p.Taken:
		return unready("%q has %d bytes, of which %d are in the Maildir: run mailferry sweep", t.path, info.Size(), p.Taken)
	}
	t.audited = !isLate(t.path)
	return nil
}

// oldPathsFree demands that nothing lies where mboxes were. An agent may have made
// an empty file.
func (r *retirement) oldPathsFree() error {
	w := &sweep{account: r.account, soak: r.soak}
	for _, path := range w.oldPaths() {
		if err := r.oldPathFree(path); err != nil {
			return err
		}
	}
	return nil
}

func (r *retirement) oldPathFree(path string) error {
	dir, err := r.dirOf(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(filepath.Base(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range r.soak.Parked {
		if p.Live == path && info.Mode().IsRegular() && idOf(info).ino == p.Ino {
			return unready("%q could not be parked, and lies at its old path: move it to %q", path, p.Path)
		}
	}
	switch {
	case !info.Mode().IsRegular():
		return unready("what is no file at the old path %q may hold mail: look, and move it away", path)
	case info.Size() > 0:
		return unready("there is mail at the old path %q: run mailferry sweep", path)
	case ownerOf(info) != r.account.UID:
		return unready("the empty file at the old path %q belongs to uid %d: remove it, or make it %s's with chown", path, ownerOf(info), shellWord(r.account.Name))
	}
	return nil
}

func (r *retirement) lookAside(p journal.Aside) error {
	t, info, err := r.find(p.Path, p.From, p.Ino)
	if t == nil || err != nil {
		return err
	}
	if info.Mode().IsRegular() && info.Size() > p.Taken {
		return unready("%q has %d bytes, of which %d were in the Maildir when it was set aside: look, and move it away", t.path, info.Size(), p.Taken)
	}
	if !info.IsDir() || p.Back.IsZero() {
		return nil
	}
	w := &sweep{Site: r.Site, account: r.account, report: &Swept{}, soak: r.soak}
	n, err := w.newerThan(t.path, p.Back)
	if err == nil && n > 0 {
		return unready("%q has %d messages that came or were changed since it was set aside: look, and move it away", t.path, n)
	}
	p.Path = t.path
	more, merr := w.moreThanHeld(p)
	if err = errors.Join(err, merr); err == nil && more > 0 {
		err = unready("%q has %d messages more than when it was set aside, as if the clock had been set back: look, and move it away", t.path, more)
	}
	return err
}

// find puts what was parked or set aside on the list, and returns it; nil if it is
// gone. Whatever else lies at its path stays there.
func (r *retirement) find(path, from string, ino uint64) (*retired, fs.FileInfo, error) {
	dir, err := r.dirOf(path)
	if err == nil {
		defer dir.Close()
		_, err = dir.Lstat(filepath.Base(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		if from == "" {
			return nil, nil, nil
		}
		return r.find(from, "", ino) // a rollback was killed that was about to move it
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := dir.Lstat(filepath.Base(path))
	if err != nil {
		return nil, nil, err
	}
	if idOf(info).ino != ino || !info.IsDir() && !info.Mode().IsRegular() {
		return nil, nil, unready("%q is not what was parked or set aside: look, and move it away", path)
	}
	t := retired{path: path, ino: ino}
	if info.IsDir() {
		t.bytes, err = spaceBelow(dir, filepath.Base(path), asideDepth)
	} else if t.file, err = dir.OpenRegular(filepath.Base(path)); err == nil {
		t.bytes = spaceOf(info)
	}
	if err != nil {
		return nil, nil, err
	}
	r.list = append(r.list, t)
	return &r.list[len(r.list)-1], info, nil
}

// dirOf opens the directory of a path for the user.
func (r *retirement) dirOf(path string) (*safefs.Dir, error) {
	dir, err := safefs.OpenFor(filepath.Dir(path), r.account.UID)
	var untrusted *safefs.Untrusted
	if errors.As(err, &untrusted) || isNoDir(err) {
		return nil, unready("%q can't be looked at: %v", path, err)
	}
	return dir, err
}

// spaceOf is how many bytes of disk space come free by the removal of a name:
// blocks are of 512 bytes, whatever the filesystem (stat(2)).
func spaceOf(info fs.FileInfo) int64 {
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() && st.Nlink > 1 {
		return 0
	}
	return st.Blocks * 512
}

// spaceBelow is the space that a directory takes with all that is in it.
func spaceBelow(in *safefs.Dir, name string, depth int) (bytes int64, err error) {
	info, err := in.Lstat(name)
	if err != nil {
		return 0, err
	}
	bytes = spaceOf(info)
	if !info.IsDir() || depth == 0 {
		return bytes, nil
	}
	dir, err := in.Sub(name)
	if err != nil {
		return bytes, err
	}
	defer dir.Close()
	err = dir.Names(func(name string) error {
		n, err := spaceBelow(dir, name, depth-1)
		bytes += n
		return err
	})
	return bytes, err
}
