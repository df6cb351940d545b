package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/dovecottest"
)

// fresh is an mbox that no server has touched; old was read by mail(1).
const fresh = `From a@b Mon Jan  2 03:04:05 2023
Subject: one

body

From a@b Mon Jan  2 03:04:06 2023
Subject: two
Status: RO

body 2

From a@b Mon Jan  2 03:04:07 2023
Subject: three
Status: O

body 3

`

// dumpCopy shows what clients see, by a copy of all of the user's mail, index
// included: to look changes things.
func (d *dovecot) dumpCopy(user string) *dovecottest.Dump {
	d.Helper()
	copied := filepath.Join(d.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", filepath.Join(d.home, user), copied).CombinedOutput(); err != nil {
		d.Fatalf("%v: %s", err, out)
	}
	dovecottest.Own(d.T, copied)
	return dovecottest.DumpIMAP(d, dovecottest.Location{Mail: "mbox:" + copied + "/mail:INBOX=" + copied + "/inbox"})
}

// forget removes the user's index: the mboxes are all that is left.
func (d *dovecot) forget(user string) {
	d.Helper()
	for _, index := range []string{"mail/.imap", "mail/dir/.imap"} {
		if err := os.RemoveAll(filepath.Join(d.home, user, index)); err != nil {
			d.Fatal(err)
		}
	}
}

// status is what counts messages may show, which the dump has not.
func (d *dovecot) status(user string) string {
	d.Helper()
	return dovecottest.Doveadm(d, d.mailOf(user), "mailbox", "status", "messages recent unseen uidnext uidvalidity highestmodseq", "*")
}

func (d *dovecot) same(when string, got, want *dovecottest.Dump) {
	d.Helper()
	for _, diff := range dovecottest.Diff(got, want) {
		d.Errorf("%s: %s", when, diff)
	}
}

// sessions are what users did, before Settle. Dovecot writes an mbox when the
// last of a session is done with it; a first look writes at once, too.
var sessions = []struct {
	name string
	do   func(d *dovecot, user string)
	late bool     // if something of it is in the index only
	has  []string // in the INBOX, once settled
}{
	{"looked at", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("EXAMINE INBOX")
		s.Command("STATUS dir/sub (MESSAGES UIDNEXT UIDVALIDITY)")
		s.Command("EXAMINE folder")
		s.Close()
	}, false, []string{"X-IMAPbase: ", " 0000000003\n", "X-UID: 1  ", "X-UID: 2  ", "X-UID: 3  "}},
	{"looked at in a session that crashed", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Kill()
	}, false, []string{"X-IMAPbase: ", " 0000000003\n", "X-UID: 1  ", "X-UID: 2  ", "X-UID: 3  "}},
	{"flags of a session that crashed", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Command(`STORE 1 +FLAGS (\Flagged \Deleted $Later)`)
		s.Command(`STORE 2 -FLAGS (\Seen)`)
		s.Command("NOOP")
		s.Kill()
	}, true, []string{" 0000000003 $Later\n", "X-Status: FD\n", "X-Keywords: $Later", "X-UID: 2  "}},
	{"flags of a session that goes on", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Command(`STORE 1:2 +FLAGS (\Answered)`)
		s.Command(`STORE 3 +FLAGS (\Seen $Later)`)
	}, true, []string{" 0000000003 $Later\n", "X-Status: A\n", "X-Keywords: $Later", "Status: RO\n"}},
	{"mail that came after the last look", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Command(`STORE 1 +FLAGS (\Seen)`)
		s.Close()
		f, err := os.OpenFile(filepath.Join(d.home, user, "inbox"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			d.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("From a@b Mon Jan  2 03:04:08 2023\nSubject: four\n\nbody 4\n\n"); err != nil {
			d.Fatal(err)
		}
		s = dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Kill()
	}, true, []string{"0000000004", "X-UID: 4  "}},
	{"the last message expunged", func(d *dovecot, user string) {
		s := dovecottest.Start(d, d.mailOf(user))
		s.Command("SELECT INBOX")
		s.Command(`STORE 3 +FLAGS (\Deleted)`)
		s.Command("EXPUNGE")
		s.Kill()
	}, false, []string{"0000000003", "X-UID: 2  "}},
}

