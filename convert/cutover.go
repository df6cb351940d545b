package convert

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// cutover moves one account, whose staging is nearly what the mailboxes are:
//
//	pre-rounds → prepare → hold → gate → lock → delta → sync → verify → publish → flip → park → release
//
// Whatever goes wrong before the flip, the semaphore goes back to mbox, and all
// but staging is as it was. Behind the flip nothing is undone: what is left to
// do there, the next run does.
type cutover struct {
	*stage
	run         string
	around      Host                   // nil: nothing has to be done
	limit       time.Duration          // of the hold
	drainLimit  time.Duration          // of the wait for sessions, gate, locks and open files, in the hold; 0: as long as the hold
	drained     time.Time              // when it is over; zero: with the hold
	only        func(path string) bool // the mailboxes that are locked; nil: all
	quarantined int                    // messages that are known to be left out
	skips       []Skip                 // files that are known to be left out
	pace        Pace
	rounds      int // unlocked deltas before the hold, at most

	spoolGroup int // that the user's threads may take; 0: none
	sem        *semaphore.Semaphore
	toHold     *semaphore.Prepared
	toMaildir  *semaphore.Prepared
	toMbox     *semaphore.Prepared
	epoch      uint64 // of the change before this cutover
	mirrors    map[semaphore.State]*semaphore.PreparedMirror
	mirrorDir  *safefs.Dir
	gate       *semaphore.Gate
	gateDir    *safefs.Dir
	found      *tree
	locks      []locked
	sync       *safefs.Dir // opened before the first write of the delta
	published  bool
	flipped    time.Time
	early      Changes // of the rounds before the hold
	report     *Round
	files      int // messages in the Maildir
}

// Cut tells of a cutover that reached the flip.
type Cut struct {
	*Round
	files    int           // messages in the Maildir
	Hold     time.Duration // for which deliveries and logins waited
	Parked   []string      // paths of the mboxes now
	Warnings []error       // what was left undone behind the flip, for the next run
	Told     error         // by who was told of the flip; the user is moved all the same
}

