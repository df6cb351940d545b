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
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// inHold is a Host that does something in the hold, and counts what it is told.
type inHold struct {
	do      func() error
	flip    error // that it ends in when it is told of a flip
	aborted int
}

func (h *inHold) BeforeHold(context.Context, account.Account) error { return nil }
func (h *inHold) Drain(context.Context, account.Account) error      { return h.do() }
func (h *inHold) AfterFlip(context.Context, account.Account, semaphore.State) error {
	return h.flip
}
func (h *inHold) AfterAbort(context.Context, account.Account, semaphore.State) error {
	h.aborted++
	return nil
}

func (s *stand) rollbackWith(h *inHold, drain time.Duration) *told {
	s.Helper()
	r, w := newTestRun(s.T, s.place, Rollback)
	r.Around, r.DrainLimit = h, drain
	finish(s.T, r, []account.Account{s.a})
	s.check(r.Journal.Close())
	return w
}

// Mail that an agent delivers behind the flip, while the Maildir can't be set aside, is
// not lost when a recovery has done that and the soak has ended.
func TestMailThatComesToTheMaildirBehindTheFlipIsKept(t *testing.T) {
	s, _ := backUser(t)
	var aside string
	w := s.rollbackWith(&inHold{do: func() error {
		way, err := journal.ReadRollback(s.site.State, s.a.Name)
		aside = way.Aside
		return errors.Join(err, os.Mkdir(aside, 0o700))
	}}, 0)
	w.mustBe(t, s.a.Name, journal.Done, "")
	time.Sleep(2 * clockTick)
	s.put(s.inMaildir("new", "1700000000.M1P1.host"), "Subject: behind the flip\n\n")
	time.Sleep(2 * clockTick)
	s.check(os.Remove(aside))
	if done := s.site.Recover(s.a, journal.Staging{}); done.Err != nil {
		t.Fatal(done.Err)
	}
	doRun(t, s.place, Migrate, s.a)
	r, w := newTestRun(t, s.place, Retire)
	r.OlderThan = -time.Hour
	finish(t, r, []account.Account{s.a})
	w.mustBe(t, s.a.Name, journal.Done, "")
	if n := strings.Count(readMaildir(t, s.a.Maildir), "Subject: behind the flip\n"); n != 1 || exists(t, aside) {
		t.Errorf("it is in the Maildir %d times; what was set aside is there: %t", n, exists(t, aside))
	}
}

// Who is back is back, and watched, whatever a host makes of that.
func TestAHookThatFailsBehindTheFlipLeavesNothingForTheNextRun(t *testing.T) {
	s, _ := backUser(t)
	r, w := newTestRun(t, s.place, Rollback)
	h := &around{inHold: inHold{do: func() error { return nil }, flip: errors.New("queue is closed")}, after: func() {
		list, _ := filepath.Glob(s.a.Maildir + ".mailferry-*")
		s.put(filepath.Join(list[0], "new", "1.a.b"), lateText)
	}}
	r.Around, r.Grace = h, time.Second
	finish(t, r, []account.Account{s.a})
	w.mustBe(t, s.a.Name, journal.Done, "")
	want := s.a.Name + ": went back; but what was to be done then was not: queue is closed"
	if text := w.users[s.a.Name].Text; strings.Contains(text, "next run") || !slices.Contains(w.notes, want) {
		t.Errorf("told %q, %q", text, w.notes)
	}
	content, err := os.ReadFile(s.a.Spool)
	s.check(err)
	if n := strings.Count(string(content), "Subject: late"); n != 1 {
		t.Errorf("late mail is in the mbox %d times", n)
	}
}

// Without a record nothing tells which of the bytes of a parked mbox are in the Maildir.
func TestAParkedMboxThatWasWrittenToAndHasNoRecordIsNotLeftBehind(t *testing.T) {
	for _, written := range []bool{true, false} {
		t.Run(fmt.Sprintf("written: %t", written), func(t *testing.T) {
			s, rollback := backUser(t)
			soak, err := journal.ReadSoak(s.site.State, s.a.Name)
			s.check(errors.Join(err, journal.RemoveSoak(s.site.State, s.a.Name)))
			if !written {
				for _, p := range soak.Parked {
					s.check(os.Chtimes(p.Path, time.Time{}, soak.Flipped.Add(-time.Minute)))
				}
				rollback().mustBe(t, s.a.Name, journal.Done, "")
				return
			}
			time.Sleep(time.Until(soak.Flipped.Add(2 * time.Second))) // which the name tells in seconds
			f, err := os.OpenFile(soak.Parked[0].Path, os.O_APPEND|os.O_WRONLY, 0)
			s.check(err)
			_, err = f.WriteString("\nFrom a@example.org Mon Jan  2 03:04:05 2023\nSubject: late\n\nlate\n")
			s.check(errors.Join(err, f.Close()))
			w := rollback()
			w.mustBe(t, s.a.Name, journal.Skipped, "stray")
			if !slices.ContainsFunc(w.notes, func(n string) bool { return strings.Contains(n, "can't be told") }) {
				t.Errorf("notes %q", w.notes)
			}
		})
	}
}

