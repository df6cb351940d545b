package safefs

import (
	"math"

	"golang.org/x/sys/unix"
)

// Room is what a filesystem has left for those who are not root.
type Room struct {
	Bytes  int64  // free, without the reserve of root
	Inodes int64  // free; math.MaxInt64 where the filesystem does not count them
	Dev    uint64 // st_dev of the directory: equal for equal filesystems
}

// Statfs tells what the directory's filesystem has left (statvfs(3)). It does
// not know the user's quota.
func (d *Dir) Statfs() (Room, error) {
	var st unix.Statfs_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstatfs(d.Fd(), &st) }); err != nil {
		return Room{}, d.failed("statfs", "", err)
	}
	var own unix.Stat_t
	if err := unix.Fstat(d.Fd(), &own); err != nil {
		return Room{}, d.failed("stat", "", err)
	}
	room := Room{
		Bytes:  saturated(st.Bavail, uint64(st.Frsize)),
		Inodes: saturated(st.Ffree, 1),
		Dev:    own.Dev,
	}
	if st.Files == 0 { // btrfs and others that make inodes as they need them
		room.Inodes = math.MaxInt64
	}
	return room, nil
}

// saturated is a product that stays below 2^63.
func saturated(n, unit uint64) int64 {
	if unit != 0 && n > math.MaxInt64/unit {
		return math.MaxInt64
	}
	return int64(n * unit)
}
