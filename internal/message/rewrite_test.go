package message

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// dovecotHides are the fields that Dovecot's mbox keeps to itself.
var dovecotHides = SetOf(ContentLength, Status, XIMAP, XIMAPbase, XKeywords, XStatus, XUID)

// rewritten is what a Rewriter makes of a message.
type rewritten struct {
	content string
	found   []string // "name=value", in file order
}

// feed rewrites header and body in the given pieces.
func feed(r *Rewriter, header, body []string) rewritten {
	var out rewritten
	var content strings.Builder
	r.Found = func(f Field, value []byte) { out.found = append(out.found, f.String()+"="+string(value)) }
	r.Emit = func(b []byte) error {
		content.Write(b)
		return nil
	}
	r.Reset()
	for _, piece := range header {
		r.Header([]byte(piece))
	}
	r.EndHeader()
	for _, piece := range body {
		r.Body([]byte(piece))
	}
	out.content = content.String()
	return out
}

func whole(s string) []string { return []string{s} }

func TestHeaderHidesTheServersFields(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"first field", "Status: RO\nSubject: x\n\n", "Subject: x\n\n"},
		{"last field", "Subject: x\nStatus: RO\n\n", "Subject: x\n\n"},
		{"several in a row", "A: 1\nX-UID: 5\nStatus: RO\nX-Status: A\nX-Keywords: a b   \nContent-Length: 9\nB: 2\n\n", "A: 1\nB: 2\n\n"},
		{"in between", "X-IMAPbase: 1 2\nA: 1\nX-UID: 2\nB: 2\nX-IMAP: 1 2\n\n", "A: 1\nB: 2\n\n"},
		{"folded, whole", "A: 1\nX-Keywords: a\n b\n\tc\nB: 2\n\n", "A: 1\nB: 2\n\n"},
		{"a folded line of a visible field stays", "A: 1\n Status: R\nB: 2\n\n", "A: 1\n Status: R\nB: 2\n\n"},
		{"a folded line with a blank only", "Status: R\n \nB: 2\n\n", "B: 2\n\n"},
		{"in any case", "STATUS: R\nx-uid: 4\ncontent-LENGTH: 2\n\n", "\n"},
		{"blanks before the colon", "Status : R\nX-UID\t: 4\nA: 1\n\n", "A: 1\n\n"},
		{"X-UIDL is visible", "X-UIDL: abc\nX-UID: 1\n\n", "X-UIDL: abc\n\n"},
		{"Lines and X-Mozilla-Status are visible", "Lines: 3\nX-Mozilla-Status: 0001\n\n", "Lines: 3\nX-Mozilla-Status: 0001\n\n"},
		{"only hidden fields", "Status: R\n\n", "\n"},
		{"no empty line at the end", "A: 1\nStatus: R\n", "A: 1\n"},
		{"no newline at the end", "A: 1\nStatus: R", "A: 1\n"},
		{"a line without a colon ends the field before", "Status: R\nnonsense\n\n", "nonsense\n\n"},
		{"a quoted From_ line in the header", ">From a@b Mon Jan  1 00:00:00 2024\nStatus: R\nA: 1\n\n", ">From a@b Mon Jan  1 00:00:00 2024\nA: 1\n\n"},
		{"the CR of each line goes", "A: 1\r\nStatus: R\r\nB: 2\r\n 3\r\n\r\n", "A: 1\nB: 2\n 3\n\n"},
		{"one CR of two", "A: 1\r\r\n\n", "A: 1\r\n\n"},
		{"a CR inside a line stays", "A: 1\r2\n\n", "A: 1\r2\n\n"},
		{"a line of a CR alone", "\r\n", "\n"},
		{"the last line is without LF", "A: 1\r", "A: 1\r"},
		{"NUL stays", "A: \x001\n\n", "A: \x001\n\n"},
		{"nothing", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &Rewriter{Hide: dovecotHides}
			if got := feed(r, whole(tt.header), nil); got.content != tt.want {
				t.Errorf("%q becomes %q, want %q", tt.header, got.content, tt.want)
			}
		})
	}
}

