package convert

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/internal/watchdir"
)

// sweeper sweeps the users of a run, from the flip of each until his grace is
// over: when something happens at his old paths, and at its end. One goroutine
// does all of it. A nil sweeper does nothing.
type sweeper struct {
	site  Site
	run   string
	grace time.Duration
	swept func(account.Account, *Swept, error)

	ctx    context.Context
	cancel context.CancelFunc
	added  chan account.Account
	last   chan struct{} // closed: nobody is added any more
	over   chan struct{}
	finish sync.Once

	// Of the goroutine alone.
	watcher  *watchdir.Watcher // nil: inotify can't be had, and users are looked at now and then
	users    map[string]*graced
	names    map[oldName]string // the user whose old path it is
	draining bool
}

// oldName is the name of an old path in a directory that is watched.
type oldName struct {
	watch watchdir.Watch
	name  string
}

// graced is a user in his grace.
type graced struct {
	account account.Account
	until   time.Time
	back    bool      // he was brought back to mbox
	due     time.Time // when he is to be looked at next
	stirred time.Time // first event that was not looked at; zero: none
	watched []oldName
	all     bool // all of his old paths are watched
}

// Times of the sweeper: what an agent writes in pieces is waited for, but not for
// ever where many write; a user who
// can't be watched, or not be swept, is looked at again; and so is one who is
// watched, since inotify knows nothing of other hosts.
const (
	sweepSettles = 100 * time.Millisecond // without an event
	sweepPatient = 2 * time.Second        // with events
	sweepAgain   = time.Second
	sweepSeldom  = 30 * time.Second
	sweepBusy    = 500 * time.Millisecond // for gate and locks: others wait
)

