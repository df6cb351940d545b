package convert

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// A rehearsal takes a user's mail there and back, and keeps nothing but figures:
//
//	(scratch) round → sync → verify → publish → build each mbox anew → compare → remove scratch
//
// It is the work of precopy and rollback, in a scratch directory below the state
// directory. The mailboxes are only read, without locks: one that changes
// meanwhile is begun anew. Semaphore, gate and home are left alone.
type rehearsal struct {
	Site
	account account.Account
	run     string
	pace    Pace
	build   func(context.Context, *backBox) error // makes the mbox; tests break it

	waited  time.Duration // for bandwidth
	scratch *journal.Scratch
	found   *tree
	root    *safefs.Dir // the Maildir
	round   *Round
	files   int   // messages in the Maildir
	most    int64 // bytes of the largest mbox that was built
	record  journal.Rehearsal
}

// Differs says where a mailbox that went to a Maildir and back is not what it was.
type Differs struct {
	Path   string
	Offset int64 // of the first byte that differs
	Text   string
}

func (e *Differs) Error() string {
	return fmt.Sprintf("%q is not the same after the way to a Maildir and back: at offset %d %s", e.Path, e.Offset, e.Text)
}

// rehearsals are those of the users of a chunk.
type rehearsals struct {
	*chunk
	room scratchRoom
}

// rehearse rehearses the users of a chunk.
func (c *chunk) rehearse(ctx context.Context) {
	r := &rehearsals{chunk: c, room: scratchRoom{state: c.State, floor: c.FreeFloor, taken: map[*member]need{}}}
	r.room.freed = sync.NewCond(&r.room.mu)
	c.each(ctx, "rehearse", &c.Jobs, r.one)
}

const (
	reasonRehearsed   = "rehearsed"
	reasonDiffers     = "differs"
	reasonNotRehearse = "not-on-mbox"
)

// one rehearses a user.
func (c *rehearsals) one(ctx context.Context, m *member) {
	i := c.Inspector.Inspect(m.account)
	if !c.fit(m, i) || c.known(m) {
		return
	}
	heavy := weight(sizeOf(m.account))
	if err := c.memory.Acquire(ctx, heavy); err != nil {
		return // the run ends
	}
	defer c.memory.Release(heavy)
	dev, err := c.room.take(m, c.Inspector, i.mailboxes)
	if err != nil {
		c.tell(m, nil, err)
		return
	}
	defer c.room.free(m)
	c.mu.Lock()
	c.devices[dev] = c.State
	c.mu.Unlock()
	var r *rehearsal
	for range busyTries {
		r = newRehearsal(c.Site, m.account, c.Journal.ID(), c.pace())
		var busy *Busy
		if err = r.do(ctx); !errors.As(err, &busy) || ctx.Err() != nil {
			break
		}
	}
	c.tell(m, r, err)
}

// anyway are the findings that keep a user from being moved, and not from being
// rehearsed.
var anyway = map[string]bool{
	"not-enrolled": true, "semaphore-unreadable": true, "space": true, "inodes": true, "quota": true, "qpopper-temp": true, "dotlock-foreign": true,
	"maildir-foreign": true, "maildir-mount": true, "maildir-irregular": true, "maildir-unreachable": true,
}

// fit reports whether a user can be rehearsed; else he has an outcome.
func (c *rehearsals) fit(m *member, i *Inspection) bool {
	if i.Has("migrated") {
		m.Outcome, m.Reason, m.Text = journal.Skipped, reasonNotRehearse, "is on his Maildir: there is nothing to rehearse"
		return false
	}
	at := slices.IndexFunc(i.Findings, func(f Finding) bool { return f.Severity == Refuse && !anyway[f.Code] })
	if at >= 0 {
		f := i.Findings[at]
		m.Outcome, m.Reason, m.Text = journal.Skipped, f.Code, f.sentence()+"; "+f.Advice
		return false
	}
	return true
}

// known reports whether the user was rehearsed by an earlier run, and has the
// mailboxes that he had then.
func (c *rehearsals) known(m *member) bool {
	last, err := journal.ReadRehearsal(c.State, m.Name)
	if err != nil || !last.Exact {
		return false // he is rehearsed, again if need be
	}
	now := ""
	err = asUser(m.account, func() error {
		found, err := findAccount(m.account)
		if err != nil {
			return err
		}
		defer found.close()
		now, err = c.fingerprint(found)
		return err
	})
	if err != nil || now != last.Fingerprint {
		return false
	}
	m.Outcome, m.Already, m.Reason, m.Rehearsal = journal.Done, true, reasonRehearsed, &last
	return true
}

