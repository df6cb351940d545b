package convert

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// stray is a file at an old place that seems to hold mail which is not in the
// Maildir.
type stray struct {
	src     source // where it lies
	live    string // the old path
	mailbox string
	folder  string // directory in the Maildir
	fresh   bool   // the mailbox was made since the flip: so the folder may be, too
	born    int64
	mode    uint32
	from    int64 // up to here its mail is there
	park    string
	holder  mbox.LockHolder // of the dotlock at the old path
	agent   string          // who wrote it; "unknown"
}

// look finds the strays of a user, without a lock: they are looked at again
// under theirs.
func (w *sweep) look() (strays []stray, err error) {
	err = asUser(w.account, func() error {
		for _, p := range w.soak.Parked {
			if err := w.lookParked(p, &strays); err != nil {
				return err
			}
		}
		for _, live := range w.oldPaths() {
			if err := w.lookLive(live, &strays); err != nil {
				return err
			}
		}
		return errors.Join(w.lookFolders(&strays), w.lookUnrecorded(), w.lookAsides())
	})
	if err != nil {
		return nil, err
	}
	for i := range strays {
		strays[i].agent = w.agent(&strays[i])
	}
	return strays, nil
}

// oldPaths are those where an agent may still deliver.
func (w *sweep) oldPaths() []string {
	paths := []string{w.account.Spool}
	for _, p := range w.soak.Parked {
		if !slices.Contains(paths, p.Live) {
			paths = append(paths, p.Live)
		}
	}
	return paths
}

// lookParked finds mail behind what the Maildir holds of a parked mbox. One that
// could not be renamed lies at its old path still.
func (w *sweep) lookParked(p journal.Parked, strays *[]stray) error {
	path := p.Path
	f, err := w.entry(path)
	if err == nil && like(p, f) == another {
		var live found
		live, err = w.entry(p.Live)
		if like(p, live) != another {
			path, f = p.Live, live
		}
	}
	if path == p.Live && like(p, f) == perhaps {
		return err // lookLive tells
	}
	switch {
	case err != nil:
		return err
	case f.FileInfo == nil:
		w.differ(path, "parked-gone", "was parked, and is gone")
	case like(p, f) == another:
		w.differ(path, "parked-replaced", "is not the file that was parked")
	case !f.Mode().IsRegular():
		w.differ(path, "parked-replaced", "is no file, but has mode %v", f.Mode())
	case f.Size() < p.Taken:
		w.differ(path, "parked-shrunk", "has %d bytes, and %d of it are in the Maildir: it was altered since", f.Size(), p.Taken)
	case f.Size() > p.Taken && w.isFit(f, path):
		return w.add(strays, stray{live: p.Live, mailbox: p.Mailbox, mode: p.Mode, from: p.Taken, park: p.Path}, path, f)
	}
	return nil
}

// lookLive finds a file that is new at an old path. An empty one is none:
// procmail makes it before it has read its rules.
func (w *sweep) lookLive(live string, strays *[]stray) error {
	f, err := w.entry(live)
	if err != nil || f.FileInfo == nil {
		return err
	}
	is := w.likeAny(f)
	switch {
	case !f.Mode().IsRegular():
		w.differ(live, "stray-irregular", "is no file, but has mode %v", f.Mode())
		return nil
	case f.Size() == 0 || is == itself || !w.isFit(f, live):
		return nil
	case is == perhaps:
		w.differ(live, "stray-doubt", "may be an mbox that was parked, and has other mail since, or a new file with the inode of one that is gone: nobody knows what of it is in the Maildir")
		return nil
	}
	return w.addNew(strays, stray{live: live}, f)
}

