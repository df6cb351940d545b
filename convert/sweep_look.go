package convert

import (
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
		known := map[uint64]bool{}
		for _, p := range w.soak.Parked {
			known[p.Ino] = true
			if err := w.lookParked(p, &strays); err != nil {
				return err
			}
		}
		for _, live := range w.oldPaths() {
			if err := w.lookLive(live, known, &strays); err != nil {
				return err
			}
		}
		return w.lookUnrecorded()
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
	f, there, err := w.entry(path)
	is := w.like(p, f.orNone(there))
	if err == nil && is == another {
		live, ok, lerr := w.entry(p.Live)
		switch w.like(p, live.orNone(ok)) {
		case itself:
			path, f, there, is = p.Live, live, true, itself
		case perhaps: // lookLive tells
			return nil
		}
		err = lerr
	}
	switch {
	case err != nil:
		return err
	case !there:
		w.differ(p.Path, "parked-gone", "was parked, and is gone")
	case is == another:
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
func (w *sweep) lookLive(live string, known map[uint64]bool, strays *[]stray) error {
	info, ok, err := w.entry(live)
	switch {
	case err != nil || !ok || info.Mode().IsRegular() && (info.Size() == 0 || known[idOf(info).ino]):
		return err
	case !info.Mode().IsRegular():
		w.differ(live, "stray-irregular", "is no file, but has mode %v", info.Mode())
		return nil
	case !w.isFit(info, live):
		return nil
	}
	dir, err := safefs.OpenFor(filepath.Dir(live), w.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	flip, err := w.flipOf(dir, filepath.Base(live))
	if err != nil {
		return err
	}
	if flip.IsZero() {
		w.differ(live, "stray-doubt", "holds mail, and no record tells that it came behind the flip: it may be in the Maildir already")
		return nil
	}
	park, err := freeLateName(dir, filepath.Base(live), flip)
	if err != nil {
		return err
	}
	mode := uint32(info.Mode().Perm())
	return w.add(strays, stray{live: live, mode: mode, park: filepath.Join(filepath.Dir(live), park)}, live, info)
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

// freeLateName finds a name for a file that a sweep takes.
func freeLateName(dir *safefs.Dir, live string, flip time.Time) (string, error) {
	for n := 1; ; n++ {
		name := lateName(live, flip, n)
		if _, err := dir.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil {
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

func (w *sweep) add(strays *[]stray, st stray, path string, info fs.FileInfo) error {
	dir, err := safefs.OpenFor(filepath.Dir(path), w.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	var name string
	st.folder, name = w.folder(st.live)
	if st.mailbox == "" {
		st.mailbox = name
	}
	st.src = source{path: path, file: filepath.Base(path), id: idOf(info), size: info.Size(), owner: w.account.UID}
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

// aside looks at the Maildirs that a rollback has set aside, and at one that was
// made anew: what came there since is in no mbox.
func (w *sweep) aside() error {
	list := append(slices.Clone(w.soak.Aside), journal.Aside{Path: w.soak.Maildir})
	for _, a := range list {
		n, err := w.newerThan(a.Path, w.soak.Back)
		if err != nil {
			return err
		}
		if n > 0 {
			w.differ(a.Path, "aside-mail", "has %d messages that came or were changed since he is on mbox again: they are not in his mbox", n)
		}
	}
	return nil
}

// newerThan counts the messages of a Maildir that changed since some time. A path
// that is no Maildir has none.
func (w *sweep) newerThan(path string, since time.Time) (n int, err error) {
	root, err := safefs.OpenFor(path, w.account.UID)
	if err != nil {
		if isNoDir(err) || errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		return 0, w.unlessUntrusted(path, err)
	}
	defer root.Close()
	dirs, err := messageDirs(root, asideDepth)
	for _, dir := range dirs {
		if err == nil {
			err = dir.Names(func(name string) error {
				info, err := dir.Lstat(name)
				if errors.Is(err, fs.ErrNotExist) {
					return nil // a client renames
				}
				if err == nil && info.Mode().IsRegular() && time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()).After(since) {
					n++
				}
				return err
			})
		}
		err = errors.Join(err, dir.Close())
	}
	return n, err
}

// asideDepth is deeper than folders lie in any layout.
const asideDepth = 16

// messageDirs opens each new and cur below a directory.
func messageDirs(dir *safefs.Dir, depth int) (dirs []*safefs.Dir, err error) {
	err = dir.Names(func(name string) error {
		info, err := dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!info.IsDir() || name == "tmp" || depth == 0) {
			return nil
		}
		if err != nil {
			return err
		}
		sub, err := dir.Sub(name)
		if err != nil {
			return fmt.Errorf("looking for mail: %w", err)
		}
		if name == "new" || name == "cur" {
			dirs = append(dirs, sub)
			return nil
		}
		below, err := messageDirs(sub, depth-1)
		dirs = append(dirs, below...)
		return errors.Join(err, sub.Close())
	})
	return dirs, err
}
