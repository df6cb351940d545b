package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"mailferry/internal/journal"
)

// member is a user on his way through a chunk. Once he has an outcome, the
// steps that follow pass him by.
type member struct {
	User
	*entry
	stage    *stage
	promised bool // his staging directory is recorded, and perhaps not made
	cut      bool // reached the flip
	aside    bool // his cutover is postponed
}

// chunk takes a group of users all the way. Each step is over for all before
// the next begins.
func (r *Run) chunk(ctx context.Context, entries []*entry) {
	start := time.Now()
	c := &chunk{Run: r, members: make([]*member, len(entries))}
	for i, e := range entries {
		c.members[i] = &member{User: User{Name: e.account.Name}, entry: e}
	}
	defer c.close()
	switch r.Verb {
	case Rollback:
		c.back(ctx)
	case Retire:
		c.each(ctx, "retire", &c.Jobs, c.retire)
	case Rehearse:
		c.rehearse(ctx)
	default:
		c.forth(ctx)
	}
	for _, m := range c.members {
		r.through(m)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.summary.Chunks++
	r.fail(r.Journal.Log(journal.Event{Phase: "chunk", Outcome: journal.Done, Users: len(entries), Seconds: time.Since(start).Seconds()}))
}

// forth takes the users from mbox to Maildir, as far as the verb goes.
func (c *chunk) forth(ctx context.Context) {
	c.each(ctx, "inspect", &c.Jobs, c.inspect)
	c.promise()
	c.each(ctx, "stage", &c.Jobs, c.open)
	c.record(false)
	c.each(ctx, "precopy", &c.Jobs, c.fill)
	c.sync()
	c.each(ctx, "verify", &c.Jobs, c.verify)
	c.sync() // what verify wrote down
	c.record(true)
	if c.Verb == Precopy {
		c.each(ctx, "", &c.Jobs, func(_ context.Context, m *member) { m.Outcome = journal.Done })
		return
	}
	c.inTurn(ctx, "cutover", c.cutover)
	c.forget()
}

// chunk is the work at a chunk.
type chunk struct {
	*Run
	members []*member
	syncs   syncSet
}

func (c *chunk) faulted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure != nil
}

// interrupt is the outcome of who was not finished because the run ends.
func (m *member) interrupt() {
	m.Outcome, m.Reason = journal.Untouched, reasonStopped
	m.Text = "the run was stopped; he is on mbox as before, and the next run goes on"
}

// failed is the outcome of an error.
func (c *chunk) failed(m *member, err error) {
	m.Outcome, m.Reason, m.Text = journal.Failed, reasonOf(err), err.Error()
	if m.Reason == reasonStopped {
		m.interrupt()
		return
	}
	if concernsAll(err) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fail(fmt.Errorf("%s: %w", m.Name, err))
	}
}

// keepsStaging are the reasons after which the next run goes on with the
// staging. After all others it is thrown away: it may be in the way of the
// user's mail, or not hold what was written.
var keepsStaging = map[string]bool{reasonBusy: true, reasonStopped: true, reasonHold: true, reasonInUse: true, reasonVeto: true, reasonQuarantine: true, reasonStuck: true}

// inspect makes the checks: what fails one is left alone.
func (c *chunk) inspect(ctx context.Context, m *member) {
	i := c.Inspector.Inspect(m.account)
	m.Findings = i.Findings
	switch {
	case i.Has("migrated"):
		m.Outcome, m.Already, m.Reason = journal.Done, true, "migrated"
	case i.Refused:
		f := i.reason()
		m.Outcome, m.Reason, m.Text = journal.Skipped, f.Code, f.sentence()+"; "+f.Advice
	default:
		c.sweptBack(ctx, m)
	}
}

// reason is the finding for which a user is left alone. That he is not enrolled
// mostly follows from another.
func (i *Inspection) reason() (first Finding) {
	for _, f := range i.Findings {
		if f.Severity == Refuse && (first.Code == "" || first.Code == "not-enrolled") {
			first = f
		}
	}
	return first
}

