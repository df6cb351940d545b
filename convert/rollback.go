package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// back takes the users of a chunk from Maildir to mbox.
func (c *chunk) back(ctx context.Context) {
	ways := &ways{chunk: c, of: map[*member]*wayBack{}}
	defer ways.close()
	c.each(ctx, "inspect", &c.Jobs, ways.inspect)
	c.each(ctx, "build", &c.Jobs, ways.build)
	c.inTurn(ctx, "rollback", ways.cut)
}

// ways are those back of the users of a chunk.
type ways struct {
	*chunk
	mu sync.Mutex
	of map[*member]*wayBack
}

func (c *ways) way(m *member) *wayBack {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[m]
}

// inspect looks at the user before anything is written.
func (c *ways) inspect(ctx context.Context, m *member) {
	soak, err := journal.ReadSoak(c.State, m.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.failed(m, err)
		return
	}
	if !c.isMoved(m, soak) {
		return
	}
	if soak, err = c.swept(ctx, m, soak); err != nil {
		c.failed(m, err)
		return
	}
	w := &wayBack{soak: soak, cutover: &cutover{
		stage: &stage{Site: c.Site, account: m.account}, run: c.Journal.ID(), around: c.Around, pace: c.pace(),
		limit: setting(c.Run, &c.HoldLimit), drainLimit: setting(c.Run, &c.DrainLimit),
	}}
	c.mu.Lock()
	c.of[m] = w
	c.mu.Unlock()
	if w.spoolGroup, err = spoolGroup(m.account); err == nil {
		err = w.asUser(func() error {
			if err := w.find(); err != nil {
				return err
			}
			return w.room(c.Inspector)
		})
	}
	if err == nil {
		err = w.openLines()
	}
	if err != nil {
		c.refused(m, err)
	}
}

// refused is the outcome of an error before the hold: what a check found is none
// of the run's failures.
func (c *ways) refused(m *member, err error) {
	c.failed(m, err)
	var unfit *Unfit
	if errors.As(err, &unfit) {
		m.Outcome, m.Reason, m.Text = journal.Skipped, unfit.Code, unfit.Error()
	}
}

// swept takes late mail into the Maildir first, from which all is brought back.
func (c *ways) swept(ctx context.Context, m *member, soak journal.Soak) (journal.Soak, error) {
	swept, err := c.Sweep(ctx, m.account, SweepOptions{Run: c.Journal.ID()})
	if err != nil {
		return soak, err
	}
	for _, line := range swept.Lines() {
		c.Watch.Note(line)
	}
	if swept.Messages() == 0 {
		return soak, nil
	}
	return journal.ReadSoak(c.State, m.Name)
}

// isMoved reports whether the user is one to take back; else he has an outcome.
func (c *ways) isMoved(m *member, soak journal.Soak) bool {
	skip := func(reason, text string) bool {
		m.Outcome, m.Reason, m.Text = journal.Skipped, reason, text
		return false
	}
	if m.account.Problem == nil {
		state, err := stateNow(m.account.Semaphore)
		switch {
		case err == nil && state == semaphore.Mbox && !soak.Back.IsZero():
			m.Outcome, m.Already, m.Reason = journal.Done, true, "rolled-back"
			return false
		case err == nil && state == semaphore.Mbox:
			return skip("not-migrated", "is on his mbox: there is nothing to go back from")
		}
	}
	i := c.Inspector.Inspect(m.account)
	m.Findings = i.Findings
	if i.Refused || !i.Has("migrated") {
		f := i.reason()
		return skip(f.Code, f.sentence()+"; "+f.Advice)
	}
	if record, err := journal.ReadStaging(c.State, m.Name); err == nil && !isPromise(record) {
		return skip("unfinished", "his cutover is not finished: first run mailferry recover")
	}
	if _, err := journal.ReadSweep(c.State, m.Name); err == nil {
		return skip("unfinished", "a sweep of his is not finished: first run mailferry recover")
	}
	if _, err := journal.ReadSweepBack(c.State, m.Name); err == nil {
		return skip("unfinished", "a sweep of late mail, from when he was on mbox before, is not finished: first run mailferry recover")
	}
	return true
}

func stateNow(path string) (semaphore.State, error) {
	sem, err := semaphore.For(path)
	if err != nil {
		return semaphore.Hold, err
	}
	return sem.Get()
}

