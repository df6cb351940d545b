package mbox

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailferry/internal/message"
)

// stored is a message as a scan finds it.
type stored struct {
	from, content string
	date          time.Time
	state         State
}

func scanned(t testing.TB, mbox string, p Profile) []stored {
	t.Helper()
	s, err := NewScanner(strings.NewReader(mbox), int64(len(mbox)), Options{Profile: p, EOL: EOLKeep, Zone: time.UTC, Digest: true})
	if err != nil {
		t.Fatalf("%s: %v in %q", p.Name, err, mbox)
	}
	tracker := NewTracker(s)
	var all []stored
	for {
		e, err := s.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := s.WriteContent(&b); err != nil {
			t.Fatal(err)
		}
		if _, digest := message.MeasureBytes(b.Bytes()); digest != e.Digest {
			t.Fatalf("digest of %q", &b)
		}
		all = append(all, stored{string(e.From.Raw), b.String(), e.Date, tracker.State(e)})
	}
}

func outgoing(m stored) Outgoing {
	return Outgoing{From: FromLine{[]byte(m.from)}, Date: m.date, Content: strings.NewReader(m.content), Size: int64(len(m.content))}
}

// written returns the mbox that the messages make.
func written(t testing.TB, o WriterOptions, messages ...Outgoing) (string, []*Written) {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, o)
	var list []*Written
	for _, m := range messages {
		got, err := w.WriteMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, got)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), list
}

const look = "From look@alike Thu Nov 29 22:33:52 2001"

func TestWrittenMessagesStandAsTheProfileReadsThem(t *testing.T) {
	const from, next = "From a@b Thu Nov 29 22:33:52 2001", "From c@d Fri Nov 30 22:33:52 2001"
	for _, tt := range []struct {
		name, profile, content, want string
		changed                      Written
	}{
		{"plain", "dovecot", "A: b\n\nc\n", "A: b\n\nc\n\n", Written{}},
		{"no final newline", "dovecot", "A: b\n\nc", "A: b\n\nc\n", Written{}},
		{"no final newline, empty line needed", "careful", "A: b\n\nc", "A: b\nContent-Length: 1\n\nc\n", Written{}},
		{"no final newline, nothing helps", "popa3d", "A: b\n\nc", "A: b\n\nc\n\n", Written{Added: 1}},
		{"final CR", "dovecot", "A: b\n\nc\r", "A: b\n\nc\r\r\n", Written{}},
		{"final From", "dovecot", "A: b\n\nFrom ", "A: b\n\nFrom \r\n", Written{}},
		{"final CR, empty line needed", "careful", "A: b\n\nc\r", "A: b\nContent-Length: 2\n\nc\r\r\n", Written{}},
		{"empty", "dovecot", "", "\n", Written{}},
		{"header only", "careful", "A: b\n", "A: b\n\n", Written{}},
		{"header only, where it takes an empty line", "uw", "A: b\n", "A: b\n\n", Written{Added: 1}},
		{"a body that looks like an mbox", "dovecot", "A: b\n\n\n" + look + "\nA: b\n",
			"A: b\nContent-Length: 47\n\n\n" + look + "\nA: b\n\n", Written{}},
		{"the same for a server without Content-Length", "uw", "A: b\n\n\n" + look + "\nA: b\n",
			"A: b\n\n\n>" + look + "\nA: b\n\n", Written{Quoted: 1}},
		{"prose", "dovecot", "A: b\n\nFrom here on\n", "A: b\n\nFrom here on\n\n", Written{}},
		{"From_ line in the header", "dovecot", "A: b\n" + look + "\nC: d\n\n" + look + "\n",
			"A: b\n>" + look + "\nC: d\nContent-Length: 41\n\n" + look + "\n\n", Written{Quoted: 1}},
		{"CRs of the body", "dovecot", "A: b\n\nc\r\n", "A: b\n\nc\r\n\n", Written{}},
		{"stray CR in the header", "dovecot", "A: b\r\nC: d\n\n", "A: b\r\r\nC: d\n\n\n", Written{}},
		{"CRLF file", "dovecot", "A: b\r\n\r\nc\r\n", "A: b\r\n\r\nc\r\n\n", Written{CRs: 2}},
		{"the server's own fields", "dovecot", "X-UID: 7\n 8\nA: b\nstatus : RO\n\nStatus: c\n", "A: b\n\nStatus: c\n\n", Written{Dropped: 2}},
		{"fields that the server shows", "popa3d", "Status: RO\n\n", "Status: RO\n\n\n", Written{}},
		{"NUL", "careful", "A: b\n\n\x00\n", "A: b\n\n\x00\n\n", Written{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ProfileByName(tt.profile)
			if err != nil {
				t.Fatal(err)
			}
			m, after := outgoing(stored{from: from, content: tt.content}), outgoing(stored{from: next, content: "E: f\n\n"})
			got, list := written(t, WriterOptions{Profile: p}, m, after)
			if want := from + "\n" + tt.want + next + "\nE: f\n\n\n"; got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			if *list[0] != tt.changed {
				t.Errorf("got %+v, want %+v", *list[0], tt.changed)
			}
		})
	}
}