// sentence is what was found, with where.
func (f Finding) sentence() string {
	if f.Path == "" {
		return f.Text
	}
	return fmt.Sprintf("%q %s", f.Path, f.Text)
}

// open opens the staging of a user.
func (c *chunk) open(_ context.Context, m *member) {
	var err error
	if m.stage, err = openStage(c.Site, m.account, c.Journal.ID(), &c.syncs); err != nil {
		m.stage = nil
		c.failed(m, err)
		if m.promised {
			c.note(journal.RemoveStaging(c.State, m.Name))
		}
		return
	}
	if c.Verb != Precopy {
		m.stage.recall = newRecall()
	}
	if c.Verb == Cutover && m.stage.fresh {
		c.drop(m)
		m.Outcome, m.Reason, m.Text = journal.Skipped, reasonUnstaged, "has no staging: run mailferry precopy first, or migrate"
	}
}

// promise writes down which stagings are going to be made.
func (c *chunk) promise() {
	boot, err := journal.BootID()
	var records []journal.Staging
	for _, m := range c.members {
		if m.Outcome != "" {
			continue
		}
		if _, rerr := journal.ReadStaging(c.State, m.Name); errors.Is(rerr, fs.ErrNotExist) {
			records = append(records, promise(m.account, c.Journal.ID(), boot))
			m.promised = true
		}
	}
	if err == nil && len(records) > 0 {
		err = journal.WriteStaging(c.State, records...)
	}
	c.note(err)
}

// note notes a fault that concerns all users.
func (c *chunk) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail(err)
}

// record writes down where the stagings lie, and whether they are durable.
func (c *chunk) record(synced bool) {
	var records []journal.Staging
	for _, m := range c.members {
		if m.Outcome == "" {
			m.stage.record.Synced = synced
			records = append(records, m.stage.record)
		}
	}
	if len(records) == 0 {
		return
	}
	if err := journal.WriteStaging(c.State, records...); err != nil {
		c.mu.Lock()
		c.fail(err)
		c.mu.Unlock()
		c.dropUnrecorded()
	}
}

// dropUnrecorded throws away what no later run could tell from a stranger's.
func (c *chunk) dropUnrecorded() {
	for _, m := range c.members {
		if m.stage != nil && m.stage.fresh && !m.stage.record.Synced {
			c.drop(m)
			m.interrupt()
		}
	}
}

// forget removes the records of those who are through.
func (c *chunk) forget() {
	var through []string
	for _, m := range c.members {
		if m.cut {
			through = append(through, m.Name)
		}
	}
	if len(through) == 0 {
		return
	}
	if err := journal.RemoveStaging(c.State, through...); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fail(err)
	}
}

// fill brings the staging of a user up to date.
func (c *chunk) fill(ctx context.Context, m *member) {
	w := weight(sizeOf(m.account))
	if err := c.memory.Acquire(ctx, w); err != nil {
		return // the run ends
	}
	defer c.memory.Release(w)
	quarantine := c.Journal.Quarantine(m.Name)
	m.stage.quarantine = quarantine
	round, err := m.stage.fill(ctx, c.pace())
	if err != nil {
		c.failed(m, err)
		if !keepsStaging[m.Reason] {
			c.drop(m)
		}
		return
	}
	m.Round = round
	c.doubts(m)
}

// doubts are findings that only reading the mail brings up.
func (c *chunk) doubts(m *member) {
	i := &Inspection{User: m.Name, Findings: m.Findings}
	for _, b := range m.Round.Mailboxes {
		if b.Differs > 0 && !i.Has("reading-differs") {
			i.add("reading-differs", b.Path, "has %d messages as %s reads it, and %d by the careful reading", b.Messages, c.Scan.Profile.Name, b.Careful)
		}
	}
	i.end()
	m.Findings = i.Findings
	if bad := m.Round.refused(); bad != nil {
		m.Outcome, m.Reason, m.Text = journal.Skipped, bad.code, fmt.Sprintf("%q %s", bad.Path, bad.Reason)
		c.drop(m)
		return
	}
	if n := len(m.Round.Quarantined); n > 0 && !c.AllowQuarantine && c.Verb != Precopy {
		m.Outcome, m.Reason = journal.Failed, reasonQuarantine
		m.Text = fmt.Sprintf("%d messages can't be in a Maildir, first in %s at offset %d: %s; their bytes are in the quarantine of this run, and --allow-quarantine moves the user without them",
			n, m.Round.Quarantined[0].Mailbox, m.Round.Quarantined[0].Offset, m.Round.Quarantined[0].Reason)
	}
}

