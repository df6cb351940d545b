package convert

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"mailferry/maildir"
)

// A second, plain reading of the careful rules (docs/boundaries.md), by regular
// expressions over the whole file in memory. It shares nothing with the scanner.
var (
	datedLine = regexp.MustCompile(`(?i)^From .*?\b(` +
		`(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ \t]+\d{1,2}[ \t]+\d{1,2}:\d\d(:\d\d)?([ \t]+[a-z()]+|[ \t]+[+-]\d{4}){0,3}[ \t]+(\d{4}|\d\d)` +
		`|\d{1,2}[ \t]+(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[ \t]+(\d{4}|\d\d)[ \t]+\d{1,2}:\d\d(:\d\d)?` +
		`|\d{4}-\d\d-\d\d[ t]\d\d:\d\d(:\d\d)?)`)
	undatedLine   = regexp.MustCompile(`^From ([ \t]*|-[ \t]*|[^ \t]+@[^ \t]*[ \t]*)\r?\n?$`)
	headerLine    = regexp.MustCompile(`^([!-9;-~]+[ \t]*:|>From )`)
	contentLength = regexp.MustCompile(`(?im)^content-length[ \t]*:[ \t]*(\d+)[ \t]*\r?$`)
	hidden        = regexp.MustCompile(`(?im)^(content-length|status|x-imap|x-imapbase|x-keywords|x-status|x-uid)[ \t]*:.*\n([ \t].*\n)*`)
	leading       = regexp.MustCompile(`^(\xef\xbb\xbf)?[ \t\r\n]*`)
)

// readCarefully returns the messages of an mbox as they would be delivered.
func readCarefully(file []byte) (messages [][]byte) {
	file = file[len(leading.Find(file)):]
	lf := regexp.MustCompile(`^From .*\r\n`).Match(file)
	var cuts [][2]int // start and end of each message's bytes
	for at := 0; at < len(file); {
		start := at + len(lineAt(file, at))
		next, end := nextCarefully(file, start)
		cuts = append(cuts, [2]int{start, end})
		at = next
	}
	for _, c := range cuts {
		messages = append(messages, shown(file[c[0]:c[1]], lf))
	}
	return messages
}

func lineAt(b []byte, at int) []byte {
	if i := bytes.IndexByte(b[at:], '\n'); i >= 0 {
		return b[at : at+i+1]
	}
	return b[at:]
}

// separates reports whether the line at off is a From_ line between messages.
func separates(file []byte, off int, emptyBefore bool) bool {
	line := lineAt(file, off)
	followed := headerLine.Match(lineAt(file, off+len(line)))
	if datedLine.Match(line) {
		return emptyBefore || followed
	}
	return undatedLine.Match(line) && followed
}

// nextCarefully returns where the next From_ line is, and where the message
// that begins at start ends.
func nextCarefully(file []byte, start int) (next, end int) {
	header := headerEnd(file, start)
	if m := contentLength.FindSubmatch(file[start:header]); m != nil {
		if n, err := strconv.Atoi(string(m[1])); err == nil && header+n <= len(file) {
			end := header + n
			for _, gap := range []string{"", "\n", "\r\n", "\n\n", "\r\n\r\n"} {
				next := end + len(gap)
				if !bytes.HasPrefix(file[end:], []byte(gap)) || file[next-1] != '\n' && next < len(file) {
					continue
				}
				if next == len(file) || len(gap) < 3 && bytes.HasPrefix(file[next:], []byte("From ")) && separates(file, next, true) {
					return next, end
				}
			}
		}
	}
	empty := false
	for at := start; at < len(file); {
		line := lineAt(file, at)
		if at > start && bytes.HasPrefix(line, []byte("From ")) && separates(file, at, empty) {
			return at, withoutEmptyLine(file, start, at)
		}
		empty = len(bytes.TrimRight(line, "\r\n")) == 0
		at += len(line)
	}
	return len(file), withoutEmptyLine(file, start, len(file))
}

// headerEnd is behind the empty line that ends a header.
func headerEnd(file []byte, start int) int {
	for at := start; at < len(file); {
		line := lineAt(file, at)
		at += len(line)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return at
		}
	}
	return len(file)
}

// withoutEmptyLine leaves out the empty line that separates.
func withoutEmptyLine(file []byte, start, end int) int {
	for _, e := range []string{"\r\n", "\n"} {
		rest, ok := bytes.CutSuffix(file[start:end], []byte(e))
		if ok && (len(rest) == 0 || rest[len(rest)-1] == '\n') {
			return end - len(e)
		}
	}
	return end
}

// shown is the message without hidden fields and header CRs.
func shown(m []byte, lf bool) []byte {
	end := headerEnd(m, 0)
	header := hidden.ReplaceAll(m[:end], nil)
	header = bytes.ReplaceAll(header, []byte("\r\n"), []byte("\n"))
	body := m[end:]
	if lf {
		body = bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
	}
	return slices.Concat(header, body)
}

func TestCorpusIsReadCarefully(t *testing.T) {
	for _, s := range specimens(t) {
		t.Run(s.name, func(t *testing.T) {
			o := options(t, s.path, "careful")
			if refusals[s.name] {
				if r, err := Convert(t.Context(), o); err == nil {
					t.Fatalf("converted to %d messages; its first From_ line is damaged", r.Messages)
				}
				return
			}
			r := mustConvert(t, o)
			if r.Messages != s.messages {
				t.Errorf("%d messages, want %d\n%v", r.Messages, s.messages, r.Mailboxes[0].Oddities)
			}
			file, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			if file[0] == '\001' {
				return // MMDF: the count, and verify above
			}
			compareContents(t, o.Dest, readCarefully(file))
		})
	}
}

// compareContents compares the files of a Maildir, in order of name, with
// messages.
func compareContents(t *testing.T, dir string, want [][]byte) {
	t.Helper()
	var names []maildir.Name
	files := map[string]string{}
	entries, err := os.ReadDir(filepath.Join(dir, "cur"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n, err := maildir.ParseName(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, n)
		files[n.Unique] = e.Name()
	}
	slices.SortFunc(names, func(a, b maildir.Name) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	if len(names) != len(want) {
		t.Errorf("%d messages, the plain reading finds %d", len(names), len(want))
	}
	for i := range min(len(names), len(want)) {
		got, err := os.ReadFile(filepath.Join(dir, "cur", files[names[i].Unique]))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[i]) {
			t.Errorf("message %d: %s, want %s", i+1, sketch(got), sketch(want[i]))
		}
	}
}

// sketch describes bytes that are too many to print.
func sketch(b []byte) string {
	digest := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes, %x, %.60q ... %q", len(b), digest[:4], b, b[max(0, len(b)-60):])
}
