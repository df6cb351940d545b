//go:build linux && amd64

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/mailgen"
	"mailferry/internal/stepper"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// backSite is a small server of which all users were migrated, and have used
// their Maildirs since: they flagged, deleted, got mail, made a folder.
type backSite struct {
	*server
	want map[string]map[string]string // by user: each message
	kept string                       // what could not be removed, since that was the call that failed
}

func newBackSite(t *testing.T, dir string) *backSite {
	t.Helper()
	sum, err := mailgen.Site(dir, mailgen.SiteOptions{Users: 2, Seed: sweepSeed, Load: sweepLoad})
	if err != nil {
		t.Fatal(err)
	}
	s := &backSite{&server{sum, map[string]mailgen.SnapshotTree{}}, map[string]map[string]string{}, ""}
	for _, u := range s.Users {
		if err := s.semaphore(t, u.Name).Enroll(semaphore.Meta{Epoch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	s.migrated(t, exitDone, "migrate")
	for _, u := range s.Users {
		if err := useMaildir(filepath.Join(u.Home, "Maildir"), u); err != nil {
			t.Fatal(err)
		}
		s.want[u.Name], err = lettersOfMaildir(filepath.Join(u.Home, "Maildir"))
		if err != nil || len(s.want[u.Name]) < 2 {
			t.Fatalf("%s: %q, %v", u.Name, s.want[u.Name], err)
		}
	}
	return s
}

// useMaildir is what servers and agents do to a Maildir.
func useMaildir(root string, u mailgen.SiteUser) error {
	list, err := os.ReadDir(filepath.Join(root, "cur"))
	cur := func(i int) string { return filepath.Join(root, "cur", list[i].Name()) }
	if len(list) > 0 {
		base, flags, _ := strings.Cut(cur(0), ":2,")
		f, ferr := maildir.ParseFlags(flags)
		err = errors.Join(err, ferr, os.Rename(cur(0), base+":2,"+(f^maildir.Seen|maildir.Flagged).String()))
	}
	if len(list) > 1 {
		err = errors.Join(err, os.Remove(cur(1)))
	}
	made := filepath.Join(root, ".Made.Below")
	for _, dir := range []string{made, filepath.Join(made, "cur"), filepath.Join(made, "new"), filepath.Join(made, "tmp")} {
		err = errors.Join(err, os.Mkdir(dir, 0o700), os.Chown(dir, u.UID, u.GID))
	}
	for i, path := range []string{filepath.Join(root, "new", "1700000001.M1P1.host"), filepath.Join(made, "cur", "1700000002.M1P1.host:2,RS")} {
		text := fmt.Sprintf("Return-Path: <late%d@example.org>\nSubject: late\n\nFrom here on\n", i)
		date := time.Unix(1700000000+int64(i), 0)
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600), os.Chown(path, u.UID, u.GID), os.Chtimes(path, date, date))
	}
	subscribed := filepath.Join(root, "subscriptions")
	return errors.Join(err, os.WriteFile(subscribed, []byte("V\t2\n\nMade\tBelow\n"), 0o600), os.Chown(subscribed, u.UID, u.GID))
}

// lettersOfMaildir describes each message by its folder, and counts them.
func lettersOfMaildir(root string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		dir := filepath.Dir(path)
		if sub := filepath.Base(dir); sub != "cur" && sub != "new" {
			return nil
		}
		folder := strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(filepath.Dir(dir), root), "/."), ".", "/")
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, letters, _ := strings.Cut(filepath.Base(path), ":2,")
		flags, err := maildir.ParseFlags(letters)
		info, serr := e.Info()
		if err = errors.Join(err, serr); err == nil {
			tellLetter(found, folder, content, flags&(maildir.Seen|maildir.Flagged|maildir.Replied|maildir.Draft|maildir.Trashed), info.ModTime())
		}
		return err
	})
	return found, err
}

func tellLetter(found map[string]string, folder string, content []byte, flags maildir.Flags, date time.Time) {
	key := fmt.Sprintf("%q %x", folder, sha256.Sum256(content))
	for found[key] != "" {
		key += " again"
	}
	found[key] = fmt.Sprintf("%s %d", flags, date.Unix())
}

