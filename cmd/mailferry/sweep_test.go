//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/stepper"
)

// sweep tries points: moments at which a run is killed, or a call of it fails.
type sweep struct {
	ground string // directory in memory: a sweep takes the time of the calls, not of the disk
	jobs   int    // users at a time
	sites  atomic.Int64
	points atomic.Int64 // that were reached
	wrong  atomic.Int64 // of them, those after which something was not as it may be

	mu     sync.Mutex
	litter map[string]int // files that killed runs left for good, by kind
}

func newSweep(t *testing.T) *sweep {
	t.Helper()
	w := &sweep{ground: t.TempDir(), jobs: 1, litter: map[string]int{}}
	if err := os.Chmod(filepath.Dir(w.ground), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", w.ground, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(w.ground, 0); err != nil {
			t.Error(err)
		}
	})
	return w
}

// site makes the server anew.
func (w *sweep) site(t *testing.T) *sweepSite {
	t.Helper()
	return newSweepSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
}

// step carries out a run of mailferry migrate that is stopped at a call. Mail
// comes to bob when his hold is about to begin, and his cutover has a delta to do.
func (w *sweep) step(t *testing.T, s *sweepSite, o stepper.Options) (*stepper.Result, string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("mailferry", s.args("migrate", "--jobs", fmt.Sprint(w.jobs), "--cutover-jobs", fmt.Sprint(w.jobs))...)
	cmd.Stdout, cmd.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.Below = s.Dir
	o.Watch = func(c stepper.Call) {
		if strings.HasPrefix(c.Name, "rename") && c.Paths[1] == "semaphores/bob1" && !s.used {
			s.useBob(t)
		}
	}
	r, err := stepper.Run(ctx, cmd, o)
	if err != nil {
		t.Fatalf("%s at %d: %v\n%s", o.Do, o.At, err, &out)
	}
	return r, out.String()
}

// point stops a run at a call, looks at what it left, carries out another one,
// and looks at that. more are further runs between the two that are stopped. It
// tells what was wrong.
func (w *sweep) point(t *testing.T, when moment, o stepper.Options, more ...stepper.Options) (call string, wrong []string) {
	t.Helper()
	s := w.site(t)
	defer os.RemoveAll(s.Dir)
	for _, o := range append([]stepper.Options{o}, more...) {
		r, out := w.step(t, s, o)
		if !r.Reached {
			break // it is over
		}
		c := r.Calls[o.At-1]
		call = c.String()
		if when == afterFault && strings.HasPrefix(c.Name, "unlink") {
			s.kept = c.Paths[0]
		}
		for _, text := range s.account(t, when) {
			wrong = append(wrong, "then: "+text)
		}
		if code := r.Exit.ExitStatus(); r.Exit.Signal() != unix.SIGKILL && code != exitDone && code != exitFailed && code != exitSkipped {
			wrong = append(wrong, fmt.Sprintf("it exited with %d: %s", code, out))
		}
	}
	if call != "" {
		w.points.Add(1)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), s.args("migrate"), &out, &errs); code != exitDone {
		wrong = append(wrong, fmt.Sprintf("the next run exited with %d: %s%s", code, &out, &errs))
	}
	for _, path := range s.open() {
		wrong = append(wrong, "left open: "+path)
	}
	s.killed = when == afterKill
	for _, text := range s.account(t, ended) {
		wrong = append(wrong, "in the end: "+text)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range s.litter {
		w.litter[kind]++
	}
	if len(wrong) > 0 {
		w.wrong.Add(1)
	}
	return call, wrong
}

