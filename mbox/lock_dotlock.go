package mbox

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Dotlocks
//
// A dotlock says who made it: `pid:host` (Dovecot, ours), `pid` (maildrop), `0`
// (procmail) or nothing (Postfix, mutt; with mode 0, so that nobody but root can
// read it). One that is in the way is
//
//	refused      not a regular file, or not made by root, the mbox's owner or our uid
//	taken over   pid:host of this host, or no host, and older than its boot: at once
//	respected    pid of this host, or no host, and alive: for ever
//	taken over   pid:host of this host and dead: at once
//	taken over   else, when neither it nor the mbox changed for StaleAfter
//	respected    else
//
// Unchanged means by ctime, which moves with content, times and links alike and
// which no user can set back.
//
// Taking over must not hit a fresh lock that replaced the stale one while we were
// judging. Unlinking by name, as most peers do, can. So ours is put in its place
// by RENAME_EXCHANGE: the name is never free, so nobody else can get in, and what
// came out is compared with what was judged. If it is another file, or was touched
// meanwhile, the two are exchanged back. Nobody but the holder of the fcntl lock
// takes over, so that two of us don't do it at once and so that a lock is not stale
// while its maker holds a kernel lock: a dead pid may be alive in a container that
// shares our host name. What remains: a peer that judged the same lock stale unlinks
// ours by name. Then Check and Refresh say so, and the kernel locks still hold.

// dotlockFile is a dotlock known by its inode, which fd keeps from being reused.
type dotlockFile struct {
	fd     int
	st     unix.Stat_t
	holder LockHolder
}

// ourDotlocks are the dotlocks of this process, by inode. Our pid in any other one is
// that of an earlier process: in a container each start may get the same.
var ourDotlocks sync.Map

func inodeOf(st *unix.Stat_t) [2]uint64 { return [2]uint64{st.Dev, st.Ino} }

// forget closes a dotlock of ours that is no longer in place.
func (d *dotlockFile) forget() {
	ourDotlocks.Delete(inodeOf(&d.st))
	unix.Close(d.fd)
}

// held reports whether the maker of a dotlock, on this host, is alive.
func (d *dotlockFile) held() bool {
	if d.holder.PID == os.Getpid() && d.holder.Host != "" {
		_, ours := ourDotlocks.Load(inodeOf(&d.st))
		return ours
	}
	return !errors.Is(unix.Kill(d.holder.PID, 0), unix.ESRCH)
}

func sinceChange(st *unix.Stat_t) time.Duration {
	return time.Since(time.Unix(st.Ctim.Unix()))
}

// lockDotlock makes NAME.lock ours, or says who is in the way.
func (h *Held) lockDotlock() error {
	if !h.opts.Dotlock {
		return nil
	}
	return h.opts.WithGroup(func() error {
		old, err := h.findDotlock()
		if err != nil {
			return err
		}
		if old == nil {
			return h.placeDotlock(h.link)
		}
		defer unix.Close(old.fd)
		if err := h.judge(old); err != nil {
			return err
		}
		if err := h.takeFcntl(); err != nil {
			return err
		}
		if !h.opts.Fcntl {
			defer h.fcntl(unix.F_OFD_SETLK, unix.F_UNLCK)
		}
		return h.placeDotlock(func(tmp string, own *dotlockFile) error { return h.takeOver(tmp, own, old) })
	})
}

// findDotlock looks at the dotlock in place; nil when there is none. O_PATH gets
// hold of the inode whatever its type and mode.
func (h *Held) findDotlock() (*dotlockFile, error) {
	fd, err := unix.Openat(h.dir, h.dotlockName(), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, h.failed(KindDotlock, "looking at the dotlock", err)
	}
	found := &dotlockFile{fd: fd}
	if err := unix.Fstat(fd, &found.st); err != nil {
		return nil, h.failed(KindDotlock, "looking at the dotlock", errors.Join(err, unix.Close(fd)))
	}
	if found.st.Mode&unix.S_IFMT == unix.S_IFREG {
		found.holder = h.readHolder(&found.st)
	}
	return found, nil
}

// readHolder reads who made the dotlock. What can't be read is an unknown holder,
// who is respected for the longest time.
func (h *Held) readHolder(st *unix.Stat_t) LockHolder {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Openat(h.dir, h.dotlockName(), flags, 0)
	if err != nil {
		return LockHolder{}
	}
	defer unix.Close(fd)
	var now unix.Stat_t
	var content [300]byte // pid, colon, the longest host name
	n, err := unix.Read(fd, content[:])
	if err != nil || unix.Fstat(fd, &now) != nil || inodeOf(st) != inodeOf(&now) {
		return LockHolder{}
	}
	return ParseHolder(string(content[:n]))
}

