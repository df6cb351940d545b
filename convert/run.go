package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	weighted "golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
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
	Find      func(name string) (account.Account, bool) // users of whom an earlier run left something

	Verb        Verb
	Chunk       int // users
	Jobs        int // users at a time
	CutoverJobs int
	Pace        Pace
	HoldLimit   time.Duration
	Pause       time.Duration // between chunks

	MaxFailures     int                  // 0: no limit
	FreeFloor       int64                // bytes that must stay free where Maildirs lie
	Open            func(time.Time) bool // whether the window is; nil: always
	AllowQuarantine bool
	BySize          func(a, b int64) int // the order of users; nil: as listed

	Unresolved int // users of whom an earlier run left something that stays so

	mu      sync.Mutex
	memory  *weighted.Weighted
	summary journal.Summary
	failure error             // what concerns all
	devices map[uint64]string // filesystems that hold Maildirs of the run, by a path there
}

// Verb is how far a run goes.
type Verb string

// The verbs.
const (
	Precopy  Verb = "precopy" // staging only
	Migrate  Verb = "migrate"
	Cutover  Verb = "cutover" // of those who have a staging already
	Rollback Verb = "rollback"
)

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
	Reason   string        `json:"reason,omitempty"` // a code: of a finding, or one of those below
	Text     string        `json:"text,omitempty"`   // what happened, for people
	Findings []Finding     `json:"findings,omitempty"`
	Round    *Round        `json:"round,omitempty"` // the last one
	Hold     time.Duration `json:"-"`
	Parked   []string      `json:"parked,omitempty"`
	Already  bool          `json:"already,omitempty"` // migrated by an earlier run

	converted int // messages, counted in the Maildir
}

// Reasons beside the codes of findings.
const (
	reasonQuota      = "quota"
	reasonSpace      = "space"
	reasonBusy       = "busy"
	reasonQuarantine = "quarantine"
	reasonAltered    = "staging-altered"
	reasonSync       = "sync"
	reasonHold       = "hold-limit"
	reasonStuck      = "stuck"
	reasonUnstaged   = "not-precopied"
	reasonStopped    = "stopped"
	reasonError      = "error"
)

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
	r.memory = weighted.NewWeighted(memoryLimit)
	r.devices = map[uint64]string{}
	r.summary = journal.Summary{Verb: string(r.Verb), Started: time.Now().UTC(), End: EndDone}
	r.summary.Users.Total = len(accounts)
	r.recover(ctx, accounts)
	accounts, sizes := r.order(accounts)
	r.Watch.Begin(len(accounts), sizes)
	begun := 0
	for chunk := range slices.Chunk(accounts, max(r.Chunk, 1)) {
		if end := r.stop(ctx); end != "" {
			r.summary.End = end
			break
		}
		begun += len(chunk)
		r.chunk(ctx, chunk)
	}
	if r.summary.End == EndDone { // it may have come with the last chunk
		r.summary.End = r.fault(ctx)
	}
	s := &r.summary
	s.Ended = time.Now().UTC()
	s.Users.Untouched += len(accounts) - begun // counted, not inferred: Summary.Check is to find who got lost
	return s, r.failure
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
	if r.summary.Chunks > 0 && r.Pause > 0 {
		r.waitFor(ctx, fmt.Sprintf("pausing %s between chunks", r.Pause), r.Pause, func() bool { return false })
	}
	r.waitFor(ctx, "paused: "+filepath.Join(r.State, pauseFile)+" is there", 0, func() bool { return !r.flagged(pauseFile) })
	switch end := r.fault(ctx); {
	case end != EndDone:
		return end
	case r.flagged(panicFile):
		return EndPanic
	case r.MaxFailures > 0 && r.summary.Users.Failed > r.MaxFailures:
		return EndFailures
	case r.Open != nil && !r.Open(time.Now()):
		return EndWindow
	case r.tooFull():
		return EndSpace
	}
	return ""
}

// The flag files in the state directory.
const (
	pauseFile = "pause" // no chunk is begun, and no cutover, while it is there
	panicFile = "panic" // the run ends: what is at work is undone or finished, nothing new begun
)

func (r *Run) flagged(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(r.State, name), &st) == nil
}

// waitFor waits until it is over, or for so long, and says why.
func (r *Run) waitFor(ctx context.Context, why string, most time.Duration, over func() bool) {
	if over() {
		return
	}
	r.Watch.Wait(why)
	defer r.Watch.Wait("")
	start := time.Now()
	for !over() && ctx.Err() == nil && !r.flagged(panicFile) && (most == 0 || time.Since(start) < most) {
		select {
		case <-ctx.Done():
		case <-time.After(min(100*time.Millisecond, max(most, 10*time.Millisecond))):
		}
	}
}

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
			list[i] = sized{a, sizeOf(a)}
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

func sizeOf(a account.Account) (bytes int64) {
	if a.Problem != nil {
		return 0
	}
	asUser(a, func() error {
		found, err := findAccount(a)
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

// over enters what became of a user into the counts and the journal.
func (r *Run) over(u User) {
	e := journal.Event{User: u.Name, Phase: string(r.Verb), Outcome: u.Outcome, Reason: u.Reason, Seconds: u.Hold.Seconds()}
	if u.Text != "" {
		e.Reason = u.Reason + ": " + u.Text
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

// reasonOf sorts an error by what an admin does about it.
func reasonOf(err error) string {
	var (
		busy    *Busy
		altered *Altered
		lock    *mbox.LockError
		stuck   *Stuck
	)
	switch {
	case errors.As(err, &stuck):
		return reasonStuck
	case errors.Is(err, errQuarantine):
		return reasonQuarantine
	case errors.Is(err, unix.EDQUOT):
		return reasonQuota
	case errors.Is(err, unix.ENOSPC):
		return reasonSpace
	case errors.Is(err, context.Canceled):
		return reasonStopped
	case errors.As(err, &busy), errors.As(err, &lock) && lock.Busy(), // before the limit, which is what ended the wait for them
		errors.Is(err, semaphore.ErrGateBusy), errors.Is(err, semaphore.ErrBusy):
		return reasonBusy
	case errors.Is(err, errHoldLimit), errors.Is(err, context.DeadlineExceeded):
		return reasonHold
	case errors.As(err, &altered), errors.Is(err, errAltered):
		return reasonAltered
	case errors.Is(err, maildir.ErrNotEmpty):
		return "maildir-foreign"
	case errors.Is(err, fs.ErrPermission):
		return "mbox-unreadable"
	}
	if skip := skipOf("", err); skip.code != "" && isSkippable(err) {
		return skip.code
	}
	return reasonError
}

// concernsAll reports whether an error is no user's but the disk's.
func concernsAll(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) }