// lettersOfMboxes does so with the live mboxes.
// When all is over, nothing else lies among them.
func lettersOfMboxes(u mailgen.SiteUser, over bool) (map[string]string, error) {
	found := map[string]string{}
	read := func(path, folder string) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s, err := mbox.NewScanner(bytes.NewReader(content), int64(len(content)), mbox.Options{Profile: mbox.Dovecot})
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer s.Close()
		track := mbox.NewTracker(s)
		for {
			e, err := s.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			state := track.State(e)
			if state.Pseudo {
				continue
			}
			var text bytes.Buffer
			if err := s.WriteContent(&text); err != nil {
				return err
			}
			var flags maildir.Flags
			for from, to := range map[mbox.Flags]maildir.Flags{mbox.Seen: maildir.Seen, mbox.Answered: maildir.Replied, mbox.Flagged: maildir.Flagged, mbox.Draft: maildir.Draft, mbox.Deleted: maildir.Trashed} {
				if state.Flags&from != 0 {
					flags |= to
				}
			}
			tellLetter(found, folder, text.Bytes(), flags, e.Date)
		}
	}
	err := read(u.Spool, "")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	tree := filepath.Join(u.Home, "mail")
	werr := filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (e.IsDir() || !over && strings.Contains(e.Name(), ".mailferry-") || maildir.IsStaging(e.Name()) || mbox.IsDotlockTemp(e.Name()) || e.Name() == ".subscriptions" || strings.HasSuffix(e.Name(), ".lock")) {
			return nil
		}
		if err != nil {
			return err
		}
		return read(path, strings.TrimPrefix(path, tree+"/"))
	})
	return found, errors.Join(err, werr)
}

// account demands of each user that what the semaphore calls authoritative has
// every message once, as it was.
func (s *backSite) account(t *testing.T, over bool) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		state, err := s.semaphore(t, u.Name).Get()
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		root := filepath.Join(u.Home, "Maildir")
		var got map[string]string
		if state == semaphore.Mbox {
			got, err = lettersOfMboxes(u, over)
		} else {
			got, err = lettersOfMaildir(root)
		}
		if err != nil || !maps.Equal(got, s.want[u.Name]) {
			wrong = append(wrong, fmt.Sprintf("%s is on %s, with %d messages of %d: %v\n%s", u.Name, state, len(got), len(s.want[u.Name]), err, differing(got, s.want[u.Name])))
		}
		if over {
			wrong = append(wrong, s.rest(u, state)...)
		}
	}
	return wrong
}

// rest is what has to be so when nobody is at work.
func (s *backSite) rest(u mailgen.SiteUser, state semaphore.State) (wrong []string) {
	mirror, err := os.ReadFile(filepath.Join(u.Home, ".mailstate"))
	if state == semaphore.Hold || err != nil || string(mirror) != state.Line() {
		wrong = append(wrong, fmt.Sprintf("%s: semaphore %s, mirror %q, %v", u.Name, state, mirror, err))
	}
	if (state == semaphore.Mbox) == exists(filepath.Join(u.Home, "Maildir")) {
		wrong = append(wrong, fmt.Sprintf("%s is on %s; there is a Maildir: %t", u.Name, state, state == semaphore.Mbox))
	}
	if state == semaphore.Mbox {
		wrong = append(wrong, s.aside(u)...)
	}
	if state == semaphore.Maildir && (exists(u.Spool) || exists(filepath.Join(u.Home, "mail", "Made"))) {
		wrong = append(wrong, u.Name+" is on maildir, and something lies at an old path")
	}
	return wrong
}

// left are the files that no run leaves.
func (s *backSite) left(t *testing.T) (wrong []string) {
	t.Helper()
	for _, path := range s.leavings(t) {
		rel := strings.TrimPrefix(path, s.Dir+"/")
		if rel != s.kept && !litter.MatchString(rel) && !strings.Contains(rel, "/Maildir.mailferry-") {
			wrong = append(wrong, "left: "+rel)
		}
	}
	records, err := filepath.Glob(s.state("rollback", "*.json"))
	if err != nil || len(records) > 0 {
		wrong = append(wrong, fmt.Sprintf("records %q, %v", records, err))
	}
	return wrong
}

