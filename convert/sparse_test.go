package convert

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// hole is more than anybody can read while a test runs.
const hole = 200 << 30

// withHole appends a hole to a file of the user's, and an end of a line.
func (s *stand) withHole(path, text string) {
	s.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	s.check(err)
	_, err = f.WriteString(text)
	s.check(errors.Join(err, f.Chown(s.a.UID, s.a.GID)))
	info, err := f.Stat()
	s.check(errors.Join(err, f.Truncate(info.Size()+hole)))
	_, err = f.WriteString("\n")
	s.check(errors.Join(err, f.Close()))
}

// endless lifts the limit of what is read of a hole.
func endless(t *testing.T) {
	was := holeLimit
	holeLimit = math.MaxInt64
	t.Cleanup(func() { holeLimit = was })
}

// soonOver is a context that ends while a hole is read.
func soonOver(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	timer := time.AfterFunc(200*time.Millisecond, cancel)
	t.Cleanup(func() { timer.Stop(); cancel() })
	return ctx
}

// promptly demands that something ends while nobody could have read a hole.
func promptly(t *testing.T, do func()) {
	t.Helper()
	over := make(chan struct{})
	go func() { defer close(over); do() }()
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("still reads")
	}
}

// countdown is a context that ends when it has been asked a number of times.
type countdown struct {
	context.Context
	left *int
}

func (c countdown) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestTheHoldLimitEndsTheReadingInsideAMessageOnTheWayBack(t *testing.T) {
	s, _ := backUser(t)
	r, w := newTestRun(t, s.place, Rollback)
	r.HoldLimit = 2 * time.Second
	r.Around = &inHold{do: func() error {
		s.withHole(s.inMaildir("new", "1800000009.M1P1.h,S=10,W=12"), "Subject: x\n\n")
		return nil
	}}
	promptly(t, func() { finish(t, r, []account.Account{s.a}) })
	w.mustBe(t, s.a.Name, journal.Failed, reasonHold)
	if text := w.users[s.a.Name].Text; !strings.Contains(text, "1800000009.M1P1.h") {
		t.Errorf("the message is not named: %s", text)
	}
	if authority, mirror := stateOf(t, s.a); authority != semaphore.Maildir || mirror != semaphore.Maildir {
		t.Errorf("semaphore %s, mirror %s", authority, mirror)
	}
	if exists(t, s.a.Spool) || exists(t, s.a.Gate) || exists(t, s.a.Spool+".lock") {
		t.Error("the mbox, the gate or a dotlock is there")
	}
}

// What is written and read again in a hold ends with it, too.
func TestEachReadingOnTheWayBackEndsWithItsContext(t *testing.T) {
	s, _ := backUser(t)
	out := func() *os.File {
		f, err := os.Create(filepath.Join(t.TempDir(), "out"))
		s.check(err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	s.folder(".Big")
	s.withHole(s.inMaildir(".Big", "new", "1800000009.M1P1.h"), "Subject: x\n\n")
	big := filepath.Join(s.Dir, "big")
	s.withHole(big, "From late@example.org Mon Jan  2 03:04:05 2023\n\n")
	root, err := safefs.OpenFor(s.a.Maildir, s.a.UID)
	s.check(err)
	defer root.Close()
	dir, err := safefs.OpenFor(s.Dir, s.a.UID)
	s.check(err)
	defer dir.Close()
	way := &wayBack{cutover: &cutover{stage: &stage{Site: s.site, account: s.a}}, root: root, reader: newReader()}
	src := &source{path: big, root: dir, file: "big"}
	for name, do := range map[string]func(context.Context) error{
		"a copy of the parked mbox": func(ctx context.Context) error {
			return (&backBox{wayBack: way, base: src, out: out()}).copyWhole(ctx)
		},
		"the parked mbox": func(ctx context.Context) error {
			_, err := (&backBox{wayBack: way, base: src}).openBase(within(ctx, way.show), nil)
			return err
		},
		"a message of the Maildir that is written": func(ctx context.Context) error {
			f, err := openBack(ctx, root, ".Big")
			s.check(err)
			defer f.close()
			p := &backPlan{sets: [][]string{nil}}
			s.check(f.each(func(l backMessage) error {
				p.due = append(p.due, due{uid: l.uid, size: hole, how: written})
				return nil
			}))
			return (&backBox{wayBack: way, out: out()}).write(ctx, f, p)
		},
		"the mbox that was made": func(ctx context.Context) error {
			made, err := os.Open(big)
			s.check(err)
			defer made.Close()
			_, err = (&backBox{wayBack: way, out: made}).verify(ctx, &backPlan{due: make([]due, 1)})
			return err
		},
	} {
		promptly(t, func() {
			if err := do(soonOver(t)); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v", name, err)
			}
		})
	}
}

// A file with a hole costs its owner nothing, and keeps nobody else from his mail, nor
// him from the rest of his.
func TestAStrayWithAHole(t *testing.T) {
	for name, where := range map[string]func(*testing.T, *swept) string{
		"in a new mailbox":            func(_ *testing.T, s *swept) string { return filepath.Join(s.a.Folders[0], "big") },
		"behind mail that was parked": func(t *testing.T, s *swept) string { live, _ := s.folderOf(t); return s.parked(t, live) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwept(t)
			path := where(t, s)
			(&stand{t, s.place, s.a}).withHole(path, "From late@example.org Mon Jan  2 03:04:05 2023\nSubject: big\n\n")
			t.Run("interrupted", func(t *testing.T) {
				endless(t)
				ctx := soonOver(t)
				promptly(t, func() {
					if r, err := s.site.Sweep(ctx, s.a, SweepOptions{}); !errors.Is(err, context.Canceled) || len(r.Taken) > 0 {
						t.Errorf("%+v, %v", r, err)
					}
				})
				s.mustHaveAll(t)
			})
			s.appendTo(t, s.a.Spool, s.mail("."))
			promptly(t, func() {
				r := s.sweep(t)
				if r.Messages() != 1 || len(r.Differences) != 1 || r.Differences[0].Path != path || r.Differences[0].code != "stray-hole" {
					t.Errorf("%+v", r)
				}
			})
			s.mustHaveAll(t)
			if !exists(t, path) {
				t.Errorf("%s is gone", path)
			}
		})
	}
}

