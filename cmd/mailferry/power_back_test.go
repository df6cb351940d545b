//go:build linux && amd64

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// lateID is that of a message that came to the Maildir.
const lateID = "gen-1a7e-0"

// useMaildirOfBob delivers to bob.
func useMaildirOfBob(t *testing.T, s *sweepSite) {
	t.Helper()
	text := []byte("From: late@example.org\nSubject: late\n\nId: " + lateID + "\nFrom here on it is late.\n")
	u := s.Users[1]
	path := filepath.Join(u.Home, "Maildir", "new", "1700000001.M1P1.host")
	if err := errors.Join(os.WriteFile(path, text, 0o600), os.Chown(path, u.UID, u.GID)); err != nil {
		t.Error(err)
	}
	late := mailgen.Message{ID: lateID, Dovecot: mailgen.Sum{Size: int64(len(text)), SHA256: sha256.Sum256(text)}}
	s.want[u.Spool] = append(s.want[u.Spool][:len(s.want[u.Spool]):len(s.want[u.Spool])], late)
}

// accountBack demands of each user that what his semaphore says holds each message
// once: in the Maildir byte for byte, in the mbox with all of its body.
func accountBack(t *testing.T, s *sweepSite, when moment) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		a := &settlement{sweepSite: s, u: u, when: when}
		state, err := s.semaphore(t, u.Name).Get()
		maildir := filepath.Join(u.Home, "Maildir")
		switch {
		case err != nil || state == semaphore.Hold || when == ended && state != semaphore.Mbox:
			a.tell("the semaphore says %s: %v", state, err)
		case state == semaphore.Maildir:
			a.inMaildir(maildir)
		case exists(maildir):
			a.tell("a Maildir is there, and the semaphore says mbox")
		default:
			a.inMboxes()
		}
		a.mirror(state)
		for _, text := range a.wrong {
			wrong = append(wrong, u.Name+": "+text)
		}
	}
	return wrong
}

func (a *settlement) inMaildir(root string) {
	for _, m := range a.u.Mailboxes {
		if exists(m.Path) {
			a.tell("%s is there, and the semaphore says maildir", m.Path)
		}
		files, err := messageFiles(a.folderOf(root, m))
		if err != nil {
			a.tell("%v", err)
		}
		for _, want := range a.want[m.Path] {
			if list := files[want.ID]; len(list) != 1 || list[0].sum != want.Dovecot {
				a.tell("%s is in %s %d times, or otherwise", want.ID, m.Name, len(list))
			}
			delete(files, want.ID)
		}
		for id, list := range files {
			a.tell("%q is in %s, and was not before", id, list[0].path)
		}
	}
}

func (a *settlement) folderOf(root string, m mailgen.SiteMailbox) string {
	if m.Path == a.u.Spool {
		return root
	}
	rel, _ := filepath.Rel(filepath.Join(a.u.Home, "mail"), m.Path)
	return filepath.Join(root, "."+strings.ReplaceAll(rel, "/", "."))
}

func (a *settlement) inMboxes() {
	for _, m := range a.u.Mailboxes {
		content, err := os.ReadFile(m.Path)
		if err != nil && len(a.want[m.Path]) > 0 {
			a.tell("%v", err)
		}
		was := a.original(m.Path)
		for _, want := range a.want[m.Path] {
			if want.FromLine == lateFrom {
				if !hasLate(content, want) {
					a.tell("%s is not in %s, or not as it was sent", want.ID, m.Path)
				}
				continue
			}
			id := []byte("Id: " + want.ID + "\n")
			body := append(id, "From here on"...)
			if want.ID != lateID {
				body = bytes.TrimRight(was[want.Body:want.End], "\r\n")
			}
			if n, bodies := bytes.Count(content, id), bytes.Count(content, body); n != 1 && n+bytes.Count(content, []byte("Id: "+want.ID+"\r\n")) != 1 || bodies != 1 && want.ID != lateID {
				a.tell("%s is in %s %d times, its body %d times", want.ID, m.Path, n, bodies)
			}
		}
		if n := len(textID.FindAll(content, -1)); n != len(a.want[m.Path]) {
			a.tell("%s has %d messages, of %d", m.Path, n, len(a.want[m.Path]))
		}
	}
}

