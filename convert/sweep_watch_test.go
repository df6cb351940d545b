package convert

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
)

// sweptBy collects what a sweeper tells.
type sweptBy struct {
	mu       sync.Mutex
	messages int
	errs     []error
}

// waitFor waits for so many messages, and reports whether they came within a time.
func (b *sweptBy) waitFor(messages int, within time.Duration) bool {
	for until := time.Now().Add(within); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		b.mu.Lock()
		came := b.messages >= messages
		b.mu.Unlock()
		if came {
			return true
		}
	}
	return false
}

func (b *sweptBy) tell(_ account.Account, s *Swept, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s != nil {
		b.messages += s.Messages()
	}
	if err != nil {
		b.errs = append(b.errs, err)
	}
}

// Where inotify tells of it, it is not the next look that finds it, which is seldom.
func TestLateMailIsTakenDuringTheGrace(t *testing.T) {
	for _, blind := range []bool{false, true} {
		s := newSwept(t)
		live, dir := s.folderOf(t)
		told := &sweptBy{}
		w := newSweeper(context.Background(), s.site, "run", time.Hour, told.tell)
		if blind { // no inotify to be had
			w.Close()
			w = newSweeper(context.Background(), s.site, "run", time.Hour, told.tell)
			w.watcherless(t)
		}
		w.Add(s.a)
		time.Sleep(50 * time.Millisecond)
		s.appendTo(t, s.parked(t, live), s.mail(dir))
		s.appendTo(t, s.a.Spool, s.mail("."))
		came := told.waitFor(2, sweepSeldom*2/3)
		w.Close()
		if !came || told.messages != 2 || len(told.errs) > 0 {
			t.Errorf("without inotify %t: %d messages, %v", blind, told.messages, told.errs)
		}
		if g := w.users[s.a.Name]; g.all == blind {
			t.Errorf("without inotify %t: all is watched: %t", blind, g.all)
		}
		s.mustHaveAll(t)
	}
}

func TestASweeperEndsWithTheGraceOfTheLastUser(t *testing.T) {
	s := newSwept(t)
	told := &sweptBy{}
	const grace = 300 * time.Millisecond
	w := newSweeper(context.Background(), s.site, "run", grace, told.tell)
	start := time.Now()
	w.Add(s.a)
	w.Finish()
	if !w.ended(time.Minute) || time.Since(start) < grace {
		t.Errorf("after %v", time.Since(start))
	}
}

// watcherless takes inotify from a sweeper that has no user yet.
func (w *sweeper) watcherless(t *testing.T) {
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
	w := newSweeper(context.Background(), s.site, "run", 0, told.tell)
	w.Add(s.a)
	s.appendTo(t, s.a.Spool, s.mail("."))
	w.Finish()
	if !w.ended(time.Minute) || told.messages != 1 || len(told.errs) > 0 {
		t.Errorf("%d messages, %v", told.messages, told.errs)
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
				for until := time.Now().Add(time.Minute); len(s.ids(t)) < len(s.count) && time.Now().Before(until); {
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
