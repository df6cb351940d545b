package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
)

func fixed(n, size int) func(uint64) mailgen.Options {
	return func(seed uint64) mailgen.Options { return mailgen.FixedOptions(seed, n, size) }
}

func mustSite(t *testing.T, l load) *site {
	t.Helper()
	s, err := newSite(t.TempDir(), 1, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// messagesOf counts the From_ lines: those of bodies are quoted.
func messagesOf(text string) int { return strings.Count("\n"+text, "\nFrom ") }

func TestEveryUserOwnsMailboxesOfTheirOwnMail(t *testing.T) {
	s := mustSite(t, load{users: 3, folders: []string{"Sent"}, mailbox: fixed(100, 400)})
	seen := map[string]bool{}
	for i, name := range s.names {
		for _, path := range []string{filepath.Join(s.dir, "tree/spool", name), filepath.Join(s.home(name), "mail/Sent")} {
			text := read(t, path)
			if n := messagesOf(text); n != 100 || seen[text] {
				t.Errorf("%s: %d messages, another's mail: %t", path, n, seen[text])
			}
			seen[text] = true
			info, err := os.Stat(path)
			if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != firstUID+i || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", path, info, err)
			}
		}
	}
	if s.messages != 600 {
		t.Errorf("counted %d messages", s.messages)
	}
}

func TestDeliveryAppendsOnePercentOfNewMail(t *testing.T) {
	for _, tt := range []struct {
		name        string
		before, new int
	}{
		{"of 300 messages", 300, 3},
		{"of ten messages one", 10, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := mustSite(t, load{users: 1, mailbox: fixed(tt.before, 400)})
			path := s.mboxes[0].path
			before := read(t, path)
			if err := s.deliver(0); err != nil {
				t.Fatal(err)
			}
			once := read(t, path)
			if err := s.deliver(1); err != nil {
				t.Fatal(err)
			}
			twice := read(t, path)
			first, ok1 := strings.CutPrefix(once, before)
			second, ok2 := strings.CutPrefix(twice, once)
			if !ok1 || !ok2 || messagesOf(first) != tt.new || messagesOf(second) != tt.new || first == second {
				t.Errorf("appended (%t, %t) %d and %d messages, the same: %t", ok1, ok2, messagesOf(first), messagesOf(second), first == second)
			}
		})
	}
}

func TestBareCutoverFlipsAndParksEveryUser(t *testing.T) {
	s := mustSite(t, load{users: 5, mailbox: fixed(1, 400)})
	for _, name := range s.names { // as enrolled
		if err := os.WriteFile(filepath.Join(s.dir, "semaphores", name), []byte("mbox\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := bareCutoverMain("2", s.dir, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.names {
		for _, path := range []string{filepath.Join(s.dir, "semaphores", name), filepath.Join(s.home(name), ".mailstate")} {
			if got := read(t, path); got != "maildir\n" {
				t.Errorf("%s: %q", path, got)
			}
		}
		read(t, filepath.Join(s.dir, "tree/spool", name+".parked"))
		if info, err := os.Stat(filepath.Join(s.home(name), "Maildir")); err != nil || !info.IsDir() {
			t.Errorf("Maildir of %s: %v", name, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "semaphores/*.to-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if lines := strings.Count(read(t, filepath.Join(s.dir, "state/journal.jsonl")), "\n"); lines != 3*5 {
		t.Errorf("journal of %d lines", lines)
	}
}

func TestBareCutoverTellsWhatFailed(t *testing.T) {
	s := mustSite(t, load{users: 1, mailbox: fixed(1, 400)})
	if err := os.Remove(s.mboxes[0].path); err != nil {
		t.Fatal(err)
	}
	if err := bareCutoverMain("1", s.dir, new(bytes.Buffer)); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), s.names[0]) {
		t.Errorf("got %v", err)
	}
}

func TestCopiedIsTheSumOfTheUsers(t *testing.T) {
	out := `{"message_type":"user","user":"a","round":{"written":2,"written_bytes":300}}
{"message_type":"user","user":"b","round":{"written":1,"written_bytes":50}}
{"message_type":"user","user":"c"}
{"message_type":"summary","messages":{"in":9}}
`
	if got, err := readCopied([]byte(out)); err != nil || got != (copied{3, 350}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := readCopied([]byte("no JSON\n")); err == nil {
		t.Error("what is no JSON was read")
	}
}

func TestCutoverTimeIsThatFromHoldToFlipOfEveryChunk(t *testing.T) {
	state := t.TempDir()
	log, err := journal.Begin(state, "migrate")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for _, e := range []struct {
		phase string
		at    time.Duration
	}{
		{"hold", 0}, {"hold", 1}, {"flip", 2}, {"flip", 3}, {"chunk", 9},
		{"chunk", 12}, // of users who were all skipped
		{"hold", 20}, {"flip", 21}, {"chunk", 22},
	} {
		if err := log.Log(journal.Event{Phase: e.phase, Time: start.Add(e.at * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := cutoverTime(state); err != nil || got != 4*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := cutoverTime(t.TempDir()); err == nil {
		t.Error("a state without runs has a time")
	}
}
