package convert

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	weighted "golang.org/x/sync/semaphore"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// Run moves accounts chunk by chunk, so that a fault is a small mess:
//
//	(per chunk) inspect → stage → fill → one sync → verify → cutovers → the chunk's line in the journal
//
// No user stops another. What is common to all does: a disk that fails, too
// many failures, the end of the window, the admin.
type Run struct {
	Site
	Inspector *Inspector
	Journal   *journal.Run
	Watch     Watch
	Around    Host                                      // what a cutover does beside moving files; nil: nothing
	Find      func(name string) (account.Account, bool) // users of whom an earlier run left something

	Verb      Verb
	Chunk     int // users
	MaxRounds int // unlocked deltas before a hold, at most
	Pace      Pace
	Grace     time.Duration // for which the run stays behind its last flip, to catch deliveries that had read mbox

	// What an operator may set while the run works: see Change.
	Jobs        int // users at a time
	CutoverJobs int
	HoldLimit   time.Duration
	DrainLimit  time.Duration // of the wait for sessions and open files, in a hold
	Pause       time.Duration // between chunks
	MaxFailures int           // 0: no limit
	Retries     int           // for a user whose cutover failed for a passing reason

	FreeFloor       int64                // bytes that must stay free where Maildirs lie
	Open            func(time.Time) bool // whether the window is; nil: always
	AllowQuarantine bool
	BySize          func(a, b int64) int // the order of users; nil: as listed
	OlderThan       time.Duration        // what Retire deletes
	DryRun          bool                 // of Retire

	Unresolved int // users of whom an earlier run left something that stays so
	Differing  int // users of whom a rehearsal found a difference

	delays []time.Duration // before each retry, the last one for all further; nil: retryDelays

	mu      sync.Mutex // of what may change, above and below
	memory  *weighted.Weighted
	summary journal.Summary
	failure error             // what concerns all
	devices map[uint64]string // filesystems that hold Maildirs of the run, by a path there
	queue   queue
	entries map[string]*entry // users that the run is not through with
	chunks  int               // begun
	wait    *Wait             // why nothing happens; nil when something does
	sweeper *sweeper          // nil: nobody is moved
}

// Verb is how far a run goes.
type Verb string

// The verbs.
const (
	Precopy  Verb = "precopy" // staging only
	Migrate  Verb = "migrate"
	Cutover  Verb = "cutover" // of those who have a staging already
	Rollback Verb = "rollback"
	Retire   Verb = "retire"   // ends soaks
	Rehearse Verb = "rehearse" // there and back in a scratch directory
)

// holds reports whether users are held by it.
func (v Verb) holds() bool { return v == Migrate || v == Cutover || v == Rollback }

// Watch is told what happens. Its functions are called by several goroutines.
type Watch interface {
	User(User)            // is over
	Wait(reason string)   // begins to wait; "" goes on
	Note(text string)     // something worth a line
	Progress(bytes int64) // of each message
	Begin(users int, bytes int64)
}

// User is what became of a user.
type User struct {
	Name     string        `json:"user"`
	Outcome  string        `json:"outcome"`          // as of package journal
	Reason   string        `json:"reason,omitempty"` // a code: of a finding, or one of those in reason.go
	Text     string        `json:"text,omitempty"`   // what happened, for people
	Findings []Finding     `json:"findings,omitempty"`
	Round    *Round        `json:"round,omitempty"` // the last one
	Hold     time.Duration `json:"-"`
	Parked   []string      `json:"parked,omitempty"`
	Already  bool          `json:"already,omitempty"` // done by an earlier run
	Retired  []string      `json:"retired,omitempty"` // paths of what was parked, and is deleted
	Freed    int64         `json:"freed,omitempty"`   // bytes of disk space that were freed by that
	Dry      bool          `json:"dry_run,omitempty"` // nothing was deleted: all of that would be

	Rehearsal *journal.Rehearsal `json:"rehearsal,omitempty"`

	converted int // messages, counted in the Maildir
}

// The ends of a run.
const (
	EndDone     = "all done"
	EndFailures = "too many failures"
	EndWindow   = "the window is over"
	EndSpace    = "the free space is down to its floor"
	EndPanic    = "panic file"
	EndSignal   = "interrupted"
	EndFault    = "a fault that concerns all users"
)

// Do works on the accounts, and returns the summary, which adds up. The error
// is what stopped the run before its end; users have their own.
func (r *Run) Do(ctx context.Context, accounts []account.Account) (*journal.Summary, error) {
	r.begin(accounts)
	if r.Verb == Rehearse {
		r.fail(journal.ClearScratch(r.State))
	} else {
		r.recover(ctx, accounts)
	}
	r.sweeper = r.newSweeper(ctx)
	defer r.sweeper.Close()
	accounts, sizes := r.order(accounts)
	r.enqueue(accounts)
	r.Watch.Begin(len(accounts), sizes)
	for r.left() > 0 {
		if end := r.stop(ctx); end != "" {
			r.summary.End = end
			break
		}
		if entries := r.take(); len(entries) > 0 {
			r.chunk(ctx, entries)
			r.between(ctx)
		} else {
			r.idle(ctx)
		}
	}
	if r.summary.End == EndDone { // it may have come with the last chunk
		r.summary.End = r.fault(ctx)
	}
	r.stay(ctx)
	r.leave()
	s := &r.summary
	s.Ended = time.Now().UTC()
	return s, r.failure
}

