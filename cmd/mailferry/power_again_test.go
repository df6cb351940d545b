//go:build linux && amd64

package main

import (
	"encoding/gob"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailferry/internal/mailgen"
	"mailferry/internal/powerloss"
)

// powerState is a state as it is kept, to be seen again.
type powerState struct {
	Filesystem string
	Dir        string // where it was mounted: paths are absolute
	Scenario   string
	Seed       uint64 // of the recording
	Cut        powerloss.Cut
	Tape       *powerloss.Tape
	Site       mailgen.SiteSummary
	Want       map[string][]mailgen.Message
	Before     map[string]mailgen.SnapshotEntry
}

// keep writes a state to a file, and returns its path.
func (p *power) keep(t *testing.T, r *powerRecording, cut powerloss.Cut) string {
	t.Helper()
	s := r.site(r.tape.Marks(cut))
	f, err := os.CreateTemp("", "mailferry-power-*.state")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := gob.NewEncoder(f).Encode(powerState{p.disk.Name, p.disk.Dir, p.name, r.seed, cut, r.tape, *s.SiteSummary, s.want, s.before}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// A state that was kept, MAILFERRY_TEST_POWER_STATE, is looked at again; if there
// is none, one is kept first.
func TestPowerIsLostAgain(t *testing.T) {
	path := os.Getenv("MAILFERRY_TEST_POWER_STATE")
	if path == "" {
		path = somePowerState(t)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var kept powerState
	if err := gob.NewDecoder(f).Decode(&kept); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %s, recording %d: %s", kept.Filesystem, kept.Scenario, kept.Seed, kept.Cut)
	for _, f := range powerloss.Filesystems {
		if f.Name != kept.Filesystem {
			continue
		}
		dir := filepath.Dir(kept.Dir) // a temporary one, of a test that is over
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir); os.Remove(filepath.Dir(dir)) }) // when the disk is gone
		p := &power{powerScenario: powerScenarioOf(kept.Scenario), disk: newDisk(t, f, dir)}
		s := &sweepSite{server: &server{SiteSummary: &kept.Site}, want: kept.Want, before: kept.Before}
		p.site = s
		r := &powerRecording{tape: kept.Tape, sites: []*sweepSite{s, s}}
		if wrong := p.state(t, r, kept.Cut, true); len(wrong) > 0 {
			t.Errorf("%s", strings.Join(wrong, "\n"))
		}
	}
}

// somePowerState keeps a state of a run.
func somePowerState(t *testing.T) (path string) {
	t.Helper()
	t.Run("keep", func(t *testing.T) {
		p := newPower(t, powerloss.Filesystems[0], powerScenarioOf("migrate"))
		p.restore(t)
		r := p.record(t, 1, nil)
		path = p.keep(t, r, powerloss.Cut{Events: r.mark(markUse), Loss: powerloss.Dropped, Seed: 5})
	})
	t.Cleanup(func() { os.Remove(path) })
	return path
}
