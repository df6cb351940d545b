package convert

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// spool looks at what lies beside the spool: an earlier migration's mbox, and
// the copy that qpopper works on.
func (l *look) spool() {
	path, name := filepath.Split(l.a.Spool)
	dir, err := safefs.OpenFor(path, l.a.UID)
	if err != nil {
		return // said of INBOX
	}
	defer dir.Close()
	// qpopper 4: an empty one stays behind and means nothing.
	if info, err := dir.Lstat("." + name + ".pop"); err == nil && (info.Size() > 0 || !info.Mode().IsRegular()) {
		l.i.add("qpopper-temp", filepath.Join(path, "."+name+".pop"), "has %d bytes", info.Size())
	}
	if !l.listed {
		l.parked, _ = parkedIn(dir)
	}
	for _, parked := range l.parked[name] {
		l.i.add("parked-left", filepath.Join(path, parked), "was parked by an earlier migration")
	}
}

// mailboxes looks at INBOX and at the folders.
func (l *look) mailboxes() {
	t := &tree{} // of any owner: what is unfit is told in full below
	defer t.close()
	before := len(l.i.Findings)
	l.reached(t.addSpool(l.a), "spool-untrusted", "mbox-unreadable", l.a.Spool)
	for _, path := range l.a.Folders {
		dir, err := safefs.OpenFor(path, l.a.UID)
		l.reached(t.addTree(dir, err), "folders-untrusted", "folders-unreadable", path)
	}
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool { return isSpoolAgain(t, s) || !l.fit(s) })
	t.arrange()
	for _, s := range t.skips {
		l.skipped(s)
	}
	for _, s := range t.sources {
		s.owner = l.a.UID
		l.mailbox(s)
	}
	if len(t.sources)+len(t.skips) == 0 && len(l.i.Findings) == before {
		l.i.add("no-mail", "", "neither %q nor a folder is there", l.a.Spool)
	}
}

// isSpoolAgain reports whether a mailbox of a tree is the spool, which may lie
// among the folders.
func isSpoolAgain(t *tree, s source) bool {
	return !s.named && t.sources[0].named && s.id == t.sources[0].id && s.path == t.sources[0].path
}

// reached notes why the spool or a tree can't be.
func (l *look) reached(err error, untrusted, other, path string) {
	var foreign *safefs.Untrusted
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case below(l.a.Home, path) && l.homeless(): // said of the home
	case errors.As(err, &foreign):
		l.i.add(untrusted, path, "%v", err)
	case isSkippable(err):
		l.skipped(skipOf(path, err))
	default:
		l.i.add(other, path, "%v", reason(err))
	}
}

// skipped notes what the search left out, except for what is looked at
// elsewhere: the Maildir and its staging directories may lie among the folders.
func (l *look) skipped(s Skip) {
	switch {
	case s.code == "maildir-inside" && s.Path == l.a.Maildir:
	case s.code == "staging-left" && filepath.Dir(s.Path) == filepath.Dir(l.a.Maildir):
	default:
		l.i.add(s.code, s.Path, "%s", s.Reason)
	}
}

// parent opens the directory of a source.
func (s source) parent() (*safefs.Dir, error) {
	dir, err := s.root.Again()
	for _, name := range s.dirs {
		if err != nil {
			return nil, err
		}
		up := dir
		dir, err = up.Sub(name)
		up.Close()
	}
	return dir, err
}

// fit looks at a mailbox from outside, and reports whether it may be opened.
func (l *look) fit(s source) bool {
	dir, err := s.parent()
	if err != nil {
		l.i.add("mbox-unreadable", s.path, "%v", reason(err))
		return false
	}
	defer dir.Close()
	l.dotlock(dir, s)
	info, err := dir.LstatRegular(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return false // it was there a moment ago: its owner has removed it
	}
	if err != nil {
		l.skipped(skipOf(s.path, err))
		return false
	}
	st, fit := info.Sys().(*syscall.Stat_t), true
	if int(st.Uid) != l.a.UID {
		l.i.add("mbox-owner", s.path, "belongs to uid %d, not to uid %d", st.Uid, l.a.UID)
		fit = false
	}
	if st.Nlink > 1 {
		l.i.add("mbox-hardlink", s.path, "has %d hard links", st.Nlink)
		fit = false
	}
	if info.Mode()&0o006 != 0 {
		l.i.add("mbox-mode", s.path, "has mode %04o", info.Mode().Perm())
	}
	return fit
}

