package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// writeJournal makes a run whose journal is given.
func writeJournal(t testing.TB, state, run, lines string) {
	t.Helper()
	dir := filepath.Join(state, "runs", run)
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "journal.jsonl"), []byte(lines), 0o600))
}

const someRun = "20261121T013000Z-plan-8000"

func TestTheReaderNamesWhatItCannotRead(t *testing.T) {
	const alice, bob = `{"user":"alice","phase":"flip"}` + "\n", `{"user":"bob","phase":"flip"}` + "\n"
	for _, tt := range []struct {
		name, lines string
		want        string // users
		err         string // without the run
	}{
		{"an empty journal", "", "", ""},
		{"whole lines", alice + bob, "alice bob", ""},
		{"a torn last line", alice + bob[:12], "alice", ""},
		{"a last line without its end", alice + bob[:len(bob)-1], "alice", ""},
		{"a last line of zeros, as a power cut leaves it", alice + strings.Repeat("\x00", 3000), "alice", ""},
		{"only a torn line", `{"us`, "", ""},
		{"unknown fields", `{"user":"alice","phase":"flip","colour":{"user":"eve"},"n":[1]}` + "\n", "alice", ""},
		{"a damaged line between", alice + "{\"user\":\n" + bob, "alice bob", "line 2: unexpected end of JSON input"},
		{"a damaged last line with its end", alice + "}\n", "alice", "line 2: invalid character '}' looking for beginning of value"},
		{"an empty line", alice + "\n" + bob, "alice bob", "line 2: unexpected end of JSON input"},
		{"a field of another type", `{"user":17}` + "\n" + bob, "bob", "line 1: json: cannot unmarshal number into Go struct field Event.user of type string"},
		{"zeros between", alice + "\x00\x00\n" + bob, "alice bob", "line 2: invalid character '\\x00' looking for beginning of value"},
		{"a line that is too long", alice + strings.Repeat("x", maxLine+1) + "\n" + bob, "alice bob", "line 2: longer than 16 MiB"},
		{"a torn line that is too long", alice + strings.Repeat("x", maxLine+1), "alice", ""},
		{"much damage", strings.Repeat("?\n", 12) + alice, "alice", "and 2 damaged lines more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state := t.TempDir()
			must(t, os.Mkdir(filepath.Join(state, "runs"), 0o700))
			writeJournal(t, state, someRun, tt.lines)
			var users []string
			err := Events(state, someRun, func(e Event) error { users = append(users, e.User); return nil })
			if got := strings.Join(users, " "); got != tt.want {
				t.Errorf("users %q, want %q", got, tt.want)
			}
			checkDamage(t, err, tt.err)
			latest, err := Latest(state)
			var names []string
			for user := range latest {
				names = append(names, user)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("latest of %q, want %q", got, tt.want)
			}
			checkDamage(t, err, tt.err)
		})
	}
}

func checkDamage(t *testing.T, err error, want string) {
	t.Helper()
	var damaged *Damaged
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (!errors.As(err, &damaged) || damaged.Run != someRun || !strings.HasPrefix(err.Error(), "journal of run "+someRun+", line ")):
		t.Errorf("%v", err)
	case want != "" && !strings.HasSuffix(err.Error(), want):
		t.Errorf("%v, want %s", err, want)
	}
}

