package deliver

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
)

func tempDir(t testing.TB) *safefs.Dir {
	t.Helper()
	dir, err := safefs.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// written is what a mailbox gets of a draft.
func written(t testing.TB, m *draft, from, to int64) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.writeTo(f, from, to); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// both are the forms of a message in a Maildir and in an mbox.
func both(t testing.TB, r io.Reader, e Envelope) (maildir, mbox string) {
	t.Helper()
	m, err := collect(t.Context(), r, e, tempDir(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	maildir = written(t, m, m.message, m.end-1)
	if want := message.SizesOf([]byte(maildir)); m.sizes.Size != want.Size || m.sizes.VSize != want.VSize {
		t.Errorf("sizes %d and %d, want %d and %d", m.sizes.Size, m.sizes.VSize, want.Size, want.VSize)
	}
	box := m
	if m.changes {
		if box, err = m.forMbox(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer box.close()
	}
	if all := written(t, box, box.from-2, box.end); strings.HasPrefix(all, "\n\nFrom ") && strings.HasSuffix(all, "\n") {
		mbox = all[2 : len(all)-1]
	} else {
		t.Errorf("the layout is %.100q", all)
	}
	return maildir, mbox
}

func TestWhatBecomesOfAMessage(t *testing.T) {
	bob := Envelope{Sender: "bob@example.org", HasSender: true, Recipient: "alice@example.org"}
	const ours = "Return-Path: <bob@example.org>\nDelivered-To: alice@example.org\n"
	for name, tt := range map[string]struct {
		in      string
		e       Envelope
		maildir string
		mbox    string // "" if the same
		sender  string // in the From_ line; "" is bob's
	}{
		"an ordinary one":              {"A: b\n\nc\n", bob, ours + "A: b\n\nc\n", "", ""},
		"with a From_ line":            {"From x@y Sat Nov 21 18:00:00 2026\nA: b\n\nc\n", bob, ours + "A: b\n\nc\n", "", ""},
		"From_ tells the sender":       {"From x@y  Sat Nov 21 18:00:00 2026\nA: b\n\nc\n", Envelope{}, "Return-Path: <x@y>\nA: b\n\nc\n", "", "x@y"},
		"From_ of a bounce":            {"From MAILER-DAEMON  Sat Nov 21 18:00:00 2026\nA: b\n\n", Envelope{}, "Return-Path: <>\nA: b\n\n", "", "MAILER-DAEMON"},
		"a From_ line with a long end": {"From x@y Sat Nov 21 18:00:00 2026 " + strings.Repeat("x", 4<<10) + "\nA: b\n\n", bob, ours + "A: b\n\n", "", ""},
		"a From_ line from UUCP":       {"From x!y Sat Nov 21 18:00:00 2026 remote from z\nA: b\n\n", bob, ours + "A: b\n\n", "", ""},
		"a From_ line of endless length": {"From x@y Sat Nov 21 18:00:00 2026 " + strings.Repeat("x", 200<<10) + "\nA: b\n\n", bob,
			ours + "\nFrom x@y Sat Nov 21 18:00:00 2026 " + strings.Repeat("x", 200<<10) + "\nA: b\n\n", ours + "\n>From x@y Sat Nov 21 18:00:00 2026 " + strings.Repeat("x", 200<<10) + "\nA: b\n\n", ""},
		"prose that begins like one": {"From me to you\nlove\n", bob, ours + "\nFrom me to you\nlove\n", ours + "\n>From me to you\nlove\n", ""},
		"prose tells no sender":      {"From me to you\nlove\n", Envelope{}, "\nFrom me to you\nlove\n", "\n>From me to you\nlove\n", "MAILER-DAEMON"},
		"two From_ lines":            {"From x Sat Nov 21 18:00:00 2026\nFrom y Sat Nov 21 18:00:00 2026\nA: b\n", bob, ours + "\nFrom y Sat Nov 21 18:00:00 2026\nA: b\n", ours + "\n>From y Sat Nov 21 18:00:00 2026\nA: b\n", ""},
		"From with a colon":          {"From : x\nA: b\n\n", bob, ours + "From : x\nA: b\n\n", ours + ">From : x\nA: b\n\n", ""},
		"nobody known":               {"A: b\n\nc\n", Envelope{}, "A: b\n\nc\n", "", "MAILER-DAEMON"},
		"the null sender":            {"A: b\n\nc\n", Envelope{HasSender: true}, "Return-Path: <>\nA: b\n\nc\n", "", "MAILER-DAEMON"},
		"the MTA's own fields": {"Return-Path: <bob@example.org>\nX-Original-To: al@example.net\nDelivered-To: Alice@Example.org\nA: b\n\nc\n", bob,
			"Return-Path: <bob@example.org>\nX-Original-To: al@example.net\nDelivered-To: Alice@Example.org\nA: b\n\nc\n", "", ""},
		"fields of another hop": {"RETURN-PATH: <x@y>\nDelivered-To: list@example.net\n\n", bob,
			ours + "Delivered-To: list@example.net\n\n", "", ""},
		"a folded field of another hop": {"Return-Path:\n <x@y>\n\t(who)\nA: b\n folded\n\n", bob, ours + "A: b\n folded\n\n", "", ""},
		"another hop's beside ours": {"Return-Path: <x@y>\nA: b\nreturn-path : <bob@example.org>\nReturn-Path: <z@y>\n\nReturn-Path: <x@y>\n", bob,
			"Delivered-To: alice@example.org\nA: b\nreturn-path : <bob@example.org>\n\nReturn-Path: <x@y>\n", "", ""},
		"a very long one of another hop": {"Return-Path: <" + strings.Repeat("x", 200<<10) + ">\nA: b\n\n", bob, ours + "A: b\n\n", "", ""},
		"a sender, where there is none":  {"Return-Path: <x@y>\nReturn-Path:\n <z@y>\nA: b\n\n", Envelope{HasSender: true}, "Return-Path: <>\nA: b\n\n", "", "MAILER-DAEMON"},
		"a bounce, to its MTA":           {"Return-Path: <>\nA: b\n\n", Envelope{HasSender: true}, "Return-Path: <>\nA: b\n\n", "", "MAILER-DAEMON"},
		"a bounce, to another MTA":       {"Return-Path: <>\nA: b\n\n", Envelope{Sender: "MAILER-DAEMON", HasSender: true}, "Return-Path: <>\nA: b\n\n", "", "MAILER-DAEMON"},
		"the MTA quotes the sender": {"Return-Path: <\"a b\"@example.org>\nA: b\n\n", Envelope{Sender: "a b@example.org", HasSender: true},
			"Return-Path: <\"a b\"@example.org>\nA: b\n\n", "", "a_b@example.org"},
		"the MTA escapes the sender": {"Return-Path: <\"a\\\"b\\\\\"@example.org>\nA: b\n\n", Envelope{Sender: `a"b\@example.org`, HasSender: true},
			"Return-Path: <\"a\\\"b\\\\\"@example.org>\nA: b\n\n", "", `a"b\@example.org`},
		"Postfix censors the sender": {"Return-Path: <o'brien@example.org>\nA: b\n\n", Envelope{Sender: "o_brien@example.org", HasSender: true, Censored: true},
			"Return-Path: <o'brien@example.org>\nA: b\n\n", "", "o'brien@example.org"},
		"Postfix quotes and censors": {"Return-Path: <\"a\\\"b\"@example.org>\nReturn-Path: <a_b@example.org>\nA: b\n\n", Envelope{Sender: "a_b@example.org", HasSender: true, Censored: true},
			"Return-Path: <\"a\\\"b\"@example.org>\nA: b\n\n", "", `a"b@example.org`},
		"Exim does not censor": {"Return-Path: <\"o'b\"@example.org>\nA: b\n\n", Envelope{Sender: `"o'b"@example.org`, HasSender: true, Censored: true},
			"Return-Path: <\"o'b\"@example.org>\nA: b\n\n", "", `"o'b"@example.org`},
		"another's, where it is censored": {"Return-Path: <o.brien@example.org>\nA: b\n\n", Envelope{Sender: "o_brien@example.org", HasSender: true, Censored: true},
			"Return-Path: <o_brien@example.org>\nA: b\n\n", "", "o_brien@example.org"},
		"what -f says is literal": {"Return-Path: <o'brien@example.org>\nA: b\n\n", Envelope{Sender: "o_brien@example.org", HasSender: true},
			"Return-Path: <o_brien@example.org>\nA: b\n\n", "", "o_brien@example.org"},
		"no address in brackets":               {"Return-Path: bob@example.org\nReturn-Path: <\nReturn-Path:\nA: b\n\n", bob, ours + "A: b\n\n", "", ""},
		"From_ knows better than the header":   {"From x@y Sat Nov 21 18:00:00 2026\nReturn-Path: <z@y>\nA: b\n\n", Envelope{}, "Return-Path: <x@y>\nA: b\n\n", "", "x@y"},
		"nobody knows better":                  {"Return-Path: <z@y>\nA: b\n\n", Envelope{}, "Return-Path: <z@y>\nA: b\n\n", "", "MAILER-DAEMON"},
		"another hop's alone":                  {"Return-Path: <x@y>\n", bob, ours, "", ""},
		"another hop's on top of CRLF":         {"Return-Path: <x@y>\r\nA: b\r\n\r\nc\r\n", bob, ours + "A: b\n\nc\n", "", ""},
		"another hop's without an end":         {"A: b\nReturn-Path: <x@y>", bob, ours + "A: b\n", "", ""},
		"fields in the body count for nothing": {"A: b\n\nReturn-Path: <x@y>\nStatus: RO\n", bob, ours + "A: b\n\nReturn-Path: <x@y>\nStatus: RO\n", "", ""},
		"state that a sender sets": {"Status: RO\nX-IMAPbase: 1 2\n\tfolded\nA: b\ncontent-length : 99\n\nc\n", bob,
			ours + "Status: RO\nX-IMAPbase: 1 2\n\tfolded\nA: b\ncontent-length : 99\n\nc\n", ours + "A: b\n\nc\n", ""},
		"lines to quote": {"A: b\n\nFrom me\n>From you\nFromage\n >From x\n", bob,
			ours + "A: b\n\nFrom me\n>From you\nFromage\n >From x\n", ours + "A: b\n\n>From me\n>>From you\nFromage\n >From x\n", ""},
		"CRLF":                         {"A: b\r\n\r\nc\r\n\rd\r\r\ne\n", bob, ours + "A: b\n\nc\n\rd\r\ne\n", "", ""},
		"CRLF behind a very long line": {"A: " + strings.Repeat("b", 200<<10) + "\r\n\r\nc\r\n", bob, ours + "A: " + strings.Repeat("b", 200<<10) + "\n\nc\n", "", ""},
		"CRs in an LF message":         {"A: b\n\nc\r\n", bob, ours + "A: b\n\nc\r\n", "", ""},
		"CRLF behind an LF From_ line": {"From x Sat Nov 21 18:00:00 2026\nA: b\r\n\r\n", bob, ours + "A: b\n\n", "", ""},
		"no line end":                  {"A: b\n\nc", bob, ours + "A: b\n\nc\n", "", ""},
		"a CR at the end":              {"A: b\r\n\r\nc\r", bob, ours + "A: b\n\nc\r\n", "", ""},
		"NULs":                         {"A: \x00\n\n\x00\x00\n", bob, ours + "A: \x00\n\n\x00\x00\n", "", ""},
		"no header":                    {"hello\n", bob, ours + "\nhello\n", "", ""},
		"no header, but a body":        {"\nhello\n", bob, ours + "\nhello\n", "", ""},
		"a header alone":               {"A: b\n", bob, ours + "A: b\n", "", ""},
		"addresses with line ends": {"A: b\n\n", Envelope{Sender: "a\nX: y", HasSender: true, Recipient: "b\r\nX: y@z"},
			"Return-Path: <a_X: y>\nDelivered-To: b__X: y@z\nA: b\n\n", "", "a_X:_y"},
	} {
		t.Run(name, func(t *testing.T) {
			maildir, mbox := both(t, strings.NewReader(tt.in), tt.e)
			if maildir != tt.maildir {
				t.Errorf("in a Maildir\n%.300q, want\n%.300q", maildir, tt.maildir)
			}
			from, rest, _ := strings.Cut(mbox, "\n")
			sender := tt.sender
			if sender == "" {
				sender = bob.Sender
			}
			if !regexp.MustCompile(`^From ` + regexp.QuoteMeta(sender) + `  \w{3} \w{3} \d\d \d\d:\d\d:\d\d \d{4}( \+0000)?$`).MatchString(from) {
				t.Errorf("From_ line %q", from)
			}
			want := tt.mbox
			if want == "" {
				want = tt.maildir
			}
			if rest != want {
				t.Errorf("in an mbox\n%.300q, want\n%.300q", rest, want)
			}
		})
	}
}

// However a message comes, and wherever it is kept, the same becomes of it.
func TestSizeAndPiecesMakeNoDifference(t *testing.T) {
	e := Envelope{Sender: "bob@example.org", HasSender: true}
	words := []string{"From me\r\n", ">From you\r\n", "text\r\n", "\r", "\n", "\x00", strings.Repeat("long ", 30000), "\r\n", "Status: R\r\n"}
	r := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var b bytes.Buffer
		b.WriteString("Status: RO\r\nA: b\r\n\r\n")
		for range r.IntN(20) {
			b.WriteString(words[r.IntN(len(words))])
		}
		maildir, mbox := both(t, bytes.NewReader(b.Bytes()), e)
		want := strings.ReplaceAll(b.String(), "\r\n", "\n")
		if !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if maildir != "Return-Path: <bob@example.org>\n"+want {
			t.Fatalf("%.300q became %.300q", &b, maildir)
		}
		head, rest, _ := strings.Cut(want, "\n\n")
		want = strings.TrimPrefix(head, "Status: RO\n") + "\n\n" + regexp.MustCompile(`(?m)^(>*From )`).ReplaceAllString(rest, ">$1")
		if _, got, _ := strings.Cut(mbox, "\n"); got != "Return-Path: <bob@example.org>\n"+want {
			t.Fatalf("%.300q became %.300q, want %.300q", &b, got, want)
		}
		if half, _ := both(t, iotest.HalfReader(bytes.NewReader(b.Bytes())), e); half != maildir {
			t.Fatal("in other pieces it is another message")
		}
	}
}

func TestABigMessageIsNotKeptInMemory(t *testing.T) {
	dir := tempDir(t)
	line := strings.Repeat("x", 70) + "\n"
	r := io.MultiReader(strings.NewReader("A: b\n\nFrom me\n"), io.LimitReader(&repeat{text: line}, 50<<20))
	m, err := collect(t.Context(), r, Envelope{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	box, err := m.forMbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer box.close()
	if held := cap(m.memory) + cap(box.memory); held > 4<<20 || m.end < 50<<20 {
		t.Errorf("%d bytes in memory for a message of %d", held, m.end)
	}
	if empty, err := dir.Empty(); !empty || err != nil {
		t.Errorf("its file has a name: %v", err)
	}
}

type repeat struct {
	text string
	at   int
}

func (r *repeat) Read(b []byte) (n int, err error) {
	for n < len(b) {
		k := copy(b[n:], r.text[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.text)
	}
	return n, nil
}

func TestAMessageThatCannotBeReadIsNoMessage(t *testing.T) {
	broken := errors.New("broken")
	for _, text := range []string{"", "A: b\n", "A: b\n\nbody"} {
		_, err := collect(t.Context(), io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)), Envelope{}, tempDir(t))
		if !errors.Is(err, broken) {
			t.Errorf("%q and an error: %v", text, err)
		}
	}
	for _, text := range []string{"", "From x Sat Nov 21 18:00:00 2026\n", "From x Sat Nov 21 18:00:00 2026"} {
		if _, err := collect(t.Context(), strings.NewReader(text), Envelope{}, tempDir(t)); !errors.Is(err, ErrEmpty) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