func TestHeaderReportsWantedFields(t *testing.T) {
	keep := SetOf(Status, XKeywords, XUID, MessageID)
	long := strings.Repeat("k", 2*maxValue)
	for _, tt := range []struct {
		name, header string
		want         []string
	}{
		{"hidden or not, in file order", "Message-ID: <a>\nA: 1\nStatus: RO\n\n", []string{"message-id=<a>", "status=RO"}},
		{"blanks around the value go", "X-Keywords:  a b \t \n\n", []string{"x-keywords=a b"}},
		{"CR goes", "X-UID: 5\r\n\r\n", []string{"x-uid=5"}},
		{"folds are joined as they stand", "X-Keywords: a\n b\n\tc\nA: 1\n\n", []string{"x-keywords=a\n b\n\tc"}},
		{"twice", "X-UID: 1\nX-UID: 2\n\n", []string{"x-uid=1", "x-uid=2"}},
		{"the last line, without LF", "X-UID: 1", []string{"x-uid=1"}},
		{"an empty value", "Status:\n\n", []string{"status="}},
		{"unwanted fields do not", "Content-Length: 4\nDate: x\n\n", nil},
		{"a long value is cut", "X-Keywords: " + long + "\n\n", []string{"x-keywords=" + long[:maxValue]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &Rewriter{Hide: dovecotHides, Keep: keep}
			if got := feed(r, whole(tt.header), nil); !slices.Equal(got.found, tt.want) {
				t.Errorf("%.200q reports %.200q, want %.200q", tt.header, got.found, tt.want)
			}
		})
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
		lf               bool
		unquote          Quoting
	}{
		{"stays as it is", "a\r\nb\n\r\n>From x\n\x00Status: R\n", "a\r\nb\n\r\n>From x\n\x00Status: R\n", false, Keep},
		{"CRLF becomes LF when asked", "a\r\nb\n\r\nc\rd\r\r\n", "a\nb\n\nc\rd\r\n", true, Keep},
		{"a CR at the end stays", "a\r", "a\r", true, Keep},
		{"mboxo takes one > away", ">From a\n>From b\n", "From a\nFrom b\n", false, MboxO},
		{"mboxo leaves >> alone", ">>From a\n", ">>From a\n", false, MboxO},
		{"mboxrd takes one of any number", ">From a\n>>From b\n>>>>From c\n", "From a\n>From b\n>>>From c\n", false, MboxRD},
		{"only at the start of a line", "a >From b\n", "a >From b\n", false, MboxRD},
		{"a blank before it", " >From b\n", " >From b\n", false, MboxRD},
		{"From without a blank", ">From:\n", ">From:\n", false, MboxRD},
		{"in the middle and at the end", "x\n>From a\ny >From\n>From b", "x\nFrom a\ny >From\nFrom b", false, MboxO},
		{"with CRLF", "x\r\n>From a\r\n", "x\nFrom a\n", true, MboxO},
		{"twice in a line", ">From >From a\n", "From >From a\n", false, MboxRD},
		{"quotes of quotes", "> >From a\n", "> >From a\n", false, MboxRD},
		{"nothing", "", "", true, MboxRD},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &Rewriter{LF: tt.lf, Unquote: tt.unquote}
			if got := feed(r, nil, whole(tt.body)); got.content != tt.want {
				t.Errorf("%q becomes %q, want %q", tt.body, got.content, tt.want)
			}
		})
	}
}

func TestHiddenNamesInTheBodyStay(t *testing.T) {
	r := &Rewriter{Hide: dovecotHides, Keep: dovecotHides}
	got := feed(r, whole("A: 1\nStatus: R\n\n"), whole("Status: R\nX-UID: 9\n\nX-IMAPbase: 1 2\n"))
	if want := "A: 1\n\nStatus: R\nX-UID: 9\n\nX-IMAPbase: 1 2\n"; got.content != want {
		t.Errorf("got %q, want %q", got.content, want)
	}
	if want := []string{"status=R"}; !slices.Equal(got.found, want) {
		t.Errorf("found %q, want %q", got.found, want)
	}
}

func TestAFailingWriterStopsTheRewriter(t *testing.T) {
	fail := fmt.Errorf("disk full")
	r := &Rewriter{Hide: dovecotHides, LF: true, Unquote: MboxO, Emit: func([]byte) error { return fail }}
	for _, header := range []string{"A: 1\n", "A: 1\r\n", "A: 1\nStatus: R\n", "Status: R\nA: 1\n"} {
		r.Reset()
		if err := r.Header([]byte(header)); err != fail {
			t.Errorf("Header(%q) returns %v", header, err)
		}
	}
	for _, body := range []string{"a\n", "a\r\n", "a\n>From b\n"} {
		r.Reset()
		if err := r.Body([]byte(body)); err != fail {
			t.Errorf("Body(%q) returns %v", body, err)
		}
	}
}

