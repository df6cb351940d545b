package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/safefs"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// locked is a locked mailbox and the directory that it lies in.
type locked struct {
	*mbox.Held
	dir *safefs.Dir
	src source
}

// takeGate waits for the deliveries that had read mbox before the hold.
func (c *cutover) takeGate(ctx context.Context) (err error) {
	if c.account.Gate == "" {
		return nil
	}
	if c.gateDir, err = safefs.OpenFor(filepath.Dir(c.account.Gate), c.account.UID); err != nil {
		return err
	}
	c.gate, err = semaphore.TakeGate(ctx, c.gateDir.Fd(), filepath.Base(c.account.Gate), semaphore.GateOptions{Timeout: c.patience(ctx)})
	if err != nil {
		return fmt.Errorf("%q, which deliveries take before they read the semaphore: %w", c.account.Gate, err)
	}
	return nil
}

// patience is how long a gate or a lock is waited for: until the drain is over,
// and no longer than the hold lasts.
func (c *cutover) patience(ctx context.Context) time.Duration {
	if c.drained.IsZero() {
		return remaining(ctx)
	}
	return min(remaining(ctx), max(time.Until(c.drained), 0))
}

func remaining(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	return time.Until(deadline)
}

// lockAll locks every mailbox of the account.
func (c *cutover) lockAll(ctx context.Context) (err error) {
	if c.found, err = findAccount(c.account); err != nil {
		return err
	}
	for _, src := range c.found.sources {
		if c.only != nil && !c.only(src.path) {
			continue
		}
		if slices.ContainsFunc(c.skips, func(s Skip) bool { return s.Path == src.path }) {
			continue // no mailbox, and perhaps one that can't be locked
		}
		l, err := c.lock(ctx, src)
		if err != nil {
			return err
		}
		c.locks = append(c.locks, l)
	}
	return nil
}

func (c *cutover) lock(ctx context.Context, src source) (locked, error) {
	dir, err := src.dir()
	if err != nil {
		return locked{}, err
	}
	o := c.Locks
	o.Path, o.Owner, o.Timeout = src.path, c.account.UID, c.patience(ctx)
	o.WithGroup = func(calls func() error) error { return inGroup(dir, calls) }
	held, err := mbox.Lock(ctx, dir.Fd(), src.file, o)
	if err != nil {
		return locked{}, errors.Join(err, dir.Close())
	}
	return locked{held, dir, src}, nil
}

// asUser works as the user who may, where it matters, take the group of the spool.
func (c *cutover) asUser(work func() error) error {
	return safefs.AsUser(safefs.Identity{UID: c.account.UID, GID: c.account.GID, Groups: c.account.Groups, Spool: c.spoolGroup}, work)
}

// spoolGroup is the group that makes names in the account's spool, where only
// that lets users do so: a spool of mode 2775. 0 where they need none.
func spoolGroup(a account.Account) (int, error) {
	dir, err := safefs.OpenFor(filepath.Dir(a.Spool), a.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return groupOf(dir)
}

func groupOf(dir *safefs.Dir) (int, error) {
	info, err := dir.Stat()
	if err != nil {
		return 0, err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid == 0 && st.Mode&0o022 == 0o020 {
		return int(st.Gid), nil
	}
	return 0, nil
}

// inGroup runs calls that make or remove names in a directory with its group,
// if they need it.
func inGroup(dir *safefs.Dir, calls func() error) error {
	gid, err := groupOf(dir)
	if err != nil {
		return err
	}
	if gid == 0 {
		return calls()
	}
	return safefs.WithGroup(gid, calls)
}

// refresh shows that the holder of gate and locks lives, and that they are his.
func (c *cutover) refresh() error {
	for _, l := range c.locks {
		if err := l.Refresh(); err != nil {
			return err
		}
	}
	if c.gate == nil {
		return nil
	}
	return c.gate.Refresh()
}

// unlockAll lets go of the mailboxes, to lock them again.
func (c *cutover) unlockAll() (err error) {
	for _, l := range c.locks {
		err = errors.Join(err, l.Release(), l.dir.Close())
	}
	c.locks = nil
	if c.found != nil {
		c.found.close()
		c.found = nil
	}
	return err
}

// release lets go of the locks and of the gate.
func (c *cutover) release() (err error) {
	for _, l := range c.locks {
		err = errors.Join(err, l.Release(), l.dir.Close())
	}
	c.locks = nil
	if c.gate != nil {
		err = errors.Join(err, c.gate.Release())
		c.gate = nil
	}
	return err
}