func TestSettledMboxesHoldAllThatClientsSaw(t *testing.T) {
	d := startDovecot(t)
	for i, tt := range sessions {
		t.Run(tt.name, func(t *testing.T) {
			d := &dovecot{T: t, Doveadm: d.Doveadm, dir: d.dir, home: d.home}
			user := string(rune('a' + i))
			d.account(user, map[string]string{"inbox": fresh, "mail/folder": fresh, "mail/dir/sub": fresh})
			tt.do(d, user)
			before := d.read(user, "inbox")
			written := !slices.ContainsFunc(tt.has, func(text string) bool { return !strings.Contains(before, text) })
			if written && tt.late {
				t.Errorf("the mbox has it all already:\n%s", before)
			}
			seen, counts := d.dumpCopy(user), d.status(user)
			if err := d.Settle(t.Context(), user); err != nil {
				t.Fatal(err)
			}
			if got := d.status(user); got != counts {
				t.Errorf("status was\n%snow\n%s", counts, got)
			}
			d.same("settled", d.dumpCopy(user), seen)
			after := d.read(user, "inbox")
			for _, text := range tt.has {
				if !strings.Contains(after, text) {
					t.Errorf("no %q in\n%s", text, after)
				}
			}
			d.forget(user)
			d.same("without the index", d.dumpCopy(user), seen)
			if err := d.Settle(t.Context(), user); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAKickedSessionLeavesNothingUnwritten(t *testing.T) {
	d := startDovecot(t)
	d.account("anne", map[string]string{"inbox": fresh})
	client := d.login("anne")
	client.ask("STORE 1 +FLAGS (\\Flagged $Later)")
	if text := d.read("anne", "inbox"); strings.Contains(text, "X-Status: F\n") {
		t.Errorf("it is written at once:\n%s", text)
	}
	if err := d.Kick(t.Context(), "anne"); err != nil {
		t.Fatal(err)
	}
	d.until("the flags are in the mbox", func() bool {
		text := d.read("anne", "inbox")
		return strings.Contains(text, "X-Status: F\n") && strings.Contains(text, "X-Keywords: $Later")
	})
}

func TestASessionGoesOnWhileItsMailIsSettled(t *testing.T) {
	d := startDovecot(t)
	d.account("anne", map[string]string{"inbox": fresh})
	s := dovecottest.Start(t, d.mailOf("anne"))
	s.Command("SELECT INBOX")
	s.Command(`STORE 1 +FLAGS (\Flagged)`)
	before := strings.Join(s.Command("FETCH 1:* (UID FLAGS BODY.PEEK[])"), "\n")
	if err := d.Settle(t.Context(), "anne"); err != nil {
		t.Fatal(err)
	}
	if got := s.Command("NOOP"); len(got) != 0 {
		t.Errorf("the session is told %q", got)
	}
	if got := strings.Join(s.Command("FETCH 1:* (UID FLAGS BODY.PEEK[])"), "\n"); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
	s.Command(`STORE 2 +FLAGS (\Answered)`)
	s.Close()
	if text := d.read("anne", "inbox"); !strings.Contains(text, "X-Status: A\n") || !strings.Contains(text, "X-Status: F\n") {
		t.Errorf("%s", text)
	}
}

func TestAFileThatIsNoMboxDoesNotKeepTheOthersFromBeingSettled(t *testing.T) {
	d := startDovecot(t)
	d.account("anne", map[string]string{"inbox": fresh, "mail/a.txt": "no mbox\n", "mail/z": fresh})
	err := d.Settle(t.Context(), "anne")
	var f *Failed
	if !errors.As(err, &f) || f.Exit != 65 || !strings.Contains(f.Said, "a.txt") || strings.Contains(f.Said, "INBOX") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"inbox", "mail/z"} {
		if text := d.read("anne", name); !strings.Contains(text, "X-UID: 3  ") {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestEmptyMboxesAreSettledByAMessageThatDovecotHides(t *testing.T) {
	d := startDovecot(t)
	files := map[string]string{"inbox": "", "mail/-dash": "", "mail/two words": "", "mail/&AOQ-&-": "", "mail/dir/sub": "", "mail/full": fresh}
	d.account("anne", files)
	s := dovecottest.Start(t, d.mailOf("anne"))
	for _, name := range []string{"INBOX", "-dash", "two words", "&AOQ-&-", "dir/sub", "full"} {
		s.Command("SELECT %s", dovecottest.Quote(name))
	}
	s.Close()
	seen := d.dumpCopy("anne")
	if err := d.Settle(t.Context(), "anne"); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if text == "" && d.read("anne", name) != "" {
			t.Errorf("Settle alone: %s: %q", name, d.read("anne", name))
		}
	}
	full := d.read("anne", "mail/full")
	for range 2 {
		if err := d.SettleEmpty(t.Context(), "anne"); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if text == "" && strings.Count(d.read("anne", name), "\nX-IMAP: ") != 1 {
			t.Errorf("%s: %s", name, d.read("anne", name))
		}
	}
	if d.read("anne", "mail/full") != full {
		t.Error("a mailbox with mail was changed")
	}
	d.same("settled", d.dumpCopy("anne"), seen)
	d.forget("anne")
	d.same("without the index", d.dumpCopy("anne"), seen)
}