// hostile makes content of what readers stumble over.
func hostile(r *rand.Rand) string {
	parts := []string{look, "From ", ">From ", "From -", "From here on", "A: b", "Status: R", "X-UID: 9", "X-IMAP: 1 1", "Content-Length: 3", "Content-Length: 0",
		" folded", "\t", ":", "\n", "\n", "\n", "\n\n", "\r", "\r\n", "\x00", "\xff", "F", ">", look + "\n", "A: b\n", "\n" + look + "\n", "\nFrom x@y\n", "Date: "}
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

var fromLines = []string{look, "From a@b Thu Nov  1 22:33:52 2001", "From  Thu Nov 29 22:33 2001", `From "a b"@c Thu Nov 29 22:33:52 PST 2001`, "From -", "From a@b", "From a b c", "", "x",
	"From : Thu Nov 29 22:33:52 2001", "From a@b Mon Jan  1 00:00:00 0001", "From a@b Thu Nov 29 22:33:52 2001\r"}

// checkWritten: whatever the contents are, the messages come back in number and
// order, and byte for byte if that was said.
func checkWritten(t testing.TB, o WriterOptions, in []stored, stateful bool) {
	t.Helper()
	var messages []Outgoing
	for i, m := range in {
		out := outgoing(m)
		if stateful {
			out.State = &State{UID: uint32(i + 1), Flags: m.state.Flags}
		}
		messages = append(messages, out)
	}
	mbox, list := written(t, o, messages...)
	if len(in) == 0 {
		return
	}
	got := scanned(t, mbox, o.Profile)
	if len(got) != len(in) {
		t.Fatalf("%s: got %d messages of %d\n%+v\n%q", o.Profile.Name, len(got), len(in), in, mbox)
	}
	for i := range in {
		if from := strings.TrimRight(in[i].from, "\r"); !list[i].NewFrom && from != "" && got[i].from != from {
			t.Errorf("%s: From_ line %q, want %q", o.Profile.Name, got[i].from, from)
		}
		if w := list[i]; w.Quoted+w.Dropped+w.CRs == 0 && got[i].content != in[i].content+strings.Repeat("\n", w.Added) {
			t.Fatalf("%s: %+v, but\ngot  %q\nwant %q\nin %q", o.Profile.Name, *w, got[i].content, in[i].content, mbox)
		}
		if exact := got[i].content == in[i].content; exact != list[i].Exact() {
			t.Fatalf("%s: %+v, but\ngot  %q\nwant %q\nin %q", o.Profile.Name, *list[i], got[i].content, in[i].content, mbox)
		}
		if stateful && o.Profile.Hides(message.XUID) && (got[i].state.UID != uint32(i+1) || got[i].state.Flags != in[i].state.Flags) {
			t.Errorf("%s: state %+v of message %d\n%q", o.Profile.Name, got[i].state, i+1, mbox)
		}
	}
}

func TestHostileContentComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range profiles {
		for range 250 {
			var in []stored
			for range 1 + r.IntN(3) {
				in = append(in, stored{from: fromLines[r.IntN(len(fromLines))], content: hostile(r), state: State{Flags: Flags(r.IntN(64))}})
			}
			checkWritten(t, WriterOptions{Profile: p, Zone: time.UTC}, in, false)
			checkWritten(t, WriterOptions{Profile: p, Zone: time.UTC, UIDValidity: 9, NextUID: 10}, in, true)
		}
	}
}

