//go:build linux && amd64

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// lateEverywhere brings mail to each kind of old place of alice, who has been moved:
// to a parked mbox, to an old path, to a mailbox that there was not. What it is to
// be taken from is remembered as it is.
func lateEverywhere(t *testing.T, s *sweepSite) {
	t.Helper()
	s.before = map[string]mailgen.SnapshotEntry{}
	for _, u := range s.Users {
		for _, path := range s.parkedBy(t, u) {
			s.before[path] = mailgen.SnapshotEntry{}
		}
	}
	alice := &s.Users[0]
	fresh := mailgen.SiteMailbox{Path: filepath.Join(alice.Home, "mail", "fresh"), Name: "fresh"}
	alice.Mailboxes = append(slices.Clone(alice.Mailboxes), fresh)
	s.lateTo(t, alice, alice.Spool, s.parkedBy(t, *alice)[alice.Spool], 200, 9000)
	s.lateTo(t, alice, alice.Spool, alice.Spool, 300, 20000)
	s.lateTo(t, alice, fresh.Path, fresh.Path, 400)
	s.before[alice.Spool], s.before[fresh.Path] = mailgen.SnapshotEntry{}, mailgen.SnapshotEntry{}
	for path := range s.before {
		s.remember(t, path)
	}
}

// parkedBy tells where the mboxes of a user are parked, by the paths that they had.
// Who is moved twice in a second has a flip that is to come: it is waited for.
func (s *sweepSite) parkedBy(t *testing.T, u mailgen.SiteUser) map[string]string {
	t.Helper()
	soak, err := journal.ReadSoak(s.state(), u.Name)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(soak.Flipped))
	paths := map[string]string{}
	for _, p := range soak.Parked {
		paths[p.Live] = p.Path
	}
	return paths
}

// lateTo appends messages of such sizes to a file, which have to be in the folder of
// a mailbox. Every other was put there by a session.
func (s *sweepSite) lateTo(t *testing.T, u *mailgen.SiteUser, mailbox, path string, sizes ...int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		status, flags := "", ""
		if i%2 == 1 {
			status, flags = "Status: RO\n", "S"
		}
		text := s.late(u, mailbox, flags, size)
		if _, err := fmt.Fprintf(f, "%s\n%s%s%s\n", lateFrom, lateHeader, status, text[len(lateHeader):]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Chown(u.UID, u.GID), f.Close()); err != nil {
		t.Fatal(err)
	}
}

const (
	lateFrom   = "From late@example.org Mon Jan  2 03:04:05 2023"
	lateHeader = "Subject: late\n"
)

// late makes a message that a mailbox of a user has to have.
func (s *sweepSite) late(u *mailgen.SiteUser, mailbox, flags string, size int) (text string) {
	m := mailgen.Message{ID: fmt.Sprintf("gen-1a7e-%d", u.Messages), FromLine: lateFrom, Flags: flags}
	text = fmt.Sprintf("%s\nId: %s\n%s\n", lateHeader, m.ID, strings.Repeat("late ", size/5))
	m.Dovecot = mailgen.Sum{Size: int64(len(text)), SHA256: sha256.Sum256([]byte(text))}
	u.Messages++
	s.want[mailbox] = append(s.want[mailbox][:len(s.want[mailbox]):len(s.want[mailbox])], m)
	return text
}

// accountSwept demands that a sweep that was cut short can be begun again, and
// that each message is in the Maildir once then; at once, if the first had ended.
// What it took the mail from is as it was.
func accountSwept(t *testing.T, s *sweepSite, when moment) (wrong []string) {
	t.Helper()
	if slices.Contains(s.marks, markEnded) {
		wrong = s.inMaildirs(t, when)
	}
	wrong = append(wrong, s.sourcesWhole()...)
	wrong = append(wrong, s.runs(t, "sweep", exitDone)...)
	wrong = append(wrong, s.sourcesWhole()...)
	stagings, _ := filepath.Glob(filepath.Join(s.Dir, "home", "*", ".Maildir.mailferry-*")) // a good pattern
	for _, path := range stagings {
		wrong = append(wrong, "left: "+path)
	}
	return append(wrong, s.inMaildirs(t, when)...)
}

// inMaildirs demands each message of all users once in their Maildirs, and nothing
// at the old paths.
func (s *sweepSite) inMaildirs(t *testing.T, when moment) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		a := &settlement{sweepSite: s, u: u, when: when}
		if state, err := s.semaphore(t, u.Name).Get(); err != nil || state != semaphore.Maildir {
			a.tell("the semaphore says %s: %v", state, err)
		}
		a.mirror(semaphore.Maildir)
		a.inMaildir(filepath.Join(u.Home, "Maildir"))
		for _, text := range a.wrong {
			wrong = append(wrong, u.Name+": "+text)
		}
	}
	return wrong
}