// refused finds among the files that a round left out one that is mail, or
// might be: a user is moved with all of his folders, or not at all.
func (r *Round) refused() *Skip {
	for i, s := range r.Skips {
		switch s.code {
		case "not-mailbox", "parked-left", "maildir-inside", "staging-left", "subscription":
		default:
			return &r.Skips[i]
		}
	}
	return nil
}

// sync makes all that was written durable, at once. What lost something is
// thrown away: the kernel tells of an error once, and reads back from memory
// what is not on the disk.
func (c *chunk) sync() {
	for dev, err := range c.syncs.sync() {
		for _, m := range c.members {
			if m.Outcome == "" && m.stage.record.Dev == dev {
				m.Outcome, m.Reason, m.Text = journal.Failed, reasonSync, err.Error()
				c.drop(m)
			}
		}
		c.mu.Lock()
		c.fail(err)
		c.mu.Unlock()
	}
}

// verify reads back what was written.
func (c *chunk) verify(ctx context.Context, m *member) {
	files, err := m.stage.verify(ctx, c.Pace)
	if err != nil {
		c.failed(m, err)
		if !keepsStaging[m.Reason] {
			c.drop(m)
		}
		return
	}
	m.converted = files
	c.mu.Lock()
	c.devices[m.stage.record.Dev] = filepath.Dir(m.account.Maildir)
	c.mu.Unlock()
}

// cutover moves a user.
func (c *chunk) cutover(ctx context.Context, m *member) {
	if c.sweptBack(ctx, m); m.Outcome != "" { // the precopy took its time
		return
	}
	lines, err := c.Journal.Reserve(2)
	if err != nil {
		c.failed(m, err)
		return
	}
	defer lines.Release()
	if err := lines.Log(journal.Event{User: m.Name, Phase: "hold", Outcome: journal.Begun}); err != nil {
		c.failed(m, err)
		return
	}
	cut := &cutover{
		stage: m.stage, run: c.Journal.ID(), around: c.Around, limit: setting(c.Run, &c.HoldLimit), drainLimit: setting(c.Run, &c.DrainLimit),
		rounds: c.MaxRounds, pace: c.pace(), quarantined: len(m.Round.Quarantined), skips: m.Round.Skips,
	}
	done, err := cut.do(ctx)
	if err != nil {
		c.failed(m, err)
		if !keepsStaging[m.Reason] {
			c.drop(m)
		}
		return
	}
	changes := m.Round.Changes
	m.Round, m.Hold, m.Parked, m.converted = done.Round, done.Hold, done.Parked, done.files
	m.Round.Changes.add(changes)
	m.Outcome, m.cut = journal.Done, len(done.Warnings) == 0
	if m.cut {
		c.sweeper.Add(m.account)
	}
	if err := errors.Join(done.Warnings...); err != nil {
		m.Text = "moved, and left for the next run: " + err.Error()
		c.Watch.Note(m.Name + ": " + m.Text)
	}
	if done.Told != nil {
		c.Watch.Note(fmt.Sprintf("%s: is moved; but what was to be done then was not: %v", m.Name, done.Told))
	}
	if err := lines.Log(journal.Event{User: m.Name, Phase: "flip", Outcome: journal.Done, Seconds: done.Hold.Seconds()}); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fail(err)
	}
}

// drop throws the staging of a user away.
func (c *chunk) drop(m *member) {
	if err := m.stage.discard(); err != nil {
		c.Watch.Note(fmt.Sprintf("%s: staging could not be removed: %v", m.Name, err))
	}
	m.stage = nil
}

func (c *chunk) close() {
	for _, m := range c.members {
		if m.stage != nil {
			m.stage.close()
		}
	}
	c.syncs.close()
}
