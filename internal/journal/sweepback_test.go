package journal

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"
)

func TestARecordOfASweepBackIsReadAsItWasWritten(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	want := SweepBack{
		User: "alice", Run: "run", Time: time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC), Phase: BackAppending,
		Folder: "/home/a\xff/.A\x01", Sub: "cur", Name: "1.2.3:2,S\xfe", Ino: 2, Born: 7, Size: 3, Date: 4,
		Mailbox: "A\xfd", Live: "/m/A\xfc", BoxIno: 5, BoxBorn: 6, Written: 8, From: 9, Bytes: 10, Digest: "ab", LFs: 1,
	}
	if _, err := ReadSweepBack(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v", err)
	}
	if err := WriteSweepBack(state, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSweepBack(state, "alice"); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if list, err := ListSweepBack(state); err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("got %+v, %v", list, err)
	}
	if err := RemoveSweepBack(state, "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSweepBack(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after: %v", err)
	}
}
