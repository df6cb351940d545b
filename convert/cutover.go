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

// cutover moves one account, whose staging is nearly what the mailboxes are:
//
//	prepare → hold → gate → lock → delta → sync → verify → publish → flip → park → release
//
// Whatever goes wrong before the flip, the semaphore goes back to mbox, and all
// but staging is as it was. Behind the flip nothing is undone: what is left to
// do there, the next run does.
type cutover struct {
	*stage
	run         string
	limit       time.Duration // of the hold
	quarantined int           // messages that are known to be left out
	skips       []Skip        // files that are known to be left out
	pace        Pace

	spoolGroup int // that the user's threads may take; 0: none
	sem        *semaphore.Semaphore
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
	report     *Round
	files      int // messages in the Maildir
}

// locked is a locked mailbox and the directory that it lies in.
type locked struct {
	*mbox.Held
	dir *safefs.Dir
	src source
}

// Cut tells of a cutover that reached the flip.
type Cut struct {
	*Round
	files    int           // messages in the Maildir
	Hold     time.Duration // for which deliveries and logins waited
	Parked   []string      // paths of the mboxes now
	Warnings []error       // what was left undone behind the flip, for the next run
}

// do carries the cutover out. An error means that the user is on his mbox, as
// he was, unless it is or wraps a *Stuck.
func (c *cutover) do(ctx context.Context) (*Cut, error) {
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.tidy())
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errHoldLimit)
	defer cancel()
	if err := c.sem.Hold(c.meta(1, start.Add(c.limit))); err != nil {
		if errors.Is(err, semaphore.ErrNotDurable) {
			err = c.undo(err) // it says hold
		}
		return nil, errors.Join(err, c.tidy())
	}
	err := c.mirror(semaphore.Hold) // behind the authority, both before anything else
	if err == nil {
		err = c.asUser(func() error { return c.underLocks(ctx) })
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(c.undo(err), c.tidy())
	}
	flip := c.toMaildir.Flip()
	if flip != nil && !errors.Is(flip, semaphore.ErrNotDurable) {
		return nil, errors.Join(c.undo(flip), c.tidy())
	}
	c.flipped = time.Now()
	cut := &Cut{Round: c.report, files: c.files, Hold: c.flipped.Sub(start)}
	cut.Warnings = c.after(cut)
	if err := errors.Join(flip, c.tidy()); err != nil {
		cut.Warnings = append(cut.Warnings, err)
	}
	return cut, nil
}

var errQuarantine = errors.New("messages can't be in a Maildir")

var errHoldLimit = errors.New("the hold limit was reached, and the cutover undone; it will be shorter when the mailbox is at rest")

// Stuck says that a user could not be brought back to his mbox: the semaphore
// still says hold, so that his mail waits and nothing is lost.
type Stuck struct {
	User string
	Err  error // why it could not be put back
}

