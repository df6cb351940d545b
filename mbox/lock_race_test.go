package mbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The window between judging and taking over, made wide: what is in place by then
// stays there.
func TestTakeOverPutsAFreshDotlockBack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between func(s *lockSpool) error
		want    string // content of the dotlock afterwards
	}{
		{"replaced by another file", func(s *lockSpool) error {
			s.must(os.Remove(s.dotlock))
			s.write(s.dotlock, "0")
			return nil
		}, "0"},
		{"touched by its holder", func(s *lockSpool) error { return os.Chtimes(s.dotlock, time.Time{}, time.Now()) }, "stale"},
		{"removed", func(s *lockSpool) error { return os.Remove(s.dotlock) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newLockSpool(t)
			s.write(s.dotlock, "stale")
			h := &Held{dir: s.dir, name: "mbox", opts: allLocks, fd: -1}
			s.must(h.opts.complete("mbox"))
			old, err := h.findDotlock()
			s.must(err)
			defer unix.Close(old.fd)
			err = h.placeDotlock(func(tmp string, own *dotlockFile) error {
				s.must(tt.between(s))
				return h.takeOver(tmp, own, old)
			})
			s.wantFault(err, LockBusy, KindDotlock, "has just been")
			if got, _ := os.ReadFile(s.dotlock); string(got) != tt.want {
				t.Errorf("the dotlock holds %q, want %q", got, tt.want)
			}
			s.wantFiles(strings.Fields("mbox " + map[bool]string{true: "mbox.lock"}[tt.want != ""])...)
		})
	}
}

// Several lockers and a procmail-like peer meet on a mailbox where programs keep
// dying with their dotlock in place; never do two have it at a time.
func TestOnlyOneTakesOver(t *testing.T) {
	s := newLockSpool(t)
	var inside, entries, planted atomic.Int32
	enter := func() {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d at once", n)
		}
		time.Sleep(time.Millisecond)
		entries.Add(1)
		inside.Add(-1)
	}
	link := func(content string) bool {
		tmp := filepath.Join(s.path, "tmp"+content)
		s.check(os.WriteFile(tmp, []byte(content), 0o600))
		defer os.Remove(tmp)
		return os.Link(tmp, s.dotlock) == nil
	}
	// Until enough has happened, or something is wrong.
	end := time.Now().Add(20 * time.Second)
	enough := func() bool {
		return entries.Load() >= 200 && planted.Load() >= 20 || time.Now().After(end)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for ; !enough(); time.Sleep(time.Millisecond) {
				if held, err := s.lock(LockOptions{Dotlock: true}); err == nil {
					enter()
					s.check(held.Release())
				}
			}
		})
	}
	group.Go(func() {
		for ; !enough(); time.Sleep(time.Millisecond) {
			if link("0") {
				enter()
				s.check(os.Remove(s.dotlock))
			}
		}
	})
	group.Go(func() {
		for ; !enough(); time.Sleep(time.Millisecond) {
			if link(fmt.Sprintf("%d:%s", lockDead, s.host)) {
				planted.Add(1)
			}
		}
	})
	group.Wait()
	if entries.Load() < 200 || planted.Load() < 20 {
		t.Errorf("%d entries, %d dotlocks of dead programs: too few in 20 s", entries.Load(), planted.Load())
	}
}

// ABBA: a peer that waits for one lock while it holds the other, in either order,
// is not stopped by us, since we never wait with a lock in hand.
func TestLockNeverWaitsWhileHolding(t *testing.T) {
	for _, first := range []LockKind{KindFcntl, KindDotlock} {
		t.Run("against a peer that takes first the "+string(first), func(t *testing.T) {
			s := newLockSpool(t)
			f, err := os.OpenFile(s.mbox, os.O_RDWR, 0)
			s.must(err)
			defer f.Close()
			take := map[LockKind]func(){
				KindFcntl: func() { s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})) },
				KindDotlock: func() {
					for unix.Mknodat(s.dir, "mbox.lock", unix.S_IFREG|0o600, 0) != nil {
						time.Sleep(time.Millisecond)
					}
				},
			}
			second := map[LockKind]LockKind{KindFcntl: KindDotlock, KindDotlock: KindFcntl}[first]
			stop := make(chan struct{})
			var locked atomic.Int32
			var group sync.WaitGroup
			for range 3 {
				group.Go(func() {
					for ; ; locked.Add(1) {
						select {
						case <-stop:
							return
						default:
						}
						opts := allLocks
						opts.Timeout = 10 * time.Second
						held, err := s.lock(opts)
						if err != nil {
							t.Error(err)
							return
						}
						s.check(held.Release())
					}
				})
			}
			for range 50 {
				start := time.Now()
				take[first]()
				time.Sleep(2 * time.Millisecond)
				take[second]()
				if took := time.Since(start); took > 8*time.Second { // as procmail sleeps when it meets a dotlock
					t.Errorf("the peer waited %v", took)
				}
				s.must(os.Remove(s.dotlock))
				s.must(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}))
				time.Sleep(5 * time.Millisecond)
			}
			close(stop)
			group.Wait()
			if locked.Load() == 0 {
				t.Error("nobody else ever got the locks: nothing was tested")
			}
		})
	}
}
