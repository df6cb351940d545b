//go:build linux && amd64

package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/powerloss"
	"mailferry/internal/stepper"
	"mailferry/semaphore"
)

// powerRecording is all that a run wrote, and what the mail was meanwhile.
type powerRecording struct {
	seed  uint64
	tape  *powerloss.Tape
	sites []*sweepSite     // before the use of the mail, and behind it
	calls [][]stepper.Call // of each program
	lost  time.Time        // when the last of it was written
}

// outage waits until the machine may be up again, so that what a program left there
// is older than its start, even by clocks of whole seconds.
func (r *powerRecording) outage() { time.Sleep(time.Until(r.lost.Add(2100 * time.Millisecond))) }

// Marks beside what is promised: mail is delivered between the first two, and until
// the second nobody has told its sender that it was; the third is behind a run.
const (
	markUse   = "use"
	markUsed  = "used"
	markEnded = "ended"
)

// site is what the mail has to be, after these marks.
func (r *powerRecording) site(marks []string) *sweepSite {
	s := r.sites[0].copied()
	if slices.Contains(marks, markUsed) {
		s = r.sites[1].copied()
	}
	s.marks = marks
	return s
}

// atRest says whether nobody uses the mail at an event.
func (r *powerRecording) atRest(event int) bool {
	from, to := r.mark(markUse), r.mark(markUsed)
	return from < 0 || event <= from || event > to
}

func (r *powerRecording) mark(text string) int {
	return slices.IndexFunc(r.tape.Events, func(e powerloss.Event) bool { return e.Mark == text })
}

// syncs are the calls that make durable; a program that lies about them is one
// that forgot them.
func syncs(c stepper.Call) bool {
	return c.Name == "fsync" || c.Name == "fdatasync" || c.Name == "syncfs"
}

// record carries a run out on the disk, which is mounted for that alone. Mail comes
// to bob when his hold is about to begin. Now and then the system writes all
// that there is, as it may at any time: how often depends on the seed. Calls
// that forgotten tells of are not made.
func (p *power) record(t *testing.T, seed uint64, forgotten func(stepper.Call) bool) *powerRecording {
	t.Helper()
	s := p.site.copied()
	live := *p.site.bob
	live.Messages = slices.Clone(live.Messages)
	s.bob = &live
	r := &powerRecording{seed: seed, sites: []*sweepSite{s.copied()}}
	w := &powerWatch{power: p, site: s, recording: r, random: rand.New(rand.NewPCG(seed, 3)), states: map[string]semaphore.State{}}
	w.writes = []float64{0.02, 0, 0.2, 0.6}[seed%4]
	o := stepper.Options{Below: s.Dir, Watch: func(c stepper.Call) { w.call(t, c) }}
	steps := p.steps(t, s)
	at := make([]int, len(steps))
	if forgotten != nil {
		o.Do, o.Also, at = stepper.Lie, forgotten, w.first(t, forgotten)
	}
	p.disk.Record()
	p.mount(t)
	for i, step := range steps {
		o.At = at[i]
		cmd := exec.Command(step.args[0], step.args[1:]...)
		cmd.Stdin = strings.NewReader(step.input)
		result, out := s.stepped(t, o, cmd)
		if !result.Exit.Exited() || result.Exit.ExitStatus() != exitDone {
			t.Fatalf("%s: %v\n%s", p.name, result.Exit, out)
		}
		r.calls = append(r.calls, result.Calls)
		w.promise(t)
		p.disk.Mark(step.mark)
	}
	p.unmount(t)
	r.tape, r.lost = p.disk.Stop(), time.Now()
	r.sites = append(r.sites, s.copied())
	return r
}

// powerWatch looks at each call of a run that is recorded.
type powerWatch struct {
	*power
	site      *sweepSite
	recording *powerRecording
	random    *rand.Rand
	writes    float64 // how probable it is that the system writes at a call
	last      stepper.Call
	states    map[string]semaphore.State // that were promised
}

func (w *powerWatch) call(t *testing.T, c stepper.Call) {
	t.Helper()
	if syncs(w.last) && w.last.Paths[0] == "semaphores" { // which is over now
		w.promise(t)
	}
	w.last = c
	if strings.HasPrefix(c.Name, "rename") && c.Paths[1] == "semaphores/bob1" && !w.site.used {
		w.site.used = true
		w.disk.Mark(markUse)
		w.use(t, w.site)
		w.sync(t)
		w.disk.Mark(markUsed)
	}
	if w.random.Float64() < w.writes {
		w.sync(t)
	}
}

// promise notes what semaphores say that were synced.
func (w *powerWatch) promise(t *testing.T) {
	t.Helper()
	for _, u := range w.site.Users {
		state, err := w.site.semaphore(t, u.Name).Get()
		if err != nil {
			t.Error(err)
		}
		if state != semaphore.Hold && state != w.states[u.Name] {
			w.states[u.Name] = state
			w.disk.Mark(promiseOf(u.Name, state))
		}
	}
}

func (w *powerWatch) sync(t *testing.T) {
	t.Helper()
	dir, err := os.Open(w.disk.Dir)
	if err == nil {
		err = unix.Syncfs(int(dir.Fd()))
		dir.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// first are the numbers of the first calls that are forgotten.
func (w *powerWatch) first(t *testing.T, forgotten func(stepper.Call) bool) (at []int) {
	t.Helper()
	r := w.power.record(t, w.recording.seed, nil)
	w.restore(t)
	for _, calls := range r.calls {
		at = append(at, slices.IndexFunc(calls, forgotten)+1)
	}
	if slices.Max(at) == 0 {
		t.Fatal("no call is to be forgotten")
	}
	return at
}
