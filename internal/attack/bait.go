// Package attack is what a hostile user does to a program that works in his
// home, for tests: Start lets him rage, as himself, and the Bait tells whether
// the program was led out of his tree.
//
//	bait, err := attack.Lay(dir, 40002, 40002)    // somebody else's
//	a := attack.Start(attack.Target{UID: 40001, GID: 40001, Roots: []string{home}, Bait: bait})
//	... the program under test, for some seconds ...
//	tally, err := a.Stop()                        // how often he did what
//	harm, err := bait.Harm(home)                  // none, or the test fails
//
// It needs root. What a user does to his own mail is his own affair: a test
// may count messages only where Target.Destroy is unset, and after Stop.
package attack

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Token is in every file of the bait and nowhere else: a copy of it in a
// user's tree is a foreign file that was read.
const Token = "bait-6f1d0c5e9b7a4e23"

// mail is what the files of the bait have, so that a converter takes them.
const mail = "From mallory@example.org Thu Jan  1 00:00:00 2026\nSubject: " + Token + "\n\n" + Token + "\n\n"

// Bait is a directory of somebody else's which the attacker puts in the way:
//
//	open/      mode 0777: only following no symlink keeps files out of it
//	  secret   mode 0644: anybody may read it, and a symlink must not
//	  shared   mode 0666: may be hard-linked even with fs.protected_hardlinks
//	closed/    mode 0700: for root alone to fall into
//	  secret   mode 0600
type Bait struct {
	dir     string
	inotify int
	watched map[int32]string
	before  map[string]string
}

// watchedEvents: opening is no harm, since a hard link is known for one by the
// open file only; reading, listing and changing are.
const watchedEvents = unix.IN_ACCESS | unix.IN_MODIFY | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO

// Lay makes the bait at dir/bait, and watches it until Close.
func Lay(dir string, uid, gid int) (_ *Bait, err error) {
	b := &Bait{dir: filepath.Join(dir, "bait"), watched: map[int32]string{}}
	if b.inotify, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	for _, e := range []struct {
		name string
		mode fs.FileMode
	}{
		{"", fs.ModeDir | 0o755}, {"open", fs.ModeDir | 0o777}, {"closed", fs.ModeDir | 0o700},
		{"open/secret", 0o644}, {"open/shared", 0o666}, {"closed/secret", 0o600},
	} {
		path := filepath.Join(b.dir, e.name)
		if e.mode.IsDir() {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, []byte(mail), 0o600)
		}
		if err = errors.Join(err, os.Chown(path, uid, gid), os.Chmod(path, e.mode)); err != nil {
			b.Close()
			return nil, err
		}
	}
	if b.before, err = b.list(); err == nil {
		err = b.watch()
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close ends the watch; the files are the caller's to remove.
func (b *Bait) Close() error { return unix.Close(b.inotify) }

func (b *Bait) path(name string) string { return filepath.Join(b.dir, name) }

func (b *Bait) watch() error {
	for name := range b.before {
		wd, err := unix.InotifyAddWatch(b.inotify, b.path(name), watchedEvents)
		if err != nil {
			return fmt.Errorf("inotify_add_watch %q: %w", b.path(name), err)
		}
		b.watched[int32(wd)] = name
	}
	return nil
}

// list describes all that is in the bait: kind, mode, owner and size.
func (b *Bait) list() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		size := info.Size()
		if info.IsDir() {
			size = 0
		}
		name, err := filepath.Rel(b.dir, path)
		all[name] = fmt.Sprintf("%v of %d:%d, %d bytes", info.Mode(), st.Uid, st.Gid, size)
		return err
	})
	return all, err
}

// Harm tells what was done to the bait since Lay, and which regular files
// below the trees have its content without being one of its hard links. It
// tells an event once, and is called when the program under test is at rest.
func (b *Bait) Harm(trees ...string) ([]string, error) {
	var h harms
	err := b.events(&h)
	now, lerr := b.list()
	err = errors.Join(err, lerr, b.events(new(harms))) // those of our own listing
	for name, was := range b.before {
		if now[name] != was {
			h.add(fmt.Sprintf("%s was changed", name), fmt.Sprintf("%s from %s", now[name], was))
		}
	}
	for name, is := range now {
		if b.before[name] == "" {
			h.add(fmt.Sprintf("%s has a new entry", filepath.Dir(name)), name+": "+is)
		}
	}
	for _, tree := range trees {
		err = errors.Join(err, b.copies(tree, &h))
	}
	return h.list(), err
}

// harms counts what happened by its kind, with one example of each.
type harms struct {
	count   map[string]int
	example map[string]string
}

func (h *harms) add(kind, example string) {
	if h.count == nil {
		h.count, h.example = map[string]int{}, map[string]string{}
	}
	h.count[kind]++
	h.example[kind] = example
}

func (h *harms) list() (all []string) {
	for _, kind := range slices.Sorted(maps.Keys(h.count)) {
		all = append(all, fmt.Sprintf("%s (%d, %s)", kind, h.count[kind], h.example[kind]))
	}
	return all
}

// events drains the watch.
func (b *Bait) events(h *harms) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := unix.Read(b.inotify, buffer)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return fmt.Errorf("inotify: %w", err)
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&buffer[at]))
			name := buffer[at+unix.SizeofInotifyEvent:][:e.Len]
			at += unix.SizeofInotifyEvent + int(e.Len)
			h.add(b.watched[e.Wd]+" "+eventName(e.Mask), string(bytes.TrimRight(name, "\x00")))
		}
	}
}

func eventName(mask uint32) string {
	switch {
	case mask&unix.IN_ACCESS != 0 && mask&unix.IN_ISDIR != 0:
		return "was listed"
	case mask&unix.IN_ACCESS != 0:
		return "was read"
	case mask&unix.IN_MODIFY != 0:
		return "was written"
	case mask&unix.IN_CREATE != 0:
		return "had an entry created"
	}
	return fmt.Sprintf("had events %#x", mask)
}

// copies finds files below a tree that have the content of the bait.
func (b *Bait) copies(tree string, h *harms) error {
	originals := map[uint64]bool{}
	for name := range b.before {
		info, err := os.Lstat(b.path(name))
		if err != nil {
			return err
		}
		originals[inode(info)] = true
	}
	return filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil || originals[inode(info)] {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(Token)) {
			h.add("copied", path)
		}
		return err
	})
}