// original is the mbox that was parked when the user was moved.
func (a *settlement) original(path string) []byte {
	for _, name := range append(a.parkedAs(path), path) {
		content, err := os.ReadFile(name)
		if err == nil && sha256.Sum256(content) == a.before[path].SHA256 {
			return content
		}
	}
	a.tell("%s: the mbox as it was is gone", path)
	return make([]byte, a.before[path].Size)
}

func (a *settlement) parkedAs(path string) []string {
	list, _ := filepath.Glob(path + ".mailferry-*") // a good pattern
	rel, err := filepath.Rel(filepath.Join(a.u.Home, "mail"), path)
	if err != nil {
		return list
	}
	cleared, _ := filepath.Glob(filepath.Join(a.u.Home, ".mail.mailferry-*", rel+".mailferry-*")) // by a rollback
	return append(list, cleared...)
}

// hasLate says whether the body of a late message is in an mbox.
func hasLate(content []byte, want mailgen.Message) bool {
	at := bytes.Index(content, []byte("\nId: "+want.ID+"\n"))
	end := at + int(want.Dovecot.Size) - len(lateHeader)
	return at >= 0 && end <= len(content) && sha256.Sum256(append([]byte(lateHeader), content[at:end]...)) == want.Dovecot.SHA256
}

// lateToMaildir delivers to the Maildir of alice, who has been brought back: to what
// was set aside of it.
func lateToMaildir(t *testing.T, s *sweepSite) {
	t.Helper()
	alice := &s.Users[0]
	root := s.setAside(t, *alice)
	a := &settlement{sweepSite: s, u: *alice}
	for _, m := range alice.Mailboxes {
		dir := a.folderOf(root, m)
		if !exists(dir) {
			t.Fatalf("%s has no Maildir", m.Path)
		}
		s.lateLetter(t, alice, m.Path, dir, "new", "", 300)
		s.lateLetter(t, alice, m.Path, dir, "cur", ":2,S", 9000)
	}
}

// setAside is where the Maildir of a user is who was brought back.
func (s *sweepSite) setAside(t *testing.T, u mailgen.SiteUser) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(u.Home, "Maildir.mailferry-*"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s has %q, %v", u.Name, list, err)
	}
	return list[0]
}

// lateLetter is delivered to a directory of a Maildir.
func (s *sweepSite) lateLetter(t *testing.T, u *mailgen.SiteUser, mailbox, dir, sub, info string, size int) {
	t.Helper()
	name := fmt.Sprintf("1700000001.M1P%d.host", u.Messages)
	text := s.late(u, mailbox, strings.TrimPrefix(info, ":2,"), size)
	tmp := filepath.Join(dir, "tmp", name)
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Chown(tmp, u.UID, u.GID), os.Rename(tmp, filepath.Join(dir, sub, name+info))); err != nil {
		t.Fatal(err)
	}
}

// accountSweptBack demands that a sweep that was cut short can be begun again, and
// that each message is in the mbox once then; at once, if the first had ended.
// What it took the mail from is kept.
func accountSweptBack(t *testing.T, s *sweepSite, when moment) (wrong []string) {
	t.Helper()
	if slices.Contains(s.marks, markEnded) {
		wrong = accountBack(t, s, ended)
	}
	wrong = append(wrong, s.lettersKept(t)...)
	wrong = append(wrong, s.runs(t, "sweep", exitDone)...)
	wrong = append(wrong, s.lettersKept(t)...)
	return append(wrong, accountBack(t, s, ended)...)
}

// lettersKept demands the file of each late message in what was set aside.
func (s *sweepSite) lettersKept(t *testing.T) (wrong []string) {
	t.Helper()
	a := &settlement{sweepSite: s, u: s.Users[0]}
	root := s.setAside(t, a.u)
	for _, m := range a.u.Mailboxes {
		files, err := messageFiles(a.folderOf(root, m))
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		there := map[mailgen.Sum]bool{}
		for _, list := range files {
			for _, f := range list {
				there[f.sum] = true
			}
		}
		for _, want := range s.want[m.Path] {
			if want.FromLine == lateFrom && !there[want.Dovecot] {
				wrong = append(wrong, fmt.Sprintf("%s: %s is not kept", m.Name, want.ID))
			}
		}
	}
	return wrong
}
