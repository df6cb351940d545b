package attack

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// trap is what the attacker puts in the place of something.
type trap struct {
	kind string
	make func(bait *Bait, dirfd int, name string) error
	ino  uint64
}

var traps = []trap{
	{kind: "symlink to open", make: symlink("open")},
	{kind: "symlink to closed", make: symlink("closed")},
	{kind: "symlink to open secret", make: symlink("open/secret")},
	{kind: "symlink to closed secret", make: symlink("closed/secret")},
	{kind: "symlink to nothing", make: symlink("open/planted")},
	{kind: "FIFO", make: func(_ *Bait, dirfd int, name string) error { return unix.Mkfifoat(dirfd, name, 0o600) }},
	{kind: "directory", make: func(_ *Bait, dirfd int, name string) error { return unix.Mkdirat(dirfd, name, 0o700) }},
	{kind: "hard link", make: func(bait *Bait, dirfd int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, bait.path("open/shared"), dirfd, name, 0)
	}},
	{kind: "file", make: func(_ *Bait, dirfd int, name string) error {
		fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}},
}

func symlink(to string) func(*Bait, int, string) error {
	return func(bait *Bait, dirfd int, name string) error {
		return unix.Symlinkat(bait.path(to), dirfd, name)
	}
}

// lay puts a trap at name, which must be free.
func (r *raid) lay(d *safefs.Dir, name string) (trap, error) {
	t := traps[r.rand.IntN(len(traps))]
	if err := t.make(r.target.Bait, d.Fd(), name); err != nil {
		return t, err
	}
	info, err := d.Lstat(name)
	if err == nil {
		t.ino = inode(info)
	}
	return t, err
}

func inode(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

// remove takes the trap away again, and nothing else that has its name by now:
// what the program put there, or into it, stays.
func (t trap) remove(d *safefs.Dir, name string) error {
	info, err := d.Lstat(name)
	if err != nil {
		return err
	}
	if inode(info) != t.ino {
		return errors.New("replaced")
	}
	if info.IsDir() {
		return unix.Unlinkat(d.Fd(), name, unix.AT_REMOVEDIR)
	}
	return d.Unlink(name)
}
