package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
)

// The operator's files in the state directory. Only whether they are there
// counts, and there is no other truth: what comes by the socket makes and
// removes them, too.
const (
	pauseFile    = "pause"            // no chunk is begun, and no cutover, while it is there
	postponeFile = "postpone-cutover" // precopies go on, no cutover is begun
	panicFile    = "panic"            // the run ends: what is at work is undone or finished, nothing new begun
)

// PauseRuns makes runs begin nothing new until ResumeRuns.
func (s Site) PauseRuns() error { return s.raise(pauseFile) }

// PostponeCutovers lets runs precopy only, until ResumeRuns.
func (s Site) PostponeCutovers() error { return s.raise(postponeFile) }

// EndRuns ends the run that is at work, and each that is begun while the file
// is there: nobody removes it but an admin.
func (s Site) EndRuns() error { return s.raise(panicFile) }

// PanicFile is the path of what EndRuns makes.
func (s Site) PanicFile() string { return filepath.Join(s.State, panicFile) }

// RunsEnded reports whether that is there.
func (s Site) RunsEnded() bool { return s.flagged(panicFile) }

// ResumeRuns ends what PauseRuns and PostponeCutovers began, and reports whether
// there was anything.
func (s Site) ResumeRuns() (was bool, err error) {
	for _, name := range []string{pauseFile, postponeFile} {
		switch e := os.Remove(filepath.Join(s.State, name)); {
		case e == nil:
			was = true
		case !errors.Is(e, fs.ErrNotExist):
			err = errors.Join(err, e)
		}
	}
	return was, err
}

func (s Site) raise(name string) error {
	f, err := os.OpenFile(filepath.Join(s.State, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (s Site) flagged(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(filepath.Join(s.State, name), &st) == nil
}

// Change sets what may be set while the run works: Jobs, CutoverJobs,
// HoldLimit, DrainLimit, Pause, MaxFailures, Retries. It counts from the next
// user on.
func (r *Run) Change(set func(*Run)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(r)
}

// setting reads what Change, or the operator otherwise, may change.
func setting[T any](r *Run, field *T) T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *field
}

// Cutover makes a user the next one, whether cutovers are postponed or not,
// and tells what that means for him. A pause holds for him, too.
func (r *Run) Cutover(user string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[user]
	switch {
	case !r.Verb.holds():
		return "", fmt.Errorf("%s cuts nobody over", r.Verb)
	case e == nil:
		return "", fmt.Errorf("%s is not of this run, or it is through with him", user)
	}
	e.asked = true
	if r.queue.ask(e) {
		return user + " is next", nil
	}
	return user + " is at work; he is not postponed", nil
}

// RunStatus is how far a run is.
type RunStatus struct {
	Run     string        `json:"run"`
	Verb    Verb          `json:"verb"`
	Started time.Time     `json:"started"`
	Chunk   int           `json:"chunk"` // how many have been begun
	Users   journal.Users `json:"users"`
	Left    int           `json:"left"`              // users that the run is not through with
	Wait    *Wait         `json:"wait,omitempty"`    // why nothing happens
	Working []Wait        `json:"working,omitempty"` // users at work, the one who is so for the longest time first
	Waiting []Wait        `json:"waiting,omitempty"` // users whose turn comes again, likewise
	More    int           `json:"more,omitempty"`    // users who wait and are not listed
}

// Wait is what somebody does or waits for.
type Wait struct {
	User  string    `json:"user,omitempty"` // none: the run
	What  string    `json:"what"`           // the phase; or why he waits
	Since time.Time `json:"since"`
}

// listed is how many users who wait are told by name.
const listed = 1000

// Status tells how far the run is. It may be called at any time.
func (r *Run) Status() RunStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := RunStatus{
		Run: r.Journal.ID(), Verb: r.Verb, Started: r.summary.Started, Chunk: r.chunks,
		Users: r.summary.Users, Left: len(r.entries), Wait: r.wait,
	}
	for name, e := range r.entries {
		w := Wait{name, e.what, e.since}
		switch {
		case e.what == "":
		case e.works:
			s.Working = append(s.Working, w)
		default:
			s.Waiting = append(s.Waiting, w)
		}
	}
	longest := func(a, b Wait) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.User, b.User)
	}
	slices.SortFunc(s.Working, longest)
	slices.SortFunc(s.Waiting, longest)
	if s.More = max(len(s.Waiting)-listed, 0); s.More > 0 {
		s.Waiting = s.Waiting[:listed]
	}
	return s
}

// paused waits while the pause file is there. False: the window ended
// meanwhile.
func (r *Run) paused(ctx context.Context) (open bool) {
	if !r.flagged(pauseFile) {
		return true
	}
	r.waitFor(ctx, "paused: "+filepath.Join(r.State, pauseFile)+" is there until mailferry ctl resume", func() bool { return !r.flagged(pauseFile) || r.closed() })
	return !r.closed()
}

// between is the pause between chunks, which an order of the operator ends.
func (r *Run) between(ctx context.Context) {
	pause := setting(r, &r.Pause)
	if pause == 0 || r.left() == 0 {
		return
	}
	end := time.Now().Add(pause)
	r.waitFor(ctx, fmt.Sprintf("pausing %s between chunks", pause), func() bool { return !time.Now().Before(end) || r.ordered() })
}

// waitFor waits until it is over, and says why.
func (r *Run) waitFor(ctx context.Context, why string, over func() bool) {
	if over() {
		return
	}
	r.waits(why)
	defer r.waits("")
	for !over() && ctx.Err() == nil && !r.flagged(panicFile) {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// waits tells why nothing happens from now on; "" that it goes on.
func (r *Run) waits(why string) {
	r.mu.Lock()
	r.wait = nil
	if why != "" {
		r.wait = &Wait{What: why, Since: time.Now()}
	}
	r.mu.Unlock()
	r.Watch.Wait(why)
}
