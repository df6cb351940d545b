package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailferry/maildir"
)

const hello = "Subject: hello\n\nbody\n"

// stored is hello as it lies in the mailbox.
const stored = "Return-Path: <bob@example.org>\n" + hello

func TestMailGoesWhereTheSemaphoreSays(t *testing.T) {
	s := newScene(t)
	s.wants(0, hello)
	s.same("mbox", s.inMbox(s.inbox()), stored)
	s.same("Maildir", s.inMaildir(s.home("Maildir")))
	s.say("hold")
	if log := s.wants(75, hello); !strings.Contains(log, "held") {
		t.Errorf("says %q", log)
	}
	s.say("maildir")
	s.wants(0, hello)
	s.same("mbox", s.inMbox(s.inbox()), stored)
	s.same("Maildir", s.inMaildir(s.home("Maildir")), stored)
	s.clean()
}

func TestAnMboxIsMadeForItsUserAlone(t *testing.T) {
	s := newScene(t)
	s.wants(0, hello)
	info, err := os.Stat(s.inbox())
	s.must(err)
	if info.Mode() != 0o600 || !strings.Contains(fmt.Sprintf("%+v", info.Sys()), fmt.Sprint("Uid:", uid)) {
		t.Errorf("%v, %+v", info.Mode(), info.Sys())
	}
	content, err := os.ReadFile(s.inbox())
	s.must(err)
	if !regexp.MustCompile(`^From bob@example\.org  \w{3} \w{3} \d\d \d\d:\d\d:\d\d 20\d\d\n` + regexp.QuoteMeta(stored) + "\n$").Match(content) {
		t.Errorf("the mbox is %q", content)
	}
}

func TestAFileNameTellsTheSizes(t *testing.T) {
	s := newScene(t)
	s.say("maildir")
	s.wants(0, hello)
	list, err := filepath.Glob(s.home("Maildir/new/*"))
	s.must(err)
	name, err := maildir.ParseName(filepath.Base(list[0]))
	s.must(err)
	if name.Size != int64(len(stored)) || name.VSize != int64(len(stored)+strings.Count(stored, "\n")) || time.Since(time.Unix(name.Sec, 0)) > time.Minute {
		t.Errorf("%q for a message of %d bytes", list[0], len(stored))
	}
}

func TestNotifiersSeeNewMail(t *testing.T) {
	s := newScene(t)
	for range 2 {
		s.wants(0, hello)
		if access, change := s.times(); !access.Before(change) {
			t.Errorf("read %v, written %v", access, change)
		}
		s.must(os.Chtimes(s.inbox(), time.Now().Add(-time.Hour), time.Now().Add(-2*time.Hour))) // read
	}
}

func TestAHoldIsWaitedFor(t *testing.T) {
	s := newScene(t)
	s.say("hold")
	time.AfterFunc(300*time.Millisecond, func() { s.say("maildir") })
	start := time.Now()
	s.wants(0, hello, "-d", "alice", "--wait", "30s")
	if waited := time.Since(start); waited < 250*time.Millisecond {
		t.Errorf("delivered after %v", waited)
	}
	s.same("Maildir", s.inMaildir(s.home("Maildir")), hello)
}

// Who moves the mail takes the gate after he has set hold, and needs it.
func TestAHoldIsNotWaitedForInTheGate(t *testing.T) {
	s := newScene(t)
	s.say("hold")
	cmd := s.command(hello, "-d", "alice", "--wait", "30s")
	s.must(cmd.Start())
	for range 20 {
		if _, err := os.Lstat(s.gate()); err == nil {
			t.Error("the gate is held")
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.say("mbox")
	s.must(cmd.Wait())
	s.same("mbox", s.inMbox(s.inbox()), hello)
}

func TestExtensionsLeadToFoldersOnlyIfAsked(t *testing.T) {
	s := newScene(t)
	const box = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none\n\n"
	s.own(s.home("mail/lists"), box)
	s.own(s.home("mail/notes"), "to do")
	for _, d := range []string{".lists", ".lists/cur", ".lists/new", ".lists/tmp", ".empty"} {
		s.must(os.Mkdir(s.home("Maildir/"+d), 0o700))
		s.must(os.Chown(s.home("Maildir/"+d), uid, uid))
	}
	for _, tt := range []struct {
		extension string
		asked     bool
		folder    string // "" is INBOX
	}{
		{"lists", false, ""},
		{"lists", true, "lists"},
		{"notes", true, ""}, // a file, and no mbox
		{"none", true, ""},
		{"empty", true, ""}, // a directory, and no folder
		{"../mail/lists", true, ""},
		{"a.b", true, ""},
		{".", true, ""},
		{"", true, ""},
		{"lists\n", true, ""},
		{strings.Repeat("x", 1000), true, ""},
	} {
		for _, state := range []string{"mbox", "maildir"} {
			s.say(state)
			args := []string{"-d", "alice", "-a", tt.extension}
			if tt.asked {
				args = append(args, "--extension-folders")
			}
			before := len(s.inMbox(s.home("mail/lists"))) + len(s.inMaildir(s.home("Maildir/.lists")))
			inbox := len(s.inMbox(s.inbox())) + len(s.inMaildir(s.home("Maildir")))
			s.wants(0, hello, args...)
			folders := len(s.inMbox(s.home("mail/lists"))) + len(s.inMaildir(s.home("Maildir/.lists"))) - before
			inboxes := len(s.inMbox(s.inbox())) + len(s.inMaildir(s.home("Maildir"))) - inbox
			if want := map[bool]int{true: 1}[tt.folder != ""]; folders != want || inboxes != 1-want {
				t.Errorf("%s, %q: %d to the folder, %d to INBOX", state, tt.extension, folders, inboxes)
			}
		}
	}
	if content, _ := os.ReadFile(s.home("mail/notes")); string(content) != "to do" {
		t.Errorf("the notes are %q", content)
	}
}
