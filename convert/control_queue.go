package convert

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
)

// entry is a user whom the run is not through with. What may change is read
// and written under its mu.
type entry struct {
	account account.Account
	asked   bool      // the operator wants him cut over, postponed or not
	works   bool      // is being worked on
	what    string    // he does, or waits for; "" while he is one of many
	since   time.Time // when that began
	due     time.Time // when he is tried again; zero: as soon as cutovers are not postponed
	last    *User     // what came of the last attempt, if it failed for a passing reason
	tries   int       // attempts that did
}

// queue is who is still to come, each user in one of the lists.
type queue struct {
	asked []*entry // by the operator
	fresh []*entry // in the order of the run
	later []*entry // precopied and postponed, or to be tried again
}

func (q *queue) len() int { return len(q.asked) + len(q.fresh) + len(q.later) }

// ask puts a user in front; false if he is not in the queue, so at work.
func (q *queue) ask(e *entry) bool {
	if slices.Contains(q.asked, e) {
		return true
	}
	for _, list := range []*[]*entry{&q.fresh, &q.later} {
		if i := slices.Index(*list, e); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
			q.asked = append(q.asked, e)
			return true
		}
	}
	return false
}

// take removes the next chunk, of at most n: whom the operator asked for, else
// those who come for the first time, else those whose waiting is over.
func (q *queue) take(n int, postponed bool, now time.Time) (chunk []*entry) {
	for _, list := range []*[]*entry{&q.asked, &q.fresh} {
		if n := min(n, len(*list)); n > 0 {
			chunk, *list = (*list)[:n:n], (*list)[n:]
			return chunk
		}
	}
	if postponed {
		return nil
	}
	rest := q.later[:0]
	for _, e := range q.later {
		if len(chunk) < n && !e.due.After(now) {
			chunk = append(chunk, e)
		} else {
			rest = append(rest, e)
		}
	}
	clear(q.later[len(rest):])
	q.later = rest
	return chunk
}

// first is who is due first, of those who come again.
func (q *queue) first() *entry {
	return slices.MinFunc(q.later, func(a, b *entry) int { return a.due.Compare(b.due) })
}

func (r *Run) enqueue(accounts []account.Account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = make(map[string]*entry, len(accounts))
	for _, a := range accounts {
		e := &entry{account: a}
		r.entries[a.Name] = e
		r.queue.fresh = append(r.queue.fresh, e)
	}
}

// left is how many users are in the queue.
func (r *Run) left() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.queue.len()
}

// ordered reports whether the operator asked for a user.
func (r *Run) ordered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.queue.asked) > 0
}

func (r *Run) take() []*entry {
	postponed := r.flagged(postponeFile)
	r.mu.Lock()
	defer r.mu.Unlock()
	chunk := r.queue.take(max(r.Chunk, 1), postponed, time.Now())
	for _, e := range chunk {
		e.what = ""
	}
	if len(chunk) > 0 {
		r.chunks++
	}
	return chunk
}

// idle waits until there is somebody to take, or the run has to end.
func (r *Run) idle(ctx context.Context) {
	postponed := r.flagged(postponeFile)
	r.mu.Lock()
	n, first := len(r.queue.later), r.queue.first()
	why, due := "", first.due
	switch {
	case postponed:
		why = fmt.Sprintf("cutovers are postponed: %s is there until mailferry ctl resume, and nothing else is left to do", filepath.Join(r.State, postponeFile))
	case n == 1:
		why = fmt.Sprintf("%s is tried again at %s: %s", first.account.Name, due.Format(time.TimeOnly), first.last.Reason)
	default:
		why = fmt.Sprintf("%d users are tried again, the first at %s: %s, %s", n, due.Format(time.TimeOnly), first.account.Name, first.last.Reason)
	}
	r.mu.Unlock()
	r.waitFor(ctx, why, func() bool {
		return r.ordered() || r.flagged(postponeFile) != postponed || !postponed && !time.Now().Before(due) || r.flagged(pauseFile) || r.closed()
	})
}

// at notes what is done with a user from now on; "" that it is over.
func (r *Run) at(e *entry, phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.works, e.what, e.since = phase != "", phase, time.Now()
}

// through is what comes behind an attempt: the user comes again, or the run is
// through with him.
func (r *Run) through(m *member) {
	switch {
	case m.Outcome == "" && m.aside:
		r.later(m.entry, "his cutover is postponed", 0)
		return
	case m.Outcome == "":
		m.interrupt()
	case r.passing(m):
		r.again(m)
		return
	case m.Outcome == journal.Failed && m.tries > 0:
		m.Text = fmt.Sprintf("%s; tried %d times", m.Text, m.tries+1)
	}
	r.log(m.User)
	r.count(m.User)
}

// later puts a user back into the queue.
func (r *Run) later(e *entry, why string, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.works, e.asked, e.what, e.since = false, false, why, time.Now()
	if delay > 0 {
		e.due = e.since.Add(delay)
	}
	r.queue.later = append(r.queue.later, e)
}

// passing reports whether a user failed for what may be over soon, and has an
// attempt left.
func (r *Run) passing(m *member) bool {
	switch m.Reason {
	case reasonBusy, reasonInUse, reasonHold:
		return m.Outcome == journal.Failed && r.Verb.holds() && m.tries < setting(r, &r.Retries)
	}
	return false
}

// retryDelays are those before each retry, from the failure on; the last one
// counts for all that follow. While others are worked on they cost nothing: who
// comes again comes when those who were never tried are through.
var retryDelays = []time.Duration{10 * time.Second, 30 * time.Second, time.Minute}

// again lets a user come again at the end of the run.
func (r *Run) again(m *member) {
	delays := r.delays
	if delays == nil {
		delays = retryDelays
	}
	delay := delays[min(m.tries, len(delays)-1)]
	m.tries++
	last := m.User
	m.last = &last
	r.later(m.entry, fmt.Sprintf("%s: %s; attempt %d failed, and he is tried again in %s", m.Reason, m.Text, m.tries, delay), delay)
	told := m.User
	told.Text = fmt.Sprintf("%s; tried again in %s", m.Text, delay)
	r.log(told)
	r.Watch.Note(fmt.Sprintf("%s: %s: %s", told.Name, told.Reason, told.Text))
}

// failures is how many users failed, of whom some are to be tried again.
func (r *Run) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.summary.Users.Failed
	for _, e := range r.queue.later {
		if e.last != nil {
			n++
		}
	}
	return n
}

// leave counts those whom the run ends without. They are counted, not
// inferred: Summary.Check is to find who got lost.
func (r *Run) leave() {
	r.mu.Lock()
	rest := r.queue
	r.queue = queue{}
	r.mu.Unlock()
	for _, e := range slices.Concat(rest.asked, rest.later, rest.fresh) {
		switch {
		case e.last != nil:
			r.count(*e.last) // his attempt is in the journal
		case e.what != "":
			u := User{Name: e.account.Name, Outcome: journal.Untouched, Reason: reasonPostponed, Text: "he was put aside until the run ended, and is as before; the next run goes on"}
			r.log(u)
			r.count(u)
		default:
			r.mu.Lock()
			r.summary.Users.Untouched++
			delete(r.entries, e.account.Name)
			r.mu.Unlock()
		}
	}
}
