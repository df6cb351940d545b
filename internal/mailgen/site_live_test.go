package mailgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/mbox"
)

// newLive makes an mbox and puts it to use.
func newLive(t testing.TB, o Options) *Live {
	t.Helper()
	var text bytes.Buffer
	var all []Message
	o.Each = func(m Message) { all = append(all, m) }
	sum, err := Generate(&text, o)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mbox")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := NewLive(path, o.Seed+1000, all, sum)
	l.size = o.Size
	return l
}

func liveOptions(seed uint64) Options {
	return Options{
		Seed: seed, Messages: 12, State: true, Fresh: 3, Odd: siteOdd | NoBlankLine,
		Size: func(r *rand.Rand) int { return MinSize + r.IntN(3000) },
	}
}

// use changes the mailbox once, as the seed of its kind of use has it.
func use(t testing.TB, l *Live, r *rand.Rand) {
	t.Helper()
	var err error
	switch r.IntN(3) {
	case 0:
		_, err = l.Deliver()
	case 1:
		_, err = l.Expunge(r.IntN(4))
	case 2:
		_, err = l.Reflag(r.IntN(4))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// checkLive compares what the mailbox says is in it with a scan.
func checkLive(t *testing.T, l *Live) {
	t.Helper()
	got, _ := scan(t, l.Path, mbox.Dovecot)
	var want []read
	if len(l.Messages) > 0 && l.Messages[0].Offset > 0 {
		got = got[1:] // UW's pseudo message
	}
	ids := map[string]bool{}
	for _, m := range l.Messages {
		want = append(want, read{m.Offset, m.Dovecot})
		if ids[m.ID] {
			t.Errorf("%s is there twice", m.ID)
		}
		ids[m.ID] = true
	}
	if !slices.Equal(got, want) {
		t.Fatalf("a scan finds %d messages, not the %d that should be there", len(got), len(want))
	}
	if _, err := os.Lstat(l.dotlock()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dotlock is there: %v", err)
	}
}

func TestLiveMailboxHoldsWhatItSays(t *testing.T) {
	for seed := range uint64(60) {
		o := liveOptions(seed)
		o.State = seed%3 > 0
		if seed%5 == 1 {
			o.Odd |= PseudoMessage
		}
		l := newLive(t, o)
		r := rand.New(rand.NewPCG(seed, 1))
		for range 8 {
			use(t, l, r)
			checkLive(t, l)
		}
	}
}

// TestDovecotShowsWhatTheLiveMailboxSays has the server read the state that was
// written in place.
func TestDovecotShowsWhatTheLiveMailboxSays(t *testing.T) {
	for seed := range uint64(6) {
		o := liveOptions(100 + seed)
		o.State = seed > 0
		if seed == 2 {
			o.Odd |= PseudoMessage
		}
		l := newLive(t, o)
		r := rand.New(rand.NewPCG(seed, 2))
		for range 15 {
			use(t, l, r)
		}
		text, err := os.ReadFile(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		shown := dovecotFetch(t, text)
		if len(shown) != len(l.Messages) {
			t.Fatalf("seed %d: Dovecot shows %d messages, want %d", seed, len(shown), len(l.Messages))
		}
		for i, m := range l.Messages {
			compare(t, o.State, m, shown[i])
		}
	}
}

func TestLiveReportsWhatItChanged(t *testing.T) {
	l := newLive(t, liveOptions(7))
	before := slices.Clone(l.Messages)
	gone, err := l.Expunge(4)
	if err != nil || len(gone) != 4 {
		t.Fatalf("expunged %d, %v, want 4", len(gone), err)
	}
	text, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range gone {
		if bytes.Contains(text, []byte("Id: "+m.ID+"\n")) {
			t.Errorf("%s is still there", m.ID)
		}
	}
	for _, m := range before {
		kept := slices.ContainsFunc(l.Messages, func(k Message) bool { return k.ID == m.ID })
		if expunged := slices.ContainsFunc(gone, func(g Message) bool { return g.ID == m.ID }); kept == expunged {
			t.Errorf("%s: kept %t, expunged %t", m.ID, kept, expunged)
		}
	}
	flags := map[string]string{}
	for _, m := range l.Messages {
		flags[m.ID] = m.Flags
	}
	changed, err := l.Reflag(3)
	if err != nil || len(changed) != 3 {
		t.Fatalf("reflagged %d, %v, want 3", len(changed), err)
	}
	for _, m := range l.Messages {
		reported := slices.ContainsFunc(changed, func(c Message) bool { return c.ID == m.ID && c.Flags == m.Flags })
		if reported == (flags[m.ID] == m.Flags) {
			t.Errorf("%s: flags %q, were %q, reported %t", m.ID, m.Flags, flags[m.ID], reported)
		}
	}
	next := l.UIDNext
	m, err := l.Deliver()
	if err != nil || m.UID != next || l.Messages[len(l.Messages)-1].ID != m.ID || m.True <= before[len(before)-1].True {
		t.Errorf("delivered %+v, %v, want UID %d", m, err, next)
	}
}

func TestExpungeLeavesAMessage(t *testing.T) {
	l := newLive(t, liveOptions(8))
	if gone, err := l.Expunge(100); err != nil || len(gone) != 11 {
		t.Errorf("expunged %d, %v, want 11", len(gone), err)
	}
	checkLive(t, l)
}

func TestSameSeedGivesSameUse(t *testing.T) {
	var texts [2][]byte
	for i := range texts {
		l := newLive(t, liveOptions(9))
		r := rand.New(rand.NewPCG(9, 9))
		for range 10 {
			use(t, l, r)
		}
		var err error
		if texts[i], err = os.ReadFile(l.Path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("the same seed gave other bytes")
	}
}

func TestSiteMailboxesCanBeUsed(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 10, Seed: 11})
	ids := map[string]bool{}
	for _, u := range sum.Users {
		for i, m := range u.Mailboxes {
			for seed := range uint64(2) {
				l, err := m.Live(seed)
				if err != nil {
					t.Fatal(err)
				}
				if seed > 0 { // Each tells of the mailbox as it was made
					break
				}
				delivered, err := l.Deliver()
				if err != nil || ids[delivered.ID] || slices.Contains(m.IDs(), delivered.ID) {
					t.Errorf("%s, mailbox %d: %s, %v", u.Name, i, delivered.ID, err)
				}
				ids[delivered.ID] = true
				checkLive(t, l)
			}
		}
	}
}

func lockMbox(t *testing.T, path string) (*mbox.Held, error) {
	t.Helper()
	dir, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(dir) })
	return mbox.Lock(context.Background(), dir, filepath.Base(path), mbox.LockOptions{Dotlock: true, Fcntl: true})
}