// newSweeper begins. swept is told of each sweep that found something or failed,
// by the sweeper's goroutine. Without a grace, each user is looked at once, in
// the end.
func newSweeper(ctx context.Context, s Site, run string, grace time.Duration, swept func(account.Account, *Swept, error)) *sweeper {
	w := &sweeper{
		site: s, run: run, grace: grace, swept: swept,
		added: make(chan account.Account), last: make(chan struct{}), over: make(chan struct{}),
		users: map[string]*graced{}, names: map[oldName]string{},
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.watcher, _ = watchdir.New() // without it, there are intervals
	go w.loop()
	return w
}

// newSweeper is that of a run; nil for one that moves nobody.
func (r *Run) newSweeper(ctx context.Context) *sweeper {
	if r.Verb != Migrate && r.Verb != Cutover && r.Verb != Rollback {
		return nil
	}
	return newSweeper(ctx, r.Site, r.Journal.ID(), r.Grace, r.swept)
}

// stay waits for the end of the grace of the users who were moved last.
func (r *Run) stay(ctx context.Context) {
	w := r.sweeper
	if w == nil {
		return
	}
	w.Finish()
	ended := func() bool { return w.ended(0) }
	switch {
	case w.ended(sweepSettles): // mostly there is nobody to wait for
	case r.Grace == 0: // but for the last look
		for !ended() && ctx.Err() == nil && !r.flagged(panicFile) {
			time.Sleep(sweepSettles / 10)
		}
	default:
		r.waitFor(ctx, "staying for the grace of the users who were moved last, to catch late deliveries", ended)
	}
	w.Close()
}

// swept tells of a sweep.
func (r *Run) swept(a account.Account, s *Swept, err error) {
	e := journal.Event{User: a.Name, Phase: sweepPhase, Outcome: journal.Done}
	if s != nil {
		for _, line := range s.Lines() {
			r.Watch.Note(line)
		}
		e.Messages = s.Messages()
		for _, t := range s.Taken {
			e.Bytes += t.Bytes
		}
	}
	if err != nil {
		e.Outcome, e.Reason = journal.Failed, err.Error()
		r.Watch.Note(fmt.Sprintf("%s: sweep: %v", a.Name, err))
	}
	err = r.Journal.Log(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(err)
}

// Lines tells people what a sweep did, a line for each thing.
func (s *Swept) Lines() (lines []string) {
	if s.Recovered != "" {
		lines = append(lines, fmt.Sprintf("%s: %s", s.User, s.Recovered))
	}
	for _, t := range s.Taken {
		line := fmt.Sprintf("%s: %d messages came to %q behind the flip, by %s; they are in %s now", s.User, t.Messages, t.Path, t.Agent, t.Mailbox)
		if t.Folder != "" {
			line += fmt.Sprintf(", or rather in %s, since there is no such folder", t.Folder)
		}
		if t.Warning != "" {
			line += "; it " + t.Warning
		}
		lines = append(lines, line)
	}
	for _, d := range s.Differences {
		lines = append(lines, fmt.Sprintf("%s: %q %s", s.User, d.Path, d.Reason))
	}
	return lines
}

// Add begins the grace of a user who has just been flipped and settled.
func (w *sweeper) Add(a account.Account) {
	if w == nil {
		return
	}
	select {
	case w.added <- a:
	case <-w.over:
	}
}

// Finish says that nobody will be added: when the grace of the last user is over,
// the sweeper ends.
func (w *sweeper) Finish() { w.finish.Do(func() { close(w.last) }) }

// ended reports whether the sweeper ends within a time.
func (w *sweeper) ended(within time.Duration) bool {
	select {
	case <-w.over:
		return true
	case <-time.After(within):
		return false
	}
}

// Close ends the sweeper at once, between two sweeps.
func (w *sweeper) Close() {
	if w == nil {
		return
	}
	w.cancel()
	<-w.over
}

func (w *sweeper) loop() {
	defer close(w.over)
	var events <-chan watchdir.Event
	if w.watcher != nil {
		defer w.watcher.Close()
		events = w.watcher.Events()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	last := w.last
	for !w.draining || len(w.users) > 0 {
		select {
		case <-w.ctx.Done():
			return
		case a := <-w.added:
			w.add(a)
		case e, ok := <-events:
			if !ok {
				events = nil
			}
			w.happened(e)
		case <-last:
			last = nil
			w.lastOnes()
		case <-timer.C:
		}
		w.work()
		timer.Reset(w.nap())
	}
}

func (w *sweeper) add(a account.Account) {
	now := time.Now()
	g := &graced{account: a, until: now.Add(w.grace), due: now}
	w.users[a.Name] = g
	if w.grace == 0 {
		g.due = now.Add(time.Hour) // or when the run ends
		return
	}
	if w.watcher != nil {
		w.watch(g)
	}
}

// watch watches the old paths of a user, as far as that can be had.
func (w *sweeper) watch(g *graced) {
	s := &sweep{Site: w.site, account: g.account}
	if err := s.readSoak(); err != nil {
		return
	}
	if !s.soak.Back.IsZero() {
		w.watchBack(g, s.soak)
		return
	}
	g.all = true
	for _, path := range s.oldPaths() {
		g.all = w.watchName(g, filepath.Dir(path), filepath.Base(path)) && g.all
	}
	for _, root := range g.account.Folders { // in which a mailbox may be made; deeper ones are found in the end
		w.watchName(g, root, anyName)
	}
}

// anyName stands for all names in a directory that is the user's alone.
const anyName = ""

func (w *sweeper) watchName(g *graced, dir, name string) bool {
	watch, err := w.watchDir(g.account, dir)
	if err != nil {
		return false
	}
	n := oldName{watch, name}
	w.names[n] = g.account.Name
	g.watched = append(g.watched, n)
	return true
}

// watchDir watches a directory, which the user opens: no path of his is followed
// by root.
func (w *sweeper) watchDir(a account.Account, path string) (watch watchdir.Watch, err error) {
	var dir *safefs.Dir
	err = asUser(a, func() (err error) {
		dir, err = safefs.OpenFor(path, a.UID)
		return err
	})
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	return w.watcher.Add(dir.Fd())
}

// happened finds out whom an event concerns.
func (w *sweeper) happened(e watchdir.Event) {
	if e.Lost {
		for _, g := range w.users {
			g.stir()
		}
		return
	}
	live, _ := unparked(e.Name)
	for _, name := range []string{live, anyName} {
		if g := w.users[w.names[oldName{e.Watch, name}]]; g != nil {
			g.stir()
			return
		}
	}
}

// stir has a user looked at when nothing has happened for a while.
func (g *graced) stir() {
	now := time.Now()
	if g.stirred.IsZero() {
		g.stirred = now
	}
	g.due = now.Add(sweepSettles)
	g.soon(g.stirred.Add(sweepPatient))
	g.soon(g.until)
}

// soon has a user looked at not later than then.
func (g *graced) soon(then time.Time) {
	if then.Before(g.due) {
		g.due = then
	}
}

// lastOnes has those looked at who wait for the end of the run.
func (w *sweeper) lastOnes() {
	w.draining = true
	for _, g := range w.users {
		g.soon(g.until)
	}
}

// work looks at those who are due. Whose grace is over is looked at once more.
func (w *sweeper) work() {
	for name, g := range w.users {
		now := time.Now()
		if w.ctx.Err() != nil || g.due.After(now) {
			continue
		}
		g.stirred = time.Time{}
		over := !g.until.After(now) && (w.grace > 0 || w.draining)
		report, err := w.site.Sweep(w.ctx, g.account, SweepOptions{Run: w.run, Wait: sweepBusy, settled: true})
		w.tell(g.account, report, err, over)
		if over {
			w.leave(name, g)
			continue
		}
		if g.back && w.watcher != nil {
			w.watch(g) // a Maildir may have been made
		}
		g.due = now.Add(sweepSeldom)
		if err != nil || !g.all {
			g.due = now.Add(sweepAgain)
		}
		g.soon(g.until)
	}
}

// tell tells of mail at once, and in the end of what was found each time.
func (w *sweeper) tell(a account.Account, report *Swept, err error, over bool) {
	reason := ""
	if err != nil {
		reason = reasonOf(err)
	}
	passing := !over && (reason == reasonBusy || reason == reasonInUse || reason == reasonHold) || reason == reasonStopped
	took := report != nil && (len(report.Taken) > 0 || report.Recovered != "" || over && len(report.Differences) > 0)
	if took || err != nil && !passing {
		w.swept(a, report, err)
	}
}

func (w *sweeper) leave(name string, g *graced) {
	for _, n := range g.watched {
		delete(w.names, n)
		w.watcher.Remove(n.watch) // what is left of it ends with the run
	}
	delete(w.users, name)
}

// nap is the time until somebody is due.
func (w *sweeper) nap() time.Duration {
	next := time.Now().Add(sweepSeldom)
	for _, g := range w.users {
		if g.due.Before(next) {
			next = g.due
		}
	}
	return max(time.Until(next), 0)
}