// minPiece is the least of a line that a piece holds when it ends inside it:
// the name of a field, or a quoted "From ", is whole in a piece.
const minPiece = 64

// cut divides s where a Rewriter allows it: at line ends, and inside long
// lines, but never between CR and LF.
func cut(r *rand.Rand, s string) (pieces []string) {
	at, line := 0, 0
	for i := range len(s) {
		if i > 0 && s[i-1] == '\n' {
			line = i
		}
		inside := i != line
		if i == at || inside && (i-line < minPiece || s[i-1] == '\r') || r.IntN(4) > 0 && !inside || inside && r.IntN(60) > 0 {
			continue
		}
		pieces = append(pieces, s[at:i])
		at = i
	}
	return append(pieces, s[at:])
}

// madeUp joins bits of header or body at random.
func madeUp(r *rand.Rand, bits []string) string {
	var b strings.Builder
	for range r.IntN(12) {
		b.WriteString(bits[r.IntN(len(bits))])
	}
	return b.String()
}

var (
	longLine   = strings.Repeat("Status: R X-UID: 5 From >From ", 20)
	headerBits = []string{"A: 1\n", "Status: RO\n", "X-UID: 5\r\n", " folded\n", "\tStatus: R\n", "X-Keywords: " + longLine + "\n",
		"Subject: " + longLine + "\r\n", "X-Keywords:" + strings.Repeat(" Status:", 30) + "\n", ">From a\n", "x\r\n"}
	bodyBits = []string{"a\n", "b\r\n", "\n", "\r\n", ">From x\n", ">>From y\r\n", longLine + "\n", strings.Repeat("x", 100) + longLine + "\r\n",
		"\r", "\x00", "no end", "Status: R\n"}
)

func TestPiecesMakeNoDifference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		rw := &Rewriter{Hide: dovecotHides, Keep: dovecotHides, LF: r.IntN(2) == 0, Unquote: Quoting(r.IntN(3))}
		header, body := madeUp(r, headerBits), madeUp(r, bodyBits)
		want := feed(rw, whole(header), whole(body))
		headerPieces, bodyPieces := cut(r, header), cut(r, body)
		got := feed(rw, headerPieces, bodyPieces)
		if got.content != want.content || !slices.Equal(got.found, want.found) {
			t.Fatalf("in pieces %q, %q\ngives   %q\n%q\nin one  %q\n%q", headerPieces, bodyPieces, got.content, got.found, want.content, want.found)
		}
	}
}

// FuzzRewriter: nothing is invented, nothing but hidden fields and CRs is lost,
// and a second pass finds nothing left to hide.
func FuzzRewriter(f *testing.F) {
	f.Add([]byte("A: 1\nStatus: RO\n X\nX-UID: 5\n\n"), []byte("a\r\n>From b\n"), uint64(1))
	f.Add([]byte("Subject: x\r\nContent-Length: 5\r\n\r\n"), []byte("\r\n\r"), uint64(2))
	f.Add([]byte("X-Keywords: "+longLine+"\n"), []byte(longLine), uint64(3))
	f.Fuzz(func(t *testing.T, header, body []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		rw := &Rewriter{Hide: dovecotHides, Keep: dovecotHides, LF: r.IntN(2) == 0, Unquote: Quoting(r.IntN(3))}
		want := feed(rw, whole(string(header)), whole(string(body)))
		if !isSubsequence([]byte(want.content), slices.Concat(header, body)) {
			t.Fatalf("%q + %q becomes %q", header, body, want.content)
		}
		got := feed(rw, cut(r, string(header)), cut(r, string(body)))
		if got.content != want.content || !slices.Equal(got.found, want.found) {
			t.Fatalf("in pieces %q %q, in one %q %q", got.content, got.found, want.content, want.found)
		}
		headerOnly := feed(rw, whole(string(header)), nil)
		again := feed(rw, whole(headerOnly.content), nil)
		if len(again.found) > 0 {
			t.Fatalf("%q becomes %q, which still has %q", header, headerOnly.content, again.found)
		}
		rw.LF, rw.Unquote = false, Keep
		if got := feed(rw, nil, whole(string(body))); got.content != string(body) {
			t.Fatalf("body %q becomes %q", body, got.content)
		}
	})
}

func isSubsequence(part, whole []byte) bool {
	for _, c := range part {
		i := bytes.IndexByte(whole, c)
		if i < 0 {
			return false
		}
		whole = whole[i+1:]
	}
	return true
}
