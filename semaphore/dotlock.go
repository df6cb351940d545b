package semaphore

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A dotlock says who made it: `pid:host` (ours, Dovecot), `pid` (maildrop) or
// `0` (procmail). One that is in the way is
//
//	refused     not a regular file, or not made by root, the home's owner or our uid
//	taken over  pid:host of this host and dead: at once
//	taken over  of this host or of none, and older than its boot: at once
//	taken over  unchanged for StaleAfter, whoever made it
//	respected   else
//
// A live pid is no reason to respect a dotlock for ever: after a crash it may be
// another program's, and nobody should have to remove a gate by hand.
//
// Taking over must not hit a fresh dotlock that replaced the stale one while it
// was being judged; unlinking by name, as most do, can. So ours is put in its
// place by RENAME_EXCHANGE: the name is never free, nobody else can get in, and
// what came out is compared with what was judged. If it is another, the two are
// exchanged back. A flock on the home keeps two of us from doing it at once. What
// remains: another program that judged the same dotlock stale unlinks ours by
// name. Then Check says so.

// dotlock is known by its inode, which fd keeps from being used again.
type dotlock struct {
	fd   int
	st   unix.Stat_t
	pid  int    // 0: unknown
	host string // "": not told
}

// ours are the dotlocks of this process, by inode. Our pid in any other one is
// that of an earlier process: in a container each start may get the same.
var ours sync.Map

func inodeOf(st *unix.Stat_t) [2]uint64 { return [2]uint64{uint64(st.Dev), st.Ino} }

// forget closes a dotlock of ours that is no longer in place.
func (d *dotlock) forget() {
	ours.Delete(inodeOf(&d.st))
	unix.Close(d.fd)
}

// maker names who made it, for messages.
func (d *dotlock) maker() string {
	switch {
	case d.pid == 0:
		return "an unknown program"
	case d.host == "":
		return fmt.Sprintf("pid %d", d.pid)
	}
	return fmt.Sprintf("pid %d on %s", d.pid, d.host)
}

// dead reports whether its maker is known to be dead.
func (d *dotlock) dead(host string) bool {
	if d.pid == 0 || d.host != host {
		return false
	}
	if d.pid == os.Getpid() {
		_, alive := ours.Load(inodeOf(&d.st))
		return !alive
	}
	return errors.Is(unix.Kill(d.pid, 0), unix.ESRCH)
}

// find looks at the dotlock in place; nil when there is none. O_PATH gets hold
// of the inode, whatever its type and mode.
func (g *Gate) find() (*dotlock, error) {
	fd, err := openat(g.dir, g.name, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("gate %q: %w", g.name, err)
	}
	d := &dotlock{fd: fd}
	if err := unix.Fstat(fd, &d.st); err != nil {
		return nil, fmt.Errorf("gate %q: %w", g.name, errors.Join(err, unix.Close(fd)))
	}
	// What can't be read, or was replaced meanwhile, has an unknown maker.
	content, st, err := readFile(g.dir, g.name, maxHolder, int(d.st.Uid))
	if err == nil && inodeOf(&st) == inodeOf(&d.st) {
		d.pid, d.host = parseHolder(string(content))
	}
	return d, nil
}

const maxHolder = 300 // bytes: pid, colon, the longest host name

// parseHolder understands `pid:host` (dovecot file-dotlock.c) and `pid`, with or
// without a final newline. Everything else, `0` included, is pid 0.
func parseHolder(content string) (pid int, host string) {
	word, host, told := strings.Cut(strings.TrimSuffix(content, "\n"), ":")
	n, err := strconv.ParseInt(word, 10, 32)
	if err != nil || n <= 0 || told && !isHostname(host) {
		return 0, ""
	}
	return int(n), host
}

// isHostname keeps text that a user wrote into a dotlock out of messages.
func isHostname(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	return s != "" && len(s) <= 255 && strings.Trim(s, allowed) == ""
}

// judge returns nil when the dotlock is stale.
func (g *Gate) judge(d *dotlock) error {
	var home unix.Stat_t
	if err := unix.Fstat(g.dir, &home); err != nil {
		return fmt.Errorf("gate %q: its directory: %w", g.name, err)
	}
	age := sinceChange(&d.st)
	switch uid := d.st.Uid; {
	case d.st.Mode&unix.S_IFMT != unix.S_IFREG:
		return g.fault(ErrGateRefused, "not a regular file, mode %#o", d.st.Mode)
	case uid != 0 && uid != home.Uid && int(uid) != unix.Geteuid():
		return g.fault(ErrGateRefused, "belongs to uid %d, who is neither root nor uid %d, the home's owner", uid, home.Uid)
	case d.dead(g.opts.Hostname) || age >= g.opts.StaleAfter:
		return nil
	case (d.host == "" || d.host == g.opts.Hostname) && isOlderThanBoot(g.dir, age):
		return nil
	}
	return g.fault(ErrGateBusy, "%s old, made by %s", age.Round(time.Second), d.maker())
}