// PredatesBoot reports whether a dotlock in a directory was made before this host was
// started, so that its maker is dead. What can't be looked at does not.
func PredatesBoot(dir int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && isOlderThanBoot(dir, sinceChange(&st))
}

// judge returns nil when the dotlock is stale.
func (h *Held) judge(d *dotlockFile) error {
	if d.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return h.refusedDotlock("is " + fileType(&d.st))
	}
	if uid := int(d.st.Uid); uid != 0 && uid != int(h.st.Uid) && uid != unix.Geteuid() {
		return h.refusedDotlock(fmt.Sprintf("belongs to uid %d, who is neither root nor the owner of the mbox, uid %d", uid, h.st.Uid))
	}
	unchanged := sinceChange(&d.st)
	mbox, err := h.statName(h.name)
	switch {
	case err == nil:
		unchanged = min(unchanged, sinceChange(&mbox))
	case !h.free || !errors.Is(err, unix.ENOENT): // where nothing lies yet, the dotlock tells all
		return h.fault(LockBusy, "", h.replaced())
	}
	if (d.holder.Host == "" || d.holder.Host == h.opts.Hostname) && isOlderThanBoot(h.dir, unchanged) {
		return nil
	}
	here := d.holder.PID != 0 && (d.holder.Host == "" || d.holder.Host == h.opts.Hostname)
	if here && d.held() {
		return h.busyDotlock(d, "which is alive", fmt.Sprintf("to look at the holder: ps -fp %d", d.holder.PID))
	}
	if here && d.holder.Host != "" {
		return nil
	}
	if unchanged < h.opts.StaleAfter {
		rule := fmt.Sprintf("stale only when it and the mbox are unchanged for %s", h.opts.StaleAfter)
		return h.busyDotlock(d, rule, "if no mail program is at work for this user, remove the dotlock: rm "+printable(h.opts.Path+".lock"))
	}
	return nil
}

func (h *Held) busyDotlock(d *dotlockFile, detail, hint string) error {
	age := sinceChange(&d.st)
	e := h.fault(LockBusy, KindDotlock, fmt.Sprintf("dotlock %s is %s old, made by %s, %s",
		printable(h.dotlockName()), age.Round(time.Second), d.holder, detail))
	e.Holder, e.Age, e.Hint = d.holder, age, hint
	return e
}

func (h *Held) refusedDotlock(why string) *LockError {
	e := h.fault(LockRefused, KindDotlock, fmt.Sprintf("dotlock %s %s", printable(h.dotlockName()), why))
	e.Hint = "look at it, then move it away: ls -ld " + printable(h.opts.Path+".lock")
	return e
}

// placeDotlock writes our dotlock under a temporary name, which place then brings
// into position and removes. Who can read its content respects it while we live.
func (h *Held) placeDotlock(place func(tmp string, own *dotlockFile) error) error {
	tmp := dotlockTemp + rand.Text() + ".lock"
	fd, err := unix.Openat(h.dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return h.denied("create", err)
	}
	own := &dotlockFile{fd: fd}
	_, err = unix.Write(fd, fmt.Appendf(nil, "%d:%s", os.Getpid(), h.opts.Hostname))
	err = errors.Join(err, unix.Fchmod(fd, 0o644), unix.Fstat(fd, &own.st))
	if err != nil {
		return h.failed(KindDotlock, "writing the dotlock", errors.Join(err, h.unlink(tmp), unix.Close(fd)))
	}
	ourDotlocks.Store(inodeOf(&own.st), true)
	err = place(tmp, own)
	if h.own != own {
		own.forget()
	}
	return err
}

const dotlockTemp = ".mailferry-"

// IsDotlockTemp reports whether a name is one that a dotlock has for a moment,
// before it gets its own; that of a killed process stays.
func IsDotlockTemp(name string) bool {
	random, found := strings.CutPrefix(name, dotlockTemp)
	random, lock := strings.CutSuffix(random, ".lock")
	return found && lock && len(random) == len(rand.Text())
}

func (h *Held) unlink(name string) error {
	if err := unix.Unlinkat(h.dir, name, 0); err != nil {
		return h.failed(KindDotlock, "removing "+printable(name), err)
	}
	return nil
}

