package semaphore

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyTheExactLineIsAState(t *testing.T) {
	for _, tt := range []struct {
		name, content string
		want          State
		ok            bool
	}{
		{"mbox", "MAILSTATE=mbox\n", Mbox, true},
		{"hold", "MAILSTATE=hold\n", Hold, true},
		{"maildir", "MAILSTATE=maildir\n", Maildir, true},
		{"empty, as after a crash without fsync", "", Hold, false},
		{"no newline", "MAILSTATE=maildir", Hold, false},
		{"a second line", "MAILSTATE=maildir\nX=y\n", Hold, false},
		{"another word", "MAILSTATE=dbox\n", Hold, false},
		{"blanks", "MAILSTATE = mbox\n", Hold, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.content))
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("Parse(%q) = %v, %v; want %v", tt.content, got, err, tt.want)
			}
		})
	}
}

func TestGetHoldsForWhateverIsNoSemaphore(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "alice"), []byte(Maildir.Line()), 0o644),
		os.WriteFile(filepath.Join(dir, "huge"), make([]byte, 1<<20), 0o644),
		os.Symlink("alice", filepath.Join(dir, "link")),
		unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644),
		os.Mkdir(filepath.Join(dir, "dir"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Get(dir, "alice"); s != Maildir || err != nil {
		t.Errorf("alice: %v, %v; want maildir", s, err)
	}
	for _, user := range []string{"nobody", "huge", "link", "fifo", "dir", "", ".", "..", "../alice", "a\x00b"} {
		if s, err := Get(dir, user); s != Hold || err == nil {
			t.Errorf("%q: %v, %v; want hold and an error", user, s, err)
		}
	}
}
