package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/mailgen"
	"mailferry/internal/message"
)

// fate is what becomes of a message of the base; nil: it is left out.
type fate func(State) *State

func stays(s State) *State   { return &s }
func expunged(State) *State  { return nil }
func untouched(State) *State { return &State{UID: ^uint32(0)} }

// copiedMbox copies the messages of base that have a fate, and appends others.
func copiedMbox(t testing.TB, base string, o WriterOptions, fates func(i int) fate, more ...Outgoing) (mbox string, list []*Written, same bool) {
	t.Helper()
	s, err := NewScanner(strings.NewReader(base), int64(len(base)), Options{Profile: o.Profile, EOL: EOLKeep, Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, tracker := NewWriter(&b, o), NewTracker(s)
	for i := 0; ; i++ {
		e, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		now := fates(i)(tracker.State(e))
		if now == nil {
			continue
		}
		if now.UID == ^uint32(0) {
			now = nil
		}
		got, err := w.Copy(s, e, now)
		if err != nil && !errors.Is(err, errTrapped) {
			t.Fatalf("%s: message %d: %v of %q", o.Profile.Name, i+1, err, base)
		}
		list = append(list, got)
	}
	for _, m := range more {
		got, err := w.WriteMessage(m)
		if err != nil && !errors.Is(err, errTrapped) {
			t.Fatalf("%s: %v after %q", o.Profile.Name, err, base)
		}
		list = append(list, got)
	}
	if err := w.Close(); errors.Is(err, errTrapped) {
		return "", nil, false
	} else if err != nil {
		t.Fatalf("%s: %v of %q", o.Profile.Name, err, base)
	}
	return b.String(), list, w.Same(s)
}

func all(f fate) func(int) fate { return func(int) fate { return f } }

// numbers are what a mailbox says of itself.
func numbers(t testing.TB, mbox string, p Profile) *Tracker {
	t.Helper()
	s, err := NewScanner(strings.NewReader(mbox), int64(len(mbox)), Options{Profile: p})
	if err != nil {
		t.Fatal(err)
	}
	tracker := NewTracker(s)
	for e, err := s.Next(); err != io.EOF; e, err = s.Next() {
		if err != nil {
			t.Fatal(err)
		}
		tracker.State(e)
	}
	return tracker
}

// canCopy tells the mailboxes with messages that Copy takes.
func canCopy(base string, p Profile) bool {
	s, err := NewScanner(strings.NewReader(base), int64(len(base)), Options{Profile: p})
	return err == nil && s.Kind() == Mbox
}

// checkCopyIsBase: what is copied whole is the same to the byte.
func checkCopyIsBase(t testing.TB, base string, p Profile) {
	t.Helper()
	if !canCopy(base, p) {
		return
	}
	is := numbers(t, base, p)
	for name, o := range map[string]WriterOptions{"without state": {}, "with the base's": {UIDValidity: is.UIDValidity()}} {
		for _, f := range []fate{untouched, stays} {
			o.Profile = p
			got, list, same := copiedMbox(t, base, o, all(f))
			if got != base || !same {
				t.Fatalf("%s, %s: same: %v\ngot  %q\nwant %q", p.Name, name, same, got, base)
			}
			for i, w := range list {
				if !w.Exact() || w.Changed || w.NewFrom {
					t.Errorf("%s, %s: message %d: %+v", p.Name, name, i+1, *w)
				}
			}
		}
	}
}

// checkCopy: some messages are left out, some change their state, new ones come:
// the profile reads that and nothing else.
func checkCopy(t testing.TB, base string, p Profile, r *rand.Rand, contents ...string) {
	t.Helper()
	if !canCopy(base, p) {
		return
	}
	is := numbers(t, base, p)
	o := WriterOptions{Profile: p, Zone: time.UTC, UIDValidity: is.UIDValidity(), Keywords: append(slices.Clone(is.Keywords()), "new")}
	if o.UIDValidity == 0 {
		o.UIDValidity = 77
	}
	o.NextUID = is.NextUID() + 10 + uint32(len(contents))
	if o.NextUID < is.NextUID() || validKeywords(o.Keywords) != nil {
		return
	}
	in := scanned(t, base, p)
	var want []stored
	fates := make([]fate, len(in))
	for i, m := range in {
		fates[i] = stays
		switch {
		case m.state.Pseudo:
		case r.IntN(3) == 0:
			fates[i] = expunged
			continue
		case r.IntN(3) == 0:
			m.state.Flags ^= Flags(1 << r.IntN(6))
		case r.IntN(3) == 0:
			m.state.Keywords = []string{"new"}
		}
		fates[i] = func(State) *State { return &m.state }
		want = append(want, m)
	}
	var more []Outgoing
	for i, content := range contents {
		m := stored{from: look, content: content, state: State{UID: is.NextUID() + uint32(i) + 3, Flags: Flags(r.IntN(64))}}
		out := outgoing(m)
		out.State = &m.state
		more, want = append(more, out), append(want, m)
	}
	if len(want) == 0 {
		return
	}
	mbox, list, same := copiedMbox(t, base, o, func(i int) fate { return fates[i] }, more...)
	if list == nil {
		return // errTrapped
	}
	if same && mbox != base {
		t.Errorf("%s: said to be the same, but\ngot  %q\nof   %q", p.Name, mbox, base)
	}
	got := scanned(t, mbox, p)
	if len(got) != len(want) {
		t.Fatalf("%s: %d messages, want %d\n%q\nof %q", p.Name, len(got), len(want), mbox, base)
	}
	for i, m := range want {
		w := list[i]
		// An LF that is added may end a hidden field, and then nobody sees it.
		added, ok := strings.CutPrefix(got[i].content, m.content)
		if ok = ok && strings.Trim(added, "\n") == "" && len(added) <= w.Added; !ok && (w.Exact() || w.Quoted+w.Dropped+w.CRs == 0) {
			t.Fatalf("%s: message %d, %+v\ngot  %q\nwant %q\nin   %q\nof   %q", p.Name, i+1, *w, got[i].content, m.content, mbox, base)
		}
		if !w.NewFrom && got[i].from != m.from {
			t.Errorf("%s: From_ line %q, want %q", p.Name, got[i].from, m.from)
		}
		if p.Hides(message.Status) && !sameState(got[i].state, m.state) {
			t.Fatalf("%s: message %d is %+v, want %+v\n%q\nof %q", p.Name, i+1, got[i].state, m.state, mbox, base)
		}
	}
	if p.Hides(message.Status) {
		if now := numbers(t, mbox, p); now.UIDValidity() != o.UIDValidity || now.NextUID() != o.NextUID {
			t.Errorf("%s: UIDVALIDITY %d, next UID %d, want %d, %d\n%q\nof %q", p.Name, now.UIDValidity(), now.NextUID(), o.UIDValidity, o.NextUID, mbox, base)
		}
	}
}

func sameState(a, b State) bool {
	return (a.UID == b.UID || a.Pseudo) && a.Flags == b.Flags && a.Pseudo == b.Pseudo && sameKeywords(a.Keywords, b.Keywords)
}

func TestCopiesOfSeedMailboxes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, base := range seedMailboxes {
		for _, p := range profiles {
			checkCopyIsBase(t, base, p)
			for range 8 {
				checkCopy(t, base, p, r, "A: b\n\nnew\n", "From x\n\n"+look+"\n")
			}
		}
	}
}

func TestCopiesOfHostileMailboxes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 9))
	for range 400 {
		base := look + "\n"
		for range 1 + r.IntN(4) {
			base += hostile(r)
			if r.IntN(2) == 0 { // one that may come true when others are gone
				base += fmt.Sprintf("\n%s\nContent-Length: %d\n\nx\n", look, r.IntN(200))
			}
		}
		for _, p := range profiles {
			checkCopyIsBase(t, base, p)
			checkCopy(t, base, p, r, hostile(r), hostile(r))
		}
	}
}

