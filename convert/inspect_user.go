package convert

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// look is one account being looked at, as its user.
type look struct {
	in    *Inspector
	a     account.Account
	i     *Inspection
	count counter
	moved bool // the semaphore says maildir, or a record differs from it

	parked    map[string][]string // in the spool's directory, as root has listed it
	listed    bool                // root has
	record    journal.Staging     // of the user's staging directory; zero if there is none
	homeGroup int                 // that may write the home; 0 for none
}

// look runs as the user. What goes wrong is a finding, so it never fails.
func (l *look) look() error {
	l.home()
	l.mirror()
	if l.moved {
		return nil
	}
	l.spool()
	l.mailboxes()
	l.maildir()
	l.rules()
	return nil
}

// home looks at the home, if something of the account lies there.
func (l *look) home() {
	if !usesHome(l.a) || l.i.Has("home-untrusted") {
		return
	}
	dir, err := safefs.OpenFor(l.a.Home, l.a.UID)
	var untrusted *safefs.Untrusted
	switch {
	case errors.As(err, &untrusted) && untrusted.Mode&fs.ModeSymlink == 0 && filepath.Base(untrusted.Path) == filepath.Base(l.a.Home):
		l.i.add("home-owner", l.a.Home, "belongs to uid %d, not to uid %d", untrusted.Owner, l.a.UID)
		return
	case untrusted != nil:
		l.i.add("home-untrusted", l.a.Home, "%v", err)
		return
	case err != nil:
		l.i.add("home-missing", l.a.Home, "%v", reason(err))
		return
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		l.i.add("home-missing", l.a.Home, "%v", reason(err))
		return
	}
	if owner := ownerOf(info); owner != l.a.UID && filepath.Dir(l.a.Maildir) == l.a.Home {
		l.i.add("home-owner", l.a.Home, "belongs to uid %d, not to uid %d", owner, l.a.UID)
	}
	l.writable(dir, info)
}

// writable looks who may write the home. Who is in its group root has to ask.
func (l *look) writable(dir *safefs.Dir, info fs.FileInfo) {
	group := int(info.Sys().(*syscall.Stat_t).Gid)
	switch mode := info.Mode().Perm(); {
	case mode&0o002 != 0:
		l.i.add("home-writable", l.a.Home, "can be written by everybody, mode %04o", mode)
	case mode&0o020 == 0:
	case hasACL(dir):
		l.i.add("home-writable", l.a.Home, "has an access control list that lets others write")
	case group == 0:
		l.i.add("home-writable", l.a.Home, "can be written by group 0, mode %04o", mode)
	default:
		l.homeGroup = group
	}
}

// hasACL reports whether the permissions of the group are in truth the mask of
// an access control list (acl(5)).
func hasACL(dir *safefs.Dir) bool {
	n, err := unix.Fgetxattr(dir.Fd(), "system.posix_acl_access", nil)
	return err == nil && n > 0
}

// reason is an error without the path that stands beside it.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// mirror compares the copy in the home with the authority. One that is not
// there says nothing that anybody could act on wrongly.
func (l *look) mirror() {
	if l.a.Mirror == "" || l.i.State == "" {
		return
	}
	dir, err := safefs.OpenFor(filepath.Dir(l.a.Mirror), l.a.UID)
	if err != nil {
		return // said of the home
	}
	defer dir.Close()
	name := filepath.Base(l.a.Mirror)
	if _, err := dir.Lstat(name); err != nil {
		return
	}
	state, err := semaphore.ReadMirror(dir.Fd(), name, l.a.UID)
	switch {
	case err != nil:
		l.i.add("mirror-differs", l.a.Mirror, "%v", err)
	case state.String() != l.i.State:
		l.i.add("mirror-differs", l.a.Mirror, "says %s, and the semaphore says %s", state, l.i.State)
	}
}

// maildir looks at the place of the Maildir, and at what there is of it.
func (l *look) maildir() {
	path := filepath.Dir(l.a.Maildir)
	parent, err := safefs.OpenFor(path, l.a.UID)
	if err != nil {
		if path != l.a.Home || !l.homeless() {
			l.i.add("maildir-unreachable", path, "%v", reason(err))
		}
		return
	}
	defer parent.Close()
	if err := unix.Faccessat(parent.Fd(), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil && !l.i.Has("home-owner") {
		l.i.add("maildir-unreachable", path, "can't be written by the user: %v", err)
	}
	l.target(parent)
	ours := l.staging(parent)
	l.fits(parent, ours)
}

// homeless reports whether the home was found wanting.
func (l *look) homeless() bool {
	return l.i.Has("home-missing") || l.i.Has("home-owner") || l.i.Has("home-untrusted")
}

// target looks at what has the Maildir's name.
func (l *look) target(parent *safefs.Dir) {
	name := filepath.Base(l.a.Maildir)
	info, err := parent.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		l.i.add("maildir-unreachable", l.a.Maildir, "%v", reason(err))
		return
	case !info.IsDir():
		l.i.add("maildir-irregular", l.a.Maildir, "is no directory, but has mode %v", info.Mode())
		return
	case isMount(parent, name):
		l.i.add("maildir-mount", l.a.Maildir, "is a mount point")
		return
	case ownerOf(info) != l.a.UID:
		l.i.add("maildir-foreign", l.a.Maildir, "belongs to uid %d, not to uid %d", ownerOf(info), l.a.UID)
		return
	}
	dir, err := parent.Sub(name)
	if err != nil {
		l.i.add("maildir-foreign", l.a.Maildir, "can't be looked into: %v", reason(err))
		return
	}
	defer dir.Close()
	switch empty, err := dir.Empty(); {
	case err != nil:
		l.i.add("maildir-foreign", l.a.Maildir, "can't be looked into: %v", reason(err))
	case empty:
		l.i.add("maildir-empty", l.a.Maildir, "is there, and empty")
	case name == l.record.Final && l.recorded(l.record.Name, info):
		l.i.add("staging-ours", l.a.Maildir, "is recorded as this user's, published and not yet live")
	default:
		l.i.add("maildir-foreign", l.a.Maildir, "is there, and not empty")
	}
}

// isMount reports whether an entry is the root of a mount, of the same
// filesystem too.
func isMount(parent *safefs.Dir, name string) bool {
	var st unix.Statx_t
	err := unix.Statx(parent.Fd(), name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// staging looks for staging directories of the Maildir, and reports whether
// one of them is recorded and will be continued.
func (l *look) staging(parent *safefs.Dir) (ours bool) {
	mark := "." + strings.TrimPrefix(filepath.Base(l.a.Maildir), ".") + maildir.StagingMark
	err := parent.Names(func(name string) error {
		if !strings.HasPrefix(name, mark) || !maildir.IsStaging(name) {
			return nil
		}
		path := filepath.Join(parent.Path(), name)
		info, err := parent.Lstat(name)
		if err == nil && info.IsDir() && l.recorded(name, info) {
			ours = true
			l.i.add("staging-ours", path, "is recorded as this user's")
		} else {
			l.i.add("staging-left", path, "is recorded nowhere")
		}
		return nil
	})
	if err != nil {
		l.i.add("maildir-unreachable", parent.Path(), "can't be listed: %v", reason(err))
	}
	return ours
}

// recorded reports whether the state directory has a directory as this user's.
func (l *look) recorded(name string, info fs.FileInfo) bool {
	return l.record.Name == name && l.record.Ino == idOf(info).ino
}
