package semaphore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// directory is an open directory of semaphores.
type directory struct {
	fd    int
	owner int
}

// openDir opens the semaphores' directory, which the admin names and is
// followed as the kernel does. One that others can write is no authority.
func (s *Semaphore) openDir() (*directory, error) {
	fd, err := openat(unix.AT_FDCWD, s.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		// Not wrapped: a directory that is not there does not make users new.
		return nil, fmt.Errorf("directory of semaphores %q: %v: holding", s.dir, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&0o022 != 0 {
		err = fmt.Errorf("directory of semaphores %q can be written by others than its owner, mode %04o: holding", s.dir, st.Mode&0o7777)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &directory{fd, int(st.Uid)}, nil
}

// Close releases the descriptor.
func (d *directory) Close() error { return unix.Close(d.fd) }

// read reads a file of the directory, which must be root's or the directory
// owner's. The link count is not looked at: nobody else can make or unmake
// links here, and a user who links the file elsewhere gains nothing by it.
func (d *directory) read(name string, limit int) ([]byte, error) {
	content, _, err := readFile(d.fd, name, limit, 0, d.owner)
	return content, err
}

// readFile reads a regular file of at most limit bytes that belongs to one of
// owners. It follows no symlink, and waits neither for the writer of a FIFO nor
// for who has a lease on the file: both give up on O_NONBLOCK (fcntl(2)).
func readFile(dir int, name string, limit int, owners ...int) (content []byte, st unix.Stat_t, err error) {
	if err := fitName(name); err != nil {
		return nil, st, err
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, st, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, st, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, st, errors.New("not a regular file")
	case !slices.Contains(owners, int(st.Uid)):
		return nil, st, fmt.Errorf("belongs to uid %d", st.Uid)
	case st.Size > int64(limit):
		return nil, st, fmt.Errorf("%d bytes long, which none is", st.Size)
	}
	// One byte more than limit tells a file that has grown since. One read is
	// all: a regular file gives what it has.
	buf := make([]byte, limit+1)
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil {
		return nil, st, err
	}
	if n > limit {
		return nil, st, fmt.Errorf("more than %d bytes long, which none is", limit)
	}
	return buf[:n], st, nil
}

// writeFile makes a file that did not exist and has it on the disk, whole and
// with its final mode, when it returns; else there is none.
func writeFile(dir int, name string, content []byte) (err error) {
	fd, err := openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			err = errors.Join(err, unlink(dir, name))
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask is: agents run as the users
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// replace gives a written file its final name, whatever bears that, durably.
// An error that is ErrNotDurable comes after the rename.
func replace(dir int, from, to string) error {
	if _, err := retry(func() (int, error) { return 0, unix.Renameat(dir, from, dir, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	if _, err := retry(func() (int, error) { return 0, unix.Fsync(dir) }); err != nil {
		return fmt.Errorf("%q: %w: fsync of the directory: %w", to, ErrNotDurable, err)
	}
	return nil
}

// unlink removes a file; one that is gone already is fine.
func unlink(dir int, name string) error {
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unlink", Path: name, Err: err}
	}
	return nil
}

// openat never follows a symlink of the directory nor leaks into a child. A
// path from AT_FDCWD is followed but for its last component if flags say so.
func openat(dir int, name string, flags int, perm uint32) (int, error) {
	if dir != unix.AT_FDCWD {
		flags |= unix.O_NOFOLLOW
	}
	return retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_CLOEXEC, perm) })
}

// retry repeats a call that a signal interrupted; raw calls are not repeated by
// the runtime.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