// noPlace tells the messages that can't take state fields: no field begins
// behind which, or before which, they could stand, and the end has no LF.
func noPlace(content string) bool {
	return !strings.HasSuffix(content, "\n") && !strings.Contains(content, "\n\n") &&
		(strings.HasPrefix(content, " ") || strings.HasPrefix(content, "\t") || strings.HasPrefix(content, "From "))
}

// checkRoundTrip: what a scan gave is written to the byte.
func checkRoundTrip(t testing.TB, mbox string, p Profile) {
	t.Helper()
	if s, err := NewScanner(strings.NewReader(mbox), int64(len(mbox)), Options{Profile: p}); err != nil || s.Kind() == Empty {
		return // no mailbox under the profile
	}
	in := scanned(t, mbox, p)
	for _, o := range []WriterOptions{{Profile: p, Zone: time.UTC}, {Profile: p, Zone: time.UTC, UIDValidity: 1, NextUID: 1 << 31}} {
		var messages []Outgoing
		for i, m := range in {
			out := outgoing(m)
			if o.UIDValidity != 0 {
				out.State = &State{UID: uint32(i + 1), Flags: m.state.Flags}
			}
			messages = append(messages, out)
		}
		second, list := written(t, o, messages...)
		for i, m := range scanned(t, second, p) {
			if want := in[i].content; o.UIDValidity != 0 && noPlace(want) && list[i].Added == 1 && m.content == want+"\n" {
				continue
			}
			if list[i].CRs > 0 && strings.Contains(mbox, "\r\r\n") {
				continue // a header line CR CR LF was read as CRLF, which now ends the header
			}
			if last := i == len(in)-1; last && list[i].Quoted > 0 && strings.HasPrefix(lastLine(in[i].content), "From ") {
				continue // without an LF it was no From_ line, and is one with it
			}
			if m.content != in[i].content || !list[i].Exact() {
				t.Fatalf("%s: message %d, %+v\ngot  %q\nwant %q\nof    %q\nwrote %q", p.Name, i+1, *list[i], m.content, in[i].content, mbox, second)
			}
		}
		checkWritten(t, o, in, o.UIDValidity != 0)
	}
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

func TestScanWriteScanIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range []Profile{Careful, Dovecot} {
		for range 400 {
			mbox := look + "\n"
			for range 1 + r.IntN(3) {
				mbox += hostile(r)
			}
			checkRoundTrip(t, mbox, p)
		}
	}
}

func FuzzWriteScan(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		f.Add(hostile(r), hostile(r), fromLines[r.IntN(len(fromLines))], uint8(r.UintN(256)))
	}
	f.Fuzz(func(t *testing.T, first, second, from string, n uint8) {
		p := profiles[int(n)%len(profiles)]
		in := []stored{{from: look, content: first}, {from: strings.ReplaceAll(from, "\n", ""), content: second}}
		o := WriterOptions{Profile: p, Zone: time.UTC}
		if n >= 128 {
			o.UIDValidity, o.NextUID = 1, 9
		}
		checkWritten(t, o, in, n >= 128)
		checkRoundTrip(t, look+"\n"+first+second, []Profile{Careful, Dovecot}[n%2])
	})
}

