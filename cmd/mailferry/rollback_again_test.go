//go:build linux && amd64

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/stepper"
)

// From some call on the disk is full, or the user's quota used up: nobody stays
// in his hold, and the next run puts right what needed room.
func TestARollbackOnADiskFullFromAnyCallOn(t *testing.T) {
	w := newSweep(t)
	s := newBackSite(t, filepath.Join(w.ground, "calls"))
	all, _ := s.step(t, stepper.Options{})
	w.each(t, pointsOf(all.Calls, full), sweepStride(t, 19), w.backPoint)
}

// Wherever a recovery of a rollback is killed, the next one puts all right.
func TestARecoveryOfARollbackKilledAtAnyCall(t *testing.T) {
	w := newSweep(t)
	begin := func(at int) *backSite {
		s := newBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
		if at == 0 {
			return s
		}
		if r, out := s.step(t, stepper.Options{At: at, Do: stepper.Kill}); !r.Reached {
			t.Fatalf("at %d: %s", at, out)
		}
		return s
	}
	s := begin(0)
	all, _ := s.step(t, stepper.Options{})
	stride, n := sweepStride(t, 41), 0
	for first := 10; first < len(all.Calls); first += 31 {
		s := begin(first)
		calls, out := s.stepOf(t, stepper.Options{}, "recover", "--config", s.Config)
		if !calls.Exit.Exited() || calls.Exit.ExitStatus() != exitDone {
			t.Fatalf("a recovery without a fault: %v, %s", calls.Exit, out)
		}
		os.RemoveAll(s.Dir)
		for at := range calls.Calls {
			if n++; n%stride != 0 {
				continue
			}
			s := begin(first)
			r, _ := s.stepOf(t, stepper.Options{At: at + 1, Do: stepper.Kill}, "recover", "--config", s.Config)
			if r.Reached {
				w.points.Add(1)
				if wrong := s.aftermath(t); len(wrong) > 0 {
					t.Errorf("kill at %d, %s, then at %d, %s\n\t%s", first, all.Calls[first-1], at+1, r.Calls[at], strings.Join(wrong, "\n\t"))
				}
			}
			os.RemoveAll(s.Dir)
		}
	}
	t.Logf("%d points of %d", w.points.Load(), n)
}

// aside demands that all that is parked or set aside of a user who is back lies
// where the record says.
func (s *backSite) aside(u mailgen.SiteUser) (wrong []string) {
	soak, err := journal.ReadSoak(s.state(), u.Name)
	if err != nil {
		return []string{err.Error()}
	}
	list := soak.Aside
	for _, p := range soak.Parked {
		list = append(list, journal.Aside{Path: p.Path, From: p.From})
	}
	for _, a := range list {
		if !exists(a.Path) || a.From != "" {
			wrong = append(wrong, fmt.Sprintf("%s: set aside as %q, from %q; it is there: %t", u.Name, a.Path, a.From, exists(a.Path)))
		}
	}
	return wrong
}
