package journal

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"
)

func TestARecordOfASweepIsReadAsItWasWritten(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	want := Sweep{
		User: "alice", Run: "run", Time: time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC), Parent: "/home/a\xff", Name: ".Maildir.mailferry-0123456789abcdef",
		Folder: ".A\x01", Mailbox: "A", Live: "/m/A\xfe", Path: "/m/A\xfd", Park: "/m/A\xfc", BootID: "boot", Dev: 1, Ino: 2, Born: 7, Mode: 0o600, From: 3, To: 4, Ready: true, Messages: 5,
	}
	if _, err := ReadSweep(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := WriteSweep(state, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSweep(state, "alice"); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if list, err := ListSweep(state); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("got %+v, %v", list, err)
	}
	if err := RemoveSweep(state, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSweep(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after: %v", err)
	}
}
