// Package openfiles tells who has a file open.
//
// [InUse] asks the kernel, in microseconds, whether anybody at all has a file
// open besides one descriptor of the caller. [Holders] names the processes, by
// a walk over /proc, and sees only those that /proc shows.
//
// The two complete each other: InUse counts processes of other containers,
// mappings that outlive their descriptor and the caller's own other
// descriptors, none of which Holders can see.
package openfiles

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrUnknown says that the kernel can't tell whether a file is in use: the
// filesystem has no leases, or is one whose files may be open elsewhere.
var ErrUnknown = errors.New("the filesystem does not tell whether a file is in use")

// InUse reports whether anybody else has the file open that f is a descriptor
// of: any process with a descriptor or a mapping of it, whatever for, and this
// process itself if it opened the file a second time. Not counted are copies
// of f (dup(2), or inherited by a child) and descriptors by O_PATH.
//
// It takes a write lease, which is granted only if the file is open once
// (fcntl(2), F_SETLEASE; the kernel's check_conflicting_open), and gives it
// back at once. Who opens the file within these two microseconds waits for
// their end, or, if with O_NONBLOCK, fails with EWOULDBLOCK. The signal that
// such an open sends us is SIGIO, which Go ignores.
//
// The caller must own the file or be root (CAP_LEASE). The error is ErrUnknown
// where there are no leases: [Holders] is left then.
func InUse(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	var used bool
	var failed error
	err = raw.Control(func(fd uintptr) { used, failed = inUse(fd) })
	if err := errors.Join(err, failed); err != nil {
		return false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return used, nil
}

func inUse(fd uintptr) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(fd), &fs); err != nil {
		return false, fmt.Errorf("fstatfs: %w", err)
	}
	if !slices.Contains(local, uint32(fs.Type)) {
		return false, fmt.Errorf("%w (type %#x)", ErrUnknown, fs.Type)
	}
	switch err := lease(fd, unix.F_WRLCK); err {
	case nil:
	case unix.EAGAIN:
		return true, nil
	case unix.EINVAL, unix.ENOLCK, unix.EOPNOTSUPP:
		return false, fmt.Errorf("%w (%v)", ErrUnknown, err)
	default:
		return false, fmt.Errorf("taking a lease: %w", err)
	}
	if err := lease(fd, unix.F_UNLCK); err != nil {
		return false, fmt.Errorf("giving back a lease: %w", err)
	}
	return false, nil
}

// lease changes the lease on fd.
func lease(fd uintptr, kind int) error {
	for {
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, kind)
		if err != unix.EINTR {
			return err
		}
	}
}

// local are the filesystems of which this kernel does every open itself. NFS
// refuses a lease for reasons of its own (no delegation), FUSE and network
// filesystems don't know who else has a file open, and on overlayfs the file
// below may be open besides.
var local = []uint32{
	unix.EXT4_SUPER_MAGIC, // ext2 and ext3, too
	unix.XFS_SUPER_MAGIC,
	unix.BTRFS_SUPER_MAGIC,
	unix.BCACHEFS_SUPER_MAGIC,
	unix.TMPFS_MAGIC,
	unix.F2FS_SUPER_MAGIC,
	unix.REISERFS_SUPER_MAGIC,
	0x3153464a, // JFS
	0x2fc12fc1, // ZFS
}
