package semaphore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gateName = ".mailstate.lock"
	noPID    = 1<<31 - 1 // above any pid_max
)

// gate is the path of the gate.
func (s *scene) gate() string { return filepath.Join(s.home, gateName) }

func (s *scene) take(opts GateOptions) (*Gate, error) {
	return TakeGate(context.Background(), s.fd, gateName, opts)
}

func (s *scene) hostname() string {
	host, err := os.Hostname()
	s.must(err)
	return host
}

func TestAGateIsADotlockWithItsMaker(t *testing.T) {
	s := newScene(t)
	g, err := s.take(GateOptions{})
	s.must(err)
	s.wantFiles(s.home, gateName)
	if content, _ := os.ReadFile(s.gate()); string(content) != fmt.Sprintf("%d:%s", os.Getpid(), s.hostname()) {
		t.Errorf("the gate holds %q", content)
	}
	_, err = s.take(GateOptions{})
	s.wantError(err, ErrGateBusy)
	if !strings.Contains(err.Error(), fmt.Sprintf("made by pid %d on %s", os.Getpid(), s.hostname())) {
		t.Errorf("%v; want the maker's name", err)
	}
	s.must(g.Check())
	s.must(g.Refresh())
	s.must(g.Release())
	s.must(g.Release())
	s.wantFiles(s.home)
	s.wantError(g.Check(), ErrGateLost)
	s.wantError(g.Refresh(), ErrGateLost)
	if g.Broken != "" {
		t.Errorf("broken: %q", g.Broken)
	}
}

func TestRefreshMakesAGateYoung(t *testing.T) {
	s := newScene(t)
	g, err := s.take(GateOptions{})
	s.must(err)
	defer g.Release()
	old := time.Now().Add(-time.Hour)
	s.must(os.Chtimes(s.gate(), old, old))
	s.must(g.Refresh())
	if info, err := os.Stat(s.gate()); err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("%v, %v", info.ModTime(), err)
	}
}

func TestWhoIsRespectedAndWhoIsNot(t *testing.T) {
	s := newScene(t)
	here := s.hostname()
	for _, tt := range []struct {
		name, content string
		stale         time.Duration
		want          error
		made          string
	}{
		{"procmail's", "0", time.Hour, ErrGateBusy, "an unknown program"},
		{"empty, as after a crash", "", time.Hour, ErrGateBusy, "an unknown program"},
		{"alive here", fmt.Sprintf("%d:%s", os.Getppid(), here), time.Hour, ErrGateBusy, "pid " + strconv.Itoa(os.Getppid())},
		{"alive, without a host", fmt.Sprint(os.Getppid()), time.Hour, ErrGateBusy, "pid " + strconv.Itoa(os.Getppid())},
		{"dead here", fmt.Sprintf("%d:%s\n", noPID, here), time.Hour, nil, ""},
		{"ours, of an earlier life", fmt.Sprintf("%d:%s", os.Getpid(), here), time.Hour, nil, ""},
		{"dead, without a host", fmt.Sprint(noPID), time.Hour, ErrGateBusy, "pid 2147483647"},
		{"of another host", fmt.Sprintf("%d:elsewhere.example.org", noPID), time.Hour, ErrGateBusy, "elsewhere.example.org"},
		{"of another host, unchanged for long", fmt.Sprintf("%d:elsewhere.example.org", noPID), time.Nanosecond, nil, ""},
		{"alive, unchanged for long", fmt.Sprintf("%d:%s", os.Getppid(), here), time.Nanosecond, nil, ""},
		{"procmail's, unchanged for long", "0", time.Nanosecond, nil, ""},
		{"a host that would upset a terminal", fmt.Sprintf("%d:\x1b[2J", noPID), time.Hour, ErrGateBusy, "an unknown program"},
		{"longer than any", strings.Repeat("1", 1<<20), time.Hour, ErrGateBusy, "an unknown program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.put(s.gate(), tt.content)
			g, err := s.take(GateOptions{StaleAfter: tt.stale})
			if tt.want != nil {
				s.wantError(err, tt.want)
				if !strings.Contains(err.Error(), tt.made) {
					t.Errorf("%v; want %q in it", err, tt.made)
				}
				if content, _ := os.ReadFile(s.gate()); string(content) != tt.content {
					t.Errorf("the gate became %q", content)
				}
				s.wantFiles(s.home, gateName)
				return
			}
			s.must(err)
			if !strings.Contains(g.Broken, gateName) {
				t.Errorf("broken: %q", g.Broken)
			}
			s.must(g.Check())
			s.wantFiles(s.home, gateName)
			s.must(g.Release())
			s.wantFiles(s.home)
		})
	}
}

