package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/openfiles"
	"mailferry/semaphore"
)

// Host does what has to be done around a cutover or a rollback beside moving
// files. Its functions run as root, outside of locks of ours except the gate.
type Host interface {
	// BeforeHold makes servers write what they hold back. An error vetoes the user.
	BeforeHold(context.Context, account.Account) error
	// Drain ends the user's sessions, in the hold. An error ends the hold.
	Drain(context.Context, account.Account) error
	// AfterFlip is told to which format the user went, AfterAbort in which he stayed.
	AfterFlip(context.Context, account.Account, semaphore.State) error
	AfterAbort(context.Context, account.Account, semaphore.State) error
}

// beforeHold is what has to be done while mail still flows.
func (c *cutover) beforeHold(ctx context.Context) error {
	if c.around == nil {
		return nil
	}
	if err := c.around.BeforeHold(ctx, c.account); err != nil {
		return fmt.Errorf("%w: %w", errVeto, err)
	}
	return nil
}

var (
	errVeto  = errors.New("before the hold")
	errDrain = errors.New("his sessions could not be ended")
)

// drain ends the sessions of the user.
func (c *cutover) drain(ctx context.Context) error {
	if c.around == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(c.drainLimit, time.Second))
	defer cancel()
	if err := c.around.Drain(ctx, c.account); err != nil {
		return fmt.Errorf("%w: %w", errDrain, err)
	}
	return nil
}

// afterAbort tells that a move came to nothing, for the given reason; but not of a
// user who is still held.
func (c *cutover) afterAbort(ctx context.Context, stays semaphore.State, why error) error {
	var stuck *Stuck
	if c.around == nil || errors.As(why, &stuck) {
		return nil
	}
	return c.around.AfterAbort(context.WithoutCancel(ctx), c.account, stays)
}

// InUse says that programs have a mailbox open, and did not let go of it.
type InUse struct {
	Path    string
	Holders []openfiles.Holder // none: the kernel knows of one that /proc does not show
}

func (e *InUse) Error() string {
	if len(e.Holders) == 0 {
		return fmt.Sprintf("%q is open in a process that can't be seen from here, as in another container", e.Path)
	}
	who := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		who[i] = fmt.Sprintf("%q (pid %d, uid %d)", h.Command, h.PID, h.UID)
	}
	return fmt.Sprintf("%q is open in %s; the key doveadm, or a drain hook, ends sessions", e.Path, strings.Join(who, ", "))
}

// usedAgain is how long those who have a mailbox open get, without our locks in
// their way, before it is looked at again.
const usedAgain = 25 * time.Millisecond

// lockUnused locks every mailbox, at a moment at which no program has it open:
// who has could write without a lock, or go on with what he remembers of it. Programs get until the drain limit to let go.
func (c *cutover) lockUnused(ctx context.Context) error {
	for {
		err := c.asUser(func() error { return c.lockAll(ctx) })
		if err != nil {
			return err
		}
		err = c.unused()
		var used *InUse
		if !errors.As(err, &used) || !time.Now().Before(c.drained) {
			return err
		}
		if err := c.asUser(c.unlockAll); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(usedAgain):
		}
	}
}

// unused demands that nobody else has one of the locked mailboxes open.
func (c *cutover) unused() error {
	for _, l := range c.locks {
		if err := notOpen(l.src.path, l.File); err != nil {
			return err
		}
	}
	return nil
}

// notOpen demands that nobody but us has a file open: who only reads it today
// may be a session that writes tomorrow, and a backup ends. The kernel answers at
// once that nobody has, which is the rule; only then processes are searched. It
// is asked as root, to see those of others.
func notOpen(path string, file *os.File) error {
	used, err := openfiles.InUse(file)
	unknown := errors.Is(err, openfiles.ErrUnknown)
	if err != nil && !unknown || !used && !unknown {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	id := openfiles.ID{Dev: idOf(info).dev, Ino: idOf(info).ino}
	holders, err := openfiles.Holders(id)
	if err != nil && !errors.Is(err, openfiles.ErrPartial) { // of a process that not even root may look at
		return err
	}
	if unknown && len(holders[id]) == 0 {
		return nil
	}
	return &InUse{path, holders[id]}
}
