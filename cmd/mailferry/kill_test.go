package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/convert"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// killSeeds is how many nights are made up: MAILFERRY_TEST_KILLS, 10 if it is
// not set.
func killSeeds(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("MAILFERRY_TEST_KILLS"))
	if err != nil && os.Getenv("MAILFERRY_TEST_KILLS") != "" {
		t.Fatal(err)
	}
	if n == 0 {
		n = 10
	}
	return n
}

// A run that is killed three times in a row, wherever it is, is finished by
// the next one: nothing is lost and nothing is there twice, nobody is left in
// the hold, and nothing of the dead runs is left.
func TestKilledRunsAreContinued(t *testing.T) {
	for seed := range uint64(killSeeds(t)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := newServer(t, mailgen.SiteOptions{Users: 24, Seed: 1000 + seed, Problems: 0.1, Codes: []string{"mbox-hardlink", "maildir-foreign"}})
			s.look(t)
			random := rand.New(rand.NewPCG(seed, 77))
			for range 3 {
				k := s.begin(t, "migrate", "--chunk", fmt.Sprint(4+random.IntN(10)), "--jobs", "2", "--cutover-jobs", fmt.Sprint(1+random.IntN(2)))
				when := k.killAt(t, random)
				t.Logf("killed %s; %v", when, s.states(t))
			}
			r := s.finished(t, exitSkipped, "migrate", "--chunk", "10")
			for _, u := range s.Users {
				if u.Migrates() {
					s.mustBeMoved(t, u)
					continue
				}
				if got := r.users[u.Name]; got.Outcome != journal.Skipped || got.Reason != u.Code {
					t.Errorf("%s (%s): %s, %q: %s", u.Name, u.Code, got.Outcome, got.Reason, got.Text)
				}
				s.mustBeUntouched(t, u)
			}
			s.mustLeaveNothing(t)
		})
	}
}

// killed is a run that will be.
type killed struct {
	*exec.Cmd
	s              *server
	stdout, stderr bytes.Buffer
	ended          chan struct{}
}

func (s *server) begin(t *testing.T, verb string, more ...string) *killed {
	t.Helper()
	k := &killed{Cmd: exec.Command("mailferry", s.args(verb, more...)...), s: s, ended: make(chan struct{})}
	k.Stdout, k.Stderr = &k.stdout, &k.stderr
	if err := k.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { k.Wait(); close(k.ended) }()
	t.Cleanup(func() { k.Process.Kill(); <-k.ended })
	return k
}

// finished lets a run come to its end in a process of its own.
func (s *server) finished(t *testing.T, want int, verb string, more ...string) report {
	t.Helper()
	k := s.begin(t, verb, append(more, "--json")...)
	<-k.ended
	if code := k.ProcessState.ExitCode(); code != want {
		t.Errorf("%s: exit code %d, want %d", verb, code, want)
	}
	if k.stderr.Len() > 0 {
		t.Log(k.stderr.String())
	}
	r := parseReport(t, k.stdout.Bytes())
	s.mustAddUp(t, r)
	return r
}

// killAt kills the run at one of many moments: after some time; when some user
// is held, or has been for a little while; when some users have been moved; when
// the first staging directories are there. It tells which.
func (k *killed) killAt(t *testing.T, random *rand.Rand) (when string) {
	t.Helper()
	moved := k.s.states(t)[semaphore.Maildir]
	var reached func() bool
	switch random.IntN(5) {
	case 0:
		after := time.Duration(random.IntN(400)) * time.Millisecond
		start := time.Now()
		when, reached = fmt.Sprint("after ", after), func() bool { return time.Since(start) > after }
	case 1, 2:
		n := 1 + random.IntN(5)
		held := ""
		when, reached = fmt.Sprintf("in hold %d", n), func() bool {
			if now := k.s.held(); now != "" && now != held {
				held = now
				n--
			}
			return n == 0
		}
	case 3:
		n := moved + 1 + random.IntN(4)
		when, reached = fmt.Sprintf("when %d are moved", n), func() bool { return k.s.states(t)[semaphore.Maildir] >= n }
	case 4:
		n := 1 + random.IntN(8)
		when, reached = fmt.Sprintf("when %d stagings are there", n), func() bool {
			list, _ := filepath.Glob(filepath.Join(k.s.Dir, "home", "*", ".Maildir.mailferry-*"))
			return len(list) >= n
		}
	}
	delay := time.Duration(random.ExpFloat64() * float64(3*time.Millisecond))
	for !reached() {
		select {
		case <-k.ended:
			return when + ", or rather at its end"
		case <-time.After(50 * time.Microsecond):
		}
	}
	time.Sleep(delay)
	if err := k.Process.Signal(syscall.SIGKILL); err != nil {
		return when + ", too late"
	}
	<-k.ended
	return fmt.Sprintf("%s and %v more", when, delay.Round(time.Microsecond))
}

// A run that is asked to end ends soon, in order: nobody is held, what was
// done and what was not is told, and the next run goes on.
func TestAnInterruptedRunEndsInOrder(t *testing.T) {
	for seed, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGTERM} {
		t.Run(fmt.Sprint(s, " ", seed), func(t *testing.T) {
			p := newServer(t, mailgen.SiteOptions{Users: 24, Seed: 2000 + uint64(seed)})
			random := rand.New(rand.NewPCG(uint64(seed), 79))
			k := p.begin(t, "migrate", "--json", "--chunk", "6", "--jobs", "2", "--cutover-jobs", "2")
			moved := 1 + random.IntN(10)
			for p.states(t)[semaphore.Maildir] < moved {
				time.Sleep(time.Millisecond)
			}
			if out, err := exec.Command("mailferry", p.args("precopy")...).CombinedOutput(); exitOf(err) != exitLocked {
				t.Errorf("another run: %v, %s", err, out)
			}
			if err := k.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			select {
			case <-k.ended:
			case <-time.After(20 * time.Second):
				t.Fatal("it does not end")
			}
			r := parseReport(t, k.stdout.Bytes())
			p.mustAddUp(t, r)
			if u := r.summary.Users; k.ProcessState.ExitCode() != exitInterrupted || r.summary.ExitCode != exitInterrupted || r.summary.End != convert.EndSignal || u.Untouched+u.Failed == 0 {
				t.Errorf("exit code %d, %+v", k.ProcessState.ExitCode(), r.summary.Summary)
			}
			t.Logf("%+v", r.summary.Users)
			states := p.states(t)
			if states[semaphore.Hold] > 0 || states[semaphore.Maildir] != r.summary.Users.Done {
				t.Errorf("%v, and %d done", states, r.summary.Users.Done)
			}
			for name, u := range r.users {
				if u.Outcome == journal.Failed && u.Reason != "stopped" {
					t.Errorf("%s: %s: %s", name, u.Reason, u.Text)
				}
			}
			p.finished(t, exitDone, "migrate")
			for _, u := range p.Users {
				p.mustBeMoved(t, u)
			}
			p.mustLeaveNothing(t)
		})
	}
}

func exitOf(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// held is a user who is held, "" if none is.
func (s *server) held() string {
	for _, u := range s.Users {
		if content, err := os.ReadFile(filepath.Join(s.Dir, "semaphores", u.Name)); err == nil && strings.HasSuffix(string(content), "=hold\n") {
			return u.Name
		}
	}
	return ""
}

// states counts the users by what their semaphores say.
func (s *server) states(t *testing.T) map[semaphore.State]int {
	t.Helper()
	count := map[semaphore.State]int{}
	for _, u := range s.Users {
		if state, err := s.semaphore(t, u.Name).Get(); err == nil {
			count[state]++
		}
	}
	return count
}
