package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/convert"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// server is a made-up mail server, its users enrolled.
type server struct {
	*mailgen.SiteSummary
	before map[string]mailgen.SnapshotTree // of those who are to be left alone
}

func newServer(t *testing.T, o mailgen.SiteOptions) *server {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := mailgen.Site(filepath.Join(dir, "site"), o)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{sum, map[string]mailgen.SnapshotTree{}}
	for _, u := range sum.Users {
		if err := s.semaphore(t, u.Name).Enroll(semaphore.Meta{Epoch: 1}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *server) semaphore(t *testing.T, user string) *semaphore.Semaphore {
	t.Helper()
	sem, err := semaphore.For(filepath.Join(s.Dir, "semaphores", user))
	if err != nil {
		t.Fatal(err)
	}
	return sem
}

func (s *server) state(parts ...string) string {
	return filepath.Join(append([]string{s.Dir, "state"}, parts...)...)
}

// look remembers how the users are who are to be left alone.
func (s *server) look(t *testing.T) {
	t.Helper()
	for _, u := range s.Users {
		if u.Migrates() {
			continue
		}
		tree, err := u.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		s.before[u.Name] = tree
	}
}

// args are the arguments of a verb over all users.
func (s *server) args(verb string, more ...string) []string {
	return append([]string{verb, "--config", s.Config, "--free-floor", "0", "--users-from", s.NamesFile}, more...)
}

// report is what a run prints with --json.
type report struct {
	users   map[string]jsonUser
	summary jsonRun
}

// migrated runs a verb that must end with that code.
func (s *server) migrated(t *testing.T, want int, verb string, more ...string) report {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), s.args(verb, append(more, "--json")...), &out, &errs); code != want {
		t.Errorf("%s %q: exit code %d, want %d\n%s", verb, more, code, want, errs.String())
	}
	return parseReport(t, out.Bytes())
}

func parseReport(t *testing.T, out []byte) report {
	t.Helper()
	r := report{users: map[string]jsonUser{}}
	for line := range bytes.Lines(out) {
		var u jsonUser
		if err := json.Unmarshal(line, &u); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case r.summary.MessageType != "":
			t.Errorf("behind the summary: %s", line)
		case u.MessageType == "summary":
			if err := json.Unmarshal(line, &r.summary); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
		case u.MessageType != "user" || r.users[u.Name].Name != "":
			t.Errorf("a line twice, or of what?: %s", line)
		default:
			r.users[u.Name] = u
		}
	}
	return r
}

