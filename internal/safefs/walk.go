package safefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Untrusted says why a directory is no place to work in for a user: somebody
// else than root and the user decides what lies there.
type Untrusted struct {
	Path  string // as far as the walk came
	Owner int    // uid
	Mode  fs.FileMode
	User  int // uid of whom the directory was to be opened for
}

func (e *Untrusted) Error() string {
	if e.Mode&fs.ModeSymlink != 0 {
		return fmt.Sprintf("%q is a symlink (owner uid %d) below a directory that others than root can write: not followed", e.Path, e.Owner)
	}
	return fmt.Sprintf("%q belongs to uid %d, neither to root nor to uid %d", e.Path, e.Owner, e.User)
}

// maxLinks is how many symlinks a path may have, the kernel's own limit
// (path_resolution(7)).
const maxLinks = 40

// OpenFor opens the directory of an absolute path to work there as a user.
//
// The path is walked from "/". While root alone can write every directory so
// far, symlinks are the admin's and are followed. From the first directory on
// that others can write, sticky or not, none is: the owner of a symlink there
// proves nothing, since link(2) gives anybody a second name of root's (Postfix
// CVE-2008-2936). Every directory must belong to root or to the user; for a
// process that is not root, its own directories count as the user's. What is
// not so is an *Untrusted.
//
// Directories above the last need search permission only, the last one must
// be readable by whom the calling thread is.
func OpenFor(path string, uid int) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not an absolute path")}
	}
	w := &walk{uid: uid, fd: -1, rest: components(path)}
	defer w.leave()
	if err := w.top(); err != nil {
		return nil, err
	}
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if err := w.step(name); err != nil {
			return nil, err
		}
	}
	fd, err := openat(w.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newDir(fd, filepath.Clean(path)), nil
}

// walk is the state of OpenFor between two components.
type walk struct {
	uid     int
	fd      int    // of the directory reached, O_PATH
	path    string // of the same, without symlinks
	trusted bool   // root alone can write it and all above
	links   int    // followed so far
	rest    []string
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func openat(dirfd int, name string, flags int) (int, error) {
	return retry(func() (int, error) { return unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0) })
}

func (w *walk) failed(name string, err error) error {
	return &fs.PathError{Op: "open", Path: filepath.Join(w.path, name), Err: err}
}

// top begins again at the root directory.
func (w *walk) top() error {
	fd, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	w.trusted = true
	return w.enter(fd, "/")
}

// step goes on by one component, whatever it is.
func (w *walk) step(name string) error {
	switch {
	case name == ".":
		return nil
	case name == ".." && !w.trusted:
		return w.failed(name, errors.New("below a directory that others than root can write"))
	case strings.ContainsRune(name, 0):
		return w.failed(name, unix.EINVAL)
	}
	fd, err := openat(w.fd, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return w.failed(name, err)
	}
	return w.enter(fd, filepath.Join(w.path, name))
}

// enter makes fd the directory reached, or follows it.
func (w *walk) enter(fd int, path string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	owner := int(st.Uid)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		defer unix.Close(fd)
		if !w.trusted {
			return &Untrusted{path, owner, fs.ModeSymlink | 0o777, w.uid}
		}
		return w.follow(fd, path)
	case unix.S_IFDIR:
	default:
		unix.Close(fd)
		return &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	w.leave()
	w.fd, w.path = fd, path
	if owner != 0 && owner != w.uid && owner != os.Getuid() {
		return &Untrusted{path, owner, fs.ModeDir | fs.FileMode(st.Mode&0o777), w.uid}
	}
	w.trusted = w.trusted && owner == 0 && st.Mode&0o022 == 0
	return nil
}

// follow puts the target of an open symlink before the rest of the path.
func (w *walk) follow(fd int, path string) error {
	if w.links++; w.links > maxLinks {
		return &fs.PathError{Op: "open", Path: path, Err: unix.ELOOP}
	}
	buffer := make([]byte, unix.PathMax)
	n, err := retry(func() (int, error) { return unix.Readlinkat(fd, "", buffer) })
	if err != nil {
		return &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	target := string(buffer[:n])
	w.rest = append(components(target), w.rest...)
	if filepath.IsAbs(target) {
		return w.top()
	}
	return nil
}

func (w *walk) leave() {
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}