// What the user himself can't look into is none of his folders, and no obstacle.
func TestADirectoryOfRootsInAMaildirKeepsNobodyFromGoingBack(t *testing.T) {
	s, rollback := backUser(t)
	odd := s.inMaildir("backup")
	s.check(errors.Join(os.MkdirAll(filepath.Join(odd, "cur"), 0o700), os.WriteFile(filepath.Join(odd, "cur", "1.a.b"), nil, 0o600)))
	rollback().mustBe(t, s.a.Name, journal.Done, "")
	swept, err := s.site.Sweep(t.Context(), s.a, SweepOptions{})
	if err != nil || swept.Messages() > 0 || slices.ContainsFunc(swept.Differences, func(d Skip) bool { return strings.Contains(d.Reason, "more than when") }) {
		t.Errorf("%+v, %v", swept, err)
	}
}

// A folder that can't be looked at hides no change of another.
func TestTheLastLookIsAtEachFolder(t *testing.T) {
	s, _ := backUser(t)
	root, err := safefs.OpenFor(s.a.Maildir, s.a.UID)
	s.check(err)
	defer root.Close()
	w := &wayBack{cutover: &cutover{stage: &stage{Site: s.site, account: s.a}}, root: root}
	for _, rel := range []string{".Gone", "."} {
		w.boxes = append(w.boxes, &backBox{wayBack: w, rel: rel, report: MailboxRound{Name: rel}})
	}
	if w.lastLook(); len(w.doubts) != 1 || !strings.Contains(w.doubts[0], "the folder . of the Maildir was changed") {
		t.Errorf("%q", w.doubts)
	}
}

// All that was there at the last look is in the mboxes, and counts as such.
func TestNothingOfAMaildirIsNewToItsRollback(t *testing.T) {
	s, rollback := backUser(t)
	s.put(s.inMaildir("new", "1700000000.M1P1.host"), "Subject: just before\n\n")
	rollback().mustBe(t, s.a.Name, journal.Done, "")
	swept, err := s.site.Sweep(t.Context(), s.a, SweepOptions{})
	if err != nil || len(swept.Differences) > 0 {
		t.Errorf("%+v, %v", swept, err)
	}
}

// A session that nobody ended keeps indexes open, and is waited for.
func TestARollbackWaitsForWhoHasTheMaildirOpen(t *testing.T) {
	for _, test := range []struct {
		name, open, outcome, reason string
		stays, drain                time.Duration
	}{
		{"an index, until it ends", "dovecot.index.log", journal.Done, "", 500 * time.Millisecond, 8 * time.Second},
		{"a directory, until it ends", "new", journal.Done, "", 500 * time.Millisecond, 8 * time.Second},
		{"the list of UIDs, and longer than that", "dovecot-uidlist", journal.Failed, reasonInUse, time.Minute, 300 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := backUser(t)
			if !exists(t, s.inMaildir(test.open)) {
				s.put(s.inMaildir(test.open), "")
			}
			f, err := os.Open(s.inMaildir(test.open))
			s.check(err)
			program := exec.Command("sleep", "60")
			program.Stdin = f
			s.check(errors.Join(program.Start(), f.Close()))
			ended := make(chan time.Time, 1)
			timer := time.AfterFunc(time.Hour, func() {
				ended <- time.Now()
				program.Process.Kill()
			})
			w := s.rollbackWith(&inHold{do: func() error {
				timer.Reset(test.stays)
				return nil
			}}, test.drain)
			over := time.Now()
			if timer.Stop() {
				program.Process.Kill()
			} else if over.Before(<-ended) {
				t.Error("the program was not waited for")
			}
			program.Wait()
			w.mustBe(t, s.a.Name, test.outcome, test.reason)
			if text := w.users[s.a.Name].Text; test.reason != "" && !strings.Contains(text, "sleep") {
				t.Errorf("told %q", text)
			}
			if state, _ := stateOf(t, s.a); (state == semaphore.Mbox) != (test.outcome == journal.Done) {
				t.Errorf("semaphore %s", state)
			}
		})
	}
}