// all tries points on all processors.
func (w *sweep) all(t *testing.T, points []sweepPoint) {
	t.Helper()
	start := time.Now()
	var wait sync.WaitGroup
	next := make(chan sweepPoint, len(points))
	for _, p := range points {
		next <- p
	}
	close(next)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for p := range next {
				call, wrong := w.point(t, p.when, p.first, p.more...)
				if len(wrong) > 0 {
					t.Errorf("%s\n\t%s\n\t%s", p, call, strings.Join(wrong, "\n\t"))
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d points in %v, %d wrong; left by the killed: %v", w.points.Load(), time.Since(start).Round(time.Second), w.wrong.Load(), w.litter)
}

// sweepPoint is one of them.
type sweepPoint struct {
	when  moment
	first stepper.Options
	more  []stepper.Options
}

func (p sweepPoint) String() string {
	var list []string
	for _, o := range append([]stepper.Options{p.first}, p.more...) {
		s := fmt.Sprintf("%s at %d", o.Do, o.At)
		if o.Also != nil {
			s += " and from there on"
		}
		list = append(list, s)
	}
	return strings.Join(list, ", then ")
}

// sweepStride is the distance of points: MAILFERRY_TEST_SWEEP, or what fits into
// the time of a test. 1 is every point there is.
func sweepStride(t *testing.T, short int) int {
	t.Helper()
	text := os.Getenv("MAILFERRY_TEST_SWEEP")
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MAILFERRY_TEST_SWEEP is %q", text)
	}
	return n
}

// calls counts those of a run without a fault.
func (w *sweep) calls(t *testing.T) []stepper.Call {
	t.Helper()
	s := w.site(t)
	r, out := w.step(t, s, stepper.Options{})
	if !r.Exit.Exited() || r.Exit.ExitStatus() != exitDone || !s.used {
		t.Fatalf("a run without a fault: %v, %s", r.Exit, out)
	}
	if wrong := s.account(t, ended); len(wrong) > 0 {
		t.Fatalf("a run without a fault: %q", wrong)
	}
	return r.Calls
}

// Wherever a run is killed, what the semaphore calls authoritative is whole,
// and the next run finishes it.
func TestARunKilledAtAnyCall(t *testing.T) {
	for _, jobs := range []int{1, 3} {
		t.Run(fmt.Sprint(jobs, " at a time"), func(t *testing.T) {
			w := newSweep(t)
			w.jobs = jobs
			var points []sweepPoint
			for at := range w.calls(t) {
				points = append(points, sweepPoint{when: afterKill, first: stepper.Options{At: at + 1, Do: stepper.Kill}})
			}
			w.all(t, thinned(points, sweepStride(t, 29)))
		})
	}
}

// A run that finishes what a killed one left may be killed as well, wherever
// it is; most often where it puts right what it finds, which it does first.
func TestARecoveryKilledAtAnyCall(t *testing.T) {
	w := newSweep(t)
	n := len(w.calls(t))
	var points []sweepPoint
	for first := 1; first <= n; first += 31 {
		for second := 1; second <= n; second++ { // what is not reached is not counted
			points = append(points, sweepPoint{afterKill, stepper.Options{At: first, Do: stepper.Kill}, []stepper.Options{{At: second, Do: stepper.Kill}}})
			if second > 80 {
				second += 30
			}
		}
	}
	w.all(t, thinned(points, sweepStride(t, 97)))
}

// Whatever call fails, each user is on his mbox as he was or on his Maildir, and
// the next run finishes it.
func TestARunWithAFaultAtAnyCall(t *testing.T) {
	w := newSweep(t)
	calls := w.calls(t)
	var points []sweepPoint
	for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EINTR} {
		for at := range calls {
			points = append(points, sweepPoint{when: afterFault, first: stepper.Options{At: at + 1, Do: stepper.Fail(errno)}})
		}
	}
	for at, c := range calls {
		if c.Size > 1 {
			points = append(points, sweepPoint{when: afterFault, first: stepper.Options{At: at + 1, Do: stepper.Short}})
		}
	}
	w.all(t, thinned(points, sweepStride(t, 59)))
}

// From some call on the disk is full, or the user's quota used up: what needs
// room fails, and what needs none must do to bring everybody out of his hold.
func TestADiskFullFromAnyCallOn(t *testing.T) {
	w := newSweep(t)
	var points []sweepPoint
	for at, c := range w.calls(t) {
		if takesRoom(c) {
			points = append(points, sweepPoint{when: afterFault, first: stepper.Options{At: at + 1, Do: stepper.Fail(unix.ENOSPC), Also: takesRoom}})
		}
		if ofUser(c) {
			points = append(points, sweepPoint{when: afterFault, first: stepper.Options{At: at + 1, Do: stepper.Fail(unix.EDQUOT), Also: ofUser}})
		}
	}
	w.all(t, thinned(points, sweepStride(t, 23)))
}

func takesRoom(c stepper.Call) bool {
	return c.Size > 0 || slices.Contains([]string{"openat", "openat2", "mkdirat", "linkat", "symlinkat", "fallocate"}, c.Name)
}

func ofUser(c stepper.Call) bool {
	return takesRoom(c) && (strings.HasPrefix(c.Paths[0], "home/") || strings.HasPrefix(c.Paths[0], "spool/"))
}

// From some call on the disk is dead: nothing that the run wants to put right
// can be, and the next one does.
func TestADeadDiskFromAnyCallOn(t *testing.T) {
	w := newSweep(t)
	var points []sweepPoint
	for at := range w.calls(t) {
		points = append(points, sweepPoint{when: afterKill, first: stepper.Options{At: at + 1, Do: stepper.Fail(unix.EIO), Also: func(stepper.Call) bool { return true }}})
	}
	w.all(t, thinned(points, sweepStride(t, 27)))
}

func thinned(points []sweepPoint, stride int) (kept []sweepPoint) {
	for i := 0; i < len(points); i += stride {
		kept = append(kept, points[i])
	}
	return kept
}
