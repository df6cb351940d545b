//go:build linux && amd64

package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/powerloss"
	"mailferry/semaphore"
)

// powerScenario is a run during which power is lost, and what was done before.
type powerScenario struct {
	name    string
	before  []string                     // verbs
	prepare func(*testing.T, *sweepSite) // what they can't; nil: nothing
	steps   func(*testing.T, *sweepSite) []powerStep
	last    string                                                         // verb that brings it to its end from any state
	goal    semaphore.State                                                // where a user is of whom it says that it is through with him
	use     func(*testing.T, *sweepSite)                                   // of the mail, when bob's hold is about to begin
	account func(t *testing.T, s *sweepSite, when moment) (wrong []string) // is told what is not as it must be
}

// powerStep is a program that is run.
type powerStep struct {
	args  []string
	input string
	mark  string // promise that is made by its end
}

// What was begun by precopy and cutover ends by migrate: a staging that was not
// synced is gone, and cutover makes none.
var powerScenarios = []powerScenario{
	{"precopy", nil, nil, verb("precopy"), "migrate", semaphore.Mbox, useMbox, accountForth},
	{"migrate", nil, nil, verb("migrate"), "migrate", semaphore.Maildir, useMbox, accountForth},
	{"cutover", []string{"precopy"}, nil, verb("cutover"), "migrate", semaphore.Maildir, useMbox, accountForth},
	{"rollback", []string{"migrate"}, nil, verb("rollback"), "rollback", semaphore.Mbox, useMaildirOfBob, accountBack},
	{"sweep back", []string{"migrate", "rollback"}, lateToMaildir, verb("sweep"), "sweep", semaphore.Mbox, nil, accountSweptBack},
	{"sweep", []string{"migrate"}, lateEverywhere, verb("sweep"), "sweep", semaphore.Maildir, nil, accountSwept},
	{"retire", []string{"migrate", "rollback", "migrate"}, lateEverywhere, verb("retire"), "retire", semaphore.Maildir, nil, accountRetired},
	{"delivery", nil, moveAlice, deliveries, "migrate", semaphore.Mbox, nil, accountDelivered},
}

func powerScenarioOf(name string) powerScenario {
	return powerScenarios[slices.IndexFunc(powerScenarios, func(s powerScenario) bool { return s.name == name })]
}

// verb is a run of mailferry, one user at a time, whose end is a promise.
func verb(name string) func(*testing.T, *sweepSite) []powerStep {
	return func(_ *testing.T, s *sweepSite) []powerStep {
		args := append([]string{"mailferry"}, s.argsOf(name)...)
		if name != "sweep" {
			args = append(args, "--jobs", "1")
		}
		if name == "migrate" || name == "cutover" || name == "rollback" {
			args = append(args, "--cutover-jobs", "1")
		}
		return []powerStep{{args, "", markEnded}}
	}
}

func useMbox(t *testing.T, s *sweepSite) { s.useBob(t) }

func accountForth(t *testing.T, s *sweepSite, when moment) []string {
	if when == ended {
		return s.account(t, when)
	}
	return slices.DeleteFunc(s.account(t, when), abandoned.MatchString)
}

// powerStates is how many states are examined: MAILFERRY_TEST_POWER, or what fits
// into the time of a test.
func powerStates(t *testing.T) int {
	t.Helper()
	text := os.Getenv("MAILFERRY_TEST_POWER")
	if text == "" {
		return 1500
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MAILFERRY_TEST_POWER is %q", text)
	}
	return n
}

// perRecording is how many states are made of one recording: there is more to
// learn of another one, whose filesystem has written at other moments.
const perRecording = 400

// Whenever power is lost, and whatever the disk makes of what it was not told to
// flush: it can be mounted, and after mailferry recover each user has all of
// his mail, once, in what his semaphore says, and who was told to be moved is.
func TestPowerIsLostAtAnyMoment(t *testing.T) {
	states := powerStates(t)
	for _, f := range powerloss.Filesystems {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			for _, scenario := range powerScenarios {
				t.Run(scenario.name, func(t *testing.T) {
					p := newPower(t, f, scenario)
					left := states / len(powerloss.Filesystems) / len(powerScenarios)
					for seed := uint64(1); left > 0; seed++ {
						p.restore(t)
						r := p.record(t, seed, nil)
						p.examine(t, r, min(left, perRecording))
						left -= perRecording
					}
					p.tell(t)
				})
			}
		})
	}
}

