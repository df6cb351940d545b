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

	"mailferry/internal/stepper"
)

// newSoakedSite is a server of which all users were moved, brought back, and moved
// again: there are mboxes that are parked, and Maildirs and mboxes set aside.
func (w *sweep) newSoakedSite(t *testing.T) *backSite {
	t.Helper()
	s := newBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
	s.migrated(t, exitDone, "rollback")
	s.migrated(t, exitDone, "migrate")
	return s
}

// retirePoint stops a retirement at a call, and has the next one finish it. Now and
// then the users are brought back from what is left.
func (w *sweep) retirePoint(t *testing.T, o stepper.Options) (call string, wrong []string) {
	t.Helper()
	s := w.newSoakedSite(t)
	defer os.RemoveAll(s.Dir)
	r, out := s.stepOf(t, o, s.retireArgs()...)
	if !r.Reached {
		return "", nil
	}
	w.points.Add(1)
	c := r.Calls[o.At-1]
	if o.Do != stepper.Kill {
		if strings.HasPrefix(c.Name, "unlink") {
			s.kept = c.Paths[0]
		}
		if code := r.Exit.ExitStatus(); !r.Exit.Exited() || code != exitDone && code != exitFailed && code != exitSkipped {
			wrong = append(wrong, fmt.Sprintf("it ended with %v: %s", r.Exit, out))
		}
	}
	wrong = append(wrong, s.account(t, false)...)
	wrong = append(wrong, s.runsTo(t, s.retireArgs()...)...)
	wrong = append(wrong, s.retired(t)...)
	if o.At%3 == 1 {
		wrong = append(wrong, s.runsTo(t, s.args("rollback")...)...)
		wrong = append(wrong, s.account(t, true)...)
	}
	return c.String(), wrong
}

// runsTo runs mailferry, which has to end well.
func (s *server) runsTo(t *testing.T, args ...string) (wrong []string) {
	t.Helper()
	var said bytes.Buffer
	if code := run(t.Context(), args, &said, &said); code != exitDone {
		wrong = append(wrong, fmt.Sprintf("mailferry %s exited with %d: %s", args[0], code, &said))
	}
	return wrong
}

func retireSweep(t *testing.T, stride int, pick func(stepper.Call) []stepper.Options) {
	t.Helper()
	w := newSweep(t)
	s := w.newSoakedSite(t)
	all, out := s.stepOf(t, stepper.Options{}, s.retireArgs()...)
	if !all.Exit.Exited() || all.Exit.ExitStatus() != exitDone {
		t.Fatalf("a retirement without a fault: %v, %s", all.Exit, out)
	}
	if wrong := s.retired(t); len(wrong) > 0 {
		t.Fatalf("a retirement without a fault: %q\n%s", wrong, out)
	}
	w.each(t, pointsOf(all.Calls, pick), stride, w.retirePoint)
}

// Wherever a retirement is killed, the Maildir is what it was, the next one
// deletes the rest, and the way back from the Maildir alone loses nothing.
func TestARetirementKilledAtAnyCall(t *testing.T) {
	retireSweep(t, sweepStride(t, 13), func(stepper.Call) []stepper.Options { return []stepper.Options{{Do: stepper.Kill}} })
}

// Whatever call of it fails, or from which on there is no room, likewise.
func TestARetirementWithAFaultAtAnyCall(t *testing.T) {
	retireSweep(t, sweepStride(t, 53), func(c stepper.Call) []stepper.Options {
		return append(faults(c, unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EINTR), full(c)...)
	})
}

// A sweep, too, goes on after a fault of any kind.
func TestASweepWithAFaultAtAnyCall(t *testing.T) {
	w := newSweep(t)
	r, wrong := w.latePoint(t, stepper.Options{})
	if len(wrong) > 0 {
		t.Fatalf("a sweep without a fault: %q", wrong)
	}
	points := pointsOf(r.Calls, func(c stepper.Call) []stepper.Options {
		list := []stepper.Options{{Do: stepper.Fail(unix.ENOSPC)}, {Do: stepper.Fail(unix.EDQUOT)}, {Do: stepper.Fail(unix.EINTR)}}
		if ofUser(c) {
			list = append(list, stepper.Options{Do: stepper.Fail(unix.EDQUOT), Also: ofUser})
		}
		return list
	})
	w.each(t, points, sweepStride(t, 41), func(t *testing.T, o stepper.Options) (string, []string) {
		r, wrong := w.latePoint(t, o)
		if !r.Reached {
			return "", nil
		}
		w.points.Add(1)
		return r.Calls[o.At-1].String(), wrong
	})
}

func (s *backSite) retireArgs() []string { return append(s.argsOf("retire"), "--jobs", "1") }

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
