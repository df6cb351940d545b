//go:build linux && amd64

package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/semaphore"
)

// moveAlice makes one to whose Maildir is delivered, and a program that does.
func moveAlice(t *testing.T, s *sweepSite) {
	t.Helper()
	var out bytes.Buffer
	if code := run(t.Context(), []string{"migrate", "--config", s.Config, "--free-floor", "0", s.Users[0].Name}, &out, &out); code != exitDone {
		t.Fatalf("migrate exited with %d: %s", code, &out)
	}
	s.deliver = filepath.Join(t.TempDir(), "mailferry-deliver")
	if out, err := exec.Command("go", "build", "-o", s.deliver, "mailferry/cmd/mailferry-deliver").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// deliverySizes are those of the messages that each user gets: what fits into a block,
// what does not, and what is not held in memory.
var deliverySizes = []int{100, 6000, 150000, 1000}

// deliveries bring each message to each user, by turns.
func deliveries(_ *testing.T, s *sweepSite) (steps []powerStep) {
	for i := range deliverySizes {
		for _, u := range s.Users {
			args := []string{s.deliver, "--config", s.Config, "-d", u.Name, "-f", "late@example.org", "--wait", "0s"}
			steps = append(steps, powerStep{args, delivery(i), deliveredMark(i, u.Name)})
		}
	}
	return steps
}

func delivery(i int) string {
	return fmt.Sprintf("Subject: late\n\nId: gen-1a7e-%d\n%s\n", i, strings.Repeat("late\n", deliverySizes[i]/5))
}

func deliveredMark(i int, user string) string { return fmt.Sprintf("%d was delivered to %s", i, user) }

// accountDelivered demands all that was there before, and behind it each message
// whole or not at all; whole, once an exit code has said that it was delivered.
func accountDelivered(t *testing.T, s *sweepSite, when moment) (wrong []string) {
	t.Helper()
	for _, u := range s.Users {
		a := &settlement{sweepSite: s, u: u, when: when}
		state, err := s.semaphore(t, u.Name).Get()
		if err != nil {
			a.tell("semaphore: %v", err)
		}
		var came []string
		if state == semaphore.Maildir {
			came = a.cameToMaildir()
		} else {
			came = a.cameToMbox()
		}
		a.delivered(came)
		if when == ended && state != semaphore.Maildir {
			a.tell("the semaphore says %s", state)
		}
		for _, text := range a.wrong {
			wrong = append(wrong, u.Name+": "+text)
		}
	}
	return wrong
}

// cameToMbox demands the mbox as it was, and gives what is behind that.
func (a *settlement) cameToMbox() (came []string) {
	was := a.before[a.u.Spool]
	content, err := os.ReadFile(a.u.Spool)
	if err != nil && was.Size > 0 {
		a.tell("%v", err)
		return nil
	}
	if int64(len(content)) < was.Size || was.Size > 0 && sha256.Sum256(content[:was.Size]) != was.SHA256 {
		a.tell("the mbox has %d bytes, and does not begin with the %d that it had", len(content), was.Size)
		return nil
	}
	late := strings.TrimLeft(string(content[was.Size:]), "\n")
	if late == "" {
		return nil
	}
	for i, text := range strings.Split(late, "From late@example.org ") {
		if i > 0 {
			came = append(came, strings.TrimSuffix(text, "\n"))
		} else if text != "" {
			a.tell("behind what the mbox had there is %.100q", text)
		}
	}
	return came
}

// cameToMaildir demands the messages that were there before, and gives the others
// of INBOX.
func (a *settlement) cameToMaildir() (came []string) {
	root := filepath.Join(a.u.Home, "Maildir")
	for _, m := range a.u.Mailboxes {
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
			for _, f := range list {
				if filepath.Base(filepath.Dir(f.path)) == "tmp" {
					continue // is no message: who delivers it again takes another name
				}
				content, err := os.ReadFile(f.path)
				if err != nil || m.Path != a.u.Spool {
					a.tell("%q is in %s, and was not before: %v", id, f.path, err)
				}
				came = append(came, string(content))
			}
		}
	}
	return came
}

// delivered compares what came with what was sent.
func (a *settlement) delivered(came []string) {
	for i := range deliverySizes {
		n := len(came)
		came = slices.DeleteFunc(came, func(text string) bool { return strings.HasSuffix(text, delivery(i)) })
		n -= len(came)
		if n > 1 || n == 0 && slices.Contains(a.marks, deliveredMark(i, a.u.Name)) {
			a.tell("message %d was delivered, and is there %d times", i, n)
		}
	}
	// One may be a part, of the delivery to an mbox in which power was lost: no mbox is
	// safe from that. A Maildir is.
	if len(came) == 1 && a.u.Name != a.Users[0].Name {
		return
	}
	for _, text := range came {
		a.tell("%d bytes are not a message that was sent: %.100q", len(text), text)
	}
}
