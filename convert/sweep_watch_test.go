package convert

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
)

// sweptBy collects what a sweeper tells.
type sweptBy struct {
	messages int
	errs     []error
	last     time.Time
}

func (b *sweptBy) tell(_ account.Account, s *Swept, err error) {
	if s != nil {
		b.messages += s.Messages()
	}
	if err != nil {
		b.errs = append(b.errs, err)
	}
	b.last = time.Now()
}

func TestLateMailIsTakenDuringTheGrace(t *testing.T) {
	for _, blind := range []bool{false, true} {
		s := newSwept(t)
		live, dir := s.folderOf(t)
		told := &sweptBy{}
		w := NewSweeper(context.Background(), s.site, "run", 3*time.Second, told.tell)
		if blind { // no inotify to be had
			w.Close()
			w = NewSweeper(context.Background(), s.site, "run", 3*time.Second, told.tell)
			w.watcherless(t)
		}
		w.Add(s.a)
		time.Sleep(50 * time.Millisecond)
		start := time.Now()
		s.appendTo(t, s.parked(t, live), s.mail(dir))
		s.appendTo(t, s.a.Spool, s.mail("."))
		for len(s.ids(t)) < len(s.count) && time.Since(start) < 2500*time.Millisecond {
			time.Sleep(20 * time.Millisecond)
		}
		took := time.Since(start)
		if most := time.Second; took > most && !blind {
			t.Errorf("it took %v", took)
		}
		w.Finish()
		if !w.ended(5*time.Second) || told.messages != 2 || len(told.errs) > 0 {
			t.Errorf("%+v", told)
		}
		if stayed := time.Since(start); stayed < 2500*time.Millisecond {
			t.Errorf("it ended after %v", stayed)
		}
		s.mustHaveAll(t)
	}
}

// watcherless takes inotify from a sweeper that has no user yet.
func (w *Sweeper) watcherless(t *testing.T) {
	t.Helper()
	if w.watcher == nil {
		t.Fatal("there was none")
	}
	if err := w.watcher.Close(); err != nil {
		t.Fatal(err)
	}
}

// Without a grace each user is looked at once, when the run ends.
func TestWithoutAGraceThereIsOneLastSweep(t *testing.T) {
	s := newSwept(t)
	told := &sweptBy{}
	w := NewSweeper(context.Background(), s.site, "run", 0, told.tell)
	w.Add(s.a)
	s.appendTo(t, s.a.Spool, s.mail("."))
	start := time.Now()
	w.Finish()
	if !w.ended(5*time.Second) || told.messages != 1 || time.Since(start) > 2*time.Second {
		t.Errorf("%+v after %v", told, time.Since(start))
	}
	s.mustHaveAll(t)
}

// A run stays for the grace of those whom it has moved, and takes what comes; what
// ends the run ends the wait.
func TestARunStaysForTheGrace(t *testing.T) {
	for name, panics := range map[string]bool{"to the end": false, "until it is stopped": true} {
		t.Run(name, func(t *testing.T) {
			s := &swept{place: newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 21})}
			s.a = s.accounts[0]
			r, w := newTestRun(t, s.place, Migrate)
			if r.Grace = time.Second; panics {
				r.Grace = time.Hour
			}
			w.wait = func() {
				s.count = s.ids(t)
				s.appendTo(t, s.a.Spool, s.mail("."))
				for until := time.Now().Add(5 * time.Second); len(s.ids(t)) < len(s.count) && time.Now().Before(until); {
					time.Sleep(10 * time.Millisecond)
				}
				if panics {
					writeFile(t, filepath.Join(r.State, panicFile), "")
				}
			}
			if sum := finish(t, r, s.accounts); sum.Users.Done != 1 {
				t.Errorf("%+v", sum)
			}
			s.mustHaveAll(t)
			if len(w.notes) != 1 || !strings.Contains(w.notes[0], "1 messages came to") {
				t.Errorf("told %q", w.notes)
			}
		})
	}
}

func TestLinesTellWhatCameFromWhere(t *testing.T) {
	s := &Swept{User: "alice", Taken: []Taken{{Mailbox: "Sent", Folder: "INBOX", Path: "/m", Messages: 2, Agent: `"procmail", pid 7`}}, Differences: []Skip{{Path: "/x", Reason: "is gone"}}}
	want := `alice: 2 messages came to "/m" behind the flip, by "procmail", pid 7; they are in Sent now, or rather in INBOX, since there is no such folder
alice: "/x" is gone`
	if got := strings.Join(s.Lines(), "\n"); got != want {
		t.Errorf("%s", got)
	}
}