// After a power loss nobody who took a gate on this host lives.
func TestGatesOlderThanTheBootAreStaleAtOnce(t *testing.T) {
	s := newScene(t)
	was := sinceBoot
	defer func() { sinceBoot = was }()
	here, err := os.Hostname()
	s.must(err)
	sinceBoot = func() time.Duration { return -2 * time.Second } // the host was started just now
	for content, want := range map[string]error{
		"": nil, "0": nil, fmt.Sprint(os.Getppid()): nil, fmt.Sprintf("%d:%s", os.Getppid(), here): nil,
		fmt.Sprintf("%d:elsewhere", os.Getppid()): ErrGateBusy,
	} {
		s.put(s.gate(), content)
		g, err := s.take(GateOptions{StaleAfter: time.Hour})
		if want != nil {
			s.wantError(err, want)
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", content, err)
			continue
		}
		s.must(g.Release())
	}
}

func TestWhatIsNoDotlockIsRefusedAndLeft(t *testing.T) {
	for name, plant := range plants {
		switch name {
		case "FIFO", "directory", "dangling", "symlink", "socket":
		default:
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.must(plant(s, s.gate()))
			within(t, func() {
				_, err := s.take(GateOptions{Timeout: time.Minute, StaleAfter: time.Nanosecond})
				s.wantError(err, ErrGateRefused)
			})
			s.wantFiles(s.home, gateName)
		})
	}
}

func TestAGateOfAStrangerIsRefused(t *testing.T) {
	s := newScene(t)
	g := &Gate{dir: s.fd, name: gateName, opts: GateOptions{StaleAfter: time.Nanosecond}}
	var st unix.Stat_t
	s.must(unix.Fstat(s.fd, &st))
	d := &dotlock{st: unix.Stat_t{Mode: unix.S_IFREG, Uid: st.Uid + 1}}
	s.wantError(g.judge(d), ErrGateRefused)
	for _, uid := range []uint32{0, st.Uid} {
		d.st.Uid = uid
		s.must(g.judge(d))
	}
}

func TestAGateBrokenByOthersIsLostAndTheirsStays(t *testing.T) {
	for _, tt := range []struct {
		name   string
		breaks func(s *scene)
		left   []string
	}{
		{"removed", func(s *scene) { s.must(os.Remove(s.gate())) }, nil},
		{"replaced", func(s *scene) { s.must(os.Remove(s.gate())); s.put(s.gate(), "0") }, []string{gateName}},
		{"moved away", func(s *scene) { s.must(os.Rename(s.gate(), s.gate()+"x")) }, []string{gateName + "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			g, err := s.take(GateOptions{})
			s.must(err)
			tt.breaks(s)
			s.wantError(g.Check(), ErrGateLost)
			s.wantError(g.Refresh(), ErrGateLost)
			s.wantError(g.Release(), ErrGateLost)
			s.must(g.Release())
			s.wantFiles(s.home, tt.left...)
		})
	}
}

// The window between judging and taking over, made wide.
func TestTakingOverPutsAFreshGateBack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between func(s *scene) error
		want    string
	}{
		{"made anew", func(s *scene) error {
			return errors.Join(os.Remove(s.gate()), os.WriteFile(s.gate(), []byte("0"), 0o600))
		}, "0"},
		{"touched by its holder", func(s *scene) error { return os.Chtimes(s.gate(), time.Time{}, time.Now()) }, "stale"},
		{"removed", func(s *scene) error { return os.Remove(s.gate()) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.put(s.gate(), "stale")
			g := &Gate{dir: s.fd, name: gateName}
			s.must(g.opts.complete())
			old, err := g.find()
			s.must(err)
			defer unix.Close(old.fd)
			err = g.place(func(temp string, own *dotlock) error {
				s.must(tt.between(s))
				return g.takeOver(temp, own, old)
			})
			s.wantError(err, ErrGateBusy)
			if got, _ := os.ReadFile(s.gate()); string(got) != tt.want {
				t.Errorf("the gate holds %q, want %q", got, tt.want)
			}
			s.wantFiles(s.home, strings.Fields(map[bool]string{true: gateName}[tt.want != ""])...)
		})
	}
}

