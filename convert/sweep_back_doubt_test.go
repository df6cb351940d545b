package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// around calls functions at some moments of a move.
type around struct {
	inHold
	before, after func()
}

func (h *around) BeforeHold(context.Context, account.Account) error {
	if h.before != nil {
		h.before()
	}
	return nil
}

func (h *around) AfterFlip(context.Context, account.Account, semaphore.State) error {
	if h.after != nil {
		h.after()
	}
	return h.flip
}

// What a user copies or puts back out of a backup is in his mbox already.
func TestMailThatIsInTheMboxIsNotSweptIntoItAgain(t *testing.T) {
	for name, put := range map[string]func(b *backAgain, path, text string){
		"copied to the old path, by cp -r": func(b *backAgain, path, text string) { b.put(b.inMaildir("cur", filepath.Base(path)), text) },
		"copied there under other names":   func(b *backAgain, path, text string) { b.put(b.inMaildir("new", filepath.Base(path)[5:12]), text) },
		"put back in place, without times": func(b *backAgain, path, text string) { b.remove(path); b.put(path, text) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackAgain(t)
			b.make()
			list, _ := filepath.Glob(filepath.Join(b.aside, "cur", "*"))
			for _, path := range list {
				text, err := os.ReadFile(path)
				b.check(err)
				put(b, path, string(text))
			}
			r := b.sweep()
			if len(list) == 0 || r.Messages() > 0 || len(r.Differences) == 0 {
				t.Errorf("%d of %d messages were taken again; %+v", r.Messages(), len(list), r.Differences)
			}
			b.came(b.a.Spool)
		})
	}
}

// What a sweep knows of an mbox stays true behind each message that it appends itself: it
// reads the mbox once, however many come, and takes one of two twins.
func TestAnMboxIsReadOnceForAllLateMail(t *testing.T) {
	b := newBackAgain(t)
	for n, text := range []string{lateText, "Subject: b\n\nb\n", "Subject: twin\n\nc\n", "Subject: twin\n\nc\n"} {
		b.comes(filepath.Join(b.aside, "new", fmt.Sprintf("%d.a.b", n)), text)
	}
	w, err := b.site.newSweep(b.a, SweepOptions{Wait: 300 * time.Millisecond})
	b.check(err)
	_, err = w.begin()
	b.check(err)
	b.check(w.sweepBack(context.Background()))
	if r := w.report; r.Messages() != 3 || len(r.Differences) != 1 || r.Differences[0].Path != filepath.Join(b.aside, "new", "3.a.b") {
		t.Errorf("%+v", r)
	}
	box, err := os.Open(b.a.Spool)
	b.check(err)
	defer box.Close()
	info, err := box.Stat()
	b.check(err)
	known := w.held[b.a.Spool]
	fresh, err := (&bringing{sweep: w, c: &cutover{locks: []locked{{Held: &mbox.Held{File: box}}}}, record: journal.SweepBack{Live: b.a.Spool}, check: func() error { return nil }}).hold(info)
	b.check(err)
	if known == nil || !reflect.DeepEqual(known, fresh) {
		t.Errorf("knows %+v, and a new reading says %+v", known, fresh)
	}
}

// A client that keeps a copy of his mailbox at the old path, as mbsync does, makes new
// messages there for ever.
func TestWhatComesLongAfterARollbackIsNoLateMail(t *testing.T) {
	b := newBackAgain(t)
	soak := b.soak()
	soak.Back = soak.Back.Add(-lateFor)
	for i := range soak.Aside {
		if !soak.Aside[i].Back.IsZero() {
			soak.Aside[i].Back = soak.Back
		}
	}
	b.check(journal.WriteSoak(b.site.State, soak))
	b.make()
	b.comes(b.inMaildir("new", "1.a.b"), lateText)
	b.comes(filepath.Join(b.aside, "new", "2.a.b"), lateText)
	if r := b.sweep(); r.Messages() > 0 || len(r.Differences) != 2 {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool)
}