func TestCopiesOfGeneratedMailboxes(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for seed := range uint64(24) {
		var b bytes.Buffer
		o := mailgen.Options{Seed: seed, Messages: 30, Odd: mailgen.AllOdd, State: seed%2 == 0, Size: func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) }}
		if seed%3 == 0 {
			o.Odd |= mailgen.NoFinalNewline
		}
		if seed%4 == 0 {
			o.Odd |= mailgen.PseudoMessage
		}
		if seed%5 == 0 {
			o.Odd |= mailgen.CRLFFile
		}
		if seed%2 == 0 && seed%6 == 0 {
			o.Fresh = 5
		}
		if _, err := mailgen.Generate(&b, o); err != nil {
			t.Fatal(err)
		}
		for _, p := range profiles {
			checkCopyIsBase(t, b.String(), p)
			checkCopy(t, b.String(), p, r, "A: b\n\nnew\n", "A: b\n\n\n"+look+"\nC: d\n")
		}
	}
}

// realCorpus holds mailboxes that nobody here wrote. It lies beside the project;
// where it is not, there is nothing to test with.
const realCorpus = "../../shared/corpus/real"

func TestCopiesOfRealMailboxes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(realCorpus, "*"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files", len(files))
	r := rand.New(rand.NewPCG(4, 9))
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if !info.Mode().IsRegular() || info.Size() > 4<<20 {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []Profile{Careful, Dovecot} {
			checkCopyIsBase(t, string(b), p)
			checkCopy(t, string(b), p, r, "A: b\n\nnew\n")
		}
	}
}

