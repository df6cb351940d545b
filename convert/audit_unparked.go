package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// findUnparked names what is or may be mail where nobody reads it: a cutover left it
// there, or somebody who ignores semaphores delivered it. What lies at the old paths it
// judges as a sweep does. An empty file there is none: procmail makes it before it reads
// its rules.
func (c *accountAudit) findUnparked() error {
	w := &sweep{Site: c.Site, account: c.account, soak: c.soak, recorded: !c.soak.Flipped.IsZero(), report: &Swept{}}
	for _, path := range w.oldPaths() {
		if err := c.lookOld(w, path); err != nil {
			return err
		}
	}
	for _, s := range c.report.Skips {
		if s.code == "mbox-unreadable" || s.code == "mbox-owner" || s.code == "mbox-hardlink" {
			c.differ(&MailboxAudit{Name: s.Path}, -1, s.Path, "parked mbox", "readable", s.Reason)
			c.report.Differing++
		}
	}
	return c.lookTrees(w)
}

// unread notes what lies at a path where nobody reads mail.
func (c *accountAudit) unread(name, path, what string) {
	c.report.Unparked = append(c.report.Unparked, path)
	c.differ(&MailboxAudit{Name: name}, -1, path, "mbox", "parked or absent", what)
	c.report.Differing++
}

// parkedLeft is the code of what an earlier migration, or a sweep, has parked.
const parkedLeft = "parked-left"

// What lies where nobody reads mail.
const (
	unreadMail    = "mail that nobody reads any more: run mailferry sweep"
	unsweptMail   = "mail that nobody reads any more, and no sweep takes, since it may be older than the flip: look, and move it away"
	unparkedMail  = "the mbox that could not be parked at the flip: move it to %q"
	sweptUnparked = "mail that is in the Maildir, and could not be parked: move it away"
)

// lookOld looks at an old path.
func (c *accountAudit) lookOld(w *sweep, path string) error {
	name := folderName(w.parts(path))
	var strays []stray
	said := len(w.report.Differences)
	err := w.lookLive(path, &strays)
	if err == nil && len(strays) > 0 {
		w.unlessNoMail(strays[0], c.opens(strays[0].src)) // whatever else is wrong, it may be mail
	}
	switch {
	case isNoDir(err):
		c.unread(name, path, err.Error()+"; left there: see what made that, and move it away")
	case err != nil:
		return err
	case len(w.report.Differences) > said:
		c.unread(name, path, "what no sweep takes: "+w.report.Differences[said].Reason)
	case len(strays) > 0:
		c.unread(name, path, unreadMail)
	default:
		return c.lookKept(w, name, path)
	}
	return nil
}

// opens tells whether a file can be read as an mbox. One that a sweep has found has no
// directory yet.
func (c *accountAudit) opens(s source) (err error) {
	if s.root == nil {
		if s.root, err = safefs.OpenFor(filepath.Dir(s.path), s.owner); err != nil {
			return err
		}
		defer s.root.Close()
	}
	in, err := open(s, c.Scan)
	if err == nil {
		in.Close()
	}
	return err
}

// lookKept names a file of a record that lies at its old path.
func (c *accountAudit) lookKept(w *sweep, name, path string) error {
	f, err := w.entry(path)
	if err != nil || f.FileInfo == nil || f.Size() == 0 {
		return err
	}
	for _, p := range w.soak.Parked {
		switch {
		case like(p, f) != itself:
		case p.Path == path:
			c.unread(name, path, sweptUnparked)
		default:
			c.unread(name, path, fmt.Sprintf(unparkedMail, p.Path))
		}
	}
	return nil
}

// lookTrees names mailboxes of the folder trees that have no record, and keeps what is
// passed over there.
func (c *accountAudit) lookTrees(w *sweep) error {
	live := &tree{owner: c.account.UID}
	defer live.close()
	for _, path := range c.account.Folders {
		if err := live.addTree(safefs.OpenFor(path, c.account.UID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	live.arrange()
	known := w.oldPaths()
	for _, s := range live.sources {
		if s.size == 0 || slices.Contains(known, s.path) || !c.isMail(s) {
			continue
		}
		if err := c.lookNew(w, s); err != nil {
			return err
		}
	}
	for _, s := range live.skips {
		told := slices.ContainsFunc(c.report.Skips, func(other Skip) bool { return other.Path == s.Path })
		if s.code != parkedLeft && !told && !slices.Contains(c.report.Unparked, s.Path) {
			c.report.Skips = append(c.report.Skips, s)
		}
	}
	return nil
}

// lookNew names a mailbox that has no record: a sweep may take it or not.
func (c *accountAudit) lookNew(w *sweep, s source) error {
	var strays []stray
	said := len(w.report.Differences)
	if w.recorded {
		if err := w.lookFolder(s, &strays); err != nil {
			return err
		}
	}
	switch {
	case len(w.report.Differences) > said:
		c.unread(s.name(), s.path, "what no sweep takes: "+w.report.Differences[said].Reason)
	case len(strays) > 0:
		c.unread(s.name(), s.path, unreadMail)
	default:
		c.unread(s.name(), s.path, unsweptMail)
	}
	return nil
}

// isMail reports whether a file of the folders is a mailbox, or might be.
func (c *accountAudit) isMail(s source) bool {
	var format *mbox.FormatError
	return !errors.As(c.opens(s), &format)
}
