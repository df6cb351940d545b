package convert

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
)

// occupied locks the spool of a user, as a program that has it open.
func occupied(t *testing.T, a account.Account) (free func()) {
	t.Helper()
	dir, err := os.Open(filepath.Dir(a.Spool))
	if err != nil {
		t.Fatal(err)
	}
	held, err := mbox.Lock(context.Background(), int(dir.Fd()), filepath.Base(a.Spool), mbox.LockOptions{Fcntl: true})
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() { held.Release(); dir.Close() })
}

// attempts are the outcomes of a user in the journal of a run, oldest first.
func attempts(t *testing.T, r *Run, user string) (outcomes []string) {
	t.Helper()
	err := journal.Events(r.State, r.Journal.ID(), func(e journal.Event) error {
		if e.User == user && e.Phase == string(r.Verb) {
			code, _, _ := strings.Cut(e.Reason, ":")
			outcomes = append(outcomes, strings.TrimSpace(e.Outcome+" "+code))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return outcomes
}

// Who is busy comes again when the others are through, and counts once.
func TestABusyUserMovesInARetry(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 41})
	first := p.accounts[0]
	free := occupied(t, first)
	r, w := newTestRun(t, p, Migrate)
	r.Chunk, r.HoldLimit, r.Retries, r.delays = 1, 300*time.Millisecond, 3, []time.Duration{50 * time.Millisecond, 200 * time.Millisecond}
	var waits []string
	w.wait = func() {
		s := r.Status()
		waits = append(waits, s.Wait.What)
		if len(s.Waiting) != 1 || s.Waiting[0].User != first.Name || !strings.HasPrefix(s.Waiting[0].What, "busy: ") || s.Left != 1 {
			t.Errorf("status %+v", s)
		}
		if strings.Contains(s.Waiting[0].What, "attempt 2 failed") { // the first wait may be over before the others are through
			free()
		}
	}
	summary := finish(t, r, p.accounts)
	if summary.Users != (journal.Users{Total: 3, Done: 3}) || summary.Messages.In != p.Messages || summary.End != EndDone {
		t.Errorf("summary %+v", summary)
	}
	if got := attempts(t, r, first.Name); !slices.Equal(got, []string{"failed busy", "failed busy", "done"}) {
		t.Errorf("attempts %q", got)
	}
	for _, why := range waits {
		if !strings.HasPrefix(why, first.Name+" is tried again at ") || !strings.HasSuffix(why, ": busy") {
			t.Errorf("waits: %q", why)
		}
	}
	if len(w.notes) != 2 || !strings.HasSuffix(w.notes[0], "; tried again in 50ms") || !strings.HasSuffix(w.notes[1], "; tried again in 200ms") {
		t.Errorf("notes %q", w.notes)
	}
	for _, a := range p.accounts {
		w.mustBe(t, a.Name, journal.Done, "")
		mustBeMoved(t, p, a)
	}
}

func TestRetriesHaveAnEnd(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 42})
	busy := p.accounts[1]
	defer occupied(t, busy)()
	r, w := newTestRun(t, p, Migrate)
	r.HoldLimit, r.Retries, r.delays = 200*time.Millisecond, 2, []time.Duration{10 * time.Millisecond}
	summary := finish(t, r, p.accounts)
	if summary.Users != (journal.Users{Total: 2, Done: 1, Failed: 1}) {
		t.Errorf("summary %+v", summary.Users)
	}
	if got := attempts(t, r, busy.Name); !slices.Equal(got, []string{"failed busy", "failed busy", "failed busy"}) {
		t.Errorf("attempts %q", got)
	}
	w.mustBe(t, busy.Name, journal.Failed, reasonBusy)
	if text := w.users[busy.Name].Text; !strings.HasSuffix(text, "; tried 3 times") {
		t.Errorf("told %q", text)
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name            string
		verb            Verb
		outcome, reason string
		tries           int
		want            bool
	}{
		{"busy", Migrate, journal.Failed, reasonBusy, 0, true},
		{"in use", Cutover, journal.Failed, reasonInUse, 1, true},
		{"held for too long, on the way back", Rollback, journal.Failed, reasonHold, 0, true},
		{"no attempt left", Migrate, journal.Failed, reasonBusy, 2, false},
		{"stuck", Migrate, journal.Failed, reasonStuck, 0, false},
		{"no space", Migrate, journal.Failed, reasonSpace, 0, false},
		{"refused", Migrate, journal.Skipped, reasonBusy, 0, false},
		{"stopped", Migrate, journal.Untouched, reasonStopped, 0, false},
		{"a precopy", Precopy, journal.Failed, reasonBusy, 0, false},
	} {
		r := &Run{Verb: tt.verb, Retries: 2}
		if got := r.passing(&member{User: User{Outcome: tt.outcome, Reason: tt.reason}, entry: &entry{tries: tt.tries}}); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

// Everybody is counted, whatever ends the run while users wait.
func TestARunEndsWhileUsersWait(t *testing.T) {
	for _, tt := range []struct {
		name string
		busy bool // else postponed
		end  func(r *Run, cancel func(), now *time.Time)
		want string
		code string // of the user who waits
	}{
		{"panic", true, func(r *Run, _ func(), _ *time.Time) { r.EndRuns() }, EndPanic, "failed busy"},
		{"a signal", true, func(_ *Run, cancel func(), _ *time.Time) { cancel() }, EndSignal, "failed busy"},
		{"a signal, postponed", false, func(_ *Run, cancel func(), _ *time.Time) { cancel() }, EndSignal, "untouched postponed"},
		{"the window, in a pause", false, func(r *Run, _ func(), until *time.Time) { r.ResumeRuns(); r.PauseRuns(); *until = time.Time{} }, EndWindow, "untouched postponed"},
		{"the window, postponed", false, func(_ *Run, _ func(), until *time.Time) { *until = time.Time{} }, EndWindow, "untouched postponed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 43})
			r, w := newTestRun(t, p, Migrate)
			r.HoldLimit, r.Retries, r.delays = 200*time.Millisecond, 1, []time.Duration{time.Hour}
			want := journal.Users{Total: 2, Untouched: 2}
			waits := p.accounts[0]
			if tt.busy {
				defer occupied(t, waits)()
				want = journal.Users{Total: 2, Done: 1, Failed: 1}
			} else if err := r.PostponeCutovers(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			until := time.Now().Add(time.Hour)
			var mu sync.Mutex
			r.Open = func(now time.Time) bool { mu.Lock(); defer mu.Unlock(); return now.Before(until) }
			w.wait = func() { mu.Lock(); defer mu.Unlock(); tt.end(r, cancel, &until) }
			summary, err := r.Do(ctx, slices.Clone(p.accounts))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Journal.Finish(*summary); err != nil {
				t.Error(err)
			}
			if summary.Users != want || summary.End != tt.want {
				t.Errorf("%+v, %q", summary.Users, summary.End)
			}
			if got := attempts(t, r, waits.Name); !slices.Equal(got, []string{tt.code}) {
				t.Errorf("attempts %q, want %q", got, tt.code)
			}
			outcome, reason, _ := strings.Cut(tt.code, " ")
			w.mustBe(t, waits.Name, outcome, reason)
			if s := r.Status(); s.Left != 0 || s.Wait != nil || len(s.Waiting) > 0 {
				t.Errorf("afterwards %+v", s)
			}
		})
	}
}

// Those who are to be tried again have failed so far.
func TestFailuresThatMayPassCountForMaxFailures(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 44})
	defer occupied(t, p.accounts[0])()
	defer occupied(t, p.accounts[1])()
	r, w := newTestRun(t, p, Migrate)
	r.Chunk, r.HoldLimit, r.Retries, r.MaxFailures = 1, 200*time.Millisecond, 3, 1
	summary := finish(t, r, p.accounts)
	if summary.End != EndFailures || summary.Users != (journal.Users{Total: 3, Failed: 2, Untouched: 1}) {
		t.Errorf("%q, %+v", summary.End, summary.Users)
	}
	w.mustBe(t, p.accounts[0].Name, journal.Failed, reasonBusy)
}