// A clock that was fast at the flip, and is right again, tells of nothing that it is late:
// then the number tells.
func TestLateMailIsToldWhereTheClockWasSetBack(t *testing.T) {
	b := newBackAgain(t)
	soak := b.soak()
	soak.Back = soak.Back.Add(time.Hour)
	for i := range soak.Aside {
		soak.Aside[i].Back = soak.Back
	}
	b.check(journal.WriteSoak(b.site.State, soak))
	if r := b.sweep(); len(r.Differences) > 0 {
		t.Fatalf("before anything came: %+v", r)
	}
	b.comes(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	r := b.sweep()
	if r.Messages() > 0 || len(r.Differences) != 1 || !strings.Contains(r.Differences[0].Reason, "has 1 messages more than when it was set aside") {
		t.Errorf("%+v", r)
	}
	doRun(t, b.place, Migrate, b.a)
	run, w := newTestRun(t, b.place, Retire)
	run.OlderThan = -2 * time.Hour
	finish(t, run, []account.Account{b.a})
	if text := w.users[b.a.Name].Text; !exists(t, filepath.Join(b.aside, "new", "1.a.b")) || !strings.Contains(text, "more than when it was set aside") {
		t.Errorf("retire: %q", text)
	}
}

// An agent of which the Maildir is the working directory has begun its message before
// the last look, and ends it behind the flip.
func TestAMessageBegunBeforeTheFlipAndEndedBehindItIsSwept(t *testing.T) {
	s, _ := backUser(t)
	var f *os.File
	r, _ := newTestRun(t, s.place, Rollback)
	r.Around = &around{inHold: inHold{do: func() (err error) {
		if f, err = os.OpenFile(s.inMaildir("tmp", "1.a.b"), os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		_, err = io.WriteString(f, lateText[:40])
		time.Sleep(4 * clockTick)
		return errors.Join(err, f.Chown(s.a.UID, s.a.GID))
	}}, after: func() {
		_, err := io.WriteString(f, lateText[40:])
		s.check(errors.Join(err, f.Sync(), f.Close()))
		list, _ := filepath.Glob(s.a.Maildir + ".mailferry-*")
		s.check(os.Rename(filepath.Join(list[0], "tmp", "1.a.b"), filepath.Join(list[0], "new", "1.a.b")))
	}}
	finish(t, r, []account.Account{s.a})
	content, err := os.ReadFile(s.a.Spool)
	s.check(err)
	if n := strings.Count(string(content), "Subject: late"); n != 1 {
		t.Errorf("the message is in the mbox %d times", n)
	}
}

// From the flip of the next migrate on, what comes to the Maildir that was set aside is
// for nobody: it is told.
func TestLateMailBehindTheNextMigrateIsTold(t *testing.T) {
	b := newBackAgain(t)
	r, w := newTestRun(t, b.place, Migrate)
	r.Around = &around{inHold: inHold{do: func() error { return nil }}, before: func() {
		done := make(chan bool) // another thread: this one may be the user's
		go func() { b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText); close(done) }()
		<-done
	}}
	finish(t, r, []account.Account{b.a})
	w.mustBe(t, b.a.Name, journal.Done, "")
	report := b.sweep()
	if len(report.Differences) != 1 || report.Differences[0].Path != b.aside || report.Differences[0].code != "aside-mail" {
		t.Errorf("%+v", report)
	}
	if due, err := b.site.SweepDue(b.a); !due || err != nil {
		t.Errorf("due: %t, %v", due, err)
	}
}

func TestWhatCanNotBePutAwayIsNotTaken(t *testing.T) {
	for name, do := range map[string]func(b *backAgain, tmp, new string){
		"tmp is a file":        func(b *backAgain, tmp, _ string) { b.remove(tmp); b.put(tmp, "") },
		"tmp is root's":        func(b *backAgain, tmp, _ string) { b.check(os.Chown(tmp, 0, 0)) },
		"new can't be written": func(b *backAgain, _, new string) { b.check(os.Chmod(new, 0o500)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackAgain(t)
			b.comes(filepath.Join(b.aside, "new", "1.a.b"), lateText)
			do(b, filepath.Join(b.aside, "tmp"), filepath.Join(b.aside, "new"))
			if r := b.sweep(); r.Messages() > 0 || len(r.Differences) == 0 {
				t.Errorf("%+v", r)
			}
			b.came(b.a.Spool)
		})
	}
}

func TestADirectoryThatCanNotBeOpenedKeepsNoOtherMailBack(t *testing.T) {
	for _, name := range []string{"of the user", "of root", "of root, in a folder"} {
		t.Run(name, func(t *testing.T) {
			b := newBackAgain(t)
			odd := filepath.Join(b.aside, ".Odd")
			if name == "of root, in a folder" {
				b.check(os.Mkdir(odd, 0o755))
				odd = filepath.Join(odd, "cur")
			}
			b.check(os.Mkdir(odd, 0o700))
			if name == "of the user" {
				b.check(errors.Join(os.Chmod(odd, 0), os.Chown(odd, b.a.UID, b.a.GID)))
			}
			b.comes(filepath.Join(b.aside, "new", "1.a.b"), lateText)
			if r := b.sweep(); r.Messages() != 1 || len(r.Differences) != 1 {
				t.Errorf("%+v", r)
			}
			_, w := doRun(t, b.place, Migrate, b.a)
			w.mustBe(t, b.a.Name, journal.Done, "")
		})
	}
}

// procmail breaks a lock that is old, and writes: what was appended is left to the next
// sweep then.
func TestNothingIsCutOffWithoutALock(t *testing.T) {
	b := newBackAgain(t)
	b.comes(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	w, err := b.site.newSweep(b.a, SweepOptions{Wait: time.Second})
	b.check(err)
	_, err = w.begin()
	b.check(err)
	d, err := w.bringingOf(w.late[0])
	b.check(err)
	b.check(d.prepare(t.Context()))
	b.check(journal.WriteSweepBack(b.site.State, d.record))
	var n int64
	_, err = d.box().Seek(0, io.SeekEnd)
	b.check(err)
	b.check(d.c.asUser(func() (err error) { n, err = d.writeTo(d.box()); return err }))
	b.remove(b.a.Spool + ".lock")
	b.put(b.a.Spool+".lock", "1:"+hostname())
	before, err := os.ReadFile(b.a.Spool)
	b.check(err)
	if err := d.undo(n); err == nil {
		t.Error("nothing was told")
	}
	if now, err := os.ReadFile(b.a.Spool); err != nil || string(now) != string(before) {
		t.Errorf("the mbox was cut from %d to %d bytes: %v", len(before), len(now), err)
	}
	d.close()
}