// begin sets up what Status tells of, from the first moment on.
func (r *Run) begin(accounts []account.Account) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory = weighted.NewWeighted(memoryLimit)
	r.devices = map[uint64]string{}
	r.summary = journal.Summary{Verb: string(r.Verb), Started: time.Now().UTC(), End: EndDone}
	r.summary.Users.Total = len(accounts)
}

// fault is the end that leaves nothing to wait for.
func (r *Run) fault(ctx context.Context) string {
	switch {
	case r.failure != nil:
		return EndFault
	case ctx.Err() != nil:
		return EndSignal
	}
	return EndDone
}

// stop looks between chunks whether and why to end the run.
func (r *Run) stop(ctx context.Context) string {
	r.paused(ctx)
	failures := setting(r, &r.MaxFailures)
	switch end := r.fault(ctx); {
	case end != EndDone:
		return end
	case r.flagged(panicFile):
		return EndPanic
	case failures > 0 && r.failures() > failures:
		return EndFailures
	case r.closed():
		return EndWindow
	case r.tooFull():
		return EndSpace
	}
	return ""
}

// closed reports whether the window is.
func (r *Run) closed() bool { return r.Open != nil && !r.Open(time.Now()) }

// tooFull reports whether a filesystem that Maildirs were made on is down to
// the floor.
func (r *Run) tooFull() bool {
	for _, path := range r.devices {
		dir, err := safefs.OpenDir(path)
		if err != nil {
			continue // the user's own check will say so
		}
		room, err := dir.Statfs()
		dir.Close()
		if err == nil && room.Bytes < r.FreeFloor {
			r.Watch.Note(fmt.Sprintf("%s: %d bytes free, and the floor is %d", path, room.Bytes, r.FreeFloor))
			return true
		}
	}
	return false
}

// order puts the accounts into the order of the run. Their mail is looked up
// for the sake of that, and of the progress; what can't be looked at has none,
// and its check will say why.
func (r *Run) order(accounts []account.Account) ([]account.Account, int64) {
	type sized struct {
		account.Account
		bytes int64
	}
	list := make([]sized, len(accounts))
	var jobs errgroup.Group
	jobs.SetLimit(max(r.Jobs, 1))
	for i, a := range accounts {
		jobs.Go(func() error {
			list[i] = sized{a, r.sizeOf(a)}
			return nil
		})
	}
	jobs.Wait()
	if r.BySize != nil {
		slices.SortStableFunc(list, func(a, b sized) int { return r.BySize(a.bytes, b.bytes) })
	}
	total := int64(0)
	for i, s := range list {
		accounts[i] = s.Account
		total += s.bytes
	}
	return accounts, total
}

// sizeOf is how much mail the run reads of a user.
func (r *Run) sizeOf(a account.Account) int64 {
	if r.Verb == Rollback {
		return sizeBy(a, findParked)
	}
	return sizeOf(a)
}

func sizeOf(a account.Account) int64 { return sizeBy(a, findAccount) }

func sizeBy(a account.Account, find func(account.Account) (*tree, error)) (bytes int64) {
	if a.Problem != nil {
		return 0
	}
	asUser(a, func() error {
		found, err := find(a)
		if err == nil {
			bytes = found.bytes()
			found.close()
		}
		return err
	})
	return bytes
}

// memoryLimit bounds what all rounds together hold in memory, in bytes.
const memoryLimit = 160 << 20

// weight is what a round holds: windows, buffers, and of the manifest as much
// as is searched for one message.
func weight(size int64) int64 { return 4<<20 + min(size/64, 24<<20) }

// log enters what became of a user, or of an attempt, into the journal.
func (r *Run) log(u User) {
	e := journal.Event{User: u.Name, Phase: string(r.Verb), Outcome: u.Outcome, Reason: u.Reason, Seconds: u.Hold.Seconds()}
	switch {
	case e.Reason == "":
		e.Reason = u.Text
	case u.Text != "":
		e.Reason += ": " + u.Text
	}
	if len(u.Findings) > 0 {
		e.Findings, _ = json.Marshal(u.Findings) // nothing in it can fail
	}
	if u.Round != nil {
		e.Messages, e.Bytes = u.Round.Messages, u.Round.Bytes
		e.Written, e.Removed, e.Reflagged, e.Quarantined = u.Round.Written, u.Round.Removed, u.Round.Reflagged, len(u.Round.Quarantined)
	}
	err := r.Journal.Log(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(err)
}

// count enters what became of a user into the summary, once.
func (r *Run) count(u User) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.entries, u.Name)
	s := &r.summary
	switch u.Outcome {
	case journal.Done:
		s.Users.Done++
	case journal.Skipped:
		s.Users.Skipped++
	case journal.Failed:
		s.Users.Failed++
	case journal.Untouched:
		s.Users.Untouched++
	}
	if u.Outcome == journal.Done && u.Round != nil {
		s.Messages.In += u.Round.Messages
		s.Messages.Quarantined += len(u.Round.Quarantined)
		s.Messages.Converted += u.converted
		s.Bytes += u.Round.Bytes
	}
	r.Watch.User(u)
}

// fail notes a fault that concerns all users; the caller holds mu.
func (r *Run) fail(err error) {
	if err != nil && r.failure == nil {
		r.failure = err
	}
}
