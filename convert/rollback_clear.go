package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// clearing takes what is parked or set aside out of a user's directories of
// mboxes, when these are served again: a server lists each file there as a
// folder, dotfiles too. It goes beside the directory, under the same names:
//
//	home/mail/lists/go.mailferry-TIME → home/.mail.mailferry-TIME/lists/go.mailferry-TIME
//
// The soak record has both paths before anything is renamed, so that a kill
// leaves nothing in doubt. What can't be moved stays where it is; on a disk that is
// full, until the next run has tried again.
type clearing struct {
	Site
	account account.Account
	way     journal.Rollback
	soak    journal.Soak
	again   bool     // it is the second try
	stays   []string // what could not be moved, and why

	touched map[string]*safefs.Dir // directories whose names were changed, by path
}

// asidePlace is where an entry of the soak record lies.
type asidePlace struct {
	path, from *string
	ino        uint64
}

func (c *clearing) places() (list []asidePlace) {
	for i := range c.soak.Parked {
		p := &c.soak.Parked[i]
		list = append(list, asidePlace{&p.Path, &p.From, p.Ino})
	}
	for i := range c.soak.Aside {
		a := &c.soak.Aside[i]
		list = append(list, asidePlace{&a.Path, &a.From, a.Ino})
	}
	return list
}

// do moves all. The soak record is written; an error leaves it as it has to be
// for another try.
func (c *clearing) do() error {
	due := false
	for _, p := range c.places() {
		if to := c.goes(*p.path); *p.from == "" && to != "" {
			*p.path, *p.from = to, *p.path
		}
		due = due || *p.from != ""
	}
	if !due {
		return nil
	}
	if err := journal.WriteSoak(c.State, c.soak); err != nil {
		return err
	}
	if err := asUser(c.account, c.move); err != nil {
		return err
	}
	return journal.WriteSoak(c.State, c.soak)
}

// goes is where a path goes to; "" if it lies in no directory of mboxes.
func (c *clearing) goes(path string) string {
	for _, root := range c.account.Folders {
		if rel, below := relative(root, path); below && !c.isAmongMail(filepath.Dir(root)) {
			return filepath.Join(c.beside(root), rel)
		}
	}
	for _, root := range c.account.Folders {
		if _, below := relative(root, path); below {
			c.stay(path, errors.New("the directory above is one of mail, too"))
			break
		}
	}
	return ""
}

// beside is the directory for what is moved out of another.
func (c *clearing) beside(root string) string {
	as, _ := parseParked(filepath.Base(c.way.Aside))
	return filepath.Join(filepath.Dir(root), parkedName("."+filepath.Base(root), as.flip))
}

// isAmongMail reports whether a server would list what lies in a directory.
func (c *clearing) isAmongMail(dir string) bool {
	return slices.ContainsFunc(c.account.Folders, func(root string) bool {
		_, below := relative(root, filepath.Join(dir, "x"))
		return below
	})
}

// relative returns the path from a directory to what lies below it.
func relative(root, path string) (rel string, below bool) {
	rel, err := filepath.Rel(root, path)
	return rel, err == nil && rel != "." && filepath.IsLocal(rel)
}

func (c *clearing) stay(path string, why error) {
	c.stays = append(c.stays, fmt.Sprintf("%q stays among the folders, where clients list it: %v", path, why))
}

// move renames all that is due, and makes it durable. It runs as the user.
func (c *clearing) move() (err error) {
	c.touched = map[string]*safefs.Dir{}
	var vain []string
	for _, p := range c.places() {
		if *p.from == "" {
			continue
		}
		why := c.moveOne(p)
		if why != nil && isPassing(why) && !c.again {
			err = errors.Join(err, why)
			continue
		}
		if why != nil {
			c.stay(*p.from, why)
			vain = append(vain, filepath.Dir(*p.path))
			*p.path = *p.from
		}
		*p.from = ""
	}
	for _, dir := range c.touched {
		err = errors.Join(err, dir.Sync(), dir.Close())
	}
	for _, path := range vain {
		err = errors.Join(err, removeClearing(path, c.account.UID))
	}
	return err
}

// isPassing reports whether an error may be none the next time.
func isPassing(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO)
}

// moveOne renames one. If it is not where it was, a killed run has moved it, or
// somebody else.
func (c *clearing) moveOne(p asidePlace) error {
	from, err := c.open(filepath.Dir(*p.from))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := filepath.Base(*p.from)
	info, err := from.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && idOf(info).ino != p.ino {
		return nil
	}
	if err != nil {
		return err
	}
	to, err := c.make(filepath.Dir(*p.path))
	if err != nil {
		return err
	}
	for {
		err := unix.Renameat2(from.Fd(), name, to.Fd(), name, unix.RENAME_NOREPLACE)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("rename to %q: %w", *p.path, err)
		}
		return nil
	}
}

// open opens a directory, once.
func (c *clearing) open(path string) (*safefs.Dir, error) {
	if dir := c.touched[path]; dir != nil {
		return dir, nil
	}
	dir, err := safefs.OpenFor(path, c.account.UID)
	if err == nil {
		c.touched[path] = dir
	}
	return dir, err
}

// make opens a directory for what is moved, and makes it and those above it, but
// for the last, which has to be the user's own.
func (c *clearing) make(path string) (*safefs.Dir, error) {
	if dir, err := c.open(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	above := c.open
	if _, ours := clearingOf(filepath.Dir(path)); ours {
		above = c.make
	}
	parent, err := above(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	info, err := parent.Stat()
	if err != nil {
		return nil, err
	}
	if owner := ownerOf(info); owner != c.account.UID {
		return nil, fmt.Errorf("%q belongs to uid %d", parent.Path(), owner)
	}
	dir, err := parent.Mkdir(filepath.Base(path), 0o700)
	if err != nil {
		return nil, err
	}
	c.touched[path] = dir
	return dir, nil
}

// removeClearing removes a directory for what was moved out of the folders, and
// those above it as far as they are of that kind, if they are empty. It runs as
// the user.
func removeClearing(path string, uid int) error {
	for {
		if _, ours := clearingOf(path); !ours {
			return nil
		}
		above, err := safefs.OpenFor(filepath.Dir(path), uid)
		var untrusted *safefs.Untrusted
		if errors.Is(err, fs.ErrNotExist) || errors.As(err, &untrusted) || isNoDir(err) { // what lies there is none
			path = filepath.Dir(path)
			continue
		}
		if err != nil {
			return err
		}
		err = unix.Unlinkat(above.Fd(), filepath.Base(path), unix.AT_REMOVEDIR)
		if err == nil {
			err = above.Sync()
		}
		above.Close()
		switch {
		case err == unix.ENOTEMPTY, err == unix.EEXIST, err == unix.ENOTDIR:
			return nil
		case err != nil && err != unix.ENOENT:
			return &fs.PathError{Op: "rmdir", Path: path, Err: err}
		}
		path = filepath.Dir(path)
	}
}

// clearingOf returns the topmost directory of the path that was made for what was
// moved out of folders.
func clearingOf(path string) (top string, ok bool) {
	for at := path; at != "/" && at != "."; at = filepath.Dir(at) {
		name := filepath.Base(at)
		if _, parked := parseParked(name); parked && strings.HasPrefix(name, ".") {
			top, ok = at, true
		}
	}
	return top, ok
}
