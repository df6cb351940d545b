package convert

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// outside is all of a place but the state directory, with the access times of
// its files.
func outside(t *testing.T, p *place) (mailgen.SnapshotTree, map[string]time.Time) {
	t.Helper()
	all, err := mailgen.Snapshot(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(all, func(path string, _ mailgen.SnapshotEntry) bool {
		return path == "." || path == "state" || strings.HasPrefix(path, "state/")
	})
	read := map[string]time.Time{}
	for path, e := range all {
		if e.Mode.IsRegular() {
			info, err := os.Lstat(filepath.Join(p.Dir, path))
			if err != nil {
				t.Fatal(err)
			}
			at := info.Sys().(*syscall.Stat_t).Atim
			read[path] = time.Unix(at.Unix())
		}
	}
	return all, read
}

// readLongAgo makes all files look as if they had not been read since they were
// written.
func readLongAgo(t *testing.T, p *place) {
	t.Helper()
	err := filepath.WalkDir(p.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime().Add(-time.Hour), info.ModTime())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inState lists what is left below the state directory beside journals and
// records of rehearsals.
func inState(t *testing.T, p *place) (left []string) {
	t.Helper()
	tree, err := mailgen.Snapshot(p.site.State)
	if err != nil {
		t.Fatal(err)
	}
	for path := range tree {
		top, rest, below := strings.Cut(path, "/")
		if top == "runs" || path == "." || path == "lock" || path == "rehearsal" || below && top == "rehearsal" && strings.HasSuffix(rest, ".json") {
			continue
		}
		left = append(left, path)
	}
	return left
}

func TestARehearsalBringsAllMailBackToTheByteAndTouchesNothing(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 24, Seed: 40})
	stranger := p.accounts[3]
	for _, path := range []string{stranger.Semaphore, stranger.Semaphore + ".meta"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	readLongAgo(t, p)
	before, notRead := outside(t, p)
	summary, w := doRun(t, p, Rehearse, p.accounts...)
	messages := 0
	for i, a := range p.accounts {
		w.mustBe(t, a.Name, journal.Done, "")
		h := w.users[a.Name].Rehearsal
		if h == nil {
			t.Fatalf("%s: no rehearsal", a.Name)
		}
		u := p.Users[i]
		if !h.Exact || h.Messages != u.Messages || h.Bytes != u.Bytes || h.Mailboxes != len(u.Mailboxes) || h.Forth <= 0 || h.Alone.Misread != 0 {
			t.Errorf("%s has %d messages, %d bytes: %+v", a.Name, u.Messages, u.Bytes, *h)
		}
		if h.Alone.Exact != (h.Alone.Altered == 0) || h.Scratch < h.Bytes || u.Messages > 0 && h.Back <= 0 {
			t.Errorf("%s: %+v", a.Name, *h)
		}
		recorded, err := journal.ReadRehearsal(p.site.State, a.Name)
		if err != nil || recorded != *h {
			t.Errorf("%s: recorded %+v, %v", a.Name, recorded, err)
		}
		messages += u.Messages
	}
	if summary.Messages.In != messages || summary.Messages.Converted != messages || summary.End != EndDone {
		t.Errorf("%+v", summary)
	}
	after, read := outside(t, p)
	for _, diff := range before.Diff(after) {
		t.Error(diff)
	}
	if !maps.Equal(notRead, read) {
		t.Error("access times of files were changed")
	}
	if left := inState(t, p); left != nil {
		t.Errorf("left: %q", left)
	}
}

// Whatever is wrong with accounts, a rehearsal says so, and leaves them as they
// were. What only keeps them from being moved is nothing to it.
func TestARehearsalOfOddAccountsTouchesNothing(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 90, Seed: 77, Problems: 0.6})
	unseen := []string{"shared-uid", "collision", "folder-name"} // in part, as the accounts of the place are made
	readLongAgo(t, p)
	before, notRead := outside(t, p)
	_, w := doRun(t, p, Rehearse, p.accounts...)
	for i, a := range p.accounts {
		u, code := w.users[a.Name], p.Users[i].Code
		refused := p.Users[i].Severity == mailgen.Refuse && !anyway[code]
		if slices.Contains(unseen, code) {
			refused = u.Outcome == journal.Skipped
		}
		if refused && u.Outcome != journal.Skipped || !refused && (u.Outcome != journal.Done || !u.Rehearsal.Exact) {
			t.Errorf("%s, %s: %s, %s: %s", a.Name, p.Users[i].Code, u.Outcome, u.Reason, u.Text)
		}
	}
	after, read := outside(t, p)
	for _, diff := range before.Diff(after) {
		t.Error(diff)
	}
	if !maps.Equal(notRead, read) {
		t.Error("access times of files were changed")
	}
	if left := inState(t, p); left != nil {
		t.Errorf("left: %q", left)
	}
}