// openLines opens the side-cars of the mailboxes that have no parked mbox.
func (w *wayBack) openLines() error {
	for _, b := range w.boxes {
		if b.base != nil {
			continue
		}
		lines, err := journal.OpenFromLines(w.State, w.account.Name, b.report.Name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		b.lines = lines
	}
	return nil
}

// build builds the mboxes of a user while he works.
func (c *ways) build(ctx context.Context, m *member) {
	w := c.way(m)
	size := int64(0)
	for _, b := range w.boxes {
		size = plus(size, b.bytes)
	}
	heavy := weight(size)
	if err := c.memory.Acquire(ctx, heavy); err != nil {
		return // the run ends
	}
	defer c.memory.Release(heavy)
	err := w.promise()
	if err == nil {
		err = w.asUser(w.makeFiles)
	}
	if err == nil {
		err = w.makeRoots()
	}
	if err == nil {
		err = w.asUser(func() error {
			w.pace.beNice()
			return w.buildLive(ctx)
		})
	}
	if err == nil {
		err = w.identify()
	}
	if err != nil {
		c.refused(m, errors.Join(err, w.discardBack()))
	}
}

// again brings up to date what others of the chunk have let grow old.
func (w *wayBack) again(ctx context.Context) error {
	err := w.asUser(func() error {
		w.pace.beNice()
		return w.buildLive(ctx)
	})
	if err != nil {
		return err
	}
	return w.identifyAgain()
}

// cut takes a user back.
func (c *ways) cut(ctx context.Context, m *member) {
	w := c.way(m)
	if err := w.again(ctx); err != nil {
		c.refused(m, errors.Join(err, w.discardBack()))
		return
	}
	lines, err := c.Journal.Reserve(2)
	if err != nil {
		c.failed(m, errors.Join(err, w.discardBack()))
		return
	}
	defer lines.Release()
	if err := lines.Log(journal.Event{User: m.Name, Phase: "hold", Outcome: journal.Begun, Reason: towardMbox}); err != nil {
		c.failed(m, errors.Join(err, w.discardBack()))
		return
	}
	back, err := w.cut(ctx)
	if err != nil {
		var stuck *Stuck
		if !errors.As(err, &stuck) { // else the next run needs the record
			err = errors.Join(err, w.discardBack())
		}
		c.failed(m, err)
		return
	}
	c.tell(m, w, back)
	if len(back.Warnings) == 0 {
		c.sweeper.Add(m.account)
	}
	if err := lines.Log(journal.Event{User: m.Name, Phase: "flip", Outcome: journal.Done, Seconds: back.Hold.Seconds(), Reason: towardMbox}); err != nil {
		c.note(err)
	}
}

// towardMbox says in the journal which way a hold or flip goes.
const towardMbox = "maildir to mbox"

// tell fills in what became of a user.
func (c *ways) tell(m *member, w *wayBack, back *Returned) {
	m.Outcome, m.Hold, m.Round = journal.Done, back.Hold, &Round{}
	copied, came, alone := 0, 0, 0
	for _, b := range w.boxes {
		m.Round.add(b.report)
		copied += b.copied
		if b.base == nil {
			alone += b.report.Written
		} else {
			came += b.report.Written
		}
		if b.altered > 0 {
			w.doubt("%d messages of %s, from the Maildir, hold header fields or lines that an mbox can't give back as they are", b.altered, b.report.Name)
		}
	}
	m.converted = m.Round.Messages
	texts := []string{fmt.Sprintf("%d messages as they were, %d with other flags, %d that came since; %d are gone", copied, m.Round.Reflagged, came, m.Round.Removed)}
	if alone > 0 {
		texts = append(texts, fmt.Sprintf("%d messages of folders that have no parked mbox, from the Maildir alone", alone))
	}
	for _, src := range w.gone {
		texts = append(texts, fmt.Sprintf("the folder %s was deleted since, and stays so", src.name()))
	}
	if back.Aside != "" {
		texts = append(texts, "the Maildir is now "+back.Aside)
	}
	texts = append(texts, w.doubts...)
	if err := errors.Join(back.Warnings...); err != nil {
		texts = append(texts, "left for the next run: "+err.Error())
		c.Watch.Note(m.Name + ": went back, and left for the next run: " + err.Error())
	}
	if back.Told != nil {
		c.Watch.Note(fmt.Sprintf("%s: went back; but what was to be done then was not: %v", m.Name, back.Told))
	}
	for _, doubt := range w.doubts {
		c.Watch.Note(m.Name + ": " + doubt)
	}
	m.Text = strings.Join(texts, "; ")
}

// close ends all ways. Who was stopped before his hold has nothing left of it.
func (c *ways) close() {
	for _, m := range c.members {
		w := c.of[m]
		if w == nil {
			continue
		}
		if m.Outcome == journal.Untouched || m.Outcome == "" {
			if err := w.discardBack(); err != nil {
				c.Watch.Note(fmt.Sprintf("%s: what was built could not be removed, and the next run does it: %v", m.Name, err))
			}
		}
		if m.Outcome == journal.Untouched || m.Outcome == "" && !m.aside {
			m.interrupt()
			m.Text = "the run was stopped; he is on his Maildir as before"
		}
		if err := w.closeBack(); err != nil {
			c.Watch.Note(fmt.Sprintf("%s: %v", m.Name, err))
		}
	}
}