func differing(got, want map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			fmt.Fprintf(&b, "\t%s: %q, should be %q\n", key, got[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if want[key] == "" {
			fmt.Fprintf(&b, "\t%s: %q was not\n", key, got[key])
		}
	}
	return b.String()
}

// step carries out a rollback that is stopped at a call.
func (s *backSite) step(t *testing.T, o stepper.Options) (*stepper.Result, string) {
	t.Helper()
	return s.stepOf(t, o, s.args("rollback", "--jobs", "1", "--cutover-jobs", "1")...)
}

// stepOf is step for any verb.
func (s *backSite) stepOf(t *testing.T, o stepper.Options, args ...string) (*stepper.Result, string) {
	t.Helper()
	return s.stepped(t, o, exec.Command("mailferry", args...))
}

// backPoint stops a rollback, lets recover put right what it left, and then has
// it done.
func (w *sweep) backPoint(t *testing.T, o stepper.Options) (call string, wrong []string) {
	t.Helper()
	s := newBackSite(t, filepath.Join(w.ground, fmt.Sprint(w.sites.Add(1))))
	defer os.RemoveAll(s.Dir)
	r, out := s.step(t, o)
	if o.At == 0 {
		if !r.Exit.Exited() || r.Exit.ExitStatus() != exitDone {
			t.Fatalf("a rollback without a fault: %v, %s", r.Exit, out)
		}
	} else if !r.Reached {
		return "", nil
	} else {
		c := r.Calls[o.At-1]
		if call = c.String(); strings.HasPrefix(c.Name, "unlink") && o.Do != stepper.Kill {
			s.kept = c.Paths[0]
		}
	}
	w.points.Add(1)
	return call, s.aftermath(t)
}

// aftermath looks at what a stopped run left, lets recover put that right, and
// then has the rollback done.
func (s *backSite) aftermath(t *testing.T) (wrong []string) {
	t.Helper()
	tell := func(when string, list []string) {
		for _, text := range list {
			wrong = append(wrong, when+text)
		}
	}
	tell("then: ", s.account(t, false))
	var said bytes.Buffer
	if code := run(t.Context(), []string{"recover", "--config", s.Config}, &said, &said); code != exitDone {
		wrong = append(wrong, fmt.Sprintf("recover exited with %d: %s", code, &said))
	}
	tell("recovered: ", s.account(t, true))
	tell("recovered: ", s.left(t))
	said.Reset()
	if code := run(t.Context(), s.args("rollback"), &said, &said); code != exitDone {
		wrong = append(wrong, fmt.Sprintf("the next rollback exited with %d: %s", code, &said))
	}
	tell("in the end: ", s.account(t, true))
	tell("in the end: ", s.left(t))
	return wrong
}

func backSweep(t *testing.T, stride int, pick func(stepper.Call) []stepper.Options) {
	w := newSweep(t)
	s := newBackSite(t, filepath.Join(w.ground, "calls"))
	all, out := s.step(t, stepper.Options{})
	if !all.Exit.Exited() || all.Exit.ExitStatus() != exitDone {
		t.Fatalf("a rollback without a fault: %v, %s", all.Exit, out)
	}
	if wrong := append(s.account(t, true), s.left(t)...); len(wrong) > 0 {
		t.Fatalf("a rollback without a fault: %q\n%s", wrong, out)
	}
	w.each(t, pointsOf(all.Calls, pick), stride, w.backPoint)
}

// Wherever a rollback is killed, what the semaphore calls authoritative is whole,
// recover brings the user to the one or the other, and the next one succeeds.
func TestARollbackKilledAtAnyCall(t *testing.T) {
	backSweep(t, sweepStride(t, 23), func(stepper.Call) []stepper.Options { return []stepper.Options{{Do: stepper.Kill}} })
}

// Whatever call of it fails, likewise.
func TestARollbackWithAFaultAtAnyCall(t *testing.T) {
	backSweep(t, sweepStride(t, 67), func(c stepper.Call) []stepper.Options {
		return faults(c, unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EINTR)
	})
}