func TestYieldEndsTheReading(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "plan")
	must(t, r.LogAll([]Event{{Phase: "a"}, {Phase: "b"}}))
	enough, n := errors.New("enough"), 0
	err := Events(state, r.ID(), func(Event) error { n++; return enough })
	if !errors.Is(err, enough) || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestLatestIsOfTheNewestRun(t *testing.T) {
	state := newState(t)
	log := func(verb string, list ...Event) {
		r := begin(t, state, verb)
		must(t, r.LogAll(list))
		must(t, r.Close())
	}
	log("zeta", Event{User: "alice", Phase: "precopy"}, Event{User: "bob", Phase: "precopy"}, Event{User: `back\slash`, Phase: "precopy"})
	log("migrate", Event{User: "alice", Phase: "hold"}, Event{User: "bob", Phase: "hold"}, Event{User: "alice", Phase: "flip"}, Event{Phase: "chunk"})
	log("audit", Event{User: "carol", Phase: "verify"}, Event{Phase: "end"})
	for _, tt := range []struct {
		name  string
		users []string
		want  map[string]string
	}{
		{"of all", nil, map[string]string{"alice": "flip", "bob": "hold", "carol": "verify", `back\slash`: "precopy"}},
		{"of some", []string{"bob", "carol"}, map[string]string{"bob": "hold", "carol": "verify"}},
		{"of one in the oldest run", []string{`back\slash`}, map[string]string{`back\slash`: "precopy"}},
		{"of one who is in none", []string{"eve"}, map[string]string{}},
	} {
		latest, err := Latest(state, tt.users...)
		must(t, err)
		got := map[string]string{}
		for user, e := range latest {
			if got[user] = e.Phase; e.User != user {
				t.Errorf("%s: %q is of %q", tt.name, user, e.User)
			}
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// nasty is what may be in a name, a path or a header.
var nasty = []string{"", "alice", "new\nline", "\x1b[2Jclear", "del\x7f", "c1\u009b31m", "\u202eevil", "zero\x00", "tab\t", "\xff\xfe", "half\xc3",
	"\ufffd", `back\slash`, `\xff`, `\\`, `\`, `\x`, `\x4`, `quote"`, "<&>", "ünïcode", "\U000e0041tag", "\U0001f600", " "}

// A line shows what it is wherever it is printed, is one line of JSON, and
// gives back any bytes.
func TestAnyBytesComeBackFromALine(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "plan")
	for _, s := range nasty {
		must(t, r.Log(Event{User: "u" + s, Phase: "inspect", Reason: s, Findings: json.RawMessage("[\n" + strings.ToValidUTF8(strconv.QuoteToASCII("a"), "") + "]")}))
	}
	must(t, r.Log(Event{User: "raw", Phase: "inspect", Findings: json.RawMessage("[\"\xff\u202e\x7f\"]")}))
	raw, err := os.ReadFile(filepath.Join(r.Dir(), "journal.jsonl"))
	must(t, err)
	lines := bytes.SplitAfter(raw, []byte("\n"))
	for _, line := range lines[:len(lines)-1] {
		checkVisible(t, line)
	}
	got := events(t, state, r.ID())
	for i, s := range nasty {
		if got[i].User != "u"+s || got[i].Reason != s || string(got[i].Findings) != `["a"]` {
			t.Errorf("%q: %+v", s, got[i])
		}
	}
	if last := got[len(nasty)].Findings; string(last) != `["\ufffd\u202e\u007f"]` {
		t.Errorf("findings %s", last)
	}
	latest, err := Latest(state)
	must(t, err)
	for _, s := range nasty {
		if latest["u"+s].Reason != s {
			t.Errorf("latest of %q: %+v", "u"+s, latest["u"+s])
		}
	}
}

func checkVisible(t *testing.T, line []byte) {
	t.Helper()
	body, ended := bytes.CutSuffix(line, []byte("\n"))
	if !ended || !json.Valid(body) || !utf8.Valid(body) || bytes.ContainsFunc(body, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("line %q", line)
	}
}

func TestFindingsThatAreNoJSONAreRefused(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "plan")
	if err := r.Log(Event{User: "alice", Phase: "inspect", Findings: json.RawMessage("[")}); err == nil || !strings.Contains(err.Error(), `user "alice", phase "inspect"`) {
		t.Errorf("%v", err)
	}
	if err := r.Log(Event{Phase: "inspect", Reason: strings.Repeat("x", maxLine)}); err == nil || !strings.Contains(err.Error(), "too long for a line") {
		t.Errorf("%v", err)
	}
	must(t, r.Log(Event{Phase: "next"}))
	if got := events(t, state, r.ID()); len(got) != 1 || got[0].Phase != "next" {
		t.Errorf("%+v", got)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"user":"alice","phase":"flip"}`+"\n"), 16)
	f.Add([]byte("{}\n\n\x00\n{\"user\":\"\\ud800\"}\n{\"time\":\"x\"}\ntorn"), 17)
	f.Add([]byte(`{"time":"2026-11-21T01:30:00Z","run":"r","user":"bob","phase":"hold"}`+"\n"), 20)
	f.Add([]byte(strings.Repeat("long", 50)+"\n\n"+strings.Repeat("x", 15)+"\n"+strings.Repeat("x", 16)+"\n"), 16)
	f.Fuzz(func(t *testing.T, data []byte, buffer int) {
		var lines [][]byte
		err := splitLines(bufio.NewReaderSize(bytes.NewReader(data), buffer%4096), func(n int, line []byte, err error) error {
			if lines = append(lines, bytes.Clone(line)); n != len(lines) || err != nil {
				t.Errorf("line %d of %d: %v", n, len(lines), err)
			}
			e, err := decode(line)
			if user, ok := userOf(line); ok && err == nil && bytes.Count(bytes.ToLower(line), []byte("user")) == 1 && utf8.Valid(line) && string(user) != e.User {
				t.Errorf("%q: user %q, %q", line, user, e.User)
			}
			return nil
		})
		whole := bytes.Split(data, []byte("\n"))
		whole = whole[:len(whole)-1]
		if err != nil || !slices.EqualFunc(lines, whole, bytes.Equal) {
			t.Errorf("%q: %v", lines, err)
		}
	})
}

func FuzzLine(f *testing.F) {
	for _, s := range nasty {
		f.Add(s, s, s, 3, 1.5)
	}
	f.Fuzz(func(t *testing.T, user, phase, reason string, n int, seconds float64) {
		e := Event{Time: time.Unix(1e9, 0).UTC(), Run: someRun, User: user, Phase: strings.ToValidUTF8(phase, ""), Reason: reason, Messages: n}
		line, err := e.encode()
		must(t, err)
		checkVisible(t, line)
		got, err := decode(line[:len(line)-1])
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, e)
		}
		if u, ok := userOf(line); ok && string(u) != user {
			t.Errorf("user %q, want %q", u, user)
		}
		e.Seconds = seconds
		if line, err := e.encode(); err == nil {
			checkVisible(t, line)
		}
	})
}

func FuzzNames(f *testing.F) {
	for i, s := range nasty {
		f.Add(s, nasty[len(nasty)-1-i])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if got := unescape(escape(a)); got != a {
			t.Errorf("%q came back as %q", a, got)
		}
		na, nb := fileName(a), fileName(b)
		if (a == b) != (na == nb) {
			t.Errorf("%q and %q are %q and %q", a, b, na, nb)
		}
		if len(na) > 240 || strings.HasPrefix(na, ".") || strings.ContainsFunc(na, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }) {
			t.Errorf("%q is %q", a, na)
		}
		if _, _, _, ok := parseID(a); ok && len(a) < len(someRun)-3 {
			t.Errorf("%q is a run", a)
		}
	})
}

// BenchmarkLatest reads 100 runs over 10,000 users, three events each.
func BenchmarkLatest(b *testing.B) {
	state := b.TempDir()
	must(b, os.Mkdir(filepath.Join(state, "runs"), 0o700))
	var size int64
	for run := range 100 {
		id := fmt.Sprintf("20261121T%02d%02d00Z-precopy-0000", run/60, run%60)
		var lines []byte
		for i, phase := range []string{"inspect", "precopy", "cutover"} {
			for user := range 10000 {
				line, err := Event{Time: time.Unix(1e9, 5000), Run: id, User: fmt.Sprintf("user%05d", user), Phase: phase, Outcome: Done, Messages: 100 * i, Bytes: 123456, Seconds: 1.5}.encode()
				must(b, err)
				lines = append(lines, line...)
			}
		}
		writeJournal(b, state, id, string(lines))
		size += int64(len(lines))
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if latest, err := Latest(state); err != nil || len(latest) != 10000 {
			b.Fatal(len(latest), err)
		}
	}
}

func BenchmarkLog(b *testing.B) {
	r := begin(b, newState(b), "plan")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := r.Log(Event{User: "alice", Phase: "precopy", Outcome: Done}); err != nil {
				b.Error(err)
			}
		}
	})
}
