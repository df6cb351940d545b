package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestASideCarGivesBackEachFromLine(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	lines := []FromLine{{1, "From a@b Sat Nov 21 01:30:00 2026"}, {3, "From \xff\\x41 \x01"}, {9, ""}, {1<<32 - 2, "From 日本"}}
	w, err := NewFromLines(state, "alice", "Lists/../go")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if err := w.Add(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(FromLine{UID: 9}); err == nil {
		t.Error("UIDs that do not rise were taken")
	}
	if _, err := OpenFromLines(state, "alice", "Lists/../go"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it is committed: %v", err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	r, err := OpenFromLines(state, "alice", "Lists/../go")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		for _, ask := range []struct {
			uid  uint32
			want string
		}{{1, lines[0].From}, {2, ""}, {3, lines[1].From}, {4, ""}, {9, ""}, {1<<32 - 2, lines[3].From}, {1<<32 - 1, ""}} {
			if got, err := r.Find(ask.uid); got != ask.want || err != nil {
				t.Errorf("UID %d: %q, %v; want %q", ask.uid, got, err, ask.want)
			}
		}
		if err := r.Rewind(); err != nil {
			t.Fatal(err)
		}
	}
}

// A side-car that was never finished does not take the place of one that was.
func TestADiscardedSideCarLeavesTheOldOne(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	for i, end := range []func(*FromLinesWriter) error{(*FromLinesWriter).Commit, (*FromLinesWriter).Discard} {
		w, err := NewFromLines(state, "alice", "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Add(FromLine{uint32(i + 1), "From x"}), end(w)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := OpenFromLines(state, "alice", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.Find(1); got != "From x" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	list, err := os.ReadDir(filepath.Join(state, "fromlines", "alice"))
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

func TestARollbackRecordIsReadAsItWasWritten(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	want := Rollback{
		User: "alice", Run: "r", BootID: "b", Time: time.Unix(1700000000, 0).UTC(),
		Maildir: Aside{Path: "/home/alice/Maildir\xff", Dev: 1, Ino: 2}, Aside: "/home/alice/Maildir.mailferry-1",
		Files: []RollbackFile{{"/var/mail/alice", ".alice.mailferry-0", 3, 4, 9, 5, false}, {"/home/alice/mail/.subscriptions\xfe", ".x", 6, 7, 0, 8, true}},
		Dirs:  []string{"/home/alice/mail/\xfd"},
		Seen:  time.Unix(1700000001, 5).UTC(),
	}
	if err := WriteRollback(state, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRollback(state, "alice")
	if err != nil || got.User != want.User || !got.Time.Equal(want.Time) || got.Maildir.Path != want.Maildir.Path || got.Aside != want.Aside ||
		len(got.Files) != 2 || got.Files[0] != want.Files[0] || got.Files[1] != want.Files[1] || len(got.Dirs) != 1 || got.Dirs[0] != want.Dirs[0] {
		t.Errorf("%+v, %v", got, err)
	}
	if list, err := ListRollback(state); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := RemoveRollback(state, "alice"); err != nil {
		t.Error(err)
	}
	if _, err := ReadRollback(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
