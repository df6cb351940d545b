package mbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gombox "github.com/emersion/go-mbox"

	"mailferry/internal/mailgen"
)

// readByGoMbox gives the messages as go-mbox reads them, in LF: it turns every
// line end into CRLF.
func readByGoMbox(t *testing.T, file string) (list []string) {
	t.Helper()
	r := gombox.NewReader(strings.NewReader(file))
	for {
		m, err := r.NextMessage()
		if err == io.EOF {
			return list
		}
		if err != nil {
			return append(list, err.Error())
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, m); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(bytes.ReplaceAll(b.Bytes(), []byte("\r\n"), nil), lf) {
			t.Errorf("go-mbox left an LF alone in %q", b.Bytes())
		}
		list = append(list, strings.ReplaceAll(b.String(), "\r\n", "\n"))
	}
}

const pythonMailbox = `
import json, mailbox, sys
box = mailbox.mbox(sys.argv[1], create=False)
print(json.dumps([box.get_bytes(k).decode('latin-1') for k in box.keys()]))
`

// readByPython gives the messages as mailbox.mbox of Python reads them.
func readByPython(t *testing.T, file string) (list []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inbox")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("python3", "-c", pythonMailbox, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	for i, m := range list {
		latin1 := make([]byte, 0, len(m))
		for _, r := range m {
			latin1 = append(latin1, byte(r))
		}
		list[i] = string(latin1)
	}
	return list
}

// TestReadersAgree on mailboxes without look-alikes and fields of servers.
func TestReadersAgree(t *testing.T) {
	for _, o := range []mailgen.Options{
		{Seed: 1, Messages: 60, Dialects: []mailgen.Dialect{mailgen.Plain}},
		{Seed: 2, Messages: 20, Dialects: []mailgen.Dialect{mailgen.Plain}, Odd: mailgen.NUL | mailgen.SharedHeader | mailgen.OddFromLines},
		{Seed: 3, Messages: 5, Dialects: []mailgen.Dialect{mailgen.Plain}, Odd: mailgen.NoFinalNewline},
	} {
		t.Run(fmt.Sprint("seed", o.Seed), func(t *testing.T) {
			var file strings.Builder
			if _, err := mailgen.Generate(&file, o); err != nil {
				t.Fatal(err)
			}
			want := mustRead(t, file.String(), "careful").contents
			comparePeer(t, "Python", readByPython(t, file.String()), want)
			if o.Odd&mailgen.NoFinalNewline != 0 {
				want[len(want)-1] += "\n" // go-mbox ends every line
			}
			comparePeer(t, "go-mbox", readByGoMbox(t, file.String()), want)
		})
	}
}

func comparePeer(t *testing.T, peer string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s finds %d messages, we %d", peer, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("message %d is %d bytes to %s, %d to us:\n%.300q\n%.300q", i+1, len(got[i]), peer, len(want[i]), got[i], want[i])
		}
	}
}

// TestReadersDisagree lists what the other two readers make of a mailbox that
// the careful reading takes otherwise, and why that is right.
func TestReadersDisagree(t *testing.T) {
	for _, tt := range []struct {
		name, file              string
		careful, gombox, python []string // nil: as careful
	}{
		{"prose that begins From: a date makes a From_ line", fromA + "A: 1\n\nx\n\nFrom here on\ny\n\n",
			[]string{"A: 1\n\nx\n\nFrom here on\ny\n"},
			[]string{"A: 1\n\nx\n", "y\n"},
			[]string{"A: 1\n\nx\n", "y\n"}},
		{"prose without an empty line: no server but solid-pop3d splits there", fromA + "A: 1\n\nx\nFrom here on\ny\n\n",
			[]string{"A: 1\n\nx\nFrom here on\ny\n"},
			[]string{"A: 1\n\nx\n", "y\n"},
			[]string{"A: 1\n\nx\n", "y\n"}},
		{"Content-Length spans a From_ line: the writer says that it is text", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n",
			[]string{"A: 1\n\n" + spanned},
			[]string{"A: 1\nContent-Length: 48\n\ntext\n", "A: 2\n\ny\n"},
			[]string{"A: 1\nContent-Length: 48\n\ntext\n", "A: 2\n\ny\n"}},
		{"fields that the old server kept to itself were never shown", fromA + "A: 1\nStatus: RO\nX-UID: 5\n\nx\n\n",
			[]string{"A: 1\n\nx\n"},
			[]string{"A: 1\nStatus: RO\nX-UID: 5\n\nx\n"},
			[]string{"A: 1\nStatus: RO\nX-UID: 5\n\nx\n"}},
		{"quoted lines: no server takes the > away", fromA + "A: 1\n\n>From x\n\n",
			[]string{"A: 1\n\n>From x\n"},
			[]string{"A: 1\n\nFrom x\n"}, nil},
		{"From : in a header is a field", fromA + "A: 1\nFrom : p@q\n\nx\n\n",
			[]string{"A: 1\nFrom : p@q\n\nx\n"},
			[]string{"A: 1\n", "\nx\n"},
			[]string{"A: 1\n", "\nx\n"}},
		{"a From_ line directly behind another is a header line", fromA + fromC + "A: 2\n\ny\n\n",
			[]string{fromC + "A: 2\n\ny\n"},
			[]string{"", "A: 2\n\ny\n"},
			[]string{"", "A: 2\n\ny\n"}},
		{"two empty lines before a From_ line: one of them is the message's", fromA + "A: 1\n\nx\n\n\n" + fromC + "A: 2\n\ny\n\n",
			[]string{"A: 1\n\nx\n\n", "A: 2\n\ny\n"},
			[]string{"A: 1\n\nx\n\n\n", "A: 2\n\ny\n"}, nil},
		{"no newline at the end: none is invented", fromA + "A: 1\n\nx",
			[]string{"A: 1\n\nx"},
			[]string{"A: 1\n\nx\n"}, nil},
		{"CRs of a body that is not of a CRLF file are the message's", fromA + "A: 1\n\nx\r\ny\r\n\n",
			[]string{"A: 1\n\nx\r\ny\r\n"},
			[]string{"A: 1\n\nx\ny\n"},
			[]string{"A: 1\n\nx\r\ny\r\n"}},
		{"blanks before the first From_ line are passed over", " \n" + fromA + "A: 1\n\nx\n\n",
			[]string{"A: 1\n\nx\n"},
			[]string{gombox.ErrInvalidFormat.Error()}, nil},
		{"a byte order mark", "\xef\xbb\xbf" + fromA + "A: 1\n\nx\n\n",
			[]string{"A: 1\n\nx\n"},
			[]string{gombox.ErrInvalidFormat.Error()},
			[]string{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantMessages(t, tt.file, "careful", tt.careful...)
			for _, peer := range []struct {
				name      string
				got, want []string
			}{{"go-mbox", readByGoMbox(t, tt.file), tt.gombox}, {"Python", readByPython(t, tt.file), tt.python}} {
				if peer.want == nil {
					peer.want = tt.careful
				}
				if !slices.Equal(peer.got, peer.want) {
					t.Errorf("%s finds %q, want %q", peer.name, peer.got, peer.want)
				}
			}
		})
	}
}
