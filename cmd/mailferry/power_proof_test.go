//go:build linux && amd64

package main

import (
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/powerloss"
	"mailferry/internal/stepper"
)

// forgottenSyncs are what a run could forget. Where a filesystem hides that, since
// one sync of anything writes all that went before, nothing can be noticed
// there, and nothing be relied on.
var forgottenSyncs = []struct {
	in    string // scenario
	name  string
	is    func(stepper.Call) bool
	want  string   // is told of some of the states
	blind []string // filesystems
}{
	{"migrate", "all", syncs, "was on maildir", nil},
	{"migrate", "staging", func(c stepper.Call) bool { return syncs(c) && strings.Contains(c.Paths[0], ".Maildir.mailferry-") }, "0 times", nil},
	{"migrate", "directory of the Maildir", func(c stepper.Call) bool { return syncs(c) && path.Dir(c.Paths[0]) == "home" }, "no such file", []string{"ext4", "xfs"}},
	{"migrate", "semaphore", func(c stepper.Call) bool { return syncs(c) && strings.HasPrefix(c.Paths[0], "semaphores/") }, "semaphore", []string{"ext4"}},
	{"migrate", "directory of semaphores", func(c stepper.Call) bool { return syncs(c) && c.Paths[0] == "semaphores" }, "was on maildir", nil},
	{"rollback", "all", syncs, "was on mbox", nil},
	{"rollback", "mboxes", func(c stepper.Call) bool { return syncs(c) && !strings.HasPrefix(c.Paths[0], "semaphores") }, " 0 times", []string{"xfs"}},
	{"sweep", "all", syncs, " 0 times", nil},
	{"sweep back", "all", syncs, "or not as it was sent", nil},
	{"retire", "all", syncs, "ended", nil},
	{"delivery", "all", syncs, "was delivered", nil},
}

// Each sync that a promise rests on is one without which the promise is seen to
// be broken.
func TestForgottenSyncsAreNoticed(t *testing.T) {
	for _, f := range powerloss.Filesystems {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			disks := map[string]*power{}
			for _, forgotten := range forgottenSyncs {
				if slices.Contains(forgotten.blind, f.Name) {
					continue
				}
				if disks[forgotten.in] == nil {
					disks[forgotten.in] = newPower(t, f, powerScenarioOf(forgotten.in))
				}
				t.Run(forgotten.in+", "+forgotten.name, func(t *testing.T) {
					if tried, noticed := disks[forgotten.in].notices(t, forgotten.is, forgotten.want); !noticed {
						t.Errorf("nothing was noticed in %d states", tried)
					} else {
						t.Logf("noticed in state %d", tried)
					}
				})
			}
		})
	}
}

// notices examines states of runs that forget calls until one is noticed.
func (p *power) notices(t *testing.T, forgotten func(stepper.Call) bool, want string) (tried int, noticed bool) {
	t.Helper()
	for seed := range uint64(8) {
		p.restore(t)
		r := p.record(t, seed, forgotten)
		cuts := r.tape.Cuts(100, seed, r.atRest)
		random := rand.New(rand.NewPCG(seed, 5))
		random.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
		for _, cut := range cuts {
			tried++
			if strings.Contains(strings.Join(p.state(t, r, cut, false), "\n"), want) {
				return tried, true
			}
		}
	}
	return tried, false
}
