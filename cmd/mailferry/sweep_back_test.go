//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/stepper"
	"mailferry/maildir"
)

// lateBackSite is a mail server of which all users were brought back to mbox, and
// mail came to the Maildirs of one of them all the same.
type lateBackSite struct {
	*backSite
	aside string
	late  int
}

func newLateBackSite(t *testing.T, dir string) *lateBackSite {
	t.Helper()
	s := &lateBackSite{backSite: newBackSite(t, dir)}
	s.migrated(t, exitDone, "rollback")
	u := s.Users[0]
	list, err := filepath.Glob(filepath.Join(u.Home, "Maildir.mailferry-*"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s.aside = list[0]
	time.Sleep(10 * time.Millisecond)
	again := filepath.Join(u.Home, "Maildir")
	for _, sub := range []string{"", "tmp", "new", "cur"} {
		if err := errors.Join(os.Mkdir(filepath.Join(again, sub), 0o700), os.Chown(filepath.Join(again, sub), u.UID, u.GID)); err != nil {
			t.Fatal(err)
		}
	}
	s.comes(t, "", filepath.Join(s.aside, "new"), "", 100)
	s.comes(t, "", filepath.Join(s.aside, "cur"), ":2,FS", 70000) // more than is written at once
	s.comes(t, "Made/Below", filepath.Join(s.aside, ".Made.Below", "new"), "", 100)
	s.comes(t, "", filepath.Join(again, "new"), "", 100)
	return s
}

// comes has a message come to a directory of a Maildir, as an agent delivers it.
func (s *lateBackSite) comes(t *testing.T, folder, dir, info string, size int) {
	t.Helper()
	s.late++
	u := s.Users[0]
	text := fmt.Sprintf("Return-Path: <late@example.org>\nSubject: late\n\nId: late-%d\n%s", s.late, strings.Repeat("From here on to there.\n\n", 1+size/24))
	tmp := filepath.Join(dir, "..", "tmp", "x")
	path := filepath.Join(dir, fmt.Sprintf("170000%d.M1P1.host%s", 1000+s.late, info))
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Chown(tmp, u.UID, u.GID), os.Rename(tmp, path)); err != nil {
		t.Fatal(err)
	}
	now, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := maildir.ParseFlags(strings.TrimPrefix(info, ":2,"))
	if err != nil {
		t.Fatal(err)
	}
	tellLetter(s.want[u.Name], folder, []byte(text), flags, now.ModTime())
}

func (s *lateBackSite) sweepArgs() []string {
	return []string{"sweep", "--config", s.Config, "--users-from", s.NamesFile}
}

// settled demands that all mail is in the mboxes, once, and that none is left in the
// Maildirs, where the files of what was taken are kept.
func (s *lateBackSite) settled(t *testing.T) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		got, err := lettersOfMboxes(u, true)
		if err != nil || !maps.Equal(got, s.want[u.Name]) {
			wrong = append(wrong, fmt.Sprintf("%s has %d messages of %d: %v\n%s", u.Name, len(got), len(s.want[u.Name]), err, differing(got, s.want[u.Name])))
		}
	}
	kept := 0
	for _, root := range []string{s.aside, filepath.Join(s.aside, ".Made.Below"), filepath.Join(s.Users[0].Home, "Maildir")} {
		for _, sub := range []string{"new", "cur", "tmp"} {
			list, err := os.ReadDir(filepath.Join(root, sub))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				content, err := os.ReadFile(filepath.Join(root, sub, e.Name()))
				if err != nil {
					t.Fatal(err)
				}
				late := bytes.Contains(content, []byte("Id: late-"))
				if late && sub == "tmp" {
					kept++
				} else if late {
					wrong = append(wrong, "left in "+sub+": "+e.Name())
				}
			}
		}
	}
	if kept != s.late {
		wrong = append(wrong, fmt.Sprintf("%d of %d are kept", kept, s.late))
	}
	if left, _ := filepath.Glob(s.state("sweepback", "*.json")); len(left) > 0 {
		wrong = append(wrong, "left the record")
	}
	return append(wrong, s.left(t)...)
}

// lateBackPoint stops a sweep at a call; then recover puts right what it left, or the
// next sweep does, and the rest is swept.
func (w *sweep) lateBackPoint(t *testing.T, o stepper.Options, recover bool) (r *stepper.Result, wrong []string) {
	t.Helper()
	s := newLateBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
	defer os.RemoveAll(s.Dir)
	r, out := s.stepOf(t, o, s.sweepArgs()...)
	if o.At == 0 {
		if !r.Exit.Exited() || r.Exit.ExitStatus() != exitDone {
			t.Fatalf("a sweep without a fault: %v, %s", r.Exit, out)
		}
		return r, s.settled(t)
	}
	if !r.Reached {
		return r, nil
	}
	w.points.Add(1)
	if c := r.Calls[o.At-1]; strings.HasPrefix(c.Name, "unlink") && o.Do != stepper.Kill {
		s.kept = c.Paths[0]
	}
	args := [][]string{s.sweepArgs(), s.sweepArgs()}
	if recover {
		args[0] = []string{"recover", "--config", s.Config}
	}
	for _, args := range args {
		if again, err := exec.Command("mailferry", args...).CombinedOutput(); err != nil {
			wrong = append(wrong, fmt.Sprintf("the next %s: %v: %s", args[0], err, again))
		}
	}
	return r, append(wrong, s.settled(t)...)
}

