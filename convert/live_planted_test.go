package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"mailferry/internal/livemail"
	"mailferry/semaphore"
)

// planted is an agent with a fault.
type planted struct {
	name    string
	deliver func(ctx context.Context, m *livemail.Message) (livemail.Result, error)
}

func (p planted) Name() string { return p.name }

func (p planted) Deliver(ctx context.Context, m *livemail.Message) (r livemail.Result, err error) {
	err = m.User.As(func() error {
		r, err = p.deliver(ctx, m)
		return err
	})
	if errors.Is(err, semaphore.ErrGateBusy) || errors.Is(err, livemail.ErrLocked) {
		return livemail.Deferred, nil
	}
	return r, err
}

// slow is the pause between the small writes of planted agents.
const slow = 5 * time.Millisecond

// hesitation is how long planted agents think about what the semaphore said.
const hesitation = 100 * time.Millisecond

// skipsTheLock takes the gate, but not the locks of the mbox.
var skipsTheLock = planted{"skips the lock", func(ctx context.Context, m *livemail.Message) (r livemail.Result, err error) {
	err = m.User.Gated(ctx, func() error {
		r, err = m.Put(ctx, m.User.State(), false, slow)
		return err
	})
	return r, err
}}

// readsTooEarly reads the semaphore, and takes the gate then.
var readsTooEarly = planted{"reads the semaphore too early", func(ctx context.Context, m *livemail.Message) (r livemail.Result, err error) {
	state := m.User.State()
	time.Sleep(hesitation)
	err = m.User.Gated(ctx, func() error {
		r, err = m.Put(ctx, state, true, slow)
		return err
	})
	return r, err
}}

// takesNoGate reads the semaphore and then waits for the mbox's locks alone.
var takesNoGate = planted{"takes no gate", func(ctx context.Context, m *livemail.Message) (livemail.Result, error) {
	state := m.User.State()
	lagBehind(m.User, func() bool { return false })
	return m.Put(ctx, state, true, slow)
}}

// lagBehind makes an agent as slow as a busy machine can make it: if a hold
// begins now, it goes on when that is over, or at a moment in it.
func lagBehind(u *livemail.User, moment func() bool) {
	time.Sleep(hesitation)
	for start := time.Now(); u.State() == semaphore.Hold && !moment() && time.Since(start) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
}

// A fault in what delivers or moves is found by the ledger: without that, that
// nothing is found would prove nothing.
func TestTheLiveTestFindsPlantedFaults(t *testing.T) {
	honest := livemail.Honest{Pause: slow}
	for _, tt := range []struct {
		name  string
		agent livemail.Agent
		move  func(*live)
		tells string
	}{
		{"an agent that skips the lock", skipsTheLock, (*live).stayOnMbox, `lost|another content|no message of it|there 2 times`},
		{"an agent that reads the semaphore before it takes the gate", readsTooEarly, (*live).moveAll, `lies in spool/|behind the flip`},
		{"an agent that takes no gate", takesNoGate, (*live).moveAll, `lies in spool/|behind the flip`},
		{"a first copy without locks", honest, (*live).moveAllBadly, `lost|another content|no message of it`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tells := regexp.MustCompile(tt.tells)
			for seed := range uint64(12) {
				l := newLive(t, 4, livemail.Options{
					Seed: seed, Clients: 2, Keep: 8, Confirm: true, Agents: []livemail.Agent{tt.agent, tt.agent, honest},
				})
				l.Start()
				tt.move(l)
				l.Stop()
				for _, wrong := range append(l.Account(), l.swept...) { // a run sweeps up at its end what the ledger would miss
					if tells.MatchString(wrong) {
						t.Logf("found by run %d: %s", seed+1, wrong)
						return
					}
					t.Logf("not this: %s", wrong)
				}
			}
			t.Error("not found")
		})
	}
}

// stayOnMbox lets agents and servers meet at the mboxes.
func (l *live) stayOnMbox() { time.Sleep(3 * time.Second) }

// moveAll moves every user.
func (l *live) moveAll() {
	time.Sleep(500 * time.Millisecond)
	for try := 0; try < 20 && len(l.on(semaphore.Mbox)) > 0; try++ {
		l.run(Migrate, l.on(semaphore.Mbox))
	}
	time.Sleep(200 * time.Millisecond)
}

// moveAllBadly imitates the cutover of a program that thinks that what was
// copied before the hold needs no second look.
func (l *live) moveAllBadly() {
	l.Helper()
	time.Sleep(time.Second)
	for _, u := range l.Site.Users {
		if err := u.As(func() error { return copyMbox(u) }); err != nil {
			l.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := flipBadly(u); err != nil {
			l.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
}

// copyMbox fills a Maildir from an mbox that it does not lock.
func copyMbox(u *livemail.User) error {
	content, err := os.ReadFile(u.Spool)
	if err != nil {
		return err
	}
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		if err := os.Mkdir(filepath.Join(u.Maildir, sub), 0o700); err != nil {
			return err
		}
	}
	for i, text := range bytes.Split(append([]byte("\n"), content...), []byte("\nFrom ")) {
		_, message, _ := bytes.Cut(text, []byte("\n"))
		if i == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(u.Maildir, "cur", fmt.Sprintf("1.M%dP1.bad:2,", i)), message, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// flipBadly does the rest as it should be done.
func flipBadly(u *livemail.User) error {
	sem, err := semaphore.For(u.Semaphore)
	if err != nil {
		return err
	}
	if err := sem.Hold(semaphore.Meta{Epoch: 2, Run: "bad", Deadline: time.Now().Add(time.Minute)}); err != nil {
		return err
	}
	err = u.As(func() error {
		return u.Gated(context.Background(), func() error { return os.Rename(u.Spool, parkedName(u.Spool, time.Now())) })
	})
	return errors.Join(err, sem.Set(semaphore.Maildir, semaphore.Meta{Epoch: 3, Run: "bad"}))
}