// The hook behind a rollback that came to nothing opens the doors again: not for
// who is still held.
func TestTheHookBehindAnAbortedRollbackIsNotRunForWhoIsStillHeld(t *testing.T) {
	for stuck, want := range map[bool]int{false: 1, true: 0} {
		s, _ := backUser(t)
		h := &inHold{}
		h.do = func() error {
			if stuck { // nothing can be changed any more
				dir := filepath.Dir(s.a.Semaphore)
				list, err := os.ReadDir(dir)
				s.check(err)
				for _, e := range list {
					if strings.HasPrefix(e.Name(), ".") {
						s.check(os.Remove(filepath.Join(dir, e.Name())))
					}
				}
			}
			return errors.New("no")
		}
		w := s.rollbackWith(h, 0)
		state, _ := stateOf(t, s.a)
		if (state == semaphore.Hold) != stuck || h.aborted != want {
			t.Errorf("semaphore %s, stuck %v, told %d times; %q", state, stuck, h.aborted, w.users[s.a.Name].Text)
		}
	}
}

// Mail that comes to an INBOX of which no mbox is made, since it was empty, is not
// left behind.
func TestMailThatComesToAnEmptyInboxBeforeTheHoldGoesBack(t *testing.T) {
	p, a := servedPlace(t, 700)
	s := &stand{t, p, a}
	s.check(os.Remove(a.Spool))
	s.migrated()
	r, w := newTestRun(t, p, Rollback)
	betweenPrecopyAndHold(t, r, w, func() { s.put(s.inMaildir("new", "1700000000.M1P1.host"), "Subject: first\n\n") })
	finish(t, r, []account.Account{a})
	s.check(r.Journal.Close())
	w.mustBe(t, a.Name, journal.Failed, reasonBusy)
	_, w = doRun(t, p, Rollback, a)
	w.mustBe(t, a.Name, journal.Done, "")
	if content, err := os.ReadFile(a.Spool); err != nil || !strings.Contains(string(content), "Subject: first\n") {
		t.Errorf("%q, %v", content, err)
	}
}

// rootsSpool is one in which only root makes and removes names.
func rootsSpool(t *testing.T) *stand {
	t.Helper()
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
	p.site.Locks.Dotlock, p.site.Locks.Fcntl = false, true
	s := &stand{t, p, p.accounts[0]}
	s.check(os.Chmod(filepath.Dir(s.a.Spool), 0o755))
	return s
}

// Where root parked, root makes the way back: the mbox is the user's, as it was.
func TestASpoolOfRootsAloneIsTheWayBackToo(t *testing.T) {
	s := rootsSpool(t)
	content, err := os.ReadFile(s.a.Spool)
	s.check(err)
	before, err := os.Stat(s.a.Spool)
	s.check(err)
	_, w := doRun(t, s.place, Migrate, s.a)
	w.mustBe(t, s.a.Name, journal.Done, "")
	s.check(os.WriteFile(s.a.Spool, nil, 0o600)) // by an agent
	s.check(os.Chown(s.a.Spool, s.a.UID, s.a.GID))
	_, w = doRun(t, s.place, Rollback, s.a)
	wentBack(t, s.place, w, s.a)
	now, err := os.ReadFile(s.a.Spool)
	if err != nil || string(now) != string(content) {
		t.Errorf("%d bytes, not %d, %v", len(now), len(content), err)
	}
	after, err := os.Stat(s.a.Spool)
	s.check(err)
	if ownerOf(after) != s.a.UID || after.Mode() != before.Mode() || groupOfFile(after) != groupOfFile(before) {
		t.Errorf("uid %d, group %d, mode %v; was group %d, mode %v", ownerOf(after), groupOfFile(after), after.Mode(), groupOfFile(before), before.Mode())
	}
}

// What a rollback has made there goes when it is undone.
func TestNothingIsLeftInASpoolOfRootsAlone(t *testing.T) {
	s := rootsSpool(t)
	_, w := doRun(t, s.place, Migrate, s.a)
	w.mustBe(t, s.a.Name, journal.Done, "")
	w = s.rollbackWith(&inHold{do: func() error { return errors.New("no") }}, 0)
	w.mustBe(t, s.a.Name, journal.Failed, reasonInUse)
	_, w = doRun(t, s.place, Rollback, s.a)
	w.mustBe(t, s.a.Name, journal.Done, "")
	list, err := filepath.Glob(filepath.Join(filepath.Dir(s.a.Spool), ".*"))
	if err != nil || len(list) > 0 {
		t.Errorf("left %q, %v", list, err)
	}
}
