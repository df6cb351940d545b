package mbox

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packed is a mailbox as a compressor of the machine writes it.
func packed(t *testing.T, program string) string {
	t.Helper()
	cmd := exec.Command(program, "-c")
	cmd.Stdin = strings.NewReader(fromA + "A: 1\n\nx\n\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestOtherFormatsAreRefusedByName(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, file, found, hint string }{
		{"gzip", packed(t, "gzip"), "gzip compressed file", "unpack it first: gzip -dc"},
		{"bzip2", packed(t, "bzip2"), "bzip2 compressed file", "unpack it first: bzip2 -dc"},
		{"xz", packed(t, "xz"), "xz compressed file", "unpack it first: xz -dc"},
		{"zstd", "\x28\xb5\x2f\xfd\x04\x58\xa9\x00\x00From a", "zstd compressed file", "unpack it first: zstd -dc"},
		{"lz4", "\x04\x22\x4d\x18\x64\x40\xa7From a", "lz4 compressed file", "unpack it first: lz4 -dc"},
		{"zip", "PK\x03\x04\x14\x00", "zip archive", "unzip"},
		{"mbx of c-client", "*mbx*\r\n5fbb0a4700000005\r\nJunk\r\n" + strings.Repeat("\r\n", 29), "c-client mbx mailbox", "mailutil copy"},
		{"mtx of c-client", "*mtx*\r\n", "c-client mtx mailbox", "mailutil copy"},
		{"Babyl of Emacs", "BABYL OPTIONS: -*- rmail -*-\nVersion: 5\n\x1f\x0c\n", "Babyl mailbox of Emacs Rmail", "unrmail"},
		{"PST of Outlook", "!BDN\xe6\x50\x2a\x01", "Outlook PST file", "readpst"},
		{"DBX of Outlook Express", "\xcf\xad\x12\xfe\xc5\xfd\x74\x6f", "Outlook Express DBX file", "readdbx"},
		{"SQLite", "SQLite format 3\x00\x10\x00", "SQLite database", ""},
		{"PDF", "%PDF-1.4\n", "PDF document", ""},
		{"a program", string(program[:64]), "program", ""},
		{"a single message", "Return-Path: <a@b>\nSubject: x\n\nbody\n", "begins like a single message", ""},
		{"prose", "Dear all,\n\nfrom here on\n", `begins with "Dear all,\n\nfrom here on\n"`, ""},
		{"garbage before a From_ line", "\x00\x01garbage\n" + fromA, `begins with "\x00\x01garbage\nFrom a@b Thu`, ""},
		{"NULs, as a crash leaves them", strings.Repeat("\x00", 4096), `begins with "\x00\x00\x00`, ""},
		{"prose that begins From", "From the desk of\n\n", `begins with "From the desk of"`, ""},
	} {
		for _, profile := range ProfileNames() {
			if profile == "popa3d" && strings.HasPrefix(tt.file, "From ") {
				continue // popa3d looks at those five bytes alone
			}
			t.Run(tt.name+"/"+profile, func(t *testing.T) {
				_, err := NewScanner(strings.NewReader(tt.file), int64(len(tt.file)), options(t, profile))
				var format *FormatError
				if !errors.As(err, &format) {
					t.Fatalf("%.40q: %v, want a FormatError", tt.file, err)
				}
				if !strings.HasPrefix(format.Found, tt.found) || !strings.Contains(format.Hint, tt.hint) {
					t.Errorf("%.40q is refused as %q with the hint %q", tt.file, format.Found, format.Hint)
				}
				if text := format.Error(); !strings.HasPrefix(text, "not an mbox: "+format.Found) || !strings.HasSuffix(text, format.Hint) {
					t.Errorf("the error reads %q", text)
				}
			})
		}
	}
}

func TestARefusalQuotesLittleOfTheFile(t *testing.T) {
	for _, file := range []string{"From " + strings.Repeat("x ", 5000), strings.Repeat("x", 5000), "From \x1b[2J\x07\n"} {
		_, err := NewScanner(strings.NewReader(file), int64(len(file)), options(t, "careful"))
		if err == nil || len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\x1b\x07\n") {
			t.Errorf("%.20q...: %v", file, err)
		}
	}
}

func TestKindsAreKnown(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       Kind
		lead       int64
	}{
		{"zero bytes", "", Empty, 0},
		{"blank lines only", "\n\r\n \t\n", Empty, 6},
		{"a byte order mark only", "\xef\xbb\xbf", Empty, 3},
		{"blank lines beyond a window", strings.Repeat("\n", windowSize+1), Empty, windowSize + 1},
		{"mbox", fromA, Mbox, 0},
		{"MMDF", mmdf, MMDF, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := mustRead(t, tt.file, "careful")
			if got.kind != tt.want || got.lead != tt.lead {
				t.Errorf("%.20q is of kind %d with a lead of %d, want %d and %d", tt.file, got.kind, got.lead, tt.want, tt.lead)
			}
			if tt.want == Empty && len(got.entries) > 0 {
				t.Errorf("%d messages", len(got.entries))
			}
		})
	}
}

// TestTheScannerReadsFiles: nothing is written, and an empty file is a mailbox.
func TestTheScannerReadsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inbox")
	if err := os.WriteFile(path, []byte(seed), 0o400); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := readAll(f, int64(len(seed)), options(t, "careful"), windowSize)
	if err != nil || len(got.entries) != 7 {
		t.Errorf("%d messages, %v", len(got.entries), err)
	}
}

// What a profile's scanner takes for an mbox begins as one, and what does not gets
// nothing appended that the scanner would not see.
func TestAnMboxBeginsAsTheProfileHasIt(t *testing.T) {
	const one = "From a@b Mon Jan  2 03:04:05 2023\nSubject: x\n\nx\n\n"
	for text, lenient := range map[string]string{
		one: "all", "": "all", "\n": "lenient", " \t\r\n" + one: "lenient", "\xef\xbb\xbf" + one: "lenient", "\xef\xbb\xbf\n" + one: "lenient",
		"From": "none", "\nFrom": "none", "x\n" + one: "none", "\x01\x01\x01\x01\n" + one: "none", "\n\xef\xbb\xbf" + one: "none",
		strings.Repeat("\n", lookAhead) + one: "none",
	} {
		for _, p := range profiles {
			want := lenient == "all" || lenient == "lenient" && p.lenient
			if got, err := p.Begins(strings.NewReader(text)); got != want || err != nil {
				t.Errorf("%s: %.60q: %t, %v", p.Name, text, got, err)
			}
			if want && len(scanned(t, text+one, p)) != len(scanned(t, text, p))+1 {
				t.Errorf("%s: behind %.60q a message is not seen", p.Name, text)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := Dovecot.Begins(brokenReader{"", 0, broken}); !errors.Is(err, broken) {
		t.Error(err)
	}
}