// What takeOver finds only after the exchange, by the exchange alone.
func TestPuttingBack(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between func(s *scene) error // after the exchange
		want    string
	}{
		{"nobody moved", func(*scene) error { return nil }, "fresh"},
		{"the fresh one was released", func(s *scene) error { return os.Remove(s.gate()) }, ""},
		{"it was released and a third came", func(s *scene) error {
			return errors.Join(os.Remove(s.gate()), os.WriteFile(s.gate(), []byte("third"), 0o600))
		}, "third"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.put(s.gate(), "fresh")
			g := &Gate{dir: s.fd, name: gateName}
			s.must(g.opts.complete())
			err := g.place(func(temp string, own *dotlock) error {
				s.must(g.exchange(temp))
				s.must(tt.between(s))
				return g.putBack(temp, own)
			})
			s.wantError(err, ErrGateBusy)
			if got, _ := os.ReadFile(s.gate()); string(got) != tt.want {
				t.Errorf("the gate holds %q, want %q", got, tt.want)
			}
			s.wantFiles(s.home, strings.Fields(map[bool]string{true: gateName}[tt.want != ""])...)
		})
	}
}

func TestTakeGateWaitsAsLongAsItIsTold(t *testing.T) {
	s := newScene(t)
	g, err := s.take(GateOptions{})
	s.must(err)
	watchdog, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	_, err = TakeGate(watchdog, s.fd, gateName, GateOptions{Timeout: 200 * time.Millisecond})
	s.wantError(err, ErrGateBusy)
	s.must(watchdog.Err())
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	_, err = TakeGate(ctx, s.fd, gateName, GateOptions{Timeout: time.Minute})
	s.wantError(err, ErrGateBusy)
	s.wantError(err, context.DeadlineExceeded)
	_, err = TakeGate(ctx, s.fd, gateName, GateOptions{})
	s.wantError(err, context.DeadlineExceeded)

	time.AfterFunc(50*time.Millisecond, func() { os.Remove(s.gate()) })
	again, err := s.take(GateOptions{Timeout: time.Minute})
	s.must(err)
	s.must(again.Release())
	s.wantError(g.Release(), ErrGateLost)
}

// roleGate takes the gate again and again; inside, nobody else may have the
// kernel lock on the file "inside". The last time it is killed inside.
func roleGate(args []string) error {
	dir, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	inside, err := os.OpenFile(filepath.Join(args[0], "inside"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	for round := range 3 {
		g, err := TakeGate(context.Background(), dir, gateName, GateOptions{Timeout: 30 * time.Second})
		if err != nil {
			return err
		}
		if err := unix.Flock(int(inside.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("two at once: %w", err)
		}
		time.Sleep(rand.N(500 * time.Microsecond))
		if round == 2 {
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		unix.Flock(int(inside.Fd()), unix.LOCK_UN)
		if err := g.Release(); err != nil {
			return err
		}
	}
	return nil
}

func TestProcessesThatDieInsideNeverMeet(t *testing.T) {
	s := newScene(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 40 {
				if err := process("gate", s.home).Run(); err == nil || err.Error() != "signal: killed" {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	g, err := s.take(GateOptions{})
	s.must(err)
	if g.Broken == "" {
		t.Error("the last one left no gate")
	}
	s.must(g.Release())
	s.wantFiles(s.home, "inside")
}

func TestGoroutinesExcludeEachOther(t *testing.T) {
	s := newScene(t)
	var inside sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				g, err := s.take(GateOptions{Timeout: 30 * time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				if !inside.TryLock() {
					t.Error("two at once")
					return
				}
				inside.Unlock()
				if err := g.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.wantFiles(s.home)
}