// Wherever a sweep of late mail of users who are on mbox again is killed, or a call of
// it fails, each message is in the mbox once in the end.
func TestASweepBackStoppedAtAnyCall(t *testing.T) {
	w := newSweep(t)
	r, wrong := w.lateBackPoint(t, stepper.Options{}, false)
	if len(wrong) > 0 {
		t.Fatalf("a sweep without a fault: %q", wrong)
	}
	var points []stepper.Options
	for at, c := range r.Calls {
		points = append(points, stepper.Options{At: at + 1, Do: stepper.Kill}, stepper.Options{At: at + 1, Do: stepper.Fail(unix.EIO)}, stepper.Options{At: at + 1, Do: stepper.Fail(unix.ENOSPC), Also: takesRoom})
		if c.Size > 1 {
			points = append(points, stepper.Options{At: at + 1, Do: stepper.Short})
		}
	}
	stride := sweepStride(t, 23)
	next := make(chan int, len(points))
	for i := 0; i < len(points); i += stride {
		next <- i
	}
	close(next)
	t.Logf("%d points of %d", len(next), len(points))
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for i := range next {
				o := points[i]
				if r, wrong := w.lateBackPoint(t, o, i%2 == 0); len(wrong) > 0 {
					t.Errorf("%s at %d: %s\n\t%s", o.Do, o.At, r.Calls[o.At-1], strings.Join(wrong, "\n\t"))
				}
			}
		})
	}
	wait.Wait()
}

// A recovery that is killed is finished by the next one: of a message of which half is
// in the mbox, of one that is not on the disk yet, and of one that is not put away.
func TestARecoveryOfASweepBackKilledAtAnyCall(t *testing.T) {
	w := newSweep(t)
	begin := func(at int) (*lateBackSite, *stepper.Result) {
		s := newLateBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
		r, _ := s.stepOf(t, stepper.Options{At: at, Do: stepper.Kill}, s.sweepArgs()...)
		return s, r
	}
	s, all := begin(0)
	spool, err := filepath.Rel(s.Dir, s.Users[0].Spool)
	if err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(s.Dir)
	firsts := map[string]int{}
	for i, c := range all.Calls {
		switch before := all.Calls[max(i-1, 0)]; {
		case c.Name == "write" && c.Paths[0] == spool && before.Name == c.Name && before.Paths[0] == spool:
			firsts["half"] = i + 1
		case c.Name == "fsync" && c.Paths[0] == spool:
			firsts["unsynced"] = i + 1
		case c.Name == "renameat2" && strings.Contains(c.Paths[1], "/tmp/"):
			firsts["whole"] = i + 1
		}
	}
	if len(firsts) != 3 {
		t.Fatalf("%v of %v", firsts, all.Calls)
	}
	n, stride := 0, sweepStride(t, 7)
	for what, first := range firsts {
		s, _ := begin(first)
		calls, out := s.stepOf(t, stepper.Options{}, "recover", "--config", s.Config)
		if !calls.Exit.Exited() || calls.Exit.ExitStatus() != exitDone {
			t.Fatalf("%s: a recovery without a fault: %v, %s", what, calls.Exit, out)
		}
		os.RemoveAll(s.Dir)
		for at, call := range calls.Calls {
			if n++; n%stride != 0 {
				continue
			}
			s, _ := begin(first)
			s.stepOf(t, stepper.Options{At: at + 1, Do: stepper.Kill}, "recover", "--config", s.Config)
			var wrong []string
			for _, args := range [][]string{{"recover", "--config", s.Config}, s.sweepArgs(), s.sweepArgs()} {
				if again, err := exec.Command("mailferry", args...).CombinedOutput(); err != nil {
					wrong = append(wrong, fmt.Sprintf("the next %s: %v: %s", args[0], err, again))
				}
			}
			if wrong = append(wrong, s.settled(t)...); len(wrong) > 0 {
				t.Errorf("%s, then kill at %d, %s\n\t%s", what, at+1, call, strings.Join(wrong, "\n\t"))
			}
			w.points.Add(1)
			os.RemoveAll(s.Dir)
		}
	}
	t.Logf("%d points of %d", w.points.Load(), n)
}
