package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/openfiles"
	"mailferry/semaphore"
)

// hooked is a Host that does as a test says, and notes when it was called.
type hooked struct {
	before, drain, abort func() error // nil: nothing is to be done
	told                 []string
}

func (h *hooked) call(what string, do func() error) error {
	h.told = append(h.told, what)
	if do == nil {
		return nil
	}
	return do()
}

func (h *hooked) BeforeHold(context.Context, account.Account) error {
	return h.call("before", h.before)
}

func (h *hooked) Drain(context.Context, account.Account) error { return h.call("drain", h.drain) }

func (h *hooked) AfterFlip(_ context.Context, _ account.Account, to semaphore.State) error {
	return h.call("flip "+to.String(), nil)
}

func (h *hooked) AfterAbort(_ context.Context, _ account.Account, stays semaphore.State) error {
	return h.call("abort "+stays.String(), h.abort)
}

// sleeper starts a program that has a file open for so long.
func sleeper(t *testing.T, path string, long time.Duration) (pid int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", fmt.Sprint(long.Seconds()))
	cmd.Stdin = f
	if err := errors.Join(cmd.Start(), f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process.Pid
}

func TestACutoverWaitsForAProgramThatClosesTheMailbox(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
	a := p.accounts[0]
	c := ready(t, p, a)
	const open = 100 * time.Millisecond
	c.drainLimit = 5 * time.Second
	c.around = &hooked{drain: func() error { sleeper(t, a.Spool, open); return nil }}
	cut, err := c.do(context.Background())
	if err != nil || len(cut.Warnings) > 0 {
		t.Fatal(err, cut)
	}
	if cut.Hold < open {
		t.Errorf("flipped after %v, with the mailbox open for %v", cut.Hold, open)
	}
	mustBeMoved(t, p, a)
}

func TestWhoHasTheMailboxOpenBehindTheDrainLimitIsNamed(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
	a := p.accounts[0]
	c := ready(t, p, a)
	before, err := mailgen.Snapshot(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	pid := 0
	c.drainLimit = 200 * time.Millisecond
	c.around = &hooked{drain: func() error { pid = sleeper(t, a.Spool, time.Minute); return nil }}
	_, err = c.do(context.Background())
	var used *InUse
	if !errors.As(err, &used) || reasonOf(err) != reasonInUse {
		t.Fatal(err)
	}
	want := openfiles.Holder{PID: pid, Command: "sleep", Write: true}
	if used.Path != a.Spool || !slices.Equal(used.Holders, []openfiles.Holder{want}) {
		t.Errorf("%q is open in %+v, want %q in %+v", used.Path, used.Holders, a.Spool, want)
	}
	if text := err.Error(); !strings.Contains(text, fmt.Sprintf("%q is open in \"sleep\" (pid %d, uid 0)", a.Spool, pid)) {
		t.Error(text)
	}
	if authority, mirror := stateOf(t, a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
		t.Errorf("semaphore %s, mirror %s", authority, mirror)
	}
	after, err := mailgen.Snapshot(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range mail(before).Diff(mail(after)) {
		t.Error(d)
	}
}

// Gate and locks are waited for as long as sessions are, and not until the hold
// is over.
func TestWhatIsTakenBehindTheDrainLimitIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name string
		path func(account.Account) string
		take func(*testing.T, account.Account)
	}{
		{"the gate", func(a account.Account) string { return a.Gate }, func(t *testing.T, a account.Account) {
			if err := errors.Join(os.WriteFile(a.Gate, []byte("1"), 0o600), os.Chown(a.Gate, a.UID, a.GID)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a lock", func(a account.Account) string { return a.Spool }, func(t *testing.T, a account.Account) { t.Cleanup(occupied(t, a)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 23})
			a := p.accounts[0]
			tt.take(t, a)
			before, err := mailgen.Snapshot(p.Dir)
			if err != nil {
				t.Fatal(err)
			}
			r, w := newTestRun(t, p, Migrate)
			r.HoldLimit, r.DrainLimit = 20*time.Second, 200*time.Millisecond
			var begun, over time.Time
			r.Around = &hooked{
				before: func() error { begun = time.Now(); return nil },
				abort:  func() error { over = time.Now(); return nil },
			}
			finish(t, r, p.accounts)
			w.mustBe(t, a.Name, journal.Failed, reasonBusy)
			if text := w.users[a.Name].Text; !strings.Contains(text, tt.path(a)) {
				t.Errorf("%q is not in: %s", tt.path(a), text)
			}
			if held := over.Sub(begun); held < 50*time.Millisecond || held > r.HoldLimit/4 {
				t.Errorf("waited for %v", held)
			}
			after, err := mailgen.Snapshot(p.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range mail(before).Diff(mail(after)) {
				t.Error(d)
			}
			if state, err := os.ReadFile(a.Semaphore); err != nil || string(state) != semaphore.Mbox.Line() {
				t.Errorf("semaphore %q, %v", state, err)
			}
		})
	}
}

// What is done before a hold is undone when it comes to nothing, but not for a
// user who is still held.
func TestTheHostIsToldHowACutoverEnds(t *testing.T) {
	failed := errors.New("as planned")
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *cutover, *hooked)
		told  string
	}{
		{"moved", func(*testing.T, *cutover, *hooked) {}, "before, drain, flip maildir"},
		{"vetoed", func(_ *testing.T, _ *cutover, h *hooked) {
			h.before = func() error { return failed }
		}, "before"},
		{"a pre-round fails", func(t *testing.T, c *cutover, h *hooked) {
			h.before = func() error {
				list, err := filepath.Glob(filepath.Join(c.staging.Path(), "cur", "*"))
				if err != nil || len(list) == 0 {
					t.Fatal(list, err)
				}
				return overwrite(list[0])
			}
		}, "before, abort mbox"},
		{"nothing can be prepared", func(t *testing.T, c *cutover, h *hooked) {
			h.before = func() error {
				sem, err := semaphore.For(c.account.Semaphore)
				if err != nil {
					return err
				}
				free, err := exclude(sem)
				t.Cleanup(func() { free() })
				return err
			}
		}, "before, abort mbox"},
		{"sessions stay", func(_ *testing.T, _ *cutover, h *hooked) {
			h.drain = func() error { return failed }
		}, "before, drain, abort mbox"},
		{"the spool is replaced under the locks", func(_ *testing.T, c *cutover, h *hooked) {
			h.drain = func() error { return errors.Join(os.Remove(c.account.Spool), os.Symlink("nowhere", c.account.Spool)) }
		}, "before, drain, abort mbox"},
		{"stuck", func(_ *testing.T, c *cutover, h *hooked) {
			h.drain = func() error { // somebody else has got the hold
				other := semaphore.Meta{Epoch: 9, Run: deadRun, Deadline: time.Now().Add(time.Hour)}
				err := c.sem.Set(semaphore.Mbox, other)
				other.Epoch++
				return errors.Join(failed, err, c.sem.Hold(other))
			}
		}, "before, drain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
			c, h := ready(t, p, p.accounts[0]), &hooked{}
			c.around = h
			tt.spoil(t, c, h)
			_, err := c.do(context.Background())
			var stuck *Stuck
			if moved := tt.name == "moved"; moved != (err == nil) || errors.As(err, &stuck) != (tt.name == "stuck") {
				t.Error(err)
			}
			if authority, _ := stateOf(t, c.account); (authority == semaphore.Hold) != (stuck != nil) {
				t.Errorf("the semaphore says %s", authority)
			}
			if told := strings.Join(h.told, ", "); told != tt.told {
				t.Errorf("told %q, want %q; %v", told, tt.told, err)
			}
		})
	}
}