// sourcesWhole demands each file from which late mail is taken, at its path, or
// parked.
func (s *sweepSite) sourcesWhole() (wrong []string) {
	for path, was := range s.before {
		if now := s.sourceOf(path); now == "" {
			wrong = append(wrong, fmt.Sprintf("%s is gone, or has other content than the %d bytes that it had", path, was.Size))
		}
	}
	return wrong
}

// sourceOf is where such a file lies, "" if it is gone.
func (s *sweepSite) sourceOf(path string) string {
	late, _ := filepath.Glob(path + ".mailferry-*") // a good pattern
	for _, name := range append(late, path) {
		content, err := os.ReadFile(name)
		if err == nil && sha256.Sum256(content) == s.before[path].SHA256 {
			return name
		}
	}
	return ""
}

// accountRetired demands that of what was parked all is there, or the Maildir has
// each message; that records tell of what is there; and that what is gone has
// left its From_ lines. Then the retirement is begun again, and ends it.
func accountRetired(t *testing.T, s *sweepSite, when moment) (wrong []string) {
	t.Helper()
	if slices.Contains(s.marks, markEnded) {
		wrong = s.inMaildirs(t, when)
		for _, path := range s.laidAside() {
			wrong = append(wrong, "retire had ended, and there is "+path)
		}
	}
	wrong = append(wrong, s.recordsTell()...)
	wrong = append(wrong, s.runs(t, "retire", exitDone)...)
	for _, path := range s.laidAside() {
		wrong = append(wrong, "left: "+path)
	}
	wrong = append(wrong, s.recordsTell()...)
	return append(wrong, s.inMaildirs(t, when)...)
}

// keptPatterns are of the names of what is parked, or set aside.
var keptPatterns = []string{"spool/*.mailferry-*", "home/*/*.mailferry-*", "home/*/.*.mailferry-*", "home/*/mail/*.mailferry-*", "home/*/mail/*/*.mailferry-*"}

func (s *sweepSite) laidAside() (paths []string) {
	for _, pattern := range keptPatterns {
		list, _ := filepath.Glob(filepath.Join(s.Dir, pattern)) // good patterns
		paths = append(paths, list...)
	}
	return paths
}

// recordsTell compares the records of the soak with what there is.
func (s *sweepSite) recordsTell() (wrong []string) {
	for _, u := range s.Users {
		soak, err := journal.ReadSoak(s.state(), u.Name)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: the record of his soak: %v", u.Name, err))
		}
		for _, m := range u.Mailboxes {
			wrong = append(wrong, s.recordTells(u, m, soak)...)
		}
	}
	return wrong
}

func (s *sweepSite) recordTells(u mailgen.SiteUser, m mailgen.SiteMailbox, soak journal.Soak) (wrong []string) {
	there, _ := filepath.Glob(m.Path + ".mailferry-*") // a good pattern
	for _, path := range there {
		parked := slices.ContainsFunc(soak.Parked, func(p journal.Parked) bool { return p.Path == path })
		if !parked && !slices.ContainsFunc(soak.Aside, func(a journal.Aside) bool { return a.Path == path }) {
			wrong = append(wrong, fmt.Sprintf("%s: no record tells of %s", u.Name, path))
		}
	}
	for path := range s.before {
		if !parkedName.MatchString(path) || !strings.HasPrefix(path, m.Path+".mailferry-") || exists(path) {
			continue
		}
		if err := s.fromLinesKept(u, m); err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %s is gone, and of its From_ lines: %v", u.Name, path, err))
		}
	}
	return wrong
}

// fromLinesKept demands those of a mailbox that was parked.
func (s *sweepSite) fromLinesKept(u mailgen.SiteUser, m mailgen.SiteMailbox) error {
	lines, err := journal.OpenFromLines(s.state(), u.Name, m.Name)
	if err != nil {
		return err
	}
	defer lines.Close()
	for _, want := range s.want[m.Path] {
		if want.UID == 0 {
			continue // was given when he was moved, or since
		}
		if got, err := lines.Find(want.UID); err != nil || got != want.FromLine {
			return fmt.Errorf("that of UID %d is %q, should be %q: %w", want.UID, got, want.FromLine, err)
		}
	}
	return nil
}
