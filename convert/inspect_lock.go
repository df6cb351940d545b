package convert

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// dotlock looks at the dotlock of a mailbox, by the rules of mbox.Lock, and
// leaves it as it is.
func (l *look) dotlock(dir *safefs.Dir, s source) {
	if !l.in.site.Locks.Dotlock {
		return
	}
	info, err := dir.Lstat(s.file + ".lock")
	if err != nil {
		return
	}
	path := s.path + ".lock"
	if !info.Mode().IsRegular() {
		l.i.add("dotlock-foreign", path, "is no file, but has mode %v", info.Mode())
		return
	}
	if owner := ownerOf(info); owner != 0 && owner != l.a.UID {
		l.i.add("dotlock-foreign", path, "belongs to uid %d, who is neither root nor uid %d", owner, l.a.UID)
		return
	}
	holder := readHolder(dir, s.file+".lock")
	age := unchangedFor(info)
	if box, err := dir.Lstat(s.file); err == nil {
		age = min(age, unchangedFor(box))
	}
	if l.isStale(holder, age) {
		l.i.add("dotlock-stale", path, "was made by %s and is %s old", holder, unchangedFor(info).Round(time.Second))
		return
	}
	l.i.add("dotlock-live", path, "was made by %s and is %s old", holder, unchangedFor(info).Round(time.Second))
}

// isStale judges a dotlock by its maker, and if that says nothing, by how long
// neither it nor the mbox has changed.
func (l *look) isStale(holder mbox.LockHolder, age time.Duration) bool {
	o := l.in.site.Locks
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname()
	}
	if o.StaleAfter == 0 {
		o.StaleAfter = mbox.DefaultStaleAfter
	}
	here := holder.PID != 0 && (holder.Host == "" || holder.Host == o.Hostname)
	alive := here && !errors.Is(unix.Kill(holder.PID, 0), unix.ESRCH)
	switch {
	case alive:
		return false
	case here && holder.Host != "":
		return true
	}
	return age >= o.StaleAfter
}

func unchangedFor(info fs.FileInfo) time.Duration {
	return time.Since(time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()))
}

// readHolder reads who made a dotlock: `pid:host` or `pid`; anything else is
// nobody.
func readHolder(dir *safefs.Dir, name string) (h mbox.LockHolder) {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return h
	}
	defer f.Close()
	leaveAtime(f)
	content, err := io.ReadAll(io.LimitReader(f, 300)) // pid, colon, the longest host name
	if err != nil {
		return h
	}
	return mbox.ParseHolder(string(content))
}
