package convert

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// killed leaves what a sweep does that is killed when part of a message is in the mbox:
// of its bytes, 0 to 2 halves.
func (b *backAgain) killed(halves int64) journal.SweepBack {
	b.Helper()
	w, err := b.site.newSweep(b.a, SweepOptions{Wait: time.Second})
	b.check(err)
	_, err = w.begin()
	b.check(err)
	if len(w.late) != 1 {
		b.Fatalf("%+v", w.late)
	}
	d, err := w.bringingOf(w.late[0])
	b.check(err)
	b.check(d.prepare(context.Background()))
	b.check(journal.WriteSweepBack(b.site.State, d.record))
	var all bytes.Buffer
	_, err = d.writeTo(&all)
	b.check(err)
	b.check(d.close())
	b.append(string(all.Bytes()[:d.record.Bytes*halves/2]))
	return d.record
}

// append writes to the spool, as who knows no locks does. It is written to at once, so
// that its times are others.
func (b *backAgain) append(text string) {
	b.Helper()
	time.Sleep(2 * clockTick)
	if text == "" {
		return
	}
	f, err := os.OpenFile(b.a.Spool, os.O_WRONLY|os.O_APPEND, 0)
	b.check(err)
	_, err = f.WriteString(text)
	b.check(errors.Join(err, f.Close()))
}

func TestWhatAKilledSweepOfLateMailLeft(t *testing.T) {
	const other = "From o@example.org Mon Jan  2 03:04:05 2023\n\nother\n\n"
	late := arrived{lateText, "late@example.org", 0}
	for i, tt := range []struct {
		name   string
		halves int64
		spoil  func(*backAgain, string)
		want   []arrived // behind what was there; nil: it is in doubt
		taken  bool      // at last its file is in tmp
	}{
		{name: "nothing", want: []arrived{late}, taken: true},
		{name: "half a message", halves: 1, want: []arrived{late}, taken: true},
		{name: "all of it", halves: 2, want: []arrived{late}, taken: true},
		{name: "all of it, and a client has read it there", halves: 2, spoil: func(b *backAgain, path string) {
			b.check(os.Rename(path, filepath.Join(b.aside, "cur", "1.a.b:2,S")))
		}, want: []arrived{late}, taken: true},
		{name: "half of it, and a client has read it there", halves: 1, spoil: func(b *backAgain, path string) {
			b.check(os.Rename(path, filepath.Join(b.aside, "cur", "1.a.b:2,S")))
		}, want: []arrived{{lateText, "late@example.org", mbox.Seen | mbox.Old}}, taken: true},
		{name: "all of it, and it was removed", halves: 2, spoil: func(b *backAgain, path string) { b.remove(path) }, want: []arrived{late}},
		{name: "nothing, and it was removed", spoil: func(b *backAgain, path string) { b.remove(path) }, want: []arrived{}},
		{name: "something else, and an admin has put it away", halves: 1, spoil: func(b *backAgain, path string) {
			b.append("x")
			b.check(os.Truncate(b.a.Spool, int64(len(b.were[b.a.Spool]))))
			b.check(os.Rename(path, filepath.Join(b.aside, "tmp", "1.a.b")))
		}, want: []arrived{}, taken: true},

		{name: "half of it, and it was removed", halves: 1, spoil: func(b *backAgain, path string) { b.remove(path) }},
		{name: "half of it, and it was altered", halves: 1, spoil: func(b *backAgain, path string) { b.put(path, strings.ToUpper(lateText)) }},
		{name: "half of it, and mail behind that", halves: 1, spoil: func(b *backAgain, _ string) { b.append(other) }},
		{name: "all of it, deleted by a client", halves: 2, spoil: func(b *backAgain, _ string) {
			b.check(os.Truncate(b.a.Spool, int64(len(b.were[b.a.Spool]))))
		}},
		{name: "all of it, marked by a client", halves: 2, spoil: func(b *backAgain, _ string) {
			now, err := os.ReadFile(b.a.Spool)
			b.check(err)
			b.put(b.a.Spool, strings.Replace(string(now), "Subject: late\n", "Subject: late\nStatus: O\n", 1))
		}},
		{name: "a shorter mbox", halves: 2, spoil: func(b *backAgain, _ string) { b.check(os.Truncate(b.a.Spool, 10)) }},
		{name: "another mbox of the same content", halves: 2, spoil: func(b *backAgain, _ string) {
			now, err := os.ReadFile(b.a.Spool)
			b.check(err)
			b.put(b.a.Spool+".new", string(now))
			b.check(os.Rename(b.a.Spool+".new", b.a.Spool))
		}},
		{name: "no mbox", halves: 2, spoil: func(b *backAgain, _ string) { b.remove(b.a.Spool) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackAgain(t)
			path := filepath.Join(b.aside, "new", "1.a.b")
			b.put(path, lateText)
			b.killed(tt.halves)
			if tt.spoil != nil {
				tt.spoil(b, path)
			}
			bySweep := i%2 == 0 // both come to the same
			if tt.want == nil {
				b.inDoubt(bySweep)
				return
			}
			if !bySweep {
				b.recover(true, "")
			}
			b.sweep()
			if r := b.sweep(); r.Messages() > 0 || len(r.Differences) > 0 {
				t.Errorf("again: %+v", r)
			}
			b.came(b.a.Spool, tt.want...)
			if list, err := os.ReadDir(filepath.Join(b.aside, "tmp")); err != nil || tt.taken != (len(list) == 1) {
				t.Errorf("put away: %v, %v", list, err)
			}
		})
	}
}