// addNew adds a file of which all came behind the flip, if that is known.
func (w *sweep) addNew(strays *[]stray, st stray, f found) error {
	dir, err := safefs.OpenFor(filepath.Dir(st.live), w.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	flip, err := w.flipOf(dir, filepath.Base(st.live))
	if err != nil {
		return err
	}
	if flip.IsZero() {
		w.differ(st.live, "stray-doubt", "holds mail, and no record tells that it came behind the flip: it may be in the Maildir already")
		return nil
	}
	park, err := freeLateName(dir, filepath.Base(st.live), flip)
	if err != nil {
		return err
	}
	st.mode, st.park = uint32(f.Mode().Perm()), filepath.Join(dir.Path(), park)
	return w.add(strays, st, st.live, f)
}

// flipOf is the time of the flip that parked what had been at an old path: so
// what is there now came behind it. Zero if nobody knows.
func (w *sweep) flipOf(dir *safefs.Dir, name string) (time.Time, error) {
	if w.recorded && !w.soak.Flipped.IsZero() {
		return w.soak.Flipped, nil
	}
	newest, err := newestParked(dir, name)
	p, _ := parseParked(newest)
	return p.flip, err
}

// freeLateName finds a name for a file that a sweep takes. If its own leaves no room
// for one it keeps that, and is known by its inode.
func freeLateName(dir *safefs.Dir, live string, flip time.Time) (string, error) {
	for n := 1; ; n++ {
		name := lateName(live, flip, n)
		switch _, err := dir.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return name, nil
		case errors.Is(err, syscall.ENAMETOOLONG):
			return live, nil
		case err != nil:
			return "", err
		}
	}
}

func (w *sweep) isFit(info fs.FileInfo, path string) bool {
	if err := fit(info, path, w.account.UID); err != nil {
		s := skipOf(path, err)
		w.differ(path, s.code, "%s", s.Reason)
		return false
	}
	return true
}

func (w *sweep) add(strays *[]stray, st stray, path string, f found) error {
	dir, err := safefs.OpenFor(filepath.Dir(path), w.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	if st.folder == "" {
		var name string
		st.folder, name = w.folder(st.live)
		st.mailbox = cmp.Or(st.mailbox, name)
	}
	st.src = source{path: path, file: filepath.Base(path), id: idOf(f), size: f.Size(), owner: w.account.UID}
	st.born = f.born
	st.holder = readHolder(dir, filepath.Base(st.live)+".lock")
	*strays = append(*strays, st)
	return nil
}

// lookUnrecorded names parked mboxes of which nobody knows how much is in the
// Maildir.
func (w *sweep) lookUnrecorded() error {
	parked, err := findParked(w.account)
	if err != nil {
		return err
	}
	defer parked.close()
	for _, s := range parked.sources {
		if !slices.ContainsFunc(w.soak.Parked, func(p journal.Parked) bool { return p.Path == s.path }) {
			w.differ(s.path, "parked-unrecorded", "was parked, and no record tells up to where its mail is in the Maildir: what came to it later can't be told")
		}
	}
	return nil
}

// asideDepth is deeper than folders lie in any layout.
const asideDepth = 16

// lookAsides names mail that came to a Maildir that a rollback set aside, of a user who
// has been moved again since: it is in none that is read.
func (w *sweep) lookAsides() error {
	for _, a := range w.soak.Aside {
		if a.Back.IsZero() {
			continue
		}
		n, err := w.newerThan(a.Path, a.Back)
		if errors.Is(err, fs.ErrPermission) {
			w.differ(a.Path, "aside-mail", "can't be looked at as a whole: %v; left there: look what is in it, and move it away", err)
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			w.differ(a.Path, "aside-mail", "has %d messages that came or were changed since it was set aside, and may be in no Maildir that is read; left there: look, deliver what is missing by hand, and move it away", n)
		}
	}
	return nil
}

// eachMessageDir calls do for each new and cur below a directory, one after the other.
// What the user may not open it passes over, and returns an fs.ErrPermission behind the
// rest.
func eachMessageDir(dir *safefs.Dir, depth int, do func(*safefs.Dir) error) error {
	var closed error
	err := dir.Names(func(name string) error {
		info, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.IsDir() || name == "tmp" || depth == 0) {
			return nil
		}
		if err == nil {
			err = inMessageDir(dir, name, depth, do)
		}
		if errors.Is(err, fs.ErrPermission) {
			closed, err = cmp.Or(closed, err), nil
		}
		return err
	})
	return errors.Join(err, closed)
}

func inMessageDir(dir *safefs.Dir, name string, depth int, do func(*safefs.Dir) error) error {
	sub, err := dir.Sub(name)
	if err != nil {
		return fmt.Errorf("looking for mail: %w", err)
	}
	defer sub.Close()
	if name == "new" || name == "cur" {
		return do(sub)
	}
	return eachMessageDir(sub, depth-1, do)
}
