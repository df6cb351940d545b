//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/convert"
	"mailferry/internal/mailgen"
	"mailferry/internal/stepper"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// sweepSite is a mail server small enough to be made anew for each point of a
// sweep: alice has a tree of folders and a list of subscriptions; bob has been
// precopied, and then mail came, went, and was flagged; carol's spool is empty.
type sweepSite struct {
	*server
	want    map[string][]mailgen.Message     // by path of the mbox
	before  map[string]mailgen.SnapshotEntry // the mboxes, by path
	bob     *mailgen.Live
	used    bool     // useBob was called
	marks   []string // what was promised before power was lost
	deliver string   // program
	booted  int64    // when the machine was, in seconds since this one was
	killed  bool     // a run was
	litter  []string // files that it left, by kind
	kept    string   // what could not be removed, since that was the call that failed
}

const sweepSeed = 3195

// sweepLoad is small: each message is some calls more.
var sweepLoad = mailgen.Load{
	Messages: func(r *rand.Rand) int { return r.IntN(5) },
	Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(600) },
}

// newSweepSite makes the server in a directory that does not exist.
func newSweepSite(t *testing.T, dir string) *sweepSite {
	t.Helper()
	sum, err := mailgen.Site(dir, mailgen.SiteOptions{Users: 3, Seed: sweepSeed, Load: sweepLoad})
	if err != nil {
		t.Fatal(err)
	}
	s := &sweepSite{server: &server{SiteSummary: sum}, want: map[string][]mailgen.Message{}, before: map[string]mailgen.SnapshotEntry{}}
	for _, u := range s.Users {
		if err := s.semaphore(t, u.Name).Enroll(semaphore.Meta{Epoch: 1}); err != nil {
			t.Fatal(err)
		}
		for _, m := range u.Mailboxes {
			s.want[m.Path] = nil
			if err := m.Each(func(msg mailgen.Message) { s.want[m.Path] = append(s.want[m.Path], msg) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.precopyBob(t)
	for path := range s.want {
		s.remember(t, path)
	}
	return s
}

// stepped carries out a command that is stopped at a call, and gives what it said.
func (s *server) stepped(t *testing.T, o stepper.Options, cmd *exec.Cmd) (*stepper.Result, string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o.Below = s.Dir
	r, err := stepper.Run(ctx, cmd, o)
	if err != nil {
		t.Fatalf("%s at %d: %v\n%s", o.Do, o.At, err, &out)
	}
	return r, out.String()
}

// precopyBob gives the next run a delta to do.
func (s *sweepSite) precopyBob(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(s.NamesFile, []byte(s.Users[1].Name+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.migrated(t, exitDone, "precopy")
	var names strings.Builder
	for _, u := range s.Users {
		fmt.Fprintln(&names, u.Name)
	}
	live, err := s.Users[1].Mailboxes[0].Live(1)
	if err != nil {
		t.Fatal(err)
	}
	s.bob = live
	s.use(t)
	if err := os.WriteFile(s.NamesFile, []byte(names.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// use is what bob does: he flags, expunges, and gets mail.
func (s *sweepSite) use(t *testing.T) {
	t.Helper()
	_, flagged := s.bob.Reflag(1)
	_, expunged := s.bob.Expunge(1)
	_, first := s.bob.Deliver()
	_, second := s.bob.Deliver()
	if err := errors.Join(flagged, expunged, first, second); err != nil {
		t.Error(err)
	}
	s.Users[1].Messages += len(s.bob.Messages) - len(s.want[s.bob.Path])
	s.want[s.bob.Path] = s.bob.Messages
}

// useBob does so while a run is at work.
func (s *sweepSite) useBob(t *testing.T) {
	t.Helper()
	s.used = true
	s.use(t)
	s.remember(t, s.bob.Path)
}

// remember looks at an mbox as it is before the run.
func (s *sweepSite) remember(t *testing.T, path string) {
	t.Helper()
	tree, err := mailgen.Snapshot(path)
	if err != nil {
		t.Error(err)
	}
	s.before[path] = tree["."]
}

// moment is when accounts are settled.
type moment int

const (
	afterKill  moment = iota // nothing could be put right
	afterFault               // the run has ended by itself
	ended                    // a run without a fault has ended
)

// account looks at everything, and tells what is not as it may be at that
// moment. Whenever that is, what the semaphore calls authoritative holds each
// message exactly once, as it was.
func (s *sweepSite) account(t *testing.T, when moment) (wrong []string) {
	t.Helper()
	for i, u := range s.Users {
		a := &settlement{sweepSite: s, u: u, when: when}
		a.settle(t)
		for _, text := range a.wrong {
			wrong = append(wrong, s.Users[i].Name+": "+text)
		}
	}
	if when != ended {
		return wrong
	}
	for _, path := range s.leavings(t) {
		path = strings.TrimPrefix(path, s.Dir+"/")
		if s.killed && litter.MatchString(path) {
			s.litter = append(s.litter, random.ReplaceAllString(path, "*"))
			continue
		}
		if path == s.kept {
			continue
		}
		wrong = append(wrong, "left: "+path)
	}
	if len(wrong) == 0 {
		wrong = s.verified(t)
	}
	return wrong
}

// random are the parts of names that are others each time.
var random = regexp.MustCompile(`alice0|bob1|carol2|[A-Z2-7]{26}|[0-9a-f]{16}`)

// litter are the files that stay when a run is killed that was about to rename
// or link them, and that nobody looks at; docs/state.md tells of each.
var litter = regexp.MustCompile(`^(home/\w+/\.mailstate(\.lock)?\.mailferry-[A-Z2-7]+|(spool|home/.*)/\.mailferry-[A-Z2-7]+\.lock|semaphores/\.\w+\.(set|next-\w+)(\.meta)?|home/\w+/\.Maildir\.mailferry-[0-9a-f]{16})$`)

// settlement are those of one user.
type settlement struct {
	*sweepSite
	u     mailgen.SiteUser
	when  moment
	wrong []string
}

func (a *settlement) tell(format string, args ...any) {
	a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
}

func (a *settlement) settle(t *testing.T) {
	t.Helper()
	state, err := a.semaphore(t, a.u.Name).Get()
	if err != nil {
		a.tell("semaphore: %v", err)
		return
	}
	if a.when == ended && state != semaphore.Maildir || a.when == afterFault && state == semaphore.Hold {
		a.tell("the semaphore says %s", state)
	}
	if a.when != afterKill {
		a.mirror(state)
	}
	for _, m := range a.u.Mailboxes {
		a.mbox(m.Path, state)
	}
	maildir := filepath.Join(a.u.Home, "Maildir")
	if state == semaphore.Maildir {
		a.maildir(maildir)
	} else if a.when != afterKill && exists(maildir) {
		a.tell("a Maildir is there, and the semaphore says %s", state)
	}
}

func (a *settlement) mirror(state semaphore.State) {
	content, err := os.ReadFile(filepath.Join(a.u.Home, ".mailstate"))
	if errors.Is(err, fs.ErrNotExist) && state == semaphore.Mbox {
		return // there was none before
	}
	if a.when == afterFault && string(content) == semaphore.Hold.Line() {
		return // which only defers
	}
	if string(content) != state.Line() {
		a.tell("the mirror says %q, the semaphore %s; %v", content, state, err)
	}
}

// mbox demands the mbox as it was, at its path, or, once the Maildir counts,
// parked.
func (a *settlement) mbox(path string, state semaphore.State) {
	parked, err := filepath.Glob(path + ".mailferry-*")
	parked = slices.DeleteFunc(parked, func(path string) bool { return !parkedName.MatchString(path) })
	live := exists(path)
	switch {
	case err != nil:
		a.tell("%v", err)
	case len(parked) > 1 || live && len(parked) > 0:
		a.tell("%s is parked as %q, and there: %t", path, parked, live)
	case len(parked) > 0 && state != semaphore.Maildir:
		a.tell("%s is parked, and the semaphore says %s", path, state)
	case len(parked) > 0:
		a.same(path, parked[0], true)
	case !live:
		a.tell("%s is gone", path)
	case a.when == ended && state == semaphore.Maildir:
		a.tell("%s is not parked", path)
	default:
		a.same(path, path, false)
	}
}

// same compares an mbox with how it was.
func (a *settlement) same(path, now string, parked bool) {
	tree, err := mailgen.Snapshot(now)
	if err != nil {
		a.tell("%v", err)
	}
	was, is := a.before[path], tree["."]
	if parked && (a.when == ended || is.Mode == 0o600) {
		was.Mode = 0o600
	}
	for _, diff := range (mailgen.SnapshotTree{now: was}).Diff(mailgen.SnapshotTree{now: is}) {
		a.tell("%s", diff)
	}
}

// open are the files of the site that this process has open, though its runs are
// over.
func (s *sweepSite) open() (paths []string) {
	list, _ := os.ReadDir("/proc/self/fd")
	for _, e := range list {
		path, _ := os.Readlink("/proc/self/fd/" + e.Name()) // some are closed by now
		if rel, ok := strings.CutPrefix(path, s.Dir+"/"); ok {
			paths = append(paths, rel)
		}
	}
	return paths
}

// verified compares the Maildirs with the parked mboxes, as mailferry verify
// does: dates, subscriptions, all that the description of the mail leaves out.
// Those get their old names back for that.
func (s *sweepSite) verified(t *testing.T) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		for _, m := range u.Mailboxes {
			list, err := filepath.Glob(m.Path + ".mailferry-*")
			if err == nil && len(list) == 1 {
				err = os.Rename(list[0], m.Path)
			}
			if err != nil {
				wrong = append(wrong, err.Error())
			}
		}
		tree := filepath.Join(u.Home, "mail")
		if err := os.MkdirAll(tree, 0o700); err != nil { // for who has no folders
			t.Error(err)
		}
		report, err := convert.Verify(t.Context(), convert.Options{
			Source: tree, Dest: filepath.Join(u.Home, "Maildir"), Inbox: u.Spool, Folders: maildir.Folders{Layout: maildir.MaildirPP},
			Scan: mbox.Options{Profile: mbox.Dovecot}, Jobs: 1, Progress: func(int64) {}, Total: func(int64) {},
		})
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", u.Name, err))
			continue
		}
		for _, d := range report.Differences {
			wrong = append(wrong, fmt.Sprintf("%s: %s", u.Name, d))
		}
		if report.Messages != u.Messages {
			wrong = append(wrong, fmt.Sprintf("%s: %d messages compared, of %d", u.Name, report.Messages, u.Messages))
		}
	}
	return wrong
}
