package convert

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// cutover does what the beginning of a cutover does, until it is undone.
func (h *house) cutover() (end func()) {
	h.Helper()
	sem, err := semaphore.For(h.a.Semaphore)
	h.check(err)
	last, err := sem.Meta()
	h.check(err)
	p, err := sem.Prepare(semaphore.Mbox, semaphore.Meta{Epoch: last.Epoch + 2, Run: "run"})
	h.check(err)
	return func() { h.check(p.Discard()) }
}

// journal is that of a run that did something to alice.
func (h *house) journal(phase, outcome string) {
	h.Helper()
	r, err := journal.Begin(h.site.State, phase)
	h.check(err)
	h.check(r.Log(journal.Event{User: "alice", Phase: phase, Outcome: outcome}))
	h.check(r.Close())
}

// fullMaildir makes one that is not empty.
func (h *house) fullMaildir() {
	h.Helper()
	h.mkdir(h.a.Maildir, 0o700, aliceID)
	h.mkdir(h.a.Maildir+"/cur", 0o700, aliceID)
}

// park does what a cutover does to the mboxes.
func (h *house) park() {
	h.Helper()
	for _, path := range []string{h.a.Spool, h.home("mail/Sent")} {
		h.check(os.Rename(path, parkedName(path, time.Now())))
	}
}

// from makes the hold one that began with a state.
func (h *house) from(state semaphore.State) {
	h.Helper()
	sem, err := semaphore.For(h.a.Semaphore)
	h.check(err)
	meta, err := sem.Meta()
	h.check(err)
	h.check(h.site.SetSemaphore(h.a, state))
	meta.Epoch += 2
	meta.From = state
	h.check(sem.Hold(meta))
}

func TestReleaseGoesBack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		arrange func(*house)
		want    semaphore.State // Hold: in doubt
	}{
		{"untouched", func(*house) {}, semaphore.Mbox},
		{"precopied", func(h *house) { h.staging(".Maildir.mailferry-0123456789abcdef", true) }, semaphore.Mbox},
		{"an empty Maildir", func(h *house) { h.mkdir(h.a.Maildir, 0o700, aliceID) }, semaphore.Mbox},
		{"a cutover failed", func(h *house) { h.journal("migrate", journal.Failed) }, semaphore.Mbox},
		{"moved and parked", func(h *house) { h.fullMaildir(); h.park() }, semaphore.Maildir},
		{"moved and retired", func(h *house) {
			h.fullMaildir()
			h.remove(h.a.Spool)
			h.remove(h.home("mail"))
			h.journal("migrate", journal.Done)
		}, semaphore.Maildir},
		{"moved, and an empty spool was made", func(h *house) {
			h.fullMaildir()
			h.park()
			h.write(h.a.Spool, "", aliceID)
		}, semaphore.Maildir},

		{"a foreign Maildir", func(h *house) { h.fullMaildir() }, semaphore.Hold},
		{"a foreign Maildir, and no mail", func(h *house) { h.fullMaildir(); h.remove(h.a.Spool); h.remove(h.home("mail")) }, semaphore.Hold},
		{"moved, and mail at the old place", func(h *house) { h.fullMaildir(); h.park(); h.write(h.a.Spool, letter, aliceID) }, semaphore.Hold},
		{"published, not flipped", func(h *house) { h.staging("Maildir", true); h.park() }, semaphore.Hold},
		{"rolled back, and parked mboxes are left", func(h *house) { h.park(); h.write(h.a.Spool, letter, aliceID) }, semaphore.Mbox},
		{"moved, and the Maildir is gone", func(h *house) { h.from(semaphore.Maildir); h.park() }, semaphore.Hold},
		{"moved, as the journal says, and the Maildir is gone", func(h *house) { h.from(semaphore.Maildir); h.journal("cutover", journal.Done) }, semaphore.Hold},
		{"the home is gone", func(h *house) { h.remove(h.a.Home) }, semaphore.Hold},
		{"the spool is a symlink", func(h *house) { h.remove(h.a.Spool); h.symlink("/etc/passwd", h.a.Spool) }, semaphore.Hold},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			h.check(h.site.HoldSemaphore(h.a, time.Minute))
			tt.arrange(h)
			got, err := h.site.ReleaseSemaphore(h.a)
			var doubt *Doubt
			if tt.want == semaphore.Hold {
				if !errors.As(err, &doubt) {
					t.Errorf("got %v, %v; want doubt", got, err)
				}
				h.says("hold")
				return
			}
			if got != tt.want || err != nil {
				t.Errorf("got %v, %v; want %v", got, err, tt.want)
			}
			h.says(tt.want.String())
			h.wantFile(h.a.Mirror, tt.want.Line(), aliceID, 0o644)
		})
	}
}