// power loses it, again and again.
type power struct {
	powerScenario
	disk  *powerloss.Disk
	site  *sweepSite
	whole *powerloss.Tape // of the site before the run

	states int // that were examined
	wrong  int // of them
	took   time.Duration
	events int // of all recordings
}

// newPower makes a server on a disk of its own.
func newPower(t *testing.T, f powerloss.Filesystem, scenario powerScenario) *power {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	disk := newDisk(t, f, dir)
	p := &power{powerScenario: scenario, disk: disk}
	p.mount(t)
	p.site = newSweepSite(t, filepath.Join(disk.Dir, "site"))
	for _, verb := range scenario.before {
		p.site.migrated(t, exitDone, verb)
	}
	if scenario.prepare != nil {
		scenario.prepare(t, p.site)
	}
	p.unmount(t)
	disk.Record()
	p.whole = disk.Stop()
	return p
}

func newDisk(t *testing.T, f powerloss.Filesystem, dir string) *powerloss.Disk {
	t.Helper()
	disk, err := powerloss.New(f, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	return disk
}

func (p *power) mount(t *testing.T) {
	t.Helper()
	if err := p.disk.Mount(); err != nil {
		t.Fatal(err)
	}
}

func (p *power) unmount(t *testing.T) {
	t.Helper()
	if err := p.disk.Unmount(); err != nil {
		t.Fatalf("%v; open: %q", err, p.site.open())
	}
}

// restore puts the disk back to how it was before the run.
func (p *power) restore(t *testing.T) {
	t.Helper()
	if err := p.disk.Lose(p.whole, powerloss.Cut{}); err != nil {
		t.Fatal(err)
	}
}

// copied is the site with all that a use of it changes.
func (s *sweepSite) copied() *sweepSite {
	c, summary := *s, *s.SiteSummary
	summary.Users = slices.Clone(s.Users)
	c.server = &server{SiteSummary: &summary, before: s.server.before}
	c.want, c.before = maps.Clone(s.want), maps.Clone(s.before)
	return &c
}

// examine looks at states of a recording, of which some are of a loss of power
// in the recovery from another, and tells of those in which something is not as
// it must be.
func (p *power) examine(t *testing.T, r *powerRecording, n int) {
	t.Helper()
	start := time.Now()
	again := n / 4 / perRecovery
	for i, cut := range r.tape.Cuts(n-again*perRecovery, r.seed, r.atRest) {
		p.look(t, r, cut, i%10 == 0)
	}
	for _, cut := range r.tape.Cuts(again, r.seed+1<<32, r.atRest) {
		recovery := p.recovery(t, r, cut)
		for _, cut := range recovery.tape.Cuts(perRecovery, cut.Seed, recovery.atRest) {
			p.look(t, recovery, cut, false)
		}
	}
	p.took += time.Since(start)
	p.events += len(r.tape.Events)
}

// perRecovery is how many states are made of one recovery.
const perRecovery = 6

// look looks at a state, and tells what is wrong there.
func (p *power) look(t *testing.T, r *powerRecording, cut powerloss.Cut, over bool) {
	t.Helper()
	p.states++
	wrong := p.state(t, r, cut, over)
	if len(wrong) == 0 {
		return
	}
	p.wrong++
	if p.wrong <= 5 {
		t.Errorf("%s, %s, recording %d: %s\n\t%s\nhint: to see it again: MAILFERRY_TEST_POWER_STATE=%s go test -run TestPowerIsLostAgain ./cmd/mailferry",
			p.disk.Name, p.name, r.seed, cut, strings.Join(wrong, "\n\t"), p.keep(t, r, cut))
	}
}

func (p *power) tell(t *testing.T) {
	t.Helper()
	if p.wrong > 0 { // of which the first were told
		t.Fail()
	}
	t.Logf("%d states of %d events, %d wrong; %v each", p.states, p.events, p.wrong, (p.took / time.Duration(p.states)).Round(100*time.Microsecond))
}

// state is what a cut leaves: the machine comes up again, mailferry recover is
// run, and accounts are settled; if asked to, the run is done over, to its end.
func (p *power) state(t *testing.T, r *powerRecording, cut powerloss.Cut, over bool) (wrong []string) {
	t.Helper()
	r.outage()
	if err := p.disk.Lose(r.tape, cut); err != nil {
		t.Fatal(err)
	}
	if err := p.disk.Mount(); err != nil {
		return []string{err.Error()}
	}
	marks := r.tape.Marks(cut)
	s := r.site(marks)
	wrong = append(wrong, s.rebooted()...)
	wrong = append(wrong, s.runs(t, "recover", exitDone)...)
	wrong = append(wrong, p.account(t, s, afterFault)...)
	wrong = append(wrong, s.promised(t, marks, p.goal)...)
	if over && len(wrong) == 0 {
		wrong = append(wrong, s.runs(t, p.last, exitDone)...)
		s.killed = true
		wrong = append(wrong, p.account(t, s, ended)...)
	}
	p.unmount(t)
	return wrong
}

// recovery records what is written after a cut until mailferry recover has ended.
// What was promised before is so on the tape.
func (p *power) recovery(t *testing.T, r *powerRecording, cut powerloss.Cut) *powerRecording {
	t.Helper()
	r.outage()
	if err := p.disk.Lose(r.tape, cut); err != nil {
		t.Fatal(err)
	}
	p.disk.Record()
	marks := r.tape.Marks(cut)
	for _, m := range marks {
		p.disk.Mark(m)
	}
	p.mount(t)
	s := r.site(marks)
	s.rebooted()
	s.runs(t, "recover", exitDone) // whatever it ends with: that is looked at elsewhere
	p.unmount(t)
	return &powerRecording{seed: cut.Seed, tape: p.disk.Stop(), sites: r.sites, lost: time.Now()}
}

// abandoned is a staging that was not synced before power was lost: worth nothing,
// and removed by the next run that makes one.
var abandoned = regexp.MustCompile(`^left: home/\w+/\.Maildir\.mailferry-[0-9a-f]{16}/`)

// argsOf are the arguments of a verb over all users, with no more options than it
// has.
func (s *server) argsOf(verb string) []string {
	switch verb {
	case "recover":
		return []string{verb, "--config", s.Config}
	case "sweep":
		return []string{verb, "--config", s.Config, "--users-from", s.NamesFile}
	case "retire":
		return []string{verb, "--config", s.Config, "--users-from", s.NamesFile, "--older-than", "0s"}
	}
	return s.args(verb)
}

// runs runs a verb, and tells if it did not end as it has to. To the program the
// machine was started when the site was: it has a clock of its own for that.
func (s *sweepSite) runs(t *testing.T, verb string, want int) (wrong []string) {
	t.Helper()
	args := append([]string{"--time", "--boottime", fmt.Sprint(-s.booted), "mailferry"}, s.argsOf(verb)...)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != want {
		wrong = append(wrong, fmt.Sprintf("mailferry %s exited with %d: %v: %s", verb, code, err, out))
	}
	return wrong
}

// bootID is the field of a staging record that says in which life of the
// machine it was written.
const bootID = `"boot_id":"`

// rebooted makes it known that the machine was started again, now: by its clock, and
// by the name of its life, which is written otherwise where it stands.
func (s *sweepSite) rebooted() (wrong []string) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return []string{err.Error()}
	}
	s.booted = now.Sec
	records, _ := filepath.Glob(s.state("[srk]*", "*.json")) // a good pattern: staging, soak, sweep, rollback
	for _, path := range records {
		err := rewrite(path, func(b []byte) []byte {
			at := bytes.Index(b, []byte(bootID))
			if at >= 0 {
				b[at+len(bootID)] = 'x' // which none has
			}
			return b
		})
		if err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	return wrong
}

// promised demands that a user of whom was told that he is where the run brings
// him is there.
func (s *sweepSite) promised(t *testing.T, marks []string, goal semaphore.State) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		if !slices.Contains(marks, promiseOf(u.Name, goal)) {
			continue
		}
		if now, err := s.semaphore(t, u.Name).Get(); err != nil || now != goal {
			wrong = append(wrong, fmt.Sprintf("%s: was on %s before power was lost, and is on %s: %v", u.Name, goal, now, err))
		}
	}
	return wrong
}

func promiseOf(user string, state semaphore.State) string {
	return fmt.Sprintf("%s is on %s", user, state)
}
