package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSyncsAreThoseOfTheMailbox(t *testing.T) {
	const other = `12 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>
12 fsync(4</queue/active/ABC>) = 0
12 fsync(4</mail/alice.lock>) = 0
`
	for _, tt := range []struct {
		name, trace   string
		want          syncs
		mbox, maildir bool // durable
	}{
		{"nothing of it", other, syncs{}, false, false},
		{"an mbox", other + "12 fsync(5</mail/alice>) = 0\n", syncs{file: true}, true, false},
		{"a message in tmp", other + "7  fdatasync(5</home/alice/Maildir/tmp/1.2.3> <unfinished ...>\n", syncs{file: true}, true, false},
		{"a message and its directory", "7 fsync(5</home/alice/Maildir/tmp/1.2.3>) = 0\n7 fsync(6</home/alice/Maildir/new>) = 0\n", syncs{true, true}, true, true},
		{"the directory alone", "7 fsync(6</home/alice/Maildir/new>) = 0\n", syncs{name: true}, false, false},
		{"everything", "7 sync() = 0\n", syncs{true, true}, true, true},
	} {
		log := filepath.Join(t.TempDir(), "trace")
		if err := os.WriteFile(log, []byte(tt.trace), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readSyncs(log, []string{"/mail", "/home"})
		if err != nil || got != tt.want || got.durable(false) != tt.mbox || got.durable(true) != tt.maildir {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

func TestTheLetterIsAMessageOf10KiB(t *testing.T) {
	text := string(letter())
	if len(text) < 10<<10-100 || len(text) > 10<<10 || !strings.HasPrefix(text, "From bob@example.org  ") || messagesOf(text) != 1 {
		t.Errorf("%d bytes, %.100q", len(text), text)
	}
}

func TestBareDeliveriesDeliver(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := bareMbox(dir, []byte("a\n")); err != nil {
			t.Fatal(err)
		}
		if err := bareMaildir(dir, []byte("a\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, filepath.Join(dir, "mbox")); got != "a\na\n" {
		t.Errorf("mbox: %q", got)
	}
	files, err := filepath.Glob(filepath.Join(dir, "Maildir/new/*"))
	if err != nil || len(files) != 2 || read(t, files[0]) != "a\n" || read(t, files[1]) != "a\n" {
		t.Errorf("new: %q, %v", files, err)
	}
}

func TestHoldsAreThoseOfTheUsers(t *testing.T) {
	out := `{"message_type":"user","user":"a","hold_seconds":0.025}
{"message_type":"user","user":"b"}
{"message_type":"user","user":"c","hold_seconds":0.5}
{"message_type":"summary","hold_p50_seconds":0.025}
`
	if got, err := readHolds([]byte(out)); err != nil || !slices.Equal(got, []float64{25, 500}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := readHolds([]byte("no JSON\n")); err == nil {
		t.Error("what is no JSON was read")
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	var all []float64
	for i := range 500 {
		all = append(all, float64(i+1))
	}
	for _, tt := range []struct {
		n, of int
		want  float64
	}{{500, 99, 495}, {500, 50, 250}, {100, 99, 99}, {10, 99, 10}, {1, 99, 1}, {1, 0, 1}} {
		if got := percentile(all[:tt.n], tt.of); got != tt.want {
			t.Errorf("p%d of %d: %v, want %v", tt.of, tt.n, got, tt.want)
		}
	}
}

func TestUsersOfAMailHostAreFoundByTheirRecipes(t *testing.T) {
	for _, of := range [][2]string{{"procmail.md", "/etc/procmailrc"}, {"maildrop.md", "/etc/maildroprc"}} {
		text, err := recipe(of[0], of[1])
		if err != nil || !strings.Contains(text, "/var/lib/mailferry/semaphores/$LOGNAME") {
			t.Errorf("%s: %q, %v", of[0], text, err)
		}
	}
	if _, err := recipe("procmail.md", "/etc/nothing"); err == nil {
		t.Error("a file that no recipe has")
	}
}