func TestAHoldByHandIsNobodysRun(t *testing.T) {
	h := newHouse(t)
	start := time.Now()
	h.check(h.site.HoldSemaphore(h.a, time.Minute))
	h.wantFile(h.a.Mirror, "MAILSTATE=hold\n", aliceID, 0o644)
	s := standingOf(h.a, start)
	host, err := os.Hostname()
	h.check(err)
	if s.State != "hold" || s.Run != "" || s.PID != os.Getpid() || s.Host != host || s.Expired || s.Epoch != 2 ||
		s.Deadline.Before(start.Add(time.Minute)) || s.Deadline.After(time.Now().Add(time.Minute)) {
		t.Errorf("got %+v", s)
	}
	if s := standingOf(h.a, start.Add(2*time.Minute)); s.Expired || !s.ByHand() {
		t.Errorf("it ends by hand alone: %+v", s)
	}
	if err := h.site.HoldSemaphore(h.a, time.Minute); !errors.Is(err, semaphore.ErrState) {
		t.Errorf("a hold of a hold: %v", err)
	}
	// A run is at work, but not for him.
	r, err := journal.Begin(h.site.State, "migrate")
	h.check(err)
	defer r.Close()
	if got, err := h.site.ReleaseSemaphore(h.a); got != semaphore.Mbox || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNobodyReleasesTheHoldOfALiveRun(t *testing.T) {
	h := newHouse(t)
	r, err := journal.Begin(h.site.State, "migrate")
	h.check(err)
	sem, err := semaphore.For(h.a.Semaphore)
	h.check(err)
	h.check(sem.Hold(semaphore.Meta{Epoch: 2, Run: r.ID(), Deadline: time.Now().Add(-time.Minute)}))
	_, err = h.site.ReleaseSemaphore(h.a)
	if !errors.Is(err, journal.ErrLocked) || !strings.Contains(err.Error(), r.ID()) {
		t.Errorf("got %v", err)
	}
	h.says("hold")
	h.check(r.Close())
	if got, err := h.site.ReleaseSemaphore(h.a); got != semaphore.Mbox || err != nil {
		t.Errorf("when the run is dead: %v, %v", got, err)
	}
}

func TestByHandKeepsOutOfCutovers(t *testing.T) {
	h := newHouse(t)
	end := h.cutover()
	for name, change := range map[string]func() error{
		"set":     func() error { return h.site.SetSemaphore(h.a, semaphore.Maildir) },
		"hold":    func() error { return h.site.HoldSemaphore(h.a, time.Minute) },
		"release": func() error { _, err := h.site.ReleaseSemaphore(h.a); return err },
	} {
		if err := change(); !errors.Is(err, semaphore.ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.says("mbox")
	end()
	h.check(h.site.SetSemaphore(h.a, semaphore.Maildir))
	h.says("maildir")
}

func TestSetFromWhateverItIs(t *testing.T) {
	for name, arrange := range map[string]func(*house){
		"mbox":         func(*house) {},
		"hold":         func(h *house) { h.semaphore(semaphore.Hold) },
		"nonsense":     func(h *house) { h.write(h.a.Semaphore, "nonsense", 0) },
		"not enrolled": func(h *house) { h.remove(h.a.Semaphore); h.remove(h.a.Semaphore + ".meta") },
		"lost":         func(h *house) { h.semaphore(semaphore.Maildir); h.remove(h.a.Semaphore) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			arrange(h)
			last := standingOf(h.a, time.Now()).Epoch
			for _, to := range []semaphore.State{semaphore.Maildir, semaphore.Mbox, semaphore.Mbox} {
				h.check(h.site.SetSemaphore(h.a, to))
				h.says(to.String())
				h.wantFile(h.a.Mirror, to.Line(), aliceID, 0o644)
				if now := standingOf(h.a, time.Now()).Epoch; now != last+1 {
					t.Errorf("epoch %d after %d", now, last)
				}
				last++
			}
		})
	}
}

func TestByHandRefuses(t *testing.T) {
	h := newHouse(t)
	if err := h.site.SetSemaphore(h.a, semaphore.Hold); err == nil {
		t.Error("set to hold")
	}
	h.site.MinUID = aliceID + 1
	if err := h.site.HoldSemaphore(h.a, time.Minute); err == nil {
		t.Error("held a user below min-uid")
	}
	h.says("mbox")
	if err := h.site.SetSemaphore(account.Account{User: account.User{Name: "bob", Problem: account.ErrUnknown}}, semaphore.Mbox); !errors.Is(err, account.ErrUnknown) {
		t.Errorf("set nobody's: %v", err)
	}
}

func TestReleaseOfNoHoldWritesTheMirror(t *testing.T) {
	h := newHouse(t)
	h.semaphore(semaphore.Maildir)
	h.mirror("MAILSTATE=hold\n")
	if got, err := h.site.ReleaseSemaphore(h.a); got != semaphore.Maildir || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	h.wantFile(h.a.Mirror, "MAILSTATE=maildir\n", aliceID, 0o644)
	if s := standingOf(h.a, time.Now()); s.Epoch != 2 {
		t.Errorf("the epoch is %d: it was changed", s.Epoch)
	}
	h.remove(h.a.Semaphore)
	if _, err := h.site.ReleaseSemaphore(h.a); err == nil {
		t.Error("released who has no semaphore")
	}
}

func TestByHandSaysWhatIsTrueWithoutAMirror(t *testing.T) {
	h := newHouse(t)
	h.remove(h.a.Home)
	err := h.site.HoldSemaphore(h.a, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "says hold, but its mirror could not be written") {
		t.Errorf("got %v", err)
	}
	h.says("hold")
}