// While cutovers are postponed all are precopied; whom the operator asks for is
// moved all the same, and the flag's end lets the others follow in their order.
func TestPostponedCutovers(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 5, Seed: 45})
	wanted := p.accounts[3].Name
	r, w := newTestRun(t, p, Migrate)
	r.Chunk = 2
	if err := r.PostponeCutovers(); err != nil {
		t.Fatal(err)
	}
	times := 0
	w.wait = func() {
		switch times++; times {
		case 1:
			for _, a := range p.accounts {
				stagingOf(t, a)
			}
			if s := r.Status(); s.Left != 5 || len(s.Waiting) != 5 || s.Chunk != 3 || !strings.Contains(s.Wait.What, "postponed") {
				t.Errorf("status %+v", s)
			}
			if text, err := r.Cutover(wanted); err != nil || text != wanted+" is next" {
				t.Errorf("cutover: %q, %v", text, err)
			}
			if _, err := r.Cutover("nobody"); err == nil {
				t.Error("nobody is next")
			}
		case 2:
			w.mustBe(t, wanted, journal.Done, "")
			if len(w.users) != 1 {
				t.Errorf("moved: %+v", w.users)
			}
			if was, err := r.ResumeRuns(); !was || err != nil {
				t.Errorf("resume: %t, %v", was, err)
			}
		}
	}
	summary := finish(t, r, p.accounts)
	if summary.Users.Done != 5 || summary.Messages.In != p.Messages || times != 2 {
		t.Errorf("%+v, waited %d times", summary, times)
	}
	for _, a := range p.accounts {
		mustBeMoved(t, p, a)
	}
}