// alone keeps two of us from taking over at once. The descriptor is a new one,
// since a flock belongs to the opening and the caller's may be shared.
func (g *Gate) alone(takeOver func() error) error {
	fd, err := openat(g.dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("gate %q: its directory: %w", g.name, err)
	}
	defer unix.Close(fd)
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return g.fault(ErrGateBusy, "stale, and another process is taking it over")
	case err != nil: // NFS locks no directories (flock(2))
		return g.fault(ErrGateRefused, "stale, but its directory can't be locked to take it over: %v", err)
	}
	defer unix.Flock(fd, unix.LOCK_UN)
	return takeOver()
}

// place writes our dotlock under a temporary name, which put brings into
// position. It is not synced: a dotlock need not outlive its maker.
func (g *Gate) place(put func(temp string, own *dotlock) error) error {
	temp := tempName(g.name)
	fd, err := openat(g.dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("gate %q: creating it: %w", g.name, err)
	}
	own := &dotlock{fd: fd}
	content := fmt.Appendf(nil, "%d:%s", os.Getpid(), g.opts.Hostname)
	n, err := unix.Write(fd, content)
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	err = errors.Join(err, unix.Fchmod(fd, 0o644), unix.Fstat(fd, &own.st))
	if err != nil {
		return fmt.Errorf("gate %q: writing it: %w", g.name, errors.Join(err, unlink(g.dir, temp), unix.Close(fd)))
	}
	ours.Store(inodeOf(&own.st), true)
	if err = errors.Join(put(temp, own), unlink(g.dir, temp)); err != nil && g.own == own {
		err = errors.Join(err, g.Release())
	}
	if g.own != own {
		own.forget()
	}
	return err
}

// link makes the dotlock where there is none. The link count and not link's
// answer tells the truth: over NFS the answer may be lost (open(2)).
func (g *Gate) link(temp string, own *dotlock) error {
	linkErr := unix.Linkat(g.dir, temp, g.dir, g.name, 0)
	if err := unix.Fstat(own.fd, &own.st); err != nil {
		return fmt.Errorf("gate %q: %w", g.name, err)
	}
	switch {
	case own.st.Nlink == 2:
		g.own = own
		return nil
	case linkErr == nil || errors.Is(linkErr, unix.EEXIST):
		return g.fault(ErrGateBusy, "another program has just made it")
	}
	return fmt.Errorf("gate %q: link: %w", g.name, linkErr)
}

// takeOver puts our dotlock in the place of the stale one, which is then under
// the temporary name.
func (g *Gate) takeOver(temp string, own, stale *dotlock) error {
	if now, err := lstat(g.dir, g.name); err == nil && inodeOf(&now) != inodeOf(&stale.st) {
		return g.remade() // cheaper seen before than after: its maker is not disturbed
	}
	switch err := g.exchange(temp); {
	case errors.Is(err, unix.ENOENT):
		return g.fault(ErrGateBusy, "it was stale and has just been removed")
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		return g.fault(ErrGateRefused, "made by %s and stale, but this filesystem can't exchange files: remove it", stale.maker())
	case err != nil:
		return fmt.Errorf("gate %q: taking it over: %w", g.name, err)
	}
	out, err := lstat(g.dir, temp)
	if err != nil || inodeOf(&out) != inodeOf(&stale.st) || out.Mtim != stale.st.Mtim {
		return g.putBack(temp, own)
	}
	g.own = own
	g.Broken = fmt.Sprintf("%q, %s old, made by %s", g.name, sinceChange(&stale.st).Round(time.Second), stale.maker())
	return nil
}

func (g *Gate) exchange(temp string) error {
	return unix.Renameat2(g.dir, temp, g.dir, g.name, unix.RENAME_EXCHANGE)
}

// putBack returns a fresh dotlock, now under the temporary name, to its place.
// When it finds nothing there, the maker of the fresh one has released it, and
// unlinked ours. When what comes out is not ours, then he has, and a third has
// made his own, which a second exchange returns.
func (g *Gate) putBack(temp string, own *dotlock) error {
	for range 2 {
		err := g.exchange(temp)
		if errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("gate %q: putting it back from %q: %w", g.name, temp, err)
		}
		if out, err := lstat(g.dir, temp); err == nil && inodeOf(&out) == inodeOf(&own.st) {
			break
		}
	}
	return g.remade()
}

func (g *Gate) remade() error {
	return g.fault(ErrGateBusy, "it was stale, and another program has just made it anew")
}