const from1, from2, from3 = "From a@b Thu Nov 29 22:33:51 2001\n", "From c@d Thu Nov 29 22:33:52 2001\n", "From e@f Thu Nov 29 22:33:53 2001\n"

func TestCopyChangesWhatHasToChange(t *testing.T) {
	const padding = "                                                  "
	two := from1 + "X-IMAPbase: 7 0000000012 a b\nA: b\nX-UID: 11\nStatus: OR\n\none\n\n" + from2 + "X-UID: 12\nC: d\n e\nStatus: O\nX-Keywords: a  \n\ntwo\n\n"
	seven := WriterOptions{UIDValidity: 7, NextUID: 13, Keywords: []string{"a", "b"}}
	later := seven
	later.NextUID = 20
	flagged := func(s State) *State { s.Flags |= Flagged; return &s }
	tagged := func(s State) *State { s.Keywords = []string{"b"}; return &s }
	fresh := outgoing(stored{from: look, content: "N: n\n\nnew\n"})
	for _, tt := range []struct {
		name, profile, base string
		o                   WriterOptions
		fates               []fate
		more                bool
		want                string
		changed             []Written // but for Offset
	}{
		{"nothing", "dovecot", two, seven, []fate{stays, stays}, false, two, []Written{{}, {}}},
		{"a flag", "dovecot", two, seven, []fate{stays, flagged}, false,
			strings.Replace(two, "C: d\n e\nStatus: O\nX-Keywords: a  \n", "C: d\n e\nX-Keywords: a  \nStatus: O\nX-Status: F\n", 1), []Written{{}, {Changed: true}}},
		{"a keyword", "dovecot", two, seven, []fate{stays, tagged}, false,
			strings.Replace(two, "X-Keywords: a  \n", "X-Keywords: b"+padding+"\n", 1), []Written{{}, {Changed: true}}},
		{"the last UID", "dovecot", two, later, []fate{stays, stays}, false,
			from1 + "X-IMAPbase: 7 0000000019 a b\nX-UID: 11\nX-Keywords: " + padding + "\nA: b\nStatus: OR\n\none\n\n" + two[strings.Index(two, from2):], []Written{{Changed: true}, {}}},
		{"the first is gone", "dovecot", two, seven, []fate{expunged, stays}, false,
			from2 + "X-IMAPbase: 7 0000000012 a b\nX-UID: 12\nX-Keywords: a" + padding + "\nC: d\n e\nStatus: O\n\ntwo\n\n", []Written{{Changed: true}}},
		{"the first is gone, and nothing is to be said of UIDs", "dovecot", two, WriterOptions{}, []fate{expunged, stays}, false,
			two[strings.Index(two, from2):], []Written{{}}},
		{"fields that the server shows", "popa3d", two, seven, []fate{flagged, flagged}, false, two, []Written{{}, {}}},
		{"no newline at the end", "dovecot", from1 + "\none", WriterOptions{}, []fate{stays}, false, from1 + "\none", []Written{{}}},
		{"no newline at the end, and another follows", "dovecot", from1 + "A: b\n\none", WriterOptions{}, []fate{stays}, true,
			from1 + "A: b\n\none\n" + look + "\nN: n\n\nnew\n\n", []Written{{Changed: true}, {}}},
		{"the same where an empty line is needed", "careful", from1 + "A: b\n\none", WriterOptions{}, []fate{stays}, true,
			from1 + "A: b\nContent-Length: 3\n\none\n" + look + "\nN: n\n\nnew\n\n", []Written{{Changed: true}, {}}},
		{"the same without Content-Length", "uw", from1 + "A: b\n\none", WriterOptions{}, []fate{stays}, true,
			from1 + "A: b\n\none\n" + look + "\nN: n\n\nnew\n\n", []Written{{Changed: true, Added: 1}, {}}},
		{"a last line that an LF would make a From_ line", "dovecot", from1 + "A: b\n\none\n" + look, WriterOptions{}, []fate{stays}, true,
			from1 + "A: b\nContent-Length: 44\n\none\n" + look + "\n" + look + "\nN: n\n\nnew\n\n", []Written{{Changed: true}, {}}},
		{"blanks in front", "careful", "\n \n" + from1 + "A: b\n\none\n\n", WriterOptions{}, []fate{flagged}, false,
			"\n \n" + from1 + "A: b\nStatus: \nX-Status: F\n\none\n\n", []Written{{Changed: true}}},
		{"CRLF file", "dovecot", "From a@b Thu Nov 29 22:33:51 2001\r\nA: b\r\nStatus: R\r\n\r\none\r\n\r\n", WriterOptions{}, []fate{flagged}, false,
			"From a@b Thu Nov 29 22:33:51 2001\r\nA: b\r\nStatus: R\r\nX-Status: F\r\n\r\none\r\n\r\n", []Written{{Changed: true}}},
		{"no empty line before a From_ line", "careful", from1 + "A: b\n\none\n" + from2 + "C: d\n\ntwo\n" + from3 + "E: f\n\n", WriterOptions{}, []fate{stays, expunged, stays}, false,
			from1 + "A: b\n\none\n" + from3 + "E: f\n\n", []Written{{}, {}}},
		{"a Content-Length that comes true in the new place", "dovecot",
			from1 + "Content-Length: 49\n\none\n\n" + from2 + "X: y\n\n" + strings.Repeat("z", 99) + "\n\n" + from3 + "E: f\n\nthe\n\n" + from1 + "G: h\n\n\n", WriterOptions{},
			[]fate{stays, expunged, stays, stays}, false,
			from1 + "Content-Length: 49\n\none\n\n" + from3 + "E: f\nContent-Length: 4\n\nthe\n\n" + from1 + "G: h\n\n\n", []Written{{}, {Changed: true}, {}}},
		{"the same, before a new message", "careful",
			from1 + "Content-Length: 49\n\none\n\n" + from2 + "X: y\n\n" + strings.Repeat("z", 99) + "\n\n" + from3 + "E: f\n\nthe\n\n", WriterOptions{},
			[]fate{stays, expunged, stays}, true,
			from1 + "Content-Length: 49\n\none\n\n" + from3 + "E: f\nContent-Length: 4\n\nthe\n\n" + look + "\nN: n\n\nnew\n\n", []Written{{}, {Changed: true}, {}}},
		{"the same, of a new message", "dovecot", from1 + "Content-Length: 56\n\none\n\n", WriterOptions{}, []fate{stays}, true,
			from1 + "Content-Length: 56\n\none\n\n" + look + "\nN: n\nContent-Length: 4\n\nnew\n\n", []Written{{}, {}}},
		{"a stranger's X-IMAP in what becomes the first", "dovecot", two + from3 + "X-IMAP: 7 12 a b\nE: f\n\n\n", WriterOptions{UIDValidity: 7, NextUID: 14}, []fate{expunged, expunged, stays}, false,
			from3 + "X-IMAPbase: 7 0000000013\nX-UID: 13\nX-Keywords: " + padding + "\nE: f\n\n\n", []Written{{Changed: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var err error
			if tt.o.Profile, err = ProfileByName(tt.profile); err != nil {
				t.Fatal(err)
			}
			var more []Outgoing
			if tt.more {
				more = append(more, fresh)
			}
			got, list, same := copiedMbox(t, tt.base, tt.o, func(i int) fate { return tt.fates[i] }, more...)
			if got != tt.want || same != (got == tt.base) {
				t.Errorf("same: %v\ngot  %q\nwant %q\nof   %q", same, got, tt.want, tt.base)
			}
			for i, w := range tt.changed {
				if got := *list[i]; got.Quoted != w.Quoted || got.Added != w.Added || got.Changed != w.Changed || got.NewFrom {
					t.Errorf("message %d: got %+v, want %+v", i+1, got, w)
				}
			}
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	plain := from1 + "A: b\n\none\n\n"
	for _, tt := range []struct {
		name, base, profile string
		o                   WriterOptions
		now                 State
		want                string
	}{
		{"MMDF", "\x01\x01\x01\x01\nA: b\n\none\n\x01\x01\x01\x01\n", "careful", WriterOptions{}, State{}, ErrMMDF.Error()},
		{"a UID without an end", plain, "careful", WriterOptions{UIDValidity: 7}, State{UID: 1}, "NextUID is 0"},
		{"a UID beyond the last", plain, "careful", WriterOptions{UIDValidity: 7, NextUID: 5}, State{UID: 5}, "UID 5 is not between 0 and 5"},
		{"a keyword not listed", plain, "careful", WriterOptions{UIDValidity: 7, NextUID: 5}, State{UID: 1, Keywords: []string{"a"}}, `keyword "a" is not`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := options(t, tt.profile)
			s, err := NewScanner(strings.NewReader(tt.base), int64(len(tt.base)), o)
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			tt.o.Profile = o.Profile
			w := NewWriter(io.Discard, tt.o)
			if _, err := w.Copy(s, e, &tt.now); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			tt.o.Profile = profiles[2]
			if _, err := NewWriter(io.Discard, tt.o).Copy(s, e, nil); err == nil {
				t.Error("a message of another profile was copied")
			}
			if w.out.n != 0 || w.count != 0 {
				t.Errorf("%d bytes, %d messages were written", w.out.n, w.count)
			}
		})
	}
}

func TestCopyReportsAFullDisk(t *testing.T) {
	base := strings.Repeat(from1+"A: b\n\n"+strings.Repeat("x\n", 1000)+"\n", 200)
	s, err := NewScanner(strings.NewReader(base), int64(len(base)), Options{Profile: Dovecot})
	if err != nil {
		t.Fatal(err)
	}
	w := NewWriter(&failing{100 << 10}, WriterOptions{Profile: Dovecot})
	for range 200 {
		e, nextErr := s.Next()
		if nextErr != nil {
			t.Fatal(nextErr)
		}
		if _, err = w.Copy(s, e, nil); err != nil {
			break
		}
	}
	if !errors.Is(err, errFull) || !errors.Is(w.Close(), errFull) || w.Same(s) {
		t.Errorf("got %v, then %v", err, w.Close())
	}
}

func FuzzCopy(f *testing.F) {
	for i, m := range seedMailboxes {
		f.Add(m, "A: b\n\nnew\n", uint64(i))
	}
	r := rand.New(rand.NewPCG(5, 9))
	for range 50 {
		f.Add(look+"\n"+hostile(r)+hostile(r), hostile(r), r.Uint64())
	}
	f.Fuzz(func(t *testing.T, base, content string, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := profiles[seed%uint64(len(profiles))]
		checkCopyIsBase(t, base, p)
		checkCopy(t, base, p, r, content)
	})
}
