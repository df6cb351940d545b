package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

func TestStagingRecordsComeBack(t *testing.T) {
	state := newState(t)
	boot, err := BootID()
	if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(boot) || err != nil {
		t.Errorf("boot id %q, %v", boot, err)
	}
	var want []Staging
	for i, name := range append(nasty[1:], strings.Repeat("long", 63), strings.Repeat("long", 63)+"er", ".dot", "..", "a.b") {
		want = append(want, Staging{User: name, Parent: "/home/" + name, Name: ".Maildir.mailferry-" + name, Final: name, Dev: 1<<63 + uint64(i), Ino: 1<<64 - 1,
			BootID: boot, Synced: i%2 == 0, Run: someRun, Time: time.Unix(int64(i), 0).UTC()})
	}
	must(t, WriteStaging(state, want...))
	for _, s := range want {
		if got, err := ReadStaging(state, s.User); err != nil || got != s {
			t.Errorf("%q: %+v, %v", s.User, got, err)
		}
	}
	slices.SortFunc(want, func(a, b Staging) int { return strings.Compare(a.User, b.User) })
	list, err := ListStaging(state)
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("got  %+v, %v\nwant %+v", list, err, want)
	}
	next := want[3]
	next.Synced, next.Name = !next.Synced, "another"
	must(t, WriteStaging(state, next))
	must(t, RemoveStaging(state, want[0].User, want[1].User, "nobody"))
	want[3] = next
	if list, err := ListStaging(state); err != nil || !slices.Equal(list, want[2:]) {
		t.Errorf("got  %+v, %v\nwant %+v", list, err, want[2:])
	}
	if _, err := ReadStaging(state, want[0].User); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestWithoutStagingRecordsThereAreNone(t *testing.T) {
	state := newState(t)
	if list, err := ListStaging(state); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	if err := RemoveStaging(state, "alice"); err != nil {
		t.Error(err)
	}
	if _, err := ReadStaging(state, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A chunk may be larger than what is open at once.
func TestManyStagingRecordsAreWrittenTogether(t *testing.T) {
	state := newState(t)
	var want []Staging
	for i := range 3*atOnce + 1 {
		want = append(want, Staging{User: fmt.Sprintf("user%03d", i), Ino: uint64(i)})
	}
	must(t, WriteStaging(state, want...))
	if list, err := ListStaging(state); err != nil || !slices.Equal(list, want) {
		t.Errorf("%v, %v", list, err)
	}
}

func TestADamagedStagingRecordIsNamed(t *testing.T) {
	state := newState(t)
	must(t, WriteStaging(state, Staging{User: "alice"}, Staging{User: "bob"}, Staging{User: "carol"}))
	dir := filepath.Join(state, "staging")
	must(t, os.WriteFile(filepath.Join(dir, "alice.json"), []byte(`{"user":`), 0o600))
	must(t, os.Rename(filepath.Join(dir, "carol.json"), filepath.Join(dir, "dave.json")))
	must(t, os.Symlink("bob.json", filepath.Join(dir, "eve.json")))
	must(t, os.WriteFile(filepath.Join(dir, ".frank.json.new"), []byte(`{"user":`), 0o600))
	list, err := ListStaging(state)
	if len(list) != 1 || list[0].User != "bob" {
		t.Errorf("%+v", list)
	}
	for _, want := range []string{"alice.json: unexpected end of JSON input", `dave.json: it is of user "carol"`, `eve.json" is a symlink`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := ReadStaging(state, "dave"); err == nil {
		t.Error("another's record was read")
	}
}

// What a crash left half written is in nobody's way.
func TestAHalfWrittenStagingRecordIsWrittenAnew(t *testing.T) {
	state := newState(t)
	must(t, WriteStaging(state, Staging{User: "bob"}))
	must(t, os.WriteFile(filepath.Join(state, "staging", ".alice.json.new"), []byte("{"), 0o600))
	want := Staging{User: "alice", Ino: 7}
	must(t, WriteStaging(state, want))
	if got, err := ReadStaging(state, "alice"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(state, "staging", ".*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// someone is a user to work as: as root another, else oneself.
func someone() safefs.Identity {
	if unix.Geteuid() == 0 {
		return safefs.Identity{UID: 54321, GID: 54321}
	}
	return safefs.Identity{UID: unix.Geteuid(), GID: unix.Getegid()}
}

// While working as a user, messages go into the quarantine, and lines into the
// journal, which are not his.
func TestAUsersMessagesAreQuarantinedAsRoot(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "migrate")
	const user = "al/ice"
	q := r.Quarantine(user)
	bodies := []string{"From a\n\n\x00\xff\n", strings.Repeat("big", 1<<20)}
	var paths []string
	must(t, safefs.AsUser(someone(), func() error {
		for i, body := range bodies {
			path, err := q.Put(Quarantined{Mailbox: "/home/\xff/mail", Offset: int64(i) * 100, Reason: "no header\x1b"}, strings.NewReader(body))
			if err != nil {
				return err
			}
			paths = append(paths, path)
		}
		return r.Log(Event{User: user, Phase: "precopy", Quarantined: q.Count()})
	}))
	dir := filepath.Join(r.Dir(), "quarantine", "al%2Fice")
	if want := []string{filepath.Join(dir, "000001.raw"), filepath.Join(dir, "000002.raw")}; !slices.Equal(paths, want) {
		t.Errorf("%q, want %q", paths, want)
	}
	for i, path := range paths {
		body, err := os.ReadFile(path)
		if err != nil || string(body) != bodies[i] {
			t.Errorf("%s: %.40q, %v", path, body, err)
		}
		info, err := os.Stat(path)
		must(t, err)
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
			t.Errorf("%s belongs to uid %d", path, owner)
		}
		line, err := os.ReadFile(strings.TrimSuffix(path, "raw") + "json")
		must(t, err)
		checkVisible(t, line)
		var got Quarantined
		must(t, json.Unmarshal(line, &got))
		want := Quarantined{User: user, Mailbox: `/home/\xff/mail`, Offset: int64(i) * 100, Length: int64(len(bodies[i])), Reason: "no header\x1b", File: filepath.Base(path), Time: got.Time}
		if !reflect.DeepEqual(got, want) || got.Time.IsZero() {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if got := events(t, state, r.ID()); len(got) != 1 || got[0].Quarantined != 2 {
		t.Errorf("%+v", got)
	}
}

// A message that could not be read to its end leaves nothing, and its number
// to the next.
func TestAHalfQuarantinedMessageIsNone(t *testing.T) {
	r := begin(t, newState(t), "migrate")
	q := r.Quarantine("alice")
	broken := errors.New("broken")
	_, err := q.Put(Quarantined{}, io.MultiReader(bytes.NewReader(make([]byte, 100)), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || q.Count() != 0 {
		t.Errorf("%v, %d", err, q.Count())
	}
	if left, err := filepath.Glob(filepath.Join(r.Dir(), "quarantine", "alice", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	path, err := q.Put(Quarantined{}, strings.NewReader("x"))
	if err != nil || filepath.Base(path) != "000001.raw" || q.Count() != 1 {
		t.Errorf("%s, %v, %d", path, err, q.Count())
	}
}