func TestWhoIsNext(t *testing.T) {
	now := time.Now()
	list := map[string]*entry{}
	for _, name := range strings.Fields("a b c d e f") {
		list[name] = &entry{account: account.Account{User: account.User{Name: name}}}
	}
	list["e"].due = now.Add(time.Minute)
	q := queue{fresh: []*entry{list["a"], list["b"], list["c"]}, later: []*entry{list["d"], list["e"], list["f"]}}
	next := func(postponed bool, at time.Time) string {
		names := ""
		for _, e := range q.take(2, postponed, at) {
			names += e.account.Name
		}
		return names
	}
	ask := func(name string) bool { return q.ask(list[name]) }
	for _, step := range []struct{ name, got, want string }{
		{"who is fresh", next(true, now), "ab"},
		{"who was asked for, postponed and not due or not", func() string { ask("e"); ask("d"); ask("e"); return next(true, now) }(), "ed"},
		{"who is left of the fresh", next(true, now), "c"},
		{"nobody while postponed", next(true, now), ""},
		{"who was postponed", next(false, now), "f"},
		{"nobody at the end", next(false, now), ""},
	} {
		if step.got != step.want {
			t.Errorf("%s: %q, want %q", step.name, step.got, step.want)
		}
	}
	if ask("a") {
		t.Error("who is at work is asked for in the queue")
	}
	q.later = []*entry{list["e"], list["d"]}
	if got := next(false, now); got != "d" || q.len() != 1 {
		t.Errorf("due: %q, %d left", got, q.len())
	}
	if got := next(false, now.Add(time.Minute)); got != "e" {
		t.Errorf("due later: %q", got)
	}
}

// What is set counts from the next user on.
func TestJobsAreSetWhileTheRunWorks(t *testing.T) {
	r := &Run{Site: Site{State: t.TempDir()}, Jobs: 1}
	c := &chunk{Run: r}
	for range 9 {
		c.members = append(c.members, &member{entry: &entry{}})
	}
	var mu sync.Mutex
	work, most, over := 0, 0, 0
	c.each(context.Background(), "test", &r.Jobs, func(_ context.Context, m *member) {
		mu.Lock()
		work++
		most = max(most, work)
		if over++; over == 3 {
			if most != 1 {
				t.Errorf("%d at a time, not 1", most)
			}
			r.Change(func(r *Run) { r.Jobs = 3 })
		}
		mu.Unlock()
		if s := setting(r, &m.what); s != "test" {
			t.Errorf("phase %q", s)
		}
		time.Sleep(20 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		work--
	})
	if most != 3 || over != 9 {
		t.Errorf("%d at a time, not 3; %d members", most, over)
	}
}

// Nobody is cut over by day because a pause ended then.
func TestAPauseThatOutlastsTheWindow(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 46})
	r, w := newTestRun(t, p, Migrate)
	var closed atomic.Bool
	r.Open = func(time.Time) bool { return !closed.Load() }
	betweenPrecopyAndHold(t, r, w, func() { closed.Store(true) })
	summary := finish(t, r, p.accounts)
	if summary.End != EndWindow || summary.Users != (journal.Users{Total: 3, Untouched: 3}) {
		t.Errorf("%q, %+v", summary.End, summary.Users)
	}
	for _, a := range p.accounts {
		w.mustBe(t, a.Name, journal.Untouched, reasonPostponed)
		stagingOf(t, a)
	}
}
