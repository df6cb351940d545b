package convert

import (
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// flip is when alice was moved.
var flip = time.Date(2026, 11, 21, 1, 30, 5, 0, time.UTC)

// moved makes alice one whom an earlier run has moved: her Maildir is live, her
// mboxes are parked, and a record says so.
func (h *house) moved() {
	h.Helper()
	h.fullMaildir()
	h.park()
	h.semaphore(semaphore.Maildir)
	h.mirror("MAILSTATE=maildir\n")
	h.check(journal.WriteSoak(h.site.State, journal.Soak{User: "alice", Flipped: flip, Run: "r", Maildir: h.a.Maildir}))
}

// rollingBack records that a rollback of alice is under way, with what it builds.
func (h *house) rollingBack() {
	h.Helper()
	h.check(journal.WriteRollback(h.site.State, journal.Rollback{User: "alice", Run: "r", Time: flip.Add(time.Hour)}))
	h.write(h.home("mail/.Sent.mailferry-0123456789abcdef"), letter, aliceID)
}

// heldByRun makes a hold of a run, which began with a state.
func (h *house) heldByRun(from string) {
	h.Helper()
	h.semaphoreMeta(`{"epoch":3,"state":"hold","from":"` + from + `","run":"r","pid":7,"deadline":"2026-11-21T02:31:00Z","time":"2026-11-21T02:30:06Z"}`)
	h.write(h.a.Semaphore, "MAILSTATE=hold\n", 0)
}

// Whose mail is in the Maildir, as our records say, is not told to clear it away.
func TestWhoWasMovedKeepsHisMaildirWhateverTheSemaphoreSays(t *testing.T) {
	soak := "state/soak/alice.json\" says that he was moved at 2026-11-21 01:30:05Z"
	for _, tt := range []struct {
		name   string
		make   func(h *house)
		code   string
		says   []string
		advice string
	}{
		{"held by hand", func(h *house) { h.check(h.site.HoldSemaphore(h.a, time.Minute)) }, "held",
			[]string{"held by hand since ", "mailferry semaphore release alice ends it", soak}, "mailferry semaphore release alice"},
		{"the semaphore is lost", func(h *house) { h.remove(h.a.Semaphore) }, "record-differs",
			[]string{"is not there", soak}, "run: mailferry enroll alice"},
		{"the semaphore says nonsense", func(h *house) { h.write(h.a.Semaphore, "x\n", 0) }, "record-differs",
			[]string{"which is no state", soak}, "restore it"},
		{"all semaphores are lost", func(h *house) { h.remove(h.path("semaphores")) }, "record-differs",
			[]string{"no such file", soak}, "restore it"},
		{"set to mbox by hand", func(h *house) { h.check(h.site.SetSemaphore(h.a, semaphore.Mbox)) }, "record-differs",
			[]string{"says mbox since ", "by hand", soak}, "mailferry semaphore set alice maildir"},
		{"in the hold of a rollback that was killed", func(h *house) {
			h.rollingBack()
			h.heldByRun("maildir")
		}, "held", []string{"by run ", "state/rollback/alice.json\" says that a rollback of his, begun at 2026-11-21 02:30:05Z"}, "run: mailferry recover"},
		{"behind the flip of a rollback that was killed", func(h *house) {
			h.rollingBack()
			h.semaphoreMeta(`{"epoch":3,"state":"mbox","from":"maildir","run":"r","time":"2026-11-21T02:30:06Z"}`)
			h.write(h.a.Semaphore, "MAILSTATE=mbox\n", 0)
		}, "record-differs", []string{"says mbox since 2026-11-21 02:30:06Z, by run", "state/rollback/alice.json\""}, "run: mailferry recover"},
		{"in a cutover that was killed", func(h *house) {
			h.remove(h.site.State + "/soak")
			h.remove(h.a.Maildir)
			h.staging("Maildir", true)
			h.heldByRun("mbox")
		}, "held", []string{"by run ", "state/staging/alice.json\" says that he is being moved"}, "run: mailferry recover"},
		{"a record that can't be read", func(h *house) {
			h.write(h.path("state/soak/alice.json"), "{", 0)
			h.remove(h.a.Semaphore)
		}, "record-differs", []string{"whether he was moved can't be told", "alice.json"}, "as they are"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			h.moved()
			tt.make(h)
			h.remove(h.a.Mirror)
			before := h.snapshot()
			i := h.in.Inspect(h.a)
			h.unchanged(before)
			h.same(i, tt.code)
			f := i.reason()
			for _, part := range append(tt.says, "nothing of his is touched") {
				if !strings.Contains(f.Text, part) {
					t.Errorf("says %q, and not %q", f.Text, part)
				}
			}
			if !strings.Contains(f.Advice, tt.advice) {
				t.Errorf("advises %q, and not %q", f.Advice, tt.advice)
			}
		})
	}
}

// Who came back is on his mboxes, and is looked at like everybody.
func TestWhoCameBackIsLookedAtInFull(t *testing.T) {
	h := newHouse(t)
	h.check(journal.WriteSoak(h.site.State, journal.Soak{User: "alice", Flipped: flip, Back: flip.Add(time.Hour), Maildir: h.a.Maildir}))
	h.same(h.in.Inspect(h.a), "")
	h.write(h.home("mail/with.dot"), letter, aliceID)
	h.same(h.in.Inspect(h.a), "folder-name")
}

// A hold that an admin made is no run's, and recover does not end it.
func TestAHoldByHandIsNamedAsSuch(t *testing.T) {
	h := newHouse(t)
	h.check(h.site.HoldSemaphore(h.a, time.Minute))
	f := h.in.Inspect(h.a).reason()
	at := standingOf(h.a, time.Now()).Time
	want := "says hold: held by hand since " + second(at) + "; mailferry semaphore release alice ends it"
	if f.Code != "held" || f.Text != want || !strings.Contains(f.Advice, "held by hand, run: mailferry semaphore release alice") {
		t.Errorf("%+v, want %q", f, want)
	}
}