func (e *Stuck) Error() string {
	return fmt.Sprintf("%s is still held, and his mail is deferred; run mailferry again to bring him back to mbox: %v", e.User, e.Err)
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
		return fmt.Errorf("the semaphore of %s says %s, not mbox: left alone", c.account.Name, state)
	}
	last, err := c.sem.Meta()
	if err != nil {
		return err
	}
	c.epoch = last.Epoch
	meta := c.meta(2, time.Now().Add(c.limit))
	undo := c.meta(3, time.Now().Add(c.limit)) // behind a flip that was announced, and failed
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
	if err := c.takeGate(ctx); err != nil {
		return err
	}
	if err := c.lockAll(ctx); err != nil {
		return err
	}
	if c.sync, err = c.parent.Again(); err != nil {
		return err
	}
	r := c.round(c.pace)
	r.held, r.alive = true, c.refresh
	if c.report, err = r.run(ctx, c.found); err != nil {
		return err
	}
	if err := c.sameSkips(); err != nil {
		return err
	}
	if n := len(c.report.Quarantined); n > c.quarantined {
		return fmt.Errorf("%w: %d, which is %d more than before the hold: %s", errQuarantine, n, n-c.quarantined, c.report.Quarantined[n-1].Reason)
	}
	if err := c.makeDurable(r); err != nil {
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

// takeGate waits for the deliveries that had read mbox before the hold.
func (c *cutover) takeGate(ctx context.Context) (err error) {
	if c.account.Gate == "" {
		return nil
	}
	if c.gateDir, err = safefs.OpenFor(filepath.Dir(c.account.Gate), c.account.UID); err != nil {
		return err
	}
	c.gate, err = semaphore.TakeGate(ctx, c.gateDir.Fd(), filepath.Base(c.account.Gate), semaphore.GateOptions{Timeout: remaining(ctx)})
	return err
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
	o.Path, o.Owner, o.Timeout = src.path, c.account.UID, remaining(ctx)
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

// manyFiles is from when on one sync of the filesystem, which waits for
// everybody's writes, is quicker than one for each file.
const manyFiles = 128

// makeDurable syncs what the delta changed.
func (c *cutover) makeDurable(r *round) error {
	files := 0
	for _, m := range c.report.Mailboxes {
		files += len(m.fresh)
	}
	if r.remade || files > manyFiles {
		return c.sync.SyncFS()
	}
	for i, m := range c.report.Mailboxes {
		if len(m.fresh) == 0 && !m.lists {
			continue
		}
		if err := r.syncFolder(c.found.at(c.report.Mailboxes[i].Path), m.fresh); err != nil {
			return err
		}
	}
	return r.staging.SyncRoot()
}

// syncStates makes durable what the delta's verification wrote down: after a
// crash behind the flip it tells which mboxes are in the Maildir.
func (c *cutover) syncStates(r *round) error {
	for _, m := range c.report.Mailboxes {
		if len(m.fresh) == 0 && !m.lists {
			continue
		}
		folder, err := r.staging.Folder(c.found.at(m.Path).parts)
		if err != nil {
			return err
		}
		if err := errors.Join(folder.SyncList(mailboxName), folder.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (r *round) syncFolder(src source, fresh []string) error {
	folder, err := r.staging.Folder(src.parts)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync(fresh)
}

// at returns the source of that path, which the tree has.
func (t *tree) at(path string) source {
	return t.sources[slices.IndexFunc(t.sources, func(s source) bool { return s.path == path })]
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
		return errors.Join(why, &Stuck{c.account.Name, back}, left)
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

// settle parks the mailboxes. When all are, the manifests, which say of what the
// Maildir was made, have served their purpose.
func (c *cutover) settle(cut *Cut) (err error) {
	if cut.Parked, err = c.parkAll(c.converted()); err != nil {
		return err
	}
	return c.asUser(func() error { return removeManifests(c.staging) })
}

// converted are the locked mailboxes that are in the Maildir. Other files among
// the folders stay where they are.
func (c *cutover) converted() (list []locked) {
	paths := map[string]bool{}
	for _, m := range c.report.Mailboxes {
		paths[m.Path] = true
	}
	for _, l := range c.locks {
		if paths[l.src.path] {
			list = append(list, l)
		}
	}
	return list
}

// parkAll parks locked mailboxes, as the user where he may.
func (c *cutover) parkAll(locks []locked) (parked []string, err error) {
	var denied []locked
	err = c.asUser(func() (err error) {
		for _, l := range locks {
			path, perr := park(l, c.flipped)
			switch {
			case errors.Is(perr, fs.ErrPermission):
				denied = append(denied, l)
			case perr != nil:
				err = errors.Join(err, perr)
			default:
				parked = append(parked, path)
			}
		}
		return err
	})
	for _, l := range denied {
		path, perr := c.parkAsRoot(l)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		parked = append(parked, path)
	}
	return parked, err
}

// park gives a locked mbox the name under which it waits for the end of the
// soak, for its owner alone.
func park(l locked, flip time.Time) (path string, err error) {
	name := parkedName(l.src.file, flip)
	if err := l.Check(); err != nil {
		return "", err
	}
	if err := inGroup(l.dir, func() error { return l.dir.Rename(l.src.file, name, false) }); err != nil {
		return "", err
	}
	return filepath.Join(l.dir.Path(), name), errors.Join(l.File.Chmod(0o600), l.dir.Sync())
}

// parkAsRoot parks in a spool in which only root can rename. In a directory
// that anybody else can write to, root does nothing.
func (c *cutover) parkAsRoot(l locked) (string, error) {
	info, err := l.dir.Stat()
	if err != nil {
		return "", err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Mode&0o022 != 0 {
		return "", fmt.Errorf("%s: may not be parked by its user, and others can write to the directory, so that root does not do it: it is left where it is, and is not read any more", l.src.path)
	}
	return park(l, c.flipped)
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

// tidy drops what was prepared or opened and is not needed any more.
func (c *cutover) tidy() (err error) {
	for _, p := range []*semaphore.Prepared{c.toMaildir, c.toMbox} {
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