// mailboxFile is a mailbox that is open.
type mailboxFile struct {
	*os.File
	source
	size int64
	scan mbox.Options
}

// mailbox opens a mailbox and looks into it.
func (l *look) mailbox(s source) {
	f, err := s.open()
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.skipped(skipOf(s.path, err))
		return
	}
	defer f.Close()
	leaveAtime(f)
	info, err := f.Stat()
	if err != nil {
		l.i.add("mbox-unreadable", s.path, "%v", reason(err))
		return
	}
	file := &mailboxFile{f, s, info.Size(), l.in.site.Scan}
	m, err := l.count(file)
	if errors.Is(err, mbox.ErrShrunk) {
		l.i.add("mbox-changing", s.path, "became shorter while it was read")
		m, err = estimate(file)
	}
	var format *mbox.FormatError
	switch {
	case errors.Is(err, mbox.ErrShrunk):
	case errors.As(err, &format) && begins(f):
		l.i.add("mbox-changing", s.path, "has the beginning of a From_ line only: mail is being written to it")
	case errors.As(err, &format) && s.named:
		l.i.add("inbox-format", s.path, "%v", format)
	case err != nil:
		l.skipped(skipOf(s.path, err))
	default:
		l.lockable(s)
		l.counted(s, m)
	}
}

// lockable looks whether the user can lock the mailbox: the locks that the kernel
// knows take that he may write to it, dotlocks that he may write to its directory.
func (l *look) lockable(s source) {
	dir, err := s.dir()
	if err != nil {
		return // it was opened a moment ago: mbox-changing, or the run will say so
	}
	defer dir.Close()
	f, err := dir.OpenUpdate(s.file)
	if errors.Is(err, fs.ErrPermission) {
		l.i.add("mbox-unreadable", s.path, "can be read, but not be written, by its user, which locking takes")
		return
	}
	if err == nil {
		f.Close()
	}
	if l.in.site.Locks.Dotlock && inGroup(dir, func() error { return writable(dir) }) != nil {
		l.i.add("mbox-unreadable", dir.Path(), "is a directory in which its user can't make a dotlock, %s.lock", s.file)
	}
}

// writable asks whether this thread may make names in a directory.
func writable(dir *safefs.Dir) error {
	return unix.Faccessat(dir.Fd(), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// counted takes up a mailbox that is one.
func (l *look) counted(s source, m MailboxPlan) {
	if _, err := l.in.site.Folders.Dir(s.parts); err != nil {
		l.skipped(skipOf(s.path, err))
		return
	}
	if p, differs := m.Oddities[mbox.ProfileDiffers.String()]; differs {
		l.i.add("reading-differs", s.path, "%s reads %d messages, the careful reading %d; they differ %d times, first at %d",
			l.in.site.Scan.Profile.Name, m.entries, m.Careful, p.Count, p.Offsets)
	}
	l.i.mailboxes = append(l.i.mailboxes, m)
}

// leaveAtime keeps reading a file from setting its atime, where the kernel lets
// its owner: programs compare it with the mtime to tell of new mail.
func leaveAtime(f *os.File) {
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		unix.FcntlInt(f.Fd(), unix.F_SETFL, flags|unix.O_NOATIME)
	}
}

// sampleSize is how much of a mailbox tells how long its messages are, in
// bytes.
const sampleSize = 256 << 10

// estimate guesses the number of messages by the first ones.
func estimate(f *mailboxFile) (MailboxPlan, error) {
	m := MailboxPlan{Name: f.source.name(), Path: f.path, Bytes: f.size}
	size := min(f.size, sampleSize)
	s, err := mbox.NewScanner(f, size, f.scan)
	if err != nil {
		return m, err
	}
	defer s.Close()
	n := int64(0)
	for ; ; n++ {
		if _, err = s.Next(); err != nil {
			break
		}
	}
	if size > 0 {
		m.Messages = int((n*f.size + size - 1) / size)
	}
	return m, unlessEOF(err)
}