func TestLiveWaitsForWhoeverHasTheLocks(t *testing.T) {
	l := newLive(t, liveOptions(12))
	l.Timeout = 50 * time.Millisecond
	before, err := Snapshot(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := lockMbox(t, l.Path)
	if err != nil {
		t.Fatal(err)
	}
	count := len(l.Messages)
	for name, do := range map[string]func() error{
		"Deliver": func() error { _, err := l.Deliver(); return err },
		"Expunge": func() error { _, err := l.Expunge(2); return err },
		"Reflag":  func() error { _, err := l.Reflag(2); return err },
	} {
		if err := do(); !errors.Is(err, ErrMailboxBusy) {
			t.Errorf("%s of a locked mbox: %v", name, err)
		}
	}
	after, err := Snapshot(l.Path)
	if diff := before.Diff(after); err != nil || diff != nil || len(l.Messages) != count {
		t.Errorf("a locked mbox changed: %q, %v", diff, err)
	}
	l.Timeout = 10 * time.Second
	time.AfterFunc(50*time.Millisecond, func() {
		if err := held.Release(); err != nil {
			t.Error(err)
		}
	})
	if _, err := l.Deliver(); err != nil {
		t.Errorf("once the locks are free: %v", err)
	}
	checkLive(t, l)
}

func TestOthersAreLockedOutBetweenTheWrites(t *testing.T) {
	l := newLive(t, liveOptions(13))
	writes := 0
	l.size = func(*rand.Rand) int { return 30_000 }
	l.Pause = func() {
		writes++
		var fault *mbox.LockError
		if held, err := lockMbox(t, l.Path); !errors.As(err, &fault) || !fault.Busy() {
			t.Errorf("write %d: locked %v, %v", writes, held, err)
		}
	}
	if _, err := l.Deliver(); err != nil || writes < 5 {
		t.Errorf("%d writes, %v", writes, err)
	}
	delivered := writes
	if _, err := l.Expunge(6); err != nil || writes == delivered {
		t.Errorf("%d writes more, %v", writes-delivered, err)
	}
}

func TestDeliverDoesNotMakeAnMboxThatIsGone(t *testing.T) {
	l := newLive(t, liveOptions(14))
	if err := os.Rename(l.Path, l.Path+".parked"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Deliver(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
	if _, err := os.Lstat(l.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is something at the old path: %v", err)
	}
}

func FuzzLive(f *testing.F) {
	f.Add(uint64(1), []byte("deliver"))
	f.Add(uint64(2), []byte{0, 1, 2, 0, 1, 2})
	f.Add(uint64(1<<63), []byte{4, 4, 4, 4, 5, 3})
	f.Fuzz(func(t *testing.T, seed uint64, steps []byte) {
		o := liveOptions(seed)
		o.State = seed%4 > 0
		l := newLive(t, o)
		for _, step := range steps[:min(len(steps), 12)] {
			var err error
			switch n := int(step / 3); step % 3 {
			case 0:
				_, err = l.Deliver()
			case 1:
				_, err = l.Expunge(n)
			case 2:
				_, err = l.Reflag(n)
			}
			if err != nil {
				t.Fatal(fmt.Errorf("step %d: %w", step, err))
			}
		}
		checkLive(t, l)
	})
}
