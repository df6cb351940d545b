package semaphore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestReadersNeverSeeAnythingTorn(t *testing.T) {
	s := newScene(t)
	s.must(s.sem.Enroll(at(1)))
	s.must(WriteMirror(s.fd, ".mailstate", Mbox))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	readers := map[string]func() error{
		"authority": func() error { return second(s.sem.Get()) },
		"meta":      func() error { return second(s.sem.Meta()) },
		"mirror":    func() error { return second(ReadMirror(s.fd, ".mailstate", os.Geteuid())) },
		"any program's": func() error {
			content, err := os.ReadFile(filepath.Join(s.home, ".mailstate"))
			return errors.Join(err, second(Parse(content)))
		},
	}
	var wg sync.WaitGroup
	var reads atomic.Int64
	for name, read := range readers {
		wg.Go(func() {
			for ctx.Err() == nil {
				reads.Add(1)
				if err := read(); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	for epoch := range uint64(60) {
		to := State(epoch % 3)
		s.must(s.sem.Set(to, at(epoch+2)))
		s.must(WriteMirror(s.fd, ".mailstate", to))
	}
	stop()
	wg.Wait()
	if reads.Load() < 1000 {
		t.Errorf("%d reads: too few to tell", reads.Load())
	}
}

// roleCount makes changes as fast as others let it, and says in Run how many it
// has made; the epoch that it read may be another's before it writes.
func roleCount(args []string) error {
	s, err := For(args[0])
	if err != nil {
		return err
	}
	done := 0
	for done < 30 {
		last, err := s.Meta()
		if err != nil {
			return err
		}
		err = s.Set(State(done%3), Meta{Epoch: last.Epoch + 1, Run: strconv.Itoa(done)})
		if err == nil {
			done++
		} else if !errors.Is(err, ErrEpoch) {
			return err
		}
	}
	return nil
}

func TestProcessesMakeNoTwoChangesOfOneEpoch(t *testing.T) {
	s := newScene(t)
	s.must(s.sem.Enroll(at(1)))
	const processes = 4
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			if err := process("count", s.sem.Path()).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if meta, err := s.sem.Meta(); meta.Epoch != 1+30*processes || err != nil {
		t.Errorf("epoch %d after %d changes, %v", meta.Epoch, 1+30*processes, err)
	}
	s.wantFiles(s.dir, ".lock", "alice", "alice.meta")
}

func TestUsersDoNotWaitForEachOther(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	dir, err := s.sem.openDir()
	s.must(err)
	defer dir.Close()
	lock, err := openLock(dir)
	s.must(err)
	defer lock.Close()
	s.must(lock.try("alice", "change"))
	for i := range 50 {
		other, err := For(filepath.Join(s.dir, fmt.Sprintf("user%d", i)))
		s.must(err)
		within(t, func() { s.must(other.Enroll(at(1))) })
	}
	other, err := openLock(dir)
	s.must(err)
	defer other.Close()
	s.wantError(other.try("alice", "change"), ErrBusy)
	s.must(lock.free("alice", "change"))
	s.must(other.try("alice", "change"))
}

func TestAChangeWaitsForAnother(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	dir, err := s.sem.openDir()
	s.must(err)
	defer dir.Close()
	lock, err := openLock(dir)
	s.must(err)
	s.must(lock.try("alice", "change"))
	begin := time.Now()
	time.AfterFunc(100*time.Millisecond, func() { lock.Close() })
	s.must(s.sem.Set(Maildir, at(2)))
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("set after %v, beside the change of another", took)
	}
}

func TestWaitSeesWhatComesByRename(t *testing.T) {
	s := newScene(t)
	s.start(Hold)
	go func() {
		for epoch, to := range []State{2: Hold, 3: Mbox, 4: Maildir} {
			if epoch > 1 {
				time.Sleep(30 * time.Millisecond)
				if err := s.sem.Set(to, at(uint64(epoch))); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	for _, want := range []State{Hold, Maildir} {
		if state, err := s.sem.Wait(ctx, func(s State) bool { return s == want }); state != want || err != nil {
			t.Errorf("waited for %v: %v, %v", want, state, err)
		}
	}
}

func TestWaitEndsWithItsContextAndSaysWhatIsWrong(t *testing.T) {
	s := newScene(t)
	for content, reason := range map[string]string{Hold.Line(): "says hold", "gone bad": "gone bad"} {
		s.put(s.sem.Path(), content)
		ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
		state, err := s.sem.Wait(ctx, func(s State) bool { return s != Hold })
		stop()
		if state != Hold || !errors.Is(err, context.DeadlineExceeded) || err == nil {
			t.Errorf("%q: %v, %v", content, state, err)
		} else if got := err.Error(); !strings.Contains(got, reason) {
			t.Errorf("%q: %v; want %q in it", content, got, reason)
		}
	}
	s.must(os.Remove(s.sem.Path()))
	time.AfterFunc(30*time.Millisecond, func() { s.sem.Enroll(at(1)) })
	if state, err := s.sem.Wait(t.Context(), func(State) bool { return true }); state != Mbox || err != nil {
		t.Errorf("what can't be read was accepted: %v, %v", state, err)
	}
}
