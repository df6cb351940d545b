package semaphore

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// isOlderThanBoot reports whether a lock was made before this host was started, so
// that its maker is dead: a power loss leaves locks of which the content never
// reached the disk, and pids that others have now. Where other hosts make locks, too,
// nothing is said: their makers may live.
//
// lock_boot.go of package mbox and boot.go of package semaphore, which imports
// nothing of ours, are the same on purpose; a test in mbox compares them.
func isOlderThanBoot(dir int, unchanged time.Duration) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil || slices.Contains(shared, uint32(fs.Type)) {
		return false
	}
	const doubt = time.Second // of what the clock and the ctime of a filesystem say
	return unchanged > sinceBoot()+doubt
}

// shared are filesystems that other hosts may write to.
var shared = []uint32{unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC,
	unix.AFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.CODA_SUPER_MAGIC, unix.V9FS_MAGIC, unix.OCFS2_SUPER_MAGIC}

// sinceBoot is for how long this host has been up, suspension included; tests
// change it.
var sinceBoot = func() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 1<<63 - 1
	}
	return time.Duration(now.Nano())
}
