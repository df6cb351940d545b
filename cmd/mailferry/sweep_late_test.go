//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/mailgen"
	"mailferry/internal/stepper"
	"mailferry/semaphore"
)

// lateSite is a mail server whose users have been moved, and mail came to the old
// places of one of them.
type lateSite struct {
	*server
	user     mailgen.SiteUser
	want     map[string]bool // ids that have to be in the Maildir once
	expunged map[string]bool // ids that a client has expunged
}

func newLateSite(t *testing.T, dir string) *lateSite {
	t.Helper()
	sum, err := mailgen.Site(dir, mailgen.SiteOptions{Users: 1, Seed: sweepSeed, Load: sweepLoad})
	if err != nil {
		t.Fatal(err)
	}
	s := &lateSite{server: &server{SiteSummary: sum}, user: sum.Users[0], want: map[string]bool{}, expunged: map[string]bool{}}
	if err := s.semaphore(t, s.user.Name).Enroll(semaphore.Meta{Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	s.migrated(t, exitDone, "migrate")
	s.expunged = s.ids(t) // all that was there before counts for nothing
	parked, err := filepath.Glob(s.user.Spool + ".mailferry-*")
	if err != nil || len(parked) != 1 {
		t.Fatal(parked, err)
	}
	folders, err := filepath.Glob(filepath.Join(s.user.Home, "mail", "*.mailferry-*"))
	if err != nil || len(folders) == 0 {
		t.Fatal(folders, err)
	}
	s.late(t, parked[0], 2)
	s.late(t, folders[0], 1)
	s.late(t, s.user.Spool, 3)
	s.late(t, filepath.Join(s.user.Home, "mail", "fresh"), 2)
	return s
}

func (s *lateSite) sweepArgs() []string {
	return []string{"sweep", "--config", s.Config, "--users-from", s.NamesFile}
}

// late appends messages to a file, as an agent does, or every other as a session.
func (s *lateSite) late(t *testing.T, path string, messages int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for range messages {
		id := fmt.Sprintf("late-%d", len(s.want)+1)
		s.want[id] = true
		status := ""
		if len(s.want)%2 == 0 {
			status = "Status: RO\n"
		}
		if _, err := fmt.Fprintf(f, "From late@example.org Mon Jan  2 03:04:05 2023\nSubject: late\n%s\nId: %s\n\n", status, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Chown(s.user.UID, s.user.GID), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// lateName is the name of a file of which a sweep took the mail.
var lateName = regexp.MustCompile(`^(spool/\w+|home/\w+/mail/fresh)\.mailferry-\w+-late\d+$`)

// unremoved is a dotlock on its way to its name, which could not be removed.
var unremoved = regexp.MustCompile(`^left: .*\.lock\.mailferry-[A-Z2-7]{26}$`)

var lateIDLine = regexp.MustCompile(`(?m)^Id: (\S+)`)

// files are those of the Maildir with their ids.
func (s *lateSite) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(s.user.Home, "Maildir"), func(path string, e os.DirEntry, err error) error {
		if sub := filepath.Base(filepath.Dir(path)); err != nil || !e.Type().IsRegular() || sub != "new" && sub != "cur" {
			return err
		}
		content, err := os.ReadFile(path)
		if found := lateIDLine.FindSubmatch(content); found != nil {
			files[path] = string(found[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (s *lateSite) ids(t *testing.T) map[string]bool {
	ids := map[string]bool{}
	for _, id := range s.files(t) {
		ids[id] = true
	}
	return ids
}

// client reads one of the messages in new, and expunges another.
func (s *lateSite) client(t *testing.T) {
	t.Helper()
	read := false
	for path, id := range s.files(t) {
		dir, name := filepath.Split(path)
		if filepath.Base(dir) != "new" {
			continue
		}
		if !read {
			read = true
			if err := os.Rename(path, filepath.Join(dir, "..", "cur", name+":2,S")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		s.expunged[id] = true
		return
	}
}

// account tells what is not there once, if it has to be.
func (s *lateSite) account(t *testing.T) (wrong []string) {
	t.Helper()
	count := map[string]int{}
	for _, id := range s.files(t) {
		count[id]++
	}
	for id := range s.want {
		want := 1
		if s.expunged[id] {
			want = 0
		}
		if count[id] != want {
			wrong = append(wrong, fmt.Sprintf("%s is there %d times, want %d", id, count[id], want))
		}
	}
	for _, path := range s.leavings(t) {
		if path = strings.TrimPrefix(path, s.Dir+"/"); !litter.MatchString(path) && !lateName.MatchString(path) {
			wrong = append(wrong, "left: "+path)
		}
	}
	return wrong
}

// latePoint stops a sweep at a call, lets a client at what it delivered, and sweeps
// again.
func (w *sweep) latePoint(t *testing.T, o stepper.Options) (r *stepper.Result, wrong []string) {
	t.Helper()
	s := newLateSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
	defer os.RemoveAll(s.Dir)
	var out bytes.Buffer
	cmd := exec.Command("mailferry", s.sweepArgs()...)
	cmd.Stdout, cmd.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.Below = s.Dir
	r, err := stepper.Run(ctx, cmd, o)
	if err != nil {
		t.Fatalf("%s at %d: %v\n%s", o.Do, o.At, err, &out)
	}
	if o.At == 0 {
		if !r.Exit.Exited() || r.Exit.ExitStatus() != exitDone {
			t.Fatalf("a sweep without a fault: %v, %s", r.Exit, &out)
		}
		return r, s.account(t)
	}
	if !r.Reached {
		return r, nil
	}
	s.client(t)
	for range 2 { // the second finds nothing; what the dead left is older than they are
		if again, err := exec.Command("mailferry", s.sweepArgs()...).CombinedOutput(); err != nil {
			wrong = append(wrong, fmt.Sprintf("the next sweep: %v: %s", err, again))
		}
	}
	if left, _ := filepath.Glob(s.state("sweep", "*.json")); len(left) > 0 {
		wrong = append(wrong, "left the record")
	}
	for _, text := range s.account(t) {
		if o.Do != stepper.Kill && unremoved.MatchString(text) {
			continue // that was the call that failed
		}
		wrong = append(wrong, text)
	}
	return r, wrong
}

// Wherever a sweep is killed, or a call of it fails, the next one goes on: each
// message is in the Maildir once, or was expunged.
func TestASweepStoppedAtAnyCall(t *testing.T) {
	w := newSweep(t)
	r, wrong := w.latePoint(t, stepper.Options{})
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
	stride := sweepStride(t, 17)
	next := make(chan stepper.Options, len(points))
	for i := 0; i < len(points); i += stride {
		next <- points[i]
	}
	close(next)
	t.Logf("%d points of %d", len(next), len(points))
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for o := range next {
				r, wrong := w.latePoint(t, o)
				if len(wrong) > 0 {
					t.Errorf("%s at %d: %s\n\t%s", o.Do, o.At, r.Calls[o.At-1], strings.Join(wrong, "\n\t"))
				}
			}
		})
	}
	wait.Wait()
}

// A sweep by a timer begins no run when there is nothing to do, and ends with its
// own code when a run is at work.
func TestASweepByATimer(t *testing.T) {
	w := newSweep(t)
	s := newLateSite(t, filepath.Join(w.ground, "site"))
	args := s.sweepArgs()
	sweep := func(want int) string {
		t.Helper()
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != want {
			t.Errorf("exit code %d, want %d: %s", code, want, &out)
		}
		return out.String()
	}
	runs := func() int {
		list, err := os.ReadDir(s.state("runs"))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	lock, err := os.OpenFile(s.state("lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	sweep(exitLocked)
	lock.Close()
	before := runs()
	if out := sweep(exitDone); !strings.HasSuffix(out, "1 user: mail had come to 1 of them, 8 messages; 0 differences, 0 failed\n") {
		t.Errorf("told %s", out)
	}
	if out := sweep(exitDone); out != "1 user: mail had come to 0 of them, 0 messages; 0 differences, 0 failed\n" || runs() != before+1 {
		t.Errorf("told %s; %d runs", out, runs()-before)
	}
	if wrong := s.account(t); len(wrong) > 0 {
		t.Error(wrong)
	}
	s.late(t, s.user.Spool, 0)
	if err := os.WriteFile(s.user.Spool, []byte("no mbox\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sweep(exitMismatch)
}
