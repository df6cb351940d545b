package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if state := os.Getenv("JOURNAL_TEST_CHILD"); state != "" {
		child(state)
	}
	syscall.Umask(0o077) // as mailferry does
	os.Exit(m.Run())
}

func newState(t testing.TB) string { return filepath.Join(t.TempDir(), "state") }

func begin(t testing.TB, state, verb string) *Run {
	t.Helper()
	r, err := Begin(state, verb)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// events reads a run that must be whole.
func events(t testing.TB, state, run string) (list []Event) {
	t.Helper()
	must(t, Events(state, run, func(e Event) error { list = append(list, e); return nil }))
	return list
}

func TestEventsComeBackAsTheyWereLogged(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "migrate")
	before := time.Now().Truncate(time.Microsecond)
	want := []Event{
		{User: "alice", Phase: "precopy", Outcome: Done, Messages: 12, Bytes: 3456, Written: 7, Removed: 2, Reflagged: 1, Quarantined: 1, Seconds: 1.25},
		{User: "bob", Phase: "inspect", Outcome: Skipped, Reason: "mbox-symlink", Findings: json.RawMessage(`[{"code":"mbox-symlink","text":"a <link>"}]`)},
		{Phase: "chunk", Outcome: Done, Users: 2, Time: time.Date(2026, 11, 21, 1, 30, 0, 123456000, time.UTC)},
	}
	must(t, r.Log(want[0]))
	must(t, r.LogAll(want[1:]))
	got := events(t, state, r.ID())
	for i := range got {
		if want[i].Time.IsZero() {
			if got[i].Time.Before(before) || got[i].Time.After(time.Now()) {
				t.Errorf("time %v", got[i].Time)
			}
			want[i].Time = got[i].Time
		}
		want[i].Run = r.ID()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTheFolderIsRootsAlone(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "migrate")
	_, err := r.Quarantine("alice").Put(Quarantined{}, strings.NewReader("x"))
	must(t, err)
	must(t, WriteStaging(state, Staging{User: "alice"}))
	must(t, r.Finish(Summary{}))
	want := map[string]fs.FileMode{
		".": fs.ModeDir | 0o711, "lock": 0o600, "runs": fs.ModeDir | 0o700, "staging": fs.ModeDir | 0o700, "staging/alice.json": 0o600,
		"runs/" + r.ID(): fs.ModeDir | 0o700, "runs/" + r.ID() + "/journal.jsonl": 0o600, "runs/" + r.ID() + "/summary.json": 0o600,
		"runs/" + r.ID() + "/quarantine": fs.ModeDir | 0o700, "runs/" + r.ID() + "/quarantine/alice": fs.ModeDir | 0o700,
		"runs/" + r.ID() + "/quarantine/alice/000001.raw": 0o600, "runs/" + r.ID() + "/quarantine/alice/000001.json": 0o600,
	}
	got := map[string]fs.FileMode{}
	must(t, fs.WalkDir(os.DirFS(state), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		got[path] = info.Mode()
		return err
	}))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestAStateThatOthersCouldWriteIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(state string) error
	}{
		{"writable by all", "writable by others (mode 0777)", func(s string) error { return os.Chmod(s, 0o777) }},
		{"writable by the group", "writable by others (mode 0770)", func(s string) error { return os.Chmod(s, 0o770) }},
		{"runs writable by all", "runs\" is writable by others", func(s string) error {
			return errors.Join(os.Mkdir(filepath.Join(s, "runs"), 0o700), os.Chmod(filepath.Join(s, "runs"), 0o707))
		}},
		{"runs is a symlink", "runs", func(s string) error { return os.Symlink(s, filepath.Join(s, "runs")) }},
		{"lock is a symlink", "lock: too many levels of symbolic links", func(s string) error { return os.Symlink("/etc/passwd", filepath.Join(s, "lock")) }},
		{"another's", "belongs to uid 12345", func(s string) error { return os.Chown(s, 12345, -1) }},
		{"a file", "not a directory", func(s string) error { return errors.Join(os.Remove(s), os.WriteFile(s, nil, 0o600)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state := newState(t)
			must(t, os.Mkdir(state, 0o711))
			if err := tt.spoil(state); errors.Is(err, syscall.EPERM) {
				return // only root can give files away
			} else if err != nil {
				t.Fatal(err)
			}
			if r, err := Begin(state, "plan"); err == nil {
				r.Close()
				t.Error("begun")
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestARunNeedsAVerbThatIsAWord(t *testing.T) {
	for _, verb := range []string{"", "a-b", "a/b", "..", "Plan"} {
		if r, err := Begin(newState(t), verb); err == nil {
			r.Close()
			t.Errorf("%q: begun", verb)
		}
	}
}

// Each goroutine's events keep their order, and none is torn or lost.
func TestManyMayLogAtOnce(t *testing.T) {
	const loggers, each = 64, 40
	state := newState(t)
	r := begin(t, state, "migrate")
	var wg sync.WaitGroup
	for i := range loggers {
		wg.Go(func() {
			for n := range each {
				if err := r.Log(Event{User: fmt.Sprintf("user%d", i), Phase: "precopy", Messages: n + 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string][]int{}
	for _, e := range events(t, state, r.ID()) {
		seen[e.User] = append(seen[e.User], e.Messages)
	}
	var want []int
	for n := range each {
		want = append(want, n+1)
	}
	for i := range loggers {
		if got := seen[fmt.Sprintf("user%d", i)]; !slices.Equal(got, want) {
			t.Errorf("user%d: %v", i, got)
		}
	}
	if len(seen) != loggers {
		t.Errorf("%d users", len(seen))
	}
}

func TestRunsAreInTheOrderInWhichTheyBegan(t *testing.T) {
	state := newState(t)
	var want []string
	for _, verb := range []string{"zeta", "alpha", "mid", "alpha", "zeta"} { // within a second
		r := begin(t, state, verb)
		want = append(want, r.ID())
		must(t, r.Finish(Summary{}))
	}
	must(t, os.Mkdir(filepath.Join(state, "runs", "notes"), 0o700))
	got, err := Runs(state)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

func TestARunIsNamedAfterItsBeginning(t *testing.T) {
	at := time.Date(2026, 11, 21, 1, 30, 0, 500_000_000, time.UTC)
	for _, tt := range []struct {
		name string
		list []string
		want string
	}{
		{"the first", nil, "20261121T013000Z-plan-8000"},
		{"later", []string{"20261121T012959Z-enroll-ffff"}, "20261121T013000Z-plan-8000"},
		{"in the same instant", []string{"20261121T013000Z-enroll-8000"}, "20261121T013000Z-plan-8001"},
		{"after the clock was set back", []string{"20261121T033000Z-enroll-ffff"}, "20261121T033001Z-plan-0000"},
	} {
		if got := nextID(tt.list, "plan", at); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAStateWithoutRunsHasNone(t *testing.T) {
	state := t.TempDir()
	if runs, err := Runs(state); err != nil || len(runs) > 0 {
		t.Errorf("%v, %v", runs, err)
	}
	if latest, err := Latest(state); err != nil || len(latest) > 0 {
		t.Errorf("%v, %v", latest, err)
	}
	if _, err := Runs(filepath.Join(state, "mistyped")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := Events(state, "20261121T013000Z-plan-8000", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestCountsMustAddUp(t *testing.T) {
	good := Summary{Users: Users{Total: 10, Done: 4, Skipped: 3, Failed: 2, Untouched: 1}, Messages: Messages{In: 7, Converted: 5, Quarantined: 2}, Bytes: 1, Chunks: 1}
	for _, tt := range []struct {
		name  string
		spoil func(*Summary)
		want  string
	}{
		{"nothing done", func(s *Summary) { *s = Summary{} }, ""},
		{"all accounted for", func(*Summary) {}, ""},
		{"a user too many", func(s *Summary) { s.Users.Total++ }, "11 users, but 4 done + 3 skipped + 2 failed + 1 untouched = 10"},
		{"a user twice", func(s *Summary) { s.Users.Done++ }, "10 users, but 5 done + 3 skipped + 2 failed + 1 untouched = 11"},
		{"a message lost", func(s *Summary) { s.Messages.Converted-- }, "7 messages in, but 4 converted + 2 quarantined = 6"},
		{"a message doubled", func(s *Summary) { s.Messages.Quarantined++ }, "7 messages in, but 5 converted + 3 quarantined = 8"},
		{"a count below 0 that makes up", func(s *Summary) { s.Users.Failed, s.Users.Done = -1, 7 }, "users failed: -1 is below 0"},
		{"both", func(s *Summary) { s.Users.Total, s.Messages.In = 0, 0 },
			"0 users, but 4 done + 3 skipped + 2 failed + 1 untouched = 10\n0 messages in, but 5 converted + 2 quarantined = 7"},
	} {
		s := good
		tt.spoil(&s)
		got := ""
		if err := s.Check(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestFinishWritesTheSummary(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "migrate")
	if _, err := ReadSummary(state, r.ID()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("at work: %v", err)
	}
	want := Summary{End: "all done", ExitCode: 3, Chunks: 2, Bytes: 99,
		Users: Users{Total: 3, Done: 2, Skipped: 1}, Messages: Messages{In: 5, Converted: 4, Quarantined: 1}}
	must(t, r.Finish(want))
	got, err := ReadSummary(state, r.ID())
	must(t, err)
	if got.Started.IsZero() || got.Ended.Before(got.Started) {
		t.Errorf("from %v to %v", got.Started, got.Ended)
	}
	want.Run, want.Verb, want.Started, want.Ended = r.ID(), "migrate", got.Started, got.Ended
	if *got != want {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
	if err := r.Log(Event{Phase: "late"}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("logged after the end: %v", err)
	}
	if _, err := r.Quarantine("alice").Put(Quarantined{}, strings.NewReader("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("quarantined after the end: %v", err)
	}
}

func TestASummaryThatDoesNotAddUpSaysSo(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "migrate")
	err := r.Finish(Summary{Messages: Messages{In: 1}})
	const want = "1 messages in, but 0 converted + 0 quarantined = 0"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	got, err := ReadSummary(state, r.ID())
	if err != nil || got.Discrepancy != want {
		t.Errorf("%+v, %v", got, err)
	}
	begin(t, state, "plan") // the lock is released all the same
}