func TestALateMessageWithAHole(t *testing.T) {
	b := newBackAgain(t)
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.withHole(path, lateText)
	b.sweepInterrupted(t)
	b.comes(filepath.Join(b.aside, "new", "2.a.b"), lateText)
	promptly(t, func() {
		r := b.sweep()
		if r.Messages() != 1 || len(r.Differences) != 1 || r.Differences[0].Path != path || r.Differences[0].code != "stray-hole" || strings.Contains(r.Differences[0].Reason, "is not in it") {
			t.Errorf("%+v", r)
		}
	})
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
	if !exists(t, path) {
		t.Errorf("%s is gone", path)
	}
}

// sweepInterrupted sweeps until a hole is being read.
func (b *backAgain) sweepInterrupted(t *testing.T) {
	t.Helper()
	t.Run("interrupted", func(t *testing.T) {
		endless(t)
		ctx := soonOver(t)
		promptly(t, func() {
			if r, err := b.site.Sweep(ctx, b.a, SweepOptions{}); !errors.Is(err, context.Canceled) || len(r.Taken) > 0 {
				t.Errorf("%+v, %v", r, err)
			}
		})
		for _, path := range leavings(t, b.place) {
			t.Errorf("left %s", path)
		}
	})
}

// Mail for a mailbox with a hole waits, and mail for another does not.
func TestLateMailForAnMboxWithAHole(t *testing.T) {
	b := newBackAgain(t)
	b.withHole(b.a.Spool, "From late@example.org Mon Jan  2 03:04:05 2023\n\n")
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.comes(path, lateText)
	b.sweepInterrupted(t)
	b.comes(filepath.Join(b.aside, ".Sent", "new", "2.a.b"), lateText)
	promptly(t, func() {
		r := b.sweep()
		if r.Messages() != 1 || len(r.Differences) != 1 || r.Differences[0].Path != b.a.Spool || r.Differences[0].code != "stray-hole" || !strings.HasSuffix(r.Differences[0].Reason, path+`" is not in it`) {
			t.Errorf("%+v", r)
		}
	})
	b.came(b.sent(), arrived{lateText, "late@example.org", 0})
	b.check(os.Truncate(b.a.Spool, int64(len(b.were[b.a.Spool]))))
	if r := b.sweep(); r.Messages() != 1 || len(r.Differences) > 0 {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
}

// Where a message is in the mbox already, nothing is said of what is not in it.
func TestAMessageThatIsInTheMboxIsToldAsSuch(t *testing.T) {
	b := newBackAgain(t)
	const text = "Subject: a\n\na\n"
	b.append("From late@example.org Mon Jan  2 03:04:05 2023\n" + text + "\n")
	b.comes(filepath.Join(b.aside, "new", "1.a.b"), text)
	if r := b.sweep(); r.Messages() > 0 || len(r.Differences) != 1 || r.Differences[0].Reason != "is in the mbox already, as a message of the same bytes" {
		t.Errorf("%+v", r)
	}
}

// Wherever a sweep is interrupted, it has taken a message or not, and leaves nothing.
func TestASweepOfLateMailThatIsInterruptedAnywhere(t *testing.T) {
	b := newBackAgain(t)
	text := lateText + strings.Repeat("late\n", 50000)
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.comes(path, text)
	const most = 1000
	for n := range most {
		left := n
		r, err := b.site.Sweep(countdown{t.Context(), &left}, b.a, SweepOptions{})
		if err == nil && r.Messages() == 1 {
			if n < 10 {
				t.Errorf("it was asked %d times only", n)
			}
			b.came(b.a.Spool, arrived{text, "late@example.org", 0})
			return
		}
		if b.came(b.a.Spool); !errors.Is(err, context.Canceled) || len(r.Taken) > 0 || !exists(t, path) {
			t.Fatalf("interrupted at %d: %+v, %v", n, r, err)
		}
	}
	t.Errorf("not taken after %d", most)
}

func TestASweepThatIsInterruptedAnywhere(t *testing.T) {
	s := newSwept(t)
	s.appendTo(t, s.a.Spool, s.mail(".")+strings.Repeat("late\n", 1<<19)+"\n"+s.mail("."))
	count := s.count
	const most = 1000
	for n := range most {
		left := n
		r, err := s.site.Sweep(countdown{t.Context(), &left}, s.a, SweepOptions{})
		if err == nil && r.Messages() == 2 {
			if n < 10 {
				t.Errorf("it was asked %d times only", n)
			}
			s.count = count
			s.mustHaveAll(t)
			return
		}
		if !errors.Is(err, context.Canceled) || len(r.Taken) > 0 {
			t.Fatalf("interrupted at %d: %+v, %v", n, r, err)
		}
		s.count = s.without("gen-beef-1", "gen-beef-2", count)
		s.mustHaveAll(t)
	}
	t.Errorf("not taken after %d", most)
}

// without leaves messages out of those that have to be there.
func (s *swept) without(first, second string, count map[string]int) map[string]int {
	rest := map[string]int{}
	for id, n := range count {
		if id != ". "+first && id != ". "+second {
			rest[id] = n
		}
	}
	return rest
}

// Zeros are counted, in each reading; all else is mail.
func TestWhatIsReadOfAFileWithHoles(t *testing.T) {
	was := holeLimit
	holeLimit = 10
	defer func() { holeLimit = was }()
	for name, tt := range map[string]struct {
		text  string
		again int // times
		fails bool
	}{
		"as many zeros as it may have":     {strings.Repeat("\x00mail", 10), 1, false},
		"the same, read again":             {strings.Repeat("\x00mail", 10), 2, true},
		"one more":                         {strings.Repeat("\x00mail", 11), 1, true},
		"mail, as long as it may be":       {strings.Repeat("mail", 1000), 5, false},
		"more, in one hole behind a piece": {strings.Repeat("mail", 10) + strings.Repeat("\x00", 11), 1, true},
	} {
		s := &solid{watched: watched{strings.NewReader(tt.text), func() error { return nil }}, path: "x"}
		var err error
		for range tt.again {
			for off := int64(0); off < int64(len(tt.text)) && err == nil; off += 3 {
				_, err = s.ReadAt(make([]byte, min(3, int64(len(tt.text))-off)), off)
			}
		}
		var unfit *Unfit
		if errors.As(err, &unfit) != tt.fails || err != nil && !tt.fails {
			t.Errorf("%s: %v", name, err)
		}
		if _, again := s.ReadAt(make([]byte, 1), 1); again != err {
			t.Errorf("%s: %v, and then %v", name, err, again)
		}
	}
}

func TestWhatTheFilesystemHasNoRoomForIsNotBegun(t *testing.T) {
	dir, err := safefs.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := fits(dir, "/x", math.MaxInt64); !errors.Is(err, unix.ENOSPC) || err.Error() != "take /x: no space left on device" {
		t.Errorf("got %v", err)
	}
	if err := fits(dir, "/x", 1); err != nil {
		t.Errorf("one byte: %v", err)
	}
}