func TestGoMboxAndVerbatimGiveTheSameBytes(t *testing.T) {
	asctime := "From a@b Thu Nov  1 22:33:52 2001"
	for content, want := range map[string]bool{
		"A: b\n\nc\n": true, "\n": true, "A: b\n": true, "A: b\n\nFrom here on\n": false, "A: b\n\nc\r\n": false, "A: b\n\nc": false, "": false,
		"A: b\n\n" + strings.Repeat("x", maxPlainLine-1) + "\n": true, "A: b\n\n" + strings.Repeat("x", maxPlainLine) + "\n": false,
	} {
		m := outgoing(stored{from: asctime, content: content})
		w := NewWriter(io.Discard, WriterOptions{Profile: Dovecot})
		d, err := w.draft(&m, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := w.isPlain(d); got != want {
			t.Errorf("%.20q: go-mbox writes it: %v, want %v", content, got, want)
		}
		// In the other form of the date the writer takes the other way.
		m.From.Raw = []byte("From a@b Thu Nov 01 22:33:52 2001")
		one, _ := written(t, WriterOptions{Profile: Dovecot}, outgoing(stored{from: asctime, content: content}))
		two, _ := written(t, WriterOptions{Profile: Dovecot}, m)
		if strings.TrimPrefix(one, asctime) != strings.TrimPrefix(two, string(m.From.Raw)) {
			t.Errorf("%.20q: %q and %q", content, one, two)
		}
	}
	for line, want := range map[string]bool{
		asctime: true, "From a@b  Thu Nov 29 22:33:52 2001": true, "From a@b Fri Nov 29 22:33:52 2001": false,
		"From  Thu Nov 29 22:33:52 2001": false, "From a@b Mon Jan  1 00:00:00 0001": false, "From": false,
	} {
		if _, _, ok := asGoMbox([]byte(line)); ok != want {
			t.Errorf("%q: %v, want %v", line, ok, want)
		}
	}
}

func TestFormatFromLine(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, sender, time string
		loc                *time.Location
		want               string
	}{
		{"as Dovecot", "a@b", "2001-11-09T22:33:52Z", time.UTC, "From a@b  Fri Nov 09 22:33:52 2001"},
		{"the server's clock", "a@b", "2001-11-09T22:33:52Z", newYork, "From a@b  Fri Nov 09 17:33:52 2001"},
		{"the first of two hours", "a@b", "2001-10-28T05:30:00Z", newYork, "From a@b  Sun Oct 28 01:30:00 2001"},
		{"the second of two hours", "a@b", "2001-10-28T06:30:00Z", newYork, "From a@b  Sun Oct 28 06:30:00 2001 +0000"},
		{"null sender", "", "2001-11-09T22:33:52Z", time.UTC, "From MAILER-DAEMON  Fri Nov 09 22:33:52 2001"},
		{"quoted local part", `"a b"@c`, "2001-11-09T22:33:52Z", time.UTC, `From "a b"@c  Fri Nov 09 22:33:52 2001`},
		{"two lines", "a\nFrom b", "2001-11-09T22:33:52Z", time.UTC, "From a_From_b  Fri Nov 09 22:33:52 2001"},
		{"no date", "a@b", "0001-01-01T00:00:00Z", time.UTC, "From a@b  Thu Jan 01 00:00:00 1970"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, tt.time)
			if err != nil {
				t.Fatal(err)
			}
			got := FormatFromLine(tt.sender, at, tt.loc)
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			for _, p := range []Profile{Careful, Dovecot} {
				if d, ok := p.date(FromLine{got}, tt.loc); !ok || !at.IsZero() && !d.Equal(at) {
					t.Errorf("%s reads %v, %v", p.Name, d, ok)
				}
			}
		})
	}
}

func TestWriterRefusesStateThatWouldBeLost(t *testing.T) {
	for _, tt := range []struct {
		name  string
		o     WriterOptions
		state State
		want  string
	}{
		{"UID above UIDNEXT", WriterOptions{UIDValidity: 1, NextUID: 5}, State{UID: 5}, "UID 5 is not between 0 and 5"},
		{"keyword not listed", WriterOptions{UIDValidity: 1, NextUID: 5}, State{UID: 1, Keywords: []string{"Junk"}}, `keyword "Junk" is not in the mailbox's list`},
		{"keyword of two words", WriterOptions{UIDValidity: 1, NextUID: 5, Keywords: []string{"a b"}}, State{UID: 1}, `keyword "a b" can't stand`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Profile = Dovecot
			var b bytes.Buffer
			w := NewWriter(&b, tt.o)
			m := outgoing(stored{from: look})
			m.State = &tt.state
			if _, err := w.WriteMessage(m); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if w.out.n != 0 {
				t.Errorf("%d bytes were written", w.out.n)
			}
		})
	}
}

// failing fails after some bytes, as a full disk does.
type failing struct{ left int }

var errFull = errors.New("no space left")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriterReportsAFullDisk(t *testing.T) {
	for _, body := range []string{"x\n", "x\r\n"} { // by go-mbox, and verbatim
		w := NewWriter(&failing{100 << 10}, WriterOptions{Profile: Dovecot})
		var err error
		for range 200 {
			if _, err = w.WriteMessage(outgoing(stored{from: look, content: "A: b\n\n" + strings.Repeat(body, 1000)})); err != nil {
				break
			}
		}
		if !errors.Is(err, errFull) || !errors.Is(w.Close(), errFull) {
			t.Errorf("got %v, then %v", err, w.Close())
		}
	}
}
