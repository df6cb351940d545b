package convert

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// What a message and a folder take besides their bytes: the rest of the last
// block, an entry of the directory, a line of each list; the directories and
// lists of a folder.
const (
	bytesPerMessage  = 4 << 10
	inodesPerMailbox = 10
)

// need is what a second copy of an account takes.
type need struct{ bytes, inodes int64 }

func needOf(mailboxes []MailboxPlan) (n need) {
	folders := len(mailboxes)
	if folders == 0 || mailboxes[0].Name != "INBOX" {
		folders++ // INBOX is always made
	}
	n.inodes = int64(folders) * inodesPerMailbox
	n.bytes = n.inodes * bytesPerMessage
	for _, m := range mailboxes {
		n.inodes += int64(m.Messages)
		n.bytes = plus(n.bytes, plus(m.Bytes, int64(m.Messages)*bytesPerMessage))
	}
	return n
}

// plus adds two numbers of bytes, neither of them below 0. A file may say that it has as
// many as there can be: a hole costs its owner nothing.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// fileLimit is RLIMIT_FSIZE, in bytes. What a filesystem takes for one file is
// found out by writing it.
func fileLimit() int64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil || limit.Cur > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(limit.Cur)
}

// room is what the filesystem of a Maildir has left.
type room struct {
	safefs.Room
	path  string // of a directory in it
	known bool
}

// fits compares what a second copy takes with what is left. A precopy that will
// be continued has taken its part already.
func (l *look) fits(parent *safefs.Dir, continued bool) {
	l.i.need = needOf(l.i.mailboxes)
	if continued {
		l.i.need = need{}
	}
	left, err := parent.Statfs()
	if err != nil {
		l.i.add("inspection-failed", parent.Path(), "%v", err)
		return
	}
	l.i.room = room{left, parent.Path(), true}
	want := l.i.need
	if plus(want.bytes, l.in.FreeFloor) > left.Bytes {
		l.i.add("space", parent.Path(), "%d bytes are needed, %d are free, and %d must stay free", want.bytes, left.Bytes, l.in.FreeFloor)
	}
	if want.inodes > left.Inodes {
		l.i.add("inodes", parent.Path(), "%d inodes are needed, %d are free", want.inodes, left.Inodes)
	}
	l.quota(parent, want)
}

// dqblk is struct if_dqblk of linux/quota.h. Limits of 0 are none.
type dqblk struct {
	BlocksHard, BlocksSoft uint64 // KiB
	Bytes                  uint64 // in use
	InodesHard, InodesSoft uint64
	Inodes                 uint64 // in use
	BlocksGrace            uint64
	InodesGrace            uint64
	Valid                  uint32
	_                      uint32
}

// Kinds of quota (linux/quota.h).
const (
	userQuota  = 0
	groupQuota = 1
)

// quota compares what a second copy takes with the user's quota, and with that
// of his group. A kernel or filesystem without quota says nothing.
func (l *look) quota(parent *safefs.Dir, want need) {
	for _, q := range []struct {
		kind, id int
		whose    string
	}{{userQuota, l.a.UID, "uid"}, {groupQuota, l.a.GID, "gid"}} {
		limits, err := l.in.quota(parent.Fd(), q.kind, q.id)
		if err != nil {
			continue
		}
		if limit := lower(limits.BlocksHard, limits.BlocksSoft) << 10; limit != 0 && limits.Bytes+uint64(want.bytes) > limit {
			l.i.add("quota", parent.Path(), "%d bytes are needed, and %s %d uses %d of %d", want.bytes, q.whose, q.id, limits.Bytes, limit)
		}
		if limit := lower(limits.InodesHard, limits.InodesSoft); limit != 0 && limits.Inodes+uint64(want.inodes) > limit {
			l.i.add("quota", parent.Path(), "%d inodes are needed, and %s %d uses %d of %d", want.inodes, q.whose, q.id, limits.Inodes, limit)
		}
	}
}

// lower is the limit that counts: both copies lie there for longer than a soft
// one may be passed.
func lower(hard, soft uint64) uint64 {
	if soft != 0 && (hard == 0 || soft < hard) {
		return soft
	}
	return hard
}

// getQuota asks the kernel, by quotactl_fd(2) of Linux 5.14, which needs no
// name of a device. Users may ask for their own.
func getQuota(fd, kind, id int) (limits dqblk, err error) {
	const getQuota = 0x800007 // Q_GETQUOTA
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(getQuota<<8|kind), uintptr(id), uintptr(unsafe.Pointer(&limits)), 0, 0)
	if errno != 0 {
		return limits, errno
	}
	return limits, nil
}
