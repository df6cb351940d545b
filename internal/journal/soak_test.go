package journal

import (
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// Paths may hold any bytes.
func TestASoakRecordIsReadAsItWasWritten(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	at := time.Unix(1700000000, 0).UTC()
	want := Soak{
		User: "alice", Flipped: at, Run: "r", BootID: "b", Maildir: "/home/alice/Maildir\xff", Back: at,
		Parked: []Parked{{Mailbox: "\xfe", Live: "/var/mail/alice\xfd", Path: "/var/mail/alice.mailferry-1\xfc", From: "\xfb", Dev: 1, Ino: 2, Born: 7, Mode: 0o600, Size: 3, Taken: 4}},
		Aside:  []Aside{{Path: "\xfa", From: "\xf9", Dev: 5, Ino: 6, Back: at}},
	}
	if err := WriteSoak(state, want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSoak(state, "alice"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}
