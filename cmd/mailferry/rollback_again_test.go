//go:build linux && amd64

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
	var points []stepper.Options
	for at, c := range all.Calls {
		if takesRoom(c) {
			points = append(points, stepper.Options{At: at + 1, Do: stepper.Fail(unix.ENOSPC), Also: takesRoom})
		}
		if ofUser(c) {
			points = append(points, stepper.Options{At: at + 1, Do: stepper.Fail(unix.EDQUOT), Also: ofUser})
		}
	}
	w.back(t, points, sweepStride(t, 19))
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

// Wherever a retirement is killed, the Maildir is what it was, the next one
// deletes the rest, and the way back from the Maildir alone loses nothing.
func TestARetirementKilledAtAnyCall(t *testing.T) {
	w := newSweep(t)
	begin := func() *backSite {
		s := newBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
		s.migrated(t, exitDone, "rollback")
		s.migrated(t, exitDone, "migrate")
		return s
	}
	s := begin()
	all, out := s.stepOf(t, stepper.Options{}, s.retireArgs()...)
	if !all.Exit.Exited() || all.Exit.ExitStatus() != exitDone {
		t.Fatalf("a retirement without a fault: %v, %s", all.Exit, out)
	}
	if wrong := s.retired(t); len(wrong) > 0 {
		t.Fatalf("a retirement without a fault: %q\n%s", wrong, out)
	}
	for at := 0; at < len(all.Calls); at += sweepStride(t, 13) {
		s := begin()
		r, _ := s.stepOf(t, stepper.Options{At: at + 1, Do: stepper.Kill}, s.retireArgs()...)
		wrong := s.account(t, false)
		var said bytes.Buffer
		if code := run(t.Context(), s.retireArgs(), &said, &said); code != exitDone {
			wrong = append(wrong, fmt.Sprintf("the next one exited with %d: %s", code, &said))
		}
		wrong = append(wrong, s.retired(t)...)
		if at%3 == 0 {
			said.Reset()
			if code := run(t.Context(), s.args("rollback"), &said, &said); code != exitDone {
				wrong = append(wrong, fmt.Sprintf("the rollback exited with %d: %s", code, &said))
			}
			wrong = append(wrong, s.account(t, true)...)
		}
		if len(wrong) > 0 {
			t.Errorf("kill at %d, %s\n\t%s", at+1, r.Calls[at], strings.Join(wrong, "\n\t"))
		}
		w.points.Add(1)
		os.RemoveAll(s.Dir)
	}
	t.Logf("%d points of %d", w.points.Load(), len(all.Calls))
}

func (s *backSite) retireArgs() []string {
	return []string{"retire", "--config", s.Config, "--users-from", s.NamesFile, "--older-than", "0s", "--jobs", "1"}
}

// retired demands that all users are on their Maildirs, whole, and that nothing is
// left of their mboxes.
func (s *backSite) retired(t *testing.T) (wrong []string) {
	t.Helper()
	wrong = append(s.account(t, false), s.left(t)...)
	for _, u := range s.Users {
		for _, pattern := range []string{u.Spool + ".mailferry-*", filepath.Join(u.Home, "*.mailferry-*"), filepath.Join(u.Home, ".*.mailferry-*"), filepath.Join(u.Home, "mail", "*.mailferry-*"), filepath.Join(u.Home, "mail", "*", "*.mailferry-*")} {
			list, err := filepath.Glob(pattern)
			if err != nil || len(list) > 0 {
				wrong = append(wrong, fmt.Sprintf("left: %q, %v", list, err))
			}
		}
	}
	return wrong
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
