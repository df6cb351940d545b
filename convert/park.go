package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// parkedMark stands between the name of an mbox that was parked and the time
// of its flip: "NAME.mailferry-20060102T150405Z".
const (
	parkedMark   = ".mailferry-"
	parkedLayout = "20060102T150405Z"
)

// parkedName is the name that an mbox gets after the flip.
func parkedName(name string, flip time.Time) string {
	return name + parkedMark + flip.UTC().Format(parkedLayout)
}

// unparked returns the name that a parked mbox had.
func unparked(name string) (live string, parked bool) {
	at := strings.LastIndex(name, parkedMark)
	if at <= 0 {
		return name, false
	}
	if _, err := time.Parse(parkedLayout, name[at+len(parkedMark):]); err != nil {
		return name, false
	}
	return name[:at], true
}

// settle parks the mailboxes. When all are, the manifests, which say of what the
// Maildir was made, have served their purpose.
func (c *cutover) settle(cut *Cut) (err error) {
	if cut.Parked, err = c.parkAll(c.converted()); err != nil {
		return err
	}
	return c.asUser(func() error { return removeManifests(c.staging) })
}

// converted are the locked mailboxes that are in the Maildir. Other files among
// the folders stay where they are.
func (c *cutover) converted() (list []locked) {
	paths := map[string]bool{}
	for _, m := range c.report.Mailboxes {
		paths[m.Path] = true
	}
	for _, l := range c.locks {
		if paths[l.src.path] {
			list = append(list, l)
		}
	}
	return list
}

// parkAll parks locked mailboxes, as the user where he may.
func (c *cutover) parkAll(locks []locked) (parked []string, err error) {
	var denied []locked
	err = c.asUser(func() (err error) {
		for _, l := range locks {
			path, perr := park(l, c.flipped)
			switch {
			case errors.Is(perr, fs.ErrPermission):
				denied = append(denied, l)
			case perr != nil:
				err = errors.Join(err, perr)
			default:
				parked = append(parked, path)
			}
		}
		return err
	})
	for _, l := range denied {
		path, perr := c.parkAsRoot(l)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		parked = append(parked, path)
	}
	return parked, err
}

// park gives a locked mbox the name under which it waits for the end of the
// soak, for its owner alone.
func park(l locked, flip time.Time) (path string, err error) {
	name := parkedName(l.src.file, flip)
	if err := l.Check(); err != nil {
		return "", err
	}
	if err := inGroup(l.dir, func() error { return l.dir.Rename(l.src.file, name, false) }); err != nil {
		return "", err
	}
	return filepath.Join(l.dir.Path(), name), errors.Join(l.File.Chmod(0o600), l.dir.Sync())
}

// parkAsRoot parks in a spool in which only root can rename. In a directory
// that anybody else can write to, root does nothing.
func (c *cutover) parkAsRoot(l locked) (string, error) {
	info, err := l.dir.Stat()
	if err != nil {
		return "", err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s: may not be parked by its user, and others can write to the directory, so that root does not do it: it is left where it is, and is not read any more", l.src.path)
	}
	return park(l, c.flipped)
}