// do carries the cutover out. An error means that the user is on his mbox, as
// he was, unless it is or wraps a *Stuck.
func (c *cutover) do(ctx context.Context) (*Cut, error) {
	if err := c.beforeHold(ctx); err != nil { // servers may write to the mailboxes
		return nil, err
	}
	if err := c.preRounds(ctx); err != nil {
		return nil, c.cameToNothing(ctx, err)
	}
	if err := c.prepare(); err != nil {
		return nil, c.cameToNothing(ctx, err)
	}
	start := time.Now()
	if c.drainLimit > 0 {
		c.drained = start.Add(c.drainLimit)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errHoldLimit)
	defer cancel()
	if err := c.toHold.Flip(); err != nil {
		if errors.Is(err, semaphore.ErrNotDurable) {
			err = c.undo(err) // it says hold
		}
		return nil, c.cameToNothing(ctx, err)
	}
	steps := []func() error{
		func() error { return c.mirror(semaphore.Hold) }, // behind the authority, both before anything else
		func() error { return c.asUser(func() error { return c.takeGate(ctx) }) },
		func() error { return c.drain(ctx) },
		func() error { return c.lockUnused(ctx) },
		func() error { return c.asUser(func() error { return c.underLocks(ctx) }) },
		func() error { return context.Cause(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, c.cameToNothing(ctx, c.undo(err))
		}
	}
	flip := c.toMaildir.Flip()
	if flip != nil && !errors.Is(flip, semaphore.ErrNotDurable) {
		return nil, c.cameToNothing(ctx, c.undo(flip))
	}
	c.flipped = time.Now()
	c.report.Changes.add(c.early)
	cut := &Cut{Round: c.report, files: c.files, Hold: c.flipped.Sub(start)}
	cut.Warnings = c.after(cut)
	if c.around != nil {
		cut.Told = c.around.AfterFlip(context.WithoutCancel(ctx), c.account, semaphore.Maildir)
	}
	if err := errors.Join(flip, c.tidy()); err != nil {
		cut.Warnings = append(cut.Warnings, err)
	}
	return cut, nil
}

// cameToNothing is the end of a cutover that was given up, or undone.
func (c *cutover) cameToNothing(ctx context.Context, why error) error {
	return errors.Join(why, c.tidy(), c.afterAbort(ctx, semaphore.Mbox, why))
}

var errQuarantine = errors.New("messages can't be in a Maildir")

var errHoldLimit = errors.New("the hold limit was reached, and what was begun is undone; a hold is shorter when the mailbox is at rest")

// Stuck says that a user could not be brought back to where he was: the
// semaphore still says hold, so that his mail waits and nothing is lost.
type Stuck struct {
	User string
	To   semaphore.State // what he was before, and is to be again
	Err  error           // why it could not be put back
}

func (e *Stuck) Error() string {
	return fmt.Sprintf("%s is still held, and his mail is deferred; mailferry recover brings him back to %s: %v", e.User, e.To, e.Err)
}

func (e *Stuck) Unwrap() error { return e.Err }

// prepare makes all that has to be made: from the hold on, files are renamed
// and a few bytes written.
func (c *cutover) prepare() (err error) {
	if c.spoolGroup, err = spoolGroup(c.account); err != nil {
		return err
	}
	if c.sem, err = semaphore.For(c.account.Semaphore); err != nil {
		return err
	}
	state, err := c.sem.Get()
	if err != nil {
		return err
	}
	if state != semaphore.Mbox {
		return fmt.Errorf("the semaphore of %s says %s, not mbox: left alone; run: mailferry status %s", c.account.Name, state, shellWord(c.account.Name))
	}
	last, err := c.sem.Meta()
	if err != nil {
		return err
	}
	c.epoch = last.Epoch
	meta := c.meta(2, time.Now().Add(c.limit))
	undo := c.meta(3, time.Now().Add(c.limit)) // behind a flip that was announced, and failed
	if c.toHold, err = c.sem.Prepare(semaphore.Hold, c.meta(1, time.Now().Add(c.limit))); err != nil {
		return err
	}
	if c.toMaildir, err = c.sem.Prepare(semaphore.Maildir, meta); err != nil {
		return err
	}
	if c.toMbox, err = c.sem.Prepare(semaphore.Mbox, undo); err != nil {
		return err
	}
	return c.asUser(c.prepareMirrors)
}

// meta is that of a change, so many epochs behind the one that was found. What
// ends a hold has its deadline, too: see package semaphore.
func (c *cutover) meta(ahead uint64, deadline time.Time) semaphore.Meta {
	return semaphore.Meta{Epoch: c.epoch + ahead, Run: c.run, Deadline: deadline}
}

// mirror copies the authority's state to the home.
func (c *cutover) mirror(state semaphore.State) error {
	if c.account.Mirror == "" {
		return nil
	}
	return c.asUser(c.mirrors[state].Flip)
}

// prepareMirrors makes the mirrors ready that this cutover can need, so that no
// full disk or quota is in their way.
func (c *cutover) prepareMirrors() (err error) {
	if c.account.Mirror == "" {
		return nil
	}
	if c.mirrorDir, err = safefs.OpenFor(filepath.Dir(c.account.Mirror), c.account.UID); err != nil {
		return err
	}
	c.mirrors = map[semaphore.State]*semaphore.PreparedMirror{}
	for _, state := range []semaphore.State{semaphore.Hold, semaphore.Mbox, semaphore.Maildir} {
		p, err := semaphore.PrepareMirror(c.mirrorDir.Fd(), filepath.Base(c.account.Mirror), state)
		if err != nil {
			return err
		}
		c.mirrors[state] = p
	}
	return nil
}

func (c *cutover) discardMirrors() (err error) {
	for _, p := range c.mirrors {
		err = errors.Join(err, p.Discard())
	}
	return err
}

// underLocks is what happens while nobody else may touch the mail.
func (c *cutover) underLocks(ctx context.Context) (err error) {
	if c.sync, err = c.parent.Again(); err != nil {
		return err
	}
	r := c.round(c.pace)
	r.held, r.tracked, r.alive = true, true, c.refresh
	if c.report, err = c.delta(ctx, r, c.found, c.sync); err != nil {
		return err
	}
	if err := c.sameSkips(); err != nil {
		return err
	}
	if c.files, err = r.verify(ctx); err != nil {
		return err
	}
	if err := c.syncStates(r); err != nil {
		return err
	}
	if err := c.stillOurs(); err != nil {
		return err
	}
	c.published = true // from here on it may be
	return c.staging.PublishSynced()
}

// sameSkips demands that nothing is left out, and nothing taken up, that was not
// so when the user was looked at: a folder that can't be read any more is no
// folder less, and one that was no mailbox then is not locked now.
func (c *cutover) sameSkips() error {
	for _, s := range c.report.Skips {
		if !slices.Contains(c.skips, s) {
			return fmt.Errorf("%q %s, and did not in the precopy: %w", s.Path, s.Reason, &Busy{s.Path})
		}
	}
	for _, m := range c.report.Mailboxes {
		if !slices.ContainsFunc(c.locks, func(l locked) bool { return l.src.path == m.Path }) {
			return &Busy{m.Path}
		}
	}
	return nil
}

// noneMore demands that every message is taken that was taken before.
func (c *cutover) noneMore(report *Round) error {
	if n := len(report.Quarantined); n > c.quarantined {
		return fmt.Errorf("%w: %d, which is %d more than before: %s", errQuarantine, n, n-c.quarantined, report.Quarantined[n-1].Reason)
	}
	return nil
}

// manyFiles is from when on one sync of the filesystem, which waits for
// everybody's writes, is quicker than one for each file.
const manyFiles = 128

// makeDurable syncs what a delta changed; sync was opened before it began.
func (c *cutover) makeDurable(r *round, report *Round, sync *safefs.Dir) error {
	files := 0
	for _, m := range report.Mailboxes {
		files += len(m.fresh)
	}
	if r.remade || files > manyFiles {
		return sync.SyncFS()
	}
	for _, m := range report.Mailboxes {
		if !m.changed() {
			continue
		}
		if err := r.atFolder(m.dir, func(f *maildir.Folder) error { return f.Sync(m.fresh) }); err != nil {
			return err
		}
	}
	if !r.listed {
		return nil
	}
	return r.staging.SyncRoot()
}

// syncStates makes durable what the delta and its verification wrote down: after
// a crash behind the flip it tells which mboxes are in the Maildir.
func (c *cutover) syncStates(r *round) error {
	for dir := range r.touched {
		if err := r.atFolder(dir, func(f *maildir.Folder) error { return f.SyncList(mailboxName) }); err != nil {
			return err
		}
	}
	return nil
}

// stillOurs is the last look before the Maildir gets its name: the locks hold,
// and the mailboxes are those that were read, and no others.
func (c *cutover) stillOurs() error {
	for _, l := range c.locks {
		if err := l.Check(); err != nil {
			return err
		}
	}
	if c.gate != nil {
		if err := c.gate.Check(); err != nil {
			return err
		}
	}
	again, err := findAccount(c.account)
	if err != nil {
		return err
	}
	defer again.close()
	same := slices.EqualFunc(c.found.sources, again.sources, func(a, b source) bool { return a.path == b.path && a.id == b.id })
	if !same || !slices.Equal(c.found.skips, again.skips) {
		return &Busy{c.account.Spool}
	}
	return c.report.changedSince(again)
}

// undo brings the user back to his mbox, for the given reason.
func (c *cutover) undo(why error) error {
	var left error
	back := c.asUser(func() (err error) {
		if c.published {
			err = c.staging.Unpublish()
		}
		left = c.release() // a lock that is lost already changes nothing
		return err
	})
	if back == nil {
		back = c.toMbox.Flip()
	}
	if back != nil && !errors.Is(back, semaphore.ErrNotDurable) {
		return errors.Join(why, &Stuck{c.account.Name, semaphore.Mbox, back}, left)
	}
	return errors.Join(why, back, c.mirror(semaphore.Mbox), left)
}

// after is what remains behind the flip.
func (c *cutover) after(cut *Cut) (warnings []error) {
	steps := []func() error{
		func() error { return c.mirror(semaphore.Maildir) },
		func() error { return c.settle(cut) },
		func() error { return c.asUser(c.release) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			warnings = append(warnings, err)
		}
	}
	return warnings
}

// tidy drops what was prepared or opened and is not needed any more.
func (c *cutover) tidy() (err error) {
	for _, p := range []*semaphore.Prepared{c.toHold, c.toMaildir, c.toMbox} {
		if p != nil {
			err = errors.Join(err, p.Discard())
		}
	}
	if c.mirrors != nil {
		err = errors.Join(err, c.asUser(c.discardMirrors))
	}
	for _, d := range []*safefs.Dir{c.gateDir, c.mirrorDir, c.sync} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	if c.found != nil {
		c.found.close()
	}
	return err
}