func TestWhoWasRehearsedIsPassedByUntilHisMailChanges(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 4, Seed: 41})
	doRun(t, p, Rehearse, p.accounts[:3]...)
	changed := p.accounts[1]
	mailTo(t, changed.Spool, letter)
	_, w := doRun(t, p, Rehearse, p.accounts...)
	for i, a := range p.accounts {
		if u := w.users[a.Name]; u.Outcome != journal.Done || u.Rehearsal == nil || u.Already != (i == 0 || i == 2) {
			t.Errorf("%s: %+v", a.Name, u)
		}
	}
	p.site.Scan.CorrectDates = true
	if _, w = doRun(t, p, Rehearse, p.accounts[0]); w.users[p.accounts[0].Name].Already {
		t.Error("other settings: passed by")
	}
}

func mailTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// withMail is an account of a place that has mail in its spool.
func withMail(t *testing.T, seed uint64) (*place, account.Account) {
	t.Helper()
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: seed})
	a := p.accounts[0]
	if err := os.WriteFile(a.Spool, []byte(strings.Repeat(letter, 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(a.Spool, a.UID, a.GID); err != nil {
		t.Fatal(err)
	}
	return p, a
}

// A writer that loses a bit, a line, or what the mailbox ends with.
func TestAWriterThatIsBrokenIsFound(t *testing.T) {
	for name, spoil := range map[string]func(*os.File, int64) error{
		"another byte": func(f *os.File, size int64) error { _, err := f.WriteAt([]byte{'~'}, size/2); return err },
		"too short":    func(f *os.File, size int64) error { return f.Truncate(size - 1) },
		"too long":     func(f *os.File, size int64) error { _, err := f.WriteAt([]byte{'\n'}, size); return err },
	} {
		t.Run(name, func(t *testing.T) {
			p, a := withMail(t, 42)
			run, _ := newTestRun(t, p, Rehearse)
			run.begin(p.accounts)
			c := &rehearsals{chunk: &chunk{Run: run}}
			m := &member{User: User{Name: a.Name}, entry: &entry{account: a}}
			r := newRehearsal(p.site, a, "run", run.pace())
			r.build = func(ctx context.Context, b *backBox) error {
				if err := b.build(ctx); err != nil {
					return err
				}
				info, err := b.out.Stat()
				if err == nil && b.live == a.Spool && b.base != nil {
					err = spoil(b.out, info.Size())
				}
				return err
			}
			err := r.do(t.Context())
			var differs *Differs
			if !errors.As(err, &differs) || differs.Path != a.Spool || differs.Offset < 100 {
				t.Fatalf("%v", err)
			}
			c.tell(m, r, err)
			if m.Outcome != journal.Failed || m.Reason != reasonDiffers || !strings.Contains(m.Text, a.Spool) || run.Differing != 1 {
				t.Errorf("%+v, %d", m.User, run.Differing)
			}
			if left := inState(t, p); left != nil {
				t.Errorf("left: %q", left)
			}
			if _, err := journal.ReadRehearsal(p.site.State, a.Name); !os.IsNotExist(err) {
				t.Errorf("recorded: %v", err)
			}
		})
	}
}

func TestAMailboxThatChangesMeanwhileIsNoDifference(t *testing.T) {
	p, a := withMail(t, 43)
	r := newRehearsal(p.site, a, "run", Pace{})
	r.build = func(ctx context.Context, b *backBox) error {
		f, err := os.OpenFile(a.Spool, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(letter)
		return errors.Join(err, f.Close(), b.build(ctx))
	}
	var busy *Busy
	if err := r.do(t.Context()); !errors.As(err, &busy) || busy.Path != a.Spool {
		t.Errorf("%v", err)
	}
	if left := inState(t, p); left != nil {
		t.Errorf("left: %q", left)
	}
}

// Mail that comes once is taken in the second attempt; a mailbox that never rests
// is busy.
func TestAMailboxThatChangesIsTriedAgain(t *testing.T) {
	for name, changes := range map[string]int{"once": 1, "always": 1000} {
		t.Run(name, func(t *testing.T) {
			p, a := withMail(t, 48)
			run, w := newTestRun(t, p, Rehearse)
			w.progress = func(int64) {
				if changes--; changes >= 0 {
					mailTo(t, a.Spool, letter)
				}
			}
			finish(t, run, p.accounts)
			u := w.users[a.Name]
			if name == "always" {
				w.mustBe(t, a.Name, journal.Failed, reasonBusy)
			} else if w.mustBe(t, a.Name, journal.Done, ""); u.Rehearsal == nil || u.Rehearsal.Inbox != int64(4*len(letter)) {
				t.Errorf("%+v", u)
			}
			if left := inState(t, p); left != nil {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// Each way is limited, and what is waited for is in no figure.
func TestARehearsalKeepsToTheBandwidth(t *testing.T) {
	p, a := withMail(t, 49)
	const wait = 20 * time.Millisecond
	bytes, calls := int64(0), 0
	r := newRehearsal(p.site, a, "run", Pace{Throttle: func(ctx context.Context, n int64) error {
		bytes += n
		calls++
		time.Sleep(wait)
		return ctx.Err()
	}})
	start := time.Now()
	if err := r.do(t.Context()); err != nil {
		t.Fatal(err)
	}
	waited := (time.Duration(calls) * wait).Seconds()
	if bytes < 4*r.record.Bytes || r.record.Forth+r.record.Back > time.Since(start).Seconds()-waited {
		t.Errorf("%d bytes in %d calls: %+v", bytes, calls, r.record)
	}
}

// A run that is stopped, and one that was killed.
func TestARehearsalIsResumedAndWhatWasLeftIsRemoved(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 6, Seed: 44})
	run, w := newTestRun(t, p, Rehearse)
	run.Chunk, run.Jobs = 1, 1
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.progress = func(int64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.users) == 3 {
			cancel()
		}
	}
	if _, err := run.Do(ctx, slices.Clone(p.accounts)); err != nil {
		t.Fatal(err)
	}
	run.Journal.Close()
	done := map[string]bool{}
	for name, u := range w.users {
		done[name] = u.Outcome == journal.Done
	}
	if left := inState(t, p); left != nil || len(done) < 3 || len(done) == 6 {
		t.Errorf("left: %q; %v", left, done)
	}
	a := p.accounts[0]
	killed, err := journal.MakeScratch(p.site.State, a.UID, a.GID)
	if err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(killed.Work.Path(), "Maildir", strings.Repeat("x/", 11), "cur")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(deep, "1.M1P1.h:2,"), "x")
	_, w = doRun(t, p, Rehearse, p.accounts...)
	for name, u := range w.users {
		if u.Outcome != journal.Done || u.Already != done[name] {
			t.Errorf("%s: %+v", name, u)
		}
	}
	if left := inState(t, p); left != nil {
		t.Errorf("left: %q", left)
	}
}

func TestNobodyIsRehearsedOnHisMaildirOrWithoutRoom(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 45})
	if err := semaphoreOf(t, p.accounts[0]).Set(semaphore.Maildir, semaphore.Meta{Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	if err := semaphoreOf(t, p.accounts[1]).Set(semaphore.Hold, semaphore.Meta{Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	run, w := newTestRun(t, p, Rehearse)
	run.FreeFloor = 1 << 60
	finish(t, run, p.accounts)
	w.mustBe(t, p.accounts[0].Name, journal.Skipped, reasonNotRehearse)
	w.mustBe(t, p.accounts[1].Name, journal.Skipped, "held")
	w.mustBe(t, p.accounts[2].Name, journal.Skipped, "space")
}

func semaphoreOf(t *testing.T, a account.Account) *semaphore.Semaphore {
	t.Helper()
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	return sem
}

// Real mail comes back byte for byte; and what Dovecot takes for a mailbox is read
// as it was when it comes from the Maildir alone. Some of what it refuses has
// From_ lines without a date, and gets one.
func TestRealMailComesBackFromARehearsal(t *testing.T) {
	p, a := withMail(t, 46)
	for _, s := range specimens(t) {
		mail, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.Spool, mail, 0o600); err != nil {
			t.Fatal(err)
		}
		r := newRehearsal(p.site, a, "run", Pace{})
		err = r.do(t.Context())
		var format *mbox.FormatError
		if errors.As(err, &format) && !refusals[s.name] { // Dovecot refuses it
			r = newRehearsal(p.site, a, "run", Pace{})
			r.Scan.Profile = mbox.Careful
			err = r.do(t.Context())
		}
		misread := r.Scan.Profile.Name == mbox.Dovecot.Name && r.record.Alone.Misread > 0
		if !refusals[s.name] && (err != nil || !r.record.Exact || misread) {
			t.Errorf("%s, as %s reads it: %v, %+v", s.name, r.Scan.Profile.Name, err, r.record)
		}
	}
}
