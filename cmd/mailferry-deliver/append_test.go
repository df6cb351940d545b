package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/dovecottest"
)

// unended is an mbox but for its end.
const unended = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none"

// Dovecot splits an mbox at each From_ line, mailutils and qpopper only behind
// an empty line: both must see the new message. But mailutils reads no CRLF, and
// takes an empty line behind a header for its end alone.
func TestAMessageIsSeenWhateverTheMboxEndsWith(t *testing.T) {
	for name, tt := range map[string]struct {
		before, between string
		is              []string // Subjects, as Dovecot sees them
		blind           bool     // mailutils does not
	}{
		"nothing":                    {"", "", []string{"hello"}, false},
		"an empty line":              {unended + "\n\n", "", []string{"1", "hello"}, false},
		"two empty lines":            {unended + "\n\n\n", "", []string{"1", "hello"}, false},
		"a line end alone":           {unended + "\n", "\n", []string{"1", "hello"}, false},
		"half a line":                {unended, "\n\n", []string{"1", "hello"}, false},
		"a header":                   {unended[:46], "\n", []string{"1", "hello"}, true},
		"half a header":              {unended[:45], "\n\n", []string{"1", "hello"}, true},
		"a CR":                       {unended + "\n\r", "\n\n", []string{"1", "hello"}, false},
		"an empty line in CRLF":      {inCRLF(unended + "\n\n"), "", []string{"1", "hello"}, true},
		"a line end alone in CRLF":   {inCRLF(unended + "\n"), "\n", []string{"1", "hello"}, true},
		"an LF behind lines in CRLF": {inCRLF(unended+"\n") + "\n", "", []string{"1", "hello"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.own(s.inbox(), tt.before)
			s.wants(0, hello)
			content, err := os.ReadFile(s.inbox())
			s.must(err)
			rest, ok := strings.CutPrefix(string(content), tt.before+tt.between+"From bob@example.org  ")
			if !ok || !strings.HasSuffix(rest, "\n"+stored+"\n") {
				t.Errorf("%q", content)
			}
			if got := s.inMailutils(); slices.Equal(got, tt.is) == tt.blind {
				t.Errorf("mailutils shows %q of %q", got, content)
			}
			if got := s.inDovecot(); !slices.Equal(got, tt.is) {
				t.Errorf("Dovecot shows %q of %q", got, content)
			}
		})
	}
}

func inCRLF(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// inMailutils are the Subjects that GNU mailutils shows.
func (s *scene) inMailutils() []string {
	s.Helper()
	out, err := exec.Command("frm", s.inbox()).Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 && exit.ExitCode() != 3 { // 1: none is marked as new; 3: no mbox to it
		s.must(err)
	}
	return strings.Fields(string(out))
}

// inDovecot are the Subjects that Dovecot shows, which writes to the mbox.
func (s *scene) inDovecot() (subjects []string) {
	s.Helper()
	dovecottest.Own(s, s.spool())
	dovecottest.Own(s, s.home(""))
	loc := dovecottest.Location{Mail: "mbox:" + s.home("mail") + ":INBOX=" + s.inbox()}
	out := dovecottest.Doveadm(s, loc, "-f", "pager", "fetch", "hdr.subject", "mailbox", "INBOX")
	for line := range strings.Lines(out) {
		if subject, ok := strings.CutPrefix(line, "hdr.subject: "); ok {
			subjects = append(subjects, strings.TrimSpace(subject))
		}
	}
	return subjects
}

// Dovecot opens no file that does not begin with a From_ line: what is put
// behind it would be seen by nobody.
func TestWhatIsNoMboxGetsNoMail(t *testing.T) {
	for name, before := range map[string]string{
		"notes":                        "to do\n",
		"less than a word":             "From",
		"a From_ line in bad case":     "from a@b  Sat Nov 21 18:00:00 2026\n\n",
		"a header":                     "Subject: 1\n\none\n\n",
		"an empty line":                "\n",
		"an empty line, and a message": "\n" + unended + "\n\n",
		"a byte order mark":            "\xef\xbb\xbf" + unended + "\n\n",
		"MMDF":                         "\x01\x01\x01\x01\n" + unended + "\n\x01\x01\x01\x01\n",
		"NULs":                         strings.Repeat("\x00", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.own(s.inbox(), before)
			if log := s.wants(75, hello); !strings.Contains(log, "does not begin with a From_ line") || !strings.Contains(log, s.inbox()) {
				t.Errorf("says %q", log)
			}
			if content, err := os.ReadFile(s.inbox()); err != nil || string(content) != before {
				t.Errorf("it holds %q, %v", content, err)
			}
			s.clean()
			s.say("maildir")
			s.wants(0, hello)
		})
	}
}