// mustAddUp compares what a run says in its output, in its summary and in its
// journal.
func (s *server) mustAddUp(t *testing.T, r report) {
	t.Helper()
	sum := r.summary.Summary
	if err := sum.Check(); err != nil || sum.Users.Total != len(s.Users) {
		t.Errorf("summary: %+v, %v", sum, err)
	}
	kept, err := journal.ReadSummary(s.state(), sum.Run)
	if err != nil {
		t.Fatal(err)
	}
	if kept.Users != sum.Users || kept.Messages != sum.Messages || kept.Bytes != sum.Bytes || kept.End != sum.End || kept.ExitCode != sum.ExitCode || kept.Chunks != sum.Chunks {
		t.Errorf("summary.json says %+v, the output %+v", *kept, sum)
	}
	if sum.Verb != kept.Verb || sum.Started.Sub(kept.Started).Abs() > time.Second || sum.Ended.Sub(kept.Ended).Abs() > time.Second {
		t.Errorf("the output says verb %q, from %v to %v; summary.json %q, from %v to %v", sum.Verb, sum.Started, sum.Ended, kept.Verb, kept.Started, kept.Ended)
	}
	var told, logged journal.Users
	var messages journal.Messages
	for _, u := range r.users {
		count(&told, u.Outcome)
		if u.Outcome == journal.Done && u.Round != nil {
			messages.In += u.Round.Messages
			messages.Quarantined += len(u.Round.Quarantined)
		}
	}
	if err := journal.Events(s.state(), sum.Run, func(e journal.Event) error {
		if e.User != "" && e.Phase == kept.Verb {
			count(&logged, e.Outcome)
			if u := r.users[e.User]; u.Outcome != e.Outcome || u.Reason != strings.Split(e.Reason, ":")[0] {
				t.Errorf("%s: the journal says %s, %q, the output %s, %q", e.User, e.Outcome, e.Reason, u.Outcome, u.Reason)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	told.Total, told.Untouched = sum.Users.Total, sum.Users.Untouched
	logged.Total, logged.Untouched = sum.Users.Total, sum.Users.Untouched
	if told != sum.Users || logged != sum.Users {
		t.Errorf("users: summary %+v, lines %+v, journal %+v", sum.Users, told, logged)
	}
	if messages.In != sum.Messages.In || messages.Quarantined != sum.Messages.Quarantined {
		t.Errorf("messages: summary %+v, lines %+v", sum.Messages, messages)
	}
}

func count(users *journal.Users, outcome string) {
	switch outcome {
	case journal.Done:
		users.Done++
	case journal.Skipped:
		users.Skipped++
	case journal.Failed:
		users.Failed++
	}
}

// mustBeUntouched demands that all of the user's is as it was, but for times
// of directories that others write to.
func (s *server) mustBeUntouched(t *testing.T, u mailgen.SiteUser) {
	t.Helper()
	now, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, diff := range s.before[u.Name].Diff(now) {
		t.Errorf("%s (%s: %s): %s", u.Name, u.Code, u.Case, diff)
	}
}

// mustBeMoved demands that a user is on his Maildir, with every message that
// he had, once, and equal to what the parked mboxes hold; those get their old
// names back for that.
func (s *server) mustBeMoved(t *testing.T, u mailgen.SiteUser) {
	t.Helper()
	if state, err := s.semaphore(t, u.Name).Get(); err != nil || state != semaphore.Maildir {
		t.Errorf("%s: semaphore %s, %v", u.Name, state, err)
		return
	}
	if mirror, err := os.ReadFile(filepath.Join(u.Home, ".mailstate")); string(mirror) != semaphore.Maildir.Line() {
		t.Errorf("%s: mirror %q, %v", u.Name, mirror, err)
	}
	want := map[string]int{}
	for _, m := range u.Mailboxes {
		if exists(m.Path) {
			t.Errorf("%s: %s is still there", u.Name, m.Path)
		}
		for _, id := range m.IDs() {
			want[id]++
		}
	}
	got := idsOf(t, filepath.Join(u.Home, "Maildir"))
	for id, n := range got {
		if n != 1 || want[id] != 1 {
			t.Errorf("%s: %s is there %d times, want %d", u.Name, id, n, want[id])
		}
	}
	if len(got) != len(want) || len(want) != u.Messages {
		t.Errorf("%s: %d messages of %d, %d", u.Name, len(got), len(want), u.Messages)
	}
	s.unpark(t, u)
	s.mustBeEqual(t, u)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

var textID = regexp.MustCompile(`(?m)^Id: (gen-[0-9a-f]+-\d+)`)

// idsOf counts the messages of a Maildir by their id.
func idsOf(t *testing.T, root string) map[string]int {
	t.Helper()
	ids := map[string]int{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if base := filepath.Base(filepath.Dir(path)); err != nil || e.IsDir() || base != "cur" && base != "new" {
			return err
		}
		content, err := os.ReadFile(path)
		if id := textID.FindSubmatch(content); id != nil {
			ids[string(id[1])]++
		} else {
			t.Errorf("%s has no id", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return ids
}

var parkedName = regexp.MustCompile(`^(.+)\.mailferry-\d{8}T\d{6}Z$`)

// unpark gives the mboxes of a moved user their names back.
func (s *server) unpark(t *testing.T, u mailgen.SiteUser) {
	t.Helper()
	for _, m := range u.Mailboxes {
		list, err := filepath.Glob(strings.NewReplacer(`[`, `\[`, `*`, `\*`).Replace(m.Path) + ".mailferry-*")
		if err != nil {
			t.Fatal(err)
		}
		list = slices.DeleteFunc(list, func(path string) bool {
			return !parkedName.MatchString(path) || u.Code == "parked-left" && strings.HasSuffix(path, "-20260101T000000Z")
		})
		if len(list) != 1 {
			t.Errorf("%s: %s was parked as %q", u.Name, m.Path, list)
			continue
		}
		if info, err := os.Lstat(list[0]); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", list[0], info.Mode(), err)
		}
		if err := os.Rename(list[0], m.Path); err != nil {
			t.Fatal(err)
		}
	}
}

// mustBeEqual compares a Maildir with the mboxes, as mailferry verify does.
func (s *server) mustBeEqual(t *testing.T, u mailgen.SiteUser) {
	t.Helper()
	tree := filepath.Join(u.Home, "mail")
	if err := os.MkdirAll(tree, 0o700); err != nil { // for who has no folders
		t.Fatal(err)
	}
	o := convert.Options{
		Source: tree, Dest: filepath.Join(u.Home, "Maildir"), Folders: maildir.Folders{Layout: maildir.MaildirPP},
		Scan: mbox.Options{Profile: mbox.Dovecot}, Jobs: 1, Progress: func(int64) {}, Total: func(int64) {},
	}
	if exists(u.Spool) {
		o.Inbox = u.Spool
	}
	report, err := convert.Verify(t.Context(), o)
	if err != nil {
		t.Errorf("%s: %v", u.Name, err)
		return
	}
	for _, d := range report.Differences {
		t.Errorf("%s: %s", u.Name, d)
	}
	if report.Messages != u.Messages {
		t.Errorf("%s: %d messages compared, of %d", u.Name, report.Messages, u.Messages)
	}
}

// leavings lists what no run leaves when it is over: staging, dotlocks, gates,
// and files on their way to another name. Users whose problem they are don't
// count.
func (s *server) leavings(t *testing.T) (left []string) {
	t.Helper()
	theirs := map[string]bool{}
	for _, tree := range s.before {
		for path := range tree {
			theirs[filepath.Base(path)] = true
		}
	}
	for _, u := range s.Users {
		if u.Migrates() && (u.Code == "staging-left" || u.Code == "parked-left") {
			for _, pattern := range []string{filepath.Join(u.Home, ".Maildir.mailferry-*"), u.Spool + ".mailferry-*"} {
				list, _ := filepath.Glob(pattern)
				for _, path := range list {
					theirs[filepath.Base(path)] = true
				}
			}
		}
	}
	err := filepath.WalkDir(s.Dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == s.state() {
			return fs.SkipDir
		}
		name := e.Name()
		semaphores := filepath.Dir(path) == filepath.Join(s.Dir, "semaphores")
		switch {
		case err != nil || theirs[name] || semaphores && name == ".lock":
			return err
		case strings.HasSuffix(name, ".lock"), semaphores && strings.HasPrefix(name, "."),
			strings.Contains(name, ".mailferry-") && !parkedName.MatchString(name),
			name == "mailferry-manifest", name == "mailferry-mailbox":
			left = append(left, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	records, err := journal.ListStaging(s.state())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		left = append(left, fmt.Sprintf("record of %s", filepath.Join(r.Parent, r.Name)))
	}
	return left
}

// mustLeaveNothing tells of leavings one of each kind.
func (s *server) mustLeaveNothing(t *testing.T) {
	t.Helper()
	kinds := map[string][]string{}
	for _, path := range s.leavings(t) {
		kind := "staging"
		switch base := filepath.Base(path); {
		case strings.HasPrefix(path, "record"):
			kind = "records of staging"
		case filepath.Dir(path) == filepath.Join(s.Dir, "semaphores"):
			kind = "prepared semaphores"
		case strings.HasPrefix(base, ".mailstate.lock"):
			kind = "gates"
		case strings.HasPrefix(base, ".mailstate"):
			kind = "mirrors on their way"
		case strings.HasSuffix(base, ".lock"):
			kind = "dotlocks"
		}
		kinds[kind] = append(kinds[kind], path)
	}
	for kind, paths := range kinds {
		t.Errorf("left: %d %s, %s", len(paths), kind, strings.TrimPrefix(paths[0], s.Dir))
	}
}

// siteUsers is how many users the big run has: MAILFERRY_TEST_USERS, 200 if it
// is not set.
func siteUsers(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("MAILFERRY_TEST_USERS"))
	if err != nil && os.Getenv("MAILFERRY_TEST_USERS") != "" {
		t.Fatal(err)
	}
	return max(n, 200)
}

// In a run over many users with every problem there is, each problem user is
// named and left as he was, everybody else is moved and equal, and the counts
// add up wherever they are told.
func TestARunOverUsersWithEveryProblem(t *testing.T) {
	s := newServer(t, mailgen.SiteOptions{Users: siteUsers(t), Seed: 71, Problems: 0.05})
	s.addProblems(t)
	s.look(t)
	start := time.Now()
	r := s.migrated(t, exitSkipped, "migrate", "--chunk", "50")
	t.Logf("%d users, %d messages in %v; holds %.1f ms (median), %.1f ms (99%%)", r.summary.Users.Total, r.summary.Messages.In, time.Since(start), 1e3*r.summary.HoldP50, 1e3*r.summary.HoldP99)
	s.mustAddUp(t, r)
	if r.summary.End != convert.EndDone || r.summary.Chunks != (len(s.Users)+49)/50 {
		t.Errorf("%s after %d chunks", r.summary.End, r.summary.Chunks)
	}
	moved, messages := 0, 0
	codes := map[string]bool{}
	for _, u := range s.Users {
		codes[u.Code] = true
		got := r.users[u.Name]
		if !u.Migrates() {
			if got.Outcome != journal.Skipped || got.Reason != u.Code && !slices.Contains(u.Also, got.Reason) || !has(got.Findings, u.Code, convert.Refuse) {
				t.Errorf("%s (%s: %s): %s, %q: %s; findings %+v", u.Name, u.Code, u.Case, got.Outcome, got.Reason, got.Text, got.Findings)
			}
			s.mustBeUntouched(t, u)
			continue
		}
		if got.Outcome != journal.Done {
			t.Errorf("%s (%s: %s): %s, %q: %s", u.Name, u.Code, u.Case, got.Outcome, got.Reason, got.Text)
			continue
		}
		if u.Severity == mailgen.Warn && !has(got.Findings, u.Code, convert.Warn) || u.Severity == mailgen.Sound && len(got.Findings) > 0 {
			t.Errorf("%s (%s: %s): findings %+v", u.Name, u.Code, u.Case, got.Findings)
		}
		moved++
		messages += u.Messages
		s.mustBeMoved(t, u)
	}
	for _, p := range mailgen.Problems() {
		if !codes[p.Code] {
			t.Errorf("nobody has the problem %s", p.Code)
		}
	}
	if r.summary.Users.Done != moved || r.summary.Users.Skipped != len(s.Users)-moved || r.summary.Messages.Converted != messages || r.summary.Messages.Quarantined != 0 {
		t.Errorf("summary %+v, want %d users done and %d messages", r.summary, moved, messages)
	}
	s.mustLeaveNothing(t)
}

// addProblems makes those that files alone don't make, on sound users.
func (s *server) addProblems(t *testing.T) {
	t.Helper()
	sound := func(code, severity string) *mailgen.SiteUser {
		for i := range s.Users {
			if u := &s.Users[i]; u.Code == "" && u.Messages > 0 {
				u.Code, u.Case, u.Severity = code, "made by hand", severity
				return u
			}
		}
		t.Fatal("nobody is sound")
		return nil
	}
	held := sound("held", mailgen.Refuse)
	if err := s.semaphore(t, held.Name).Hold(semaphore.Meta{Epoch: 2, Deadline: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.Dir, "semaphores", sound("not-enrolled", mailgen.Refuse).Name)); err != nil {
		t.Fatal(err)
	}
	differs := sound("mirror-differs", mailgen.Warn)
	mirror := filepath.Join(differs.Home, ".mailstate")
	if err := errors.Join(os.WriteFile(mirror, []byte(semaphore.Maildir.Line()), 0o644), os.Chown(mirror, differs.UID, differs.GID)); err != nil {
		t.Fatal(err)
	}
	mount := sound("maildir-mount", mailgen.Refuse)
	at := filepath.Join(mount.Home, "Maildir")
	if err := errors.Join(os.Mkdir(at, 0o700), unix.Mount("none", at, "tmpfs", 0, fmt.Sprintf("uid=%d,gid=%d,mode=0700", mount.UID, mount.GID))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, 0) })
}

func has(findings []convert.Finding, code string, severity convert.Severity) bool {
	return slices.ContainsFunc(findings, func(f convert.Finding) bool { return f.Code == code && f.Severity == severity })
}