// Another's mail behind it is no reason for doubt.
func TestMailBehindLateMailThatWasTakenStays(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.killed(2)
	b.append("From o@example.org " + time.Now().UTC().Format(time.ANSIC) + "\n\nother\n\n")
	b.recover(true, "")
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0}, arrived{"\nother\n", "o@example.org", 0})
}

// inDoubt demands that a user is told of, and nothing is touched, until an admin has
// looked and put the message away, or removed the record.
func (b *backAgain) inDoubt(bySweep bool) {
	b.Helper()
	before, home := b.boxNow(), b.homeNow()
	if !bySweep {
		b.recover(false, "can't be told")
	} else if r := b.sweep(); r.Messages() > 0 || len(r.Differences) == 0 || !strings.Contains(r.Differences[len(r.Differences)-1].Reason, "can't be told") {
		b.Errorf("%+v", r)
	}
	if now := b.boxNow(); now != before {
		b.Error("the mbox was touched")
	}
	for _, diff := range home.Diff(b.homeNow()) {
		if !strings.Contains(diff, "time") {
			b.Error(diff)
		}
	}
	if list, err := journal.ListSweepBack(b.site.State); err != nil || len(list) != 1 {
		b.Errorf("the records are %+v, %v", list, err)
	}
	if due, err := b.site.SweepDue(b.a); err != nil || !due {
		b.Errorf("due: %t, %v", due, err)
	}
}

func (b *backAgain) boxNow() string {
	content, err := os.ReadFile(b.a.Spool)
	if err != nil && !os.IsNotExist(err) {
		b.Fatal(err)
	}
	return string(content)
}

// Who is in doubt is not moved: what could tell would be gone.
func TestWhoseLateMailIsInDoubtIsNotMovedAgain(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.killed(1)
	b.append("other\n")
	_, w := doRun(t, b.place, Migrate, b.a)
	w.mustBe(t, b.a.Name, journal.Skipped, "unfinished")
	if authority, _ := stateOf(t, b.a); authority != semaphore.Mbox {
		t.Errorf("he is on %s", authority)
	}
}

// Who was moved meanwhile is told of.
func TestTheRecordOfLateMailOfWhoIsOnMaildir(t *testing.T) {
	b := newBackAgain(t)
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.put(path, lateText)
	b.killed(2)
	b.check(b.semaphore().Set(semaphore.Maildir, b.meta(semaphore.Mbox)))
	b.check(os.Rename(b.aside, b.a.Maildir))
	b.mirror(semaphore.Maildir)
	b.recover(false, "he is on maildir now")
	if !exists(t, b.inMaildir("new", "1.a.b")) {
		t.Error("the message was put away")
	}
}

// During the grace of a run it takes what comes by itself.
func TestLateMailIsTakenDuringTheGraceOfARollback(t *testing.T) {
	b := newBackAgain(t)
	told := &sweptBy{}
	w := newSweeper(context.Background(), b.site, "run", 5*time.Second, told.tell)
	w.Add(b.a)
	time.Sleep(50 * time.Millisecond)
	start, second := time.Now(), strings.Replace(lateText, "\n\n", "\nX-Second: yes\n\n", 1)
	b.put(filepath.Join(b.aside, "tmp", "1.a.b"), lateText)
	b.check(os.Rename(filepath.Join(b.aside, "tmp", "1.a.b"), filepath.Join(b.aside, "new", "1.a.b")))
	b.make()
	time.Sleep(300 * time.Millisecond)
	b.put(b.inMaildir("tmp", "2.a.b"), second)
	b.check(os.Rename(b.inMaildir("tmp", "2.a.b"), b.inMaildir("new", "2.a.b")))
	for strings.Count(b.boxNow(), "Subject: late") < 2 && time.Since(start) < 4*time.Second {
		time.Sleep(20 * time.Millisecond)
	}
	w.Finish()
	if !w.ended(time.Minute) || told.messages != 2 || len(told.errs) > 0 {
		t.Errorf("%+v", told)
	}
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0}, arrived{second, "late@example.org", 0})
}

// lateAgent is a Host that delivers behind the flip, to the Maildir that it knows.
type lateAgent struct {
	inHold
	deliver func()
}

func (h *lateAgent) AfterFlip(context.Context, account.Account, semaphore.State) error {
	h.deliver()
	return nil
}

// A run that brings users back looks once more, when it ends.
func TestTheLastLookOfARollbackTakesLateMail(t *testing.T) {
	s, _ := backUser(t)
	r, w := newTestRun(t, s.place, Rollback)
	r.Around = &lateAgent{inHold{do: func() error { return nil }}, func() {
		list, err := filepath.Glob(s.a.Maildir + ".mailferry-*")
		s.check(err)
		time.Sleep(2 * clockTick)
		s.put(filepath.Join(list[0], "new", "1.a.b"), lateText)
	}}
	finish(t, r, []account.Account{s.a})
	content, err := os.ReadFile(s.a.Spool)
	s.check(err)
	if bytes.Count(content, []byte("Subject: late")) != 1 {
		t.Errorf("told %q", w.notes)
	}
}