// link makes the dotlock where there is none. The link count and not link's answer
// tells the truth: over NFS the answer may be lost, and O_EXCL is not to be relied
// on (open(2)).
func (h *Held) link(tmp string, own *dotlockFile) error {
	linkErr := unix.Linkat(h.dir, tmp, h.dir, h.dotlockName(), 0)
	err := unix.Fstat(own.fd, &own.st)
	if own.st.Nlink == 2 {
		h.own = own
	}
	if err := errors.Join(err, h.unlink(tmp)); err != nil {
		return h.failed(KindDotlock, "making the dotlock", err)
	}
	switch {
	case h.own == own:
		return nil
	case linkErr == nil || errors.Is(linkErr, unix.EEXIST):
		return h.fault(LockBusy, KindDotlock, "the dotlock has just been made by another program")
	}
	return h.denied("create", linkErr)
}

// takeOver puts our dotlock in the place of the stale one.
func (h *Held) takeOver(tmp string, own, stale *dotlockFile) error {
	if err := h.exchange(tmp); err != nil {
		return errors.Join(h.unlink(tmp), h.notExchanged(stale, err))
	}
	out, err := h.statName(tmp)
	if err != nil || inodeOf(&out) != inodeOf(&stale.st) || out.Mtim != stale.st.Mtim {
		return h.putBack(tmp, own)
	}
	h.own = own
	h.Broken = fmt.Sprintf("dotlock %s, %s old, made by %s", printable(h.dotlockName()),
		sinceChange(&stale.st).Round(time.Second), stale.holder)
	return h.unlink(tmp)
}

func (h *Held) exchange(tmp string) error {
	return unix.Renameat2(h.dir, tmp, h.dir, h.dotlockName(), unix.RENAME_EXCHANGE)
}

// putBack returns a fresh dotlock, now under the name tmp, to its place. When it
// finds no dotlock there, the maker of the fresh one has released it and has
// unlinked ours. When what comes out is not ours, then he has released it and a
// third program has made its own, which a second exchange returns.
func (h *Held) putBack(tmp string, own *dotlockFile) error {
	for range 2 {
		err := h.exchange(tmp)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return h.failed(KindDotlock, "putting back the dotlock, now "+tmp, err)
		}
		if out, err := h.statName(tmp); err == nil && inodeOf(&out) == inodeOf(&own.st) {
			break
		}
	}
	return errors.Join(h.unlink(tmp), h.fault(LockBusy, KindDotlock, "the dotlock has just been made anew by another program"))
}

func (h *Held) notExchanged(stale *dotlockFile, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return h.fault(LockBusy, KindDotlock, "the stale dotlock has just been removed")
	case !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS):
		return h.denied("take over stale", err)
	}
	return h.refusedDotlock(fmt.Sprintf("made by %s is stale, but this filesystem cannot exchange files", stale.holder))
}

// denied names the identities that met when the directory did not let us.
func (h *Held) denied(what string, err error) error {
	var st unix.Stat_t
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) || unix.Fstat(h.dir, &st) != nil {
		return h.failed(KindDotlock, what+" dotlock", err)
	}
	e := h.refusedDotlock("")
	e.Reason = fmt.Sprintf("cannot %s dotlock %s: its directory belongs to uid %d, gid %d, mode %04o; this is uid %d, gid %d",
		what, printable(h.dotlockName()), st.Uid, st.Gid, st.Mode&0o7777, unix.Geteuid(), unix.Getegid())
	e.Hint = fmt.Sprintf("dotlocks there need gid %d, the spool's group", st.Gid)
	e.Err = err
	return e
}

// checkDotlock reports a dotlock that was ours and is not any more.
func (h *Held) checkDotlock() error {
	if h.own == nil {
		return nil
	}
	if st, err := h.statName(h.dotlockName()); err == nil && inodeOf(&st) == inodeOf(&h.own.st) {
		return nil
	}
	return h.fault(LockLost, KindDotlock, fmt.Sprintf("our dotlock %s was removed or replaced by another program", printable(h.dotlockName())))
}

// dropDotlock removes the dotlock if it is ours, and only then.
func (h *Held) dropDotlock() error {
	if h.own == nil {
		return nil
	}
	err := h.checkDotlock()
	if err == nil {
		err = h.unlink(h.dotlockName())
	}
	h.own.forget()
	h.own = nil
	return err
}
