// Package safefs reaches files without following anybody's symlinks: each
// directory is opened once, from one that is trusted, and every later call
// names a single component relative to it. What a user swaps meanwhile is
// either the object that was opened or an error.
//
// Paths that the admin gives are opened by OpenDir, which follows them as the
// kernel does; paths that lead to a user's mail are opened by OpenFor, which
// follows only what root alone can have put there. Below such a directory
// nothing is followed.
//
// AsUser gives a thread the user's identity for as long as the work takes.
package safefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is an open directory.
type Dir struct {
	f    *os.File
	path string // how it was reached, for messages only
}

// OpenDir opens a directory that is trusted as it is named, symlinks included.
func OpenDir(path string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newDir(fd, path), nil
}

func newDir(fd int, path string) *Dir { return &Dir{os.NewFile(uintptr(fd), path), path} }

// Path tells how the directory was reached, for messages.
func (d *Dir) Path() string { return d.path }

// Fd returns the descriptor, valid until Close.
func (d *Dir) Fd() int { return int(d.f.Fd()) }

// Close releases the descriptor.
func (d *Dir) Close() error { return d.f.Close() }

// single refuses what is not the name of an entry of a directory.
func (d *Dir) single(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return d.failed(op, name, errors.New("not a single name"))
	}
	return nil
}

func (d *Dir) failed(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// Sub opens a directory of d. A symlink is an error.
func (d *Dir) Sub(name string) (*Dir, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return newDir(fd, filepath.Join(d.path, name)), nil
}

// Mkdir makes a directory of d, which must not exist, and opens it.
func (d *Dir) Mkdir(name string, perm uint32) (*Dir, error) {
	if err := d.single("mkdir", name); err != nil {
		return nil, err
	}
	if err := again(func() error { return unix.Mkdirat(d.Fd(), name, perm) }); err != nil {
		return nil, d.failed("mkdir", name, err)
	}
	return d.Sub(name)
}

// open is openat2 with everything refused that a single name need not be.
// Kernels and sandboxes without openat2 do as well with O_NOFOLLOW, since the
// name has no slash.
func (d *Dir) open(name string, flags int, perm uint32) (int, error) {
	if err := d.single("open", name); err != nil {
		return -1, err
	}
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
		Mode:    uint64(perm),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := retry(func() (int, error) { return unix.Openat2(d.Fd(), name, &how) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		fd, err = retry(func() (int, error) { return unix.Openat(d.Fd(), name, int(how.Flags), perm) })
	}
	if err != nil {
		return -1, d.failed("open", name, err)
	}
	return fd, nil
}

// Irregular says that a name is not a regular file.
type Irregular struct {
	Path string
	What string // "symlink", "directory", "FIFO", "socket", "device"
}

func (e *Irregular) Error() string {
	return fmt.Sprintf("%q is a %s, not a regular file", e.Path, e.What)
}

// OpenRegular opens a regular file of d to read. It neither follows a symlink
// nor waits for the writer of a FIFO; what is not a regular file is an *Irregular.
func (d *Dir) OpenRegular(name string) (*os.File, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		var irregular *Irregular
		if _, lerr := d.LstatRegular(name); errors.As(lerr, &irregular) {
			return nil, irregular
		}
		return nil, err
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, name))
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &Irregular{filepath.Join(d.path, name), typeName(info.Mode())}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// OpenFD opens a file of d to read, for who reads thousands and does without
// what an os.File brings along. It neither follows a symlink nor waits; what it
// opened may be no regular file. The access time stays as it is where the
// kernel allows that, which it does to the owner. The caller closes it.
func (d *Dir) OpenFD(name string) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	if fd, err = d.open(name, flags|unix.O_NOATIME, 0); errors.Is(err, unix.EPERM) {
		fd, err = d.open(name, flags, 0)
	}
	return fd, err
}

func typeName(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "symlink"
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "FIFO"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// Create makes a file of d, which must not exist, and opens it to write.
func (d *Dir) Create(name string, perm uint32) (*os.File, error) {
	fd, err := d.open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(d.path, name)), nil
}

// OpenUpdate opens a regular file of d to read and to write. One that has other
// names is refused: it may be somebody else's.
func (d *Dir) OpenUpdate(name string) (*os.File, error) {
	if _, err := d.LstatRegular(name); err != nil {
		return nil, err // before it is opened: a FIFO or device has effects
	}
	fd, err := d.open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.path, name))
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &Irregular{f.Name(), typeName(info.Mode())}
	case info.Sys().(*syscall.Stat_t).Nlink != 1:
		err = &Irregular{f.Name(), "hard link"}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Stat describes the directory itself.
func (d *Dir) Stat() (fs.FileInfo, error) { return d.f.Stat() }

