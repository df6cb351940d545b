package convert

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// unlock takes over the locks of the dead run, and releases them: agents would
// wait for a dotlock until it is old enough to be broken.
func (r *recovery) unlock() error {
	c := &cutover{stage: &stage{Site: r.Site, account: r.account}}
	ctx := context.Background() // as in Recover: the limits alone end it
	gate, cancel := context.WithTimeout(ctx, unlockLimit)
	defer cancel()
	locks, cancel := context.WithTimeout(ctx, 2*unlockLimit)
	defer cancel()
	var err error
	if c.spoolGroup, err = spoolGroup(r.account); err != nil {
		return err
	}
	err = c.asUser(func() error {
		err := errors.Join(c.takeGate(gate), c.lockEach(locks))
		return errors.Join(err, c.release())
	})
	return errors.Join(err, c.asUser(r.dropDotlocks), c.tidy())
}

// lockEach locks what can be locked: a file among the folders that the user can't
// write to was nobody's to lock before, either.
func (c *cutover) lockEach(ctx context.Context) (err error) {
	if c.found, err = findAccount(c.account); err != nil {
		return err
	}
	for _, src := range c.found.sources {
		l, lerr := c.lock(ctx, src)
		if lerr == nil {
			c.locks = append(c.locks, l)
		}
		err = errors.Join(err, lerr)
	}
	return err
}

// unlockLimit is how long the locks of a dead run are waited for: they may
// have got a live holder meanwhile.
const unlockLimit = 2 * time.Second

// dropDotlocks removes what the dead run has left beside mailboxes: dotlocks of
// those that it parked, which nobody else would take over, since what they lock
// is not there any more, and dotlocks that have not got their names.
func (r *recovery) dropDotlocks() error {
	for _, find := range []func(account.Account) (*tree, error){findParked, findAccount} {
		found, err := find(r.account)
		if err != nil {
			return err
		}
		for _, src := range found.sources {
			err = errors.Join(err, dropDotlocks(src))
		}
		found.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func dropDotlocks(src source) error {
	dir, err := src.dir()
	if err != nil {
		return err
	}
	defer dir.Close()
	var drop []string
	if live, parked := unparked(src.file); parked && (isDead(dir, live+".lock") || isLostAndEmpty(dir, live+".lock")) {
		drop = append(drop, live+".lock")
	}
	err = dir.Names(func(name string) error {
		if mbox.IsDotlockTemp(name) && (isDead(dir, name) || isOldAndEmpty(dir, name)) {
			drop = append(drop, name)
		}
		return nil
	})
	for _, name := range drop {
		err = errors.Join(err, inGroup(dir, func() error { return dir.Unlink(name) }))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// isOldAndEmpty reports whether the maker of a dotlock was killed before he could
// write who he was.
func isOldAndEmpty(dir *safefs.Dir, name string) bool {
	info, err := dir.LstatRegular(name)
	return err == nil && info.Size() == 0 && info.ModTime().Before(started)
}

// isLostAndEmpty reports whether power was lost when a dotlock had its name, and its
// content was not on the disk.
func isLostAndEmpty(dir *safefs.Dir, name string) bool {
	info, err := dir.LstatRegular(name)
	return err == nil && info.Size() == 0 && mbox.PredatesBoot(dir.Fd(), name)
}

// isDead reports whether the maker of a dotlock, of this host, is dead. Our own
// pid is that of an earlier process: we hold none of these.
func isDead(dir *safefs.Dir, name string) bool {
	holder := readHolder(dir, name)
	if holder.PID == 0 || holder.Host != hostname() {
		return false
	}
	return holder.PID == os.Getpid() || errors.Is(unix.Kill(holder.PID, 0), unix.ESRCH)
}
