package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestARehearsalIsRecordedUnderAnyName(t *testing.T) {
	state := t.TempDir()
	for _, user := range []string{"alice", "scratch-0123456789abcdef", "a\xff/b"} {
		want := Rehearsal{User: user, Time: time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC), Messages: 7, Forth: 0.5, Exact: true, Alone: Alone{Altered: 2}}
		if err := WriteRehearsal(state, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadRehearsal(state, user); err != nil || got != want {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
	if err := ClearScratch(state); err != nil {
		t.Fatal(err)
	}
	list, err := ListRehearsal(state)
	var users []string
	for _, r := range list {
		users = append(users, r.User)
	}
	if err != nil || !slices.Equal(users, []string{"alice", "a\xff/b", "scratch-0123456789abcdef"}) {
		t.Errorf("%q, %v", users, err)
	}
}

func TestAScratchDirectoryIsTheUsersAndGoesAway(t *testing.T) {
	state := t.TempDir()
	if err := ClearScratch(state); err != nil {
		t.Errorf("where no rehearsal ever was: %v", err)
	}
	user := os.Geteuid()
	if user == 0 {
		user = 61001
	}
	s, err := MakeScratch(state, user, user)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Work.Stat()
	if err != nil || owner(t, s.Work.Path()) != user || info.Mode().Perm() != 0o700 || owner(t, s.State) != os.Geteuid() {
		t.Errorf("%v, %v", info, err)
	}
	lines, err := NewFromLines(s.State, "alice", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := lines.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(s.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	for range 2 {
		left, err := MakeScratch(state, user, user)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(left.Work.Path(), "mbox"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := ClearScratch(state); err != nil {
		t.Fatal(err)
	}
	if rest, err := os.ReadDir(filepath.Join(state, rehearsalDir)); err != nil || len(rest) > 0 {
		t.Errorf("left: %v, %v", rest, err)
	}
}

func owner(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