// Lstat describes an entry of d; a symlink is described itself.
func (d *Dir) Lstat(name string) (fs.FileInfo, error) {
	if err := d.single("lstat", name); err != nil {
		return nil, err
	}
	// O_PATH opens the entry without reading it, whatever it is.
	fd, err := openat(d.Fd(), name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, d.failed("lstat", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return f.Stat()
}

// LstatRegular describes a regular file of d without opening it; what is none
// is an *Irregular.
func (d *Dir) LstatRegular(name string) (fs.FileInfo, error) {
	info, err := d.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = &Irregular{filepath.Join(d.path, name), typeName(info.Mode())}
	}
	return info, err
}

// Names calls yield with the name of each entry, in no order, holding few of
// them in memory at a time.
func (d *Dir) Names(yield func(name string) error) error {
	again, err := d.Again() // a position of its own in the list
	if err != nil {
		return err
	}
	defer again.Close()
	for {
		names, err := again.f.Readdirnames(4096)
		for _, name := range names {
			if err := yield(name); err != nil {
				return err
			}
		}
		if len(names) == 0 || err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// Empty reports whether the directory has no entry.
func (d *Dir) Empty() (bool, error) {
	found := errors.New("not empty")
	err := d.Names(func(string) error { return found })
	if err == found {
		return false, nil
	}
	return err == nil, err
}

// Unlink removes an entry of d that is not a directory.
func (d *Dir) Unlink(name string) error {
	if err := d.single("unlink", name); err != nil {
		return err
	}
	if err := d.unlinkat(name, 0); err != nil {
		return d.failed("unlink", name, err)
	}
	return nil
}

func (d *Dir) unlinkat(name string, flags int) error {
	return again(func() error { return unix.Unlinkat(d.Fd(), name, flags) })
}

// maxDepth is how many levels RemoveAll goes down, each of which costs two
// descriptors: far more than anything of ours has, and few enough that nobody
// can use up those of the process.
const maxDepth = 16

// RemoveAll removes an entry of d and all below it, following nothing.
func (d *Dir) RemoveAll(name string) error { return d.removeAll(name, maxDepth) }

func (d *Dir) removeAll(name string, depth int) error {
	if err := d.single("remove", name); err != nil {
		return err
	}
	err := d.unlinkat(name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	sub, serr := d.Sub(name)
	if serr != nil {
		return d.failed("remove", name, err)
	}
	defer sub.Close()
	if depth == 0 {
		return d.failed("remove", name, errors.New("too many levels of directories"))
	}
	if err := sub.Names(func(name string) error { return sub.removeAll(name, depth-1) }); err != nil {
		return err
	}
	if err := d.unlinkat(name, unix.AT_REMOVEDIR); err != nil {
		return d.failed("remove", name, err)
	}
	return nil
}

// Rename moves an entry within d. With replace, an empty directory of the new
// name gives way; without, nothing does.
func (d *Dir) Rename(from, to string, replace bool) error {
	if err := errors.Join(d.single("rename", from), d.single("rename", to)); err != nil {
		return err
	}
	flags := uint(unix.RENAME_NOREPLACE)
	if replace {
		flags = 0
	}
	if err := again(func() error { return unix.Renameat2(d.Fd(), from, d.Fd(), to, flags) }); err != nil {
		return d.failed("rename to", to, err)
	}
	return nil
}

// Permit gives the directory the group and the permissions of another, as far
// as its owner may: a group that he is not in stays with the other.
func (d *Dir) Permit(like fs.FileInfo) error {
	info, err := d.Stat()
	if err != nil {
		return err
	}
	if gid(like) != gid(info) {
		if err := d.f.Chown(-1, gid(like)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return d.f.Chmod(like.Mode())
}

func gid(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// Sync makes the directory's own entries durable.
func (d *Dir) Sync() error { return d.f.Sync() }

// SyncFS makes everything written to the directory's filesystem durable. An
// error of any write since the directory was opened is reported, once (Linux
// 5.8 and later, sync(2)): so open it before the first write, call SyncFS
// once, and after an error throw away what was written.
func (d *Dir) SyncFS() error {
	if err := unix.Syncfs(d.Fd()); err != nil {
		return d.failed("syncfs", "", err)
	}
	return nil
}

// Same reports whether an entry of d still is the open directory sub.
func (d *Dir) Same(name string, sub *Dir) (bool, error) {
	now, err := d.Lstat(name)
	if err != nil {
		return false, err
	}
	opened, err := sub.Stat()
	if err != nil {
		return false, err
	}
	a, b := now.Sys().(*syscall.Stat_t), opened.Sys().(*syscall.Stat_t)
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// retry repeats a call that a signal interrupted; raw calls are not repeated
// by the runtime.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// again is retry for calls without a value.
func again(call func() error) error {
	_, err := retry(func() (int, error) { return 0, call() })
	return err
}

// Again opens the same directory once more.
func (d *Dir) Again() (*Dir, error) {
	fd, err := openat(d.Fd(), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, d.failed("open", ".", err)
	}
	return newDir(fd, d.path), nil
}