// fingerprint tells mailboxes, and how they are read, from others.
func (s Site) fingerprint(found *tree) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %d %t\n", s.settings(), s.Folders.Layout, s.Folders.Escape)
	for _, src := range found.sources {
		f, err := src.open()
		if isSkippable(err) {
			continue
		}
		if err != nil {
			return "", failed(src, err)
		}
		info, err := f.Stat()
		if err = errors.Join(err, f.Close()); err != nil {
			return "", err
		}
		now := statOf(info)
		fmt.Fprintf(sum, "%q %d %d %d\n", src.path, now.Ino, now.Size, now.Mtime)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// tell fills in what became of a user.
func (c *rehearsals) tell(m *member, r *rehearsal, err error) {
	var (
		differs *Differs
		unequal *Unequal
		left    *leftOut
		unfit   *Unfit
	)
	switch {
	case errors.As(err, &differs), errors.As(err, &unequal):
		m.Outcome, m.Reason, m.Text = journal.Failed, reasonDiffers, err.Error()
		c.mu.Lock()
		c.Differing++
		c.mu.Unlock()
	case errors.As(err, &left):
		m.Outcome, m.Reason, m.Text = journal.Skipped, left.code, left.Error()
	case errors.As(err, &unfit):
		m.Outcome, m.Reason, m.Text = journal.Skipped, unfit.Code, unfit.Error()
	case err != nil:
		c.failed(m, err)
		if m.Outcome == journal.Untouched {
			m.Text = "the run was stopped; nothing is left of his rehearsal, and the next run goes on"
		}
	default:
		m.Outcome, m.Rehearsal, m.converted = journal.Done, &r.record, r.files
		for i := range r.round.Mailboxes {
			r.round.Mailboxes[i].Left = nil // there is no Maildir yet in which to look for their letters
		}
		m.Round = &Round{Mailboxes: r.round.Mailboxes, Messages: r.round.Messages, Bytes: r.round.Bytes, Changes: r.round.Changes}
		c.note(journal.WriteRehearsal(c.State, r.record))
	}
}

// leftOut says why a user can't be moved as he is, and so not be rehearsed.
type leftOut struct{ code, text string }

func (e *leftOut) Error() string { return e.text }

func newRehearsal(s Site, a account.Account, run string, pace Pace) *rehearsal {
	r := &rehearsal{Site: s, account: a, run: run, pace: pace, build: func(ctx context.Context, b *backBox) error { return b.build(ctx) }}
	if wait := pace.Throttle; wait != nil {
		r.pace.Throttle = func(ctx context.Context, bytes int64) error {
			start := time.Now()
			defer func() { r.waited += time.Since(start) }()
			return wait(ctx, bytes)
		}
	}
	return r
}

// timed adds to a sum what a step takes, without the waiting for bandwidth.
func (r *rehearsal) timed(sum *float64, step func() error) error {
	start, waited := time.Now(), r.waited
	err := step()
	*sum += (time.Since(start) - (r.waited - waited)).Seconds()
	return err
}

// do rehearses the user once. A mailbox that was changed meanwhile is a *Busy,
// whatever came of it.
func (r *rehearsal) do(ctx context.Context) (err error) {
	if r.scratch, err = journal.MakeScratch(r.State, r.account.UID, r.account.GID); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.record = journal.Rehearsal{User: r.account.Name, Run: r.run, Time: time.Now().UTC()}
	if err := asUser(r.account, func() error { return r.forth(ctx) }); err != nil {
		return err
	}
	err = r.back(ctx)
	if changed := asUser(r.account, func() error { return r.round.changedSince(r.found) }); errors.Is(changed, fs.ErrNotExist) {
		return &Busy{r.account.Spool}
	} else if changed != nil {
		return changed
	}
	return err
}

// forth makes the Maildir; it is called as the user.
func (r *rehearsal) forth(ctx context.Context) (err error) {
	r.pace.beNice()
	if r.found, err = findAccount(r.account); err != nil {
		return err
	}
	if r.record.Fingerprint, err = r.fingerprint(r.found); err != nil {
		return err
	}
	final := filepath.Base(r.account.Maildir)
	if err := r.timed(&r.record.Forth, func() error { return r.convert(ctx, final) }); err != nil {
		return err
	}
	if r.root, err = r.scratch.Work.Sub(final); err != nil {
		return err
	}
	for _, m := range r.round.Mailboxes {
		r.record.Mailboxes++
		r.record.Messages += m.Messages
		r.record.Bytes += m.stat.Size
	}
	r.record.Scratch, err = diskUse(r.root)
	return err
}

// convert is what a precopy does, and the rename of a cutover.
func (r *rehearsal) convert(ctx context.Context, final string) error {
	work := r.scratch.Work
	staging, err := maildir.NewStagingAs(work, maildir.StagingName(final), final, r.Folders)
	if err != nil {
		return err
	}
	defer staging.Close()
	round := newRound(r.Site, r.account, staging, r.pace)
	round.patient = true // each change is to be seen
	if r.round, err = round.run(ctx, r.found); err != nil {
		return err
	}
	if err := r.whole(); err != nil {
		return err
	}
	if err := work.SyncFS(); err != nil {
		return err
	}
	if r.files, err = round.verify(ctx); err != nil {
		return err
	}
	return staging.PublishSynced()
}

// whole demands that all mail got into the Maildir.
func (r *rehearsal) whole() error {
	if bad := r.round.refused(); bad != nil {
		return &leftOut{bad.code, fmt.Sprintf("%q %s", bad.Path, bad.Reason)}
	}
	if n := len(r.round.Quarantined); n > 0 {
		q := r.round.Quarantined[0]
		return &leftOut{reasonQuarantine, fmt.Sprintf("%d messages can't be in a Maildir, first in %s at offset %d: %s", n, q.Mailbox, q.Offset, q.Reason)}
	}
	return nil
}

// close ends the rehearsal and removes what it made.
func (r *rehearsal) close() (err error) {
	if r.root != nil {
		err = r.root.Close()
	}
	if r.found != nil {
		r.found.close()
	}
	return errors.Join(err, r.scratch.Remove())
}
