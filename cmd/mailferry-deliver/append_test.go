package main

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/dovecottest"
	"mailferry/mbox"
)

// unended is an mbox but for its end.
const unended = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none"

// Dovecot splits an mbox at each From_ line, and would show one more LF as the last
// message's; mailutils and qpopper split only behind an empty line. Where these serve,
// both see the new message. But mailutils reads no CRLF, and takes an empty line behind
// a header for its end alone.
func TestAMessageIsSeenWhateverTheMboxEndsWith(t *testing.T) {
	for name, tt := range map[string]struct {
		before, between string   // between for mailutils: Dovecot needs no empty line
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
		for server, between := range map[string]string{"mailutils": tt.between, "dovecot": strings.TrimPrefix(tt.between, "\n")} {
			t.Run(name+", "+server, func(t *testing.T) {
				s := newScene(t)
				s.serves(server)
				s.own(s.inbox(), tt.before)
				s.wants(0, hello)
				content, err := os.ReadFile(s.inbox())
				s.must(err)
				rest, ok := strings.CutPrefix(string(content), tt.before+between+"From bob@example.org  ")
				if !ok || !strings.HasSuffix(rest, "\n"+stored+"\n") {
					t.Errorf("%q", content)
				}
				if got := s.inMailutils(); server == "mailutils" && slices.Equal(got, tt.is) == tt.blind {
					t.Errorf("mailutils shows %q of %q", got, content)
				}
				if got := s.inDovecot(); !slices.Equal(got, tt.is) {
					t.Errorf("Dovecot shows %q of %q", got, content)
				}
			})
		}
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

// serves says which server reads the mboxes.
func (s *scene) serves(profile string) {
	s.Helper()
	s.put(s.path("mailferry.toml"), s.config()+"profile = \""+profile+"\"\n")
}

// What the site's server does not take for an mbox would be seen by nobody: Dovecot
// opens no file that does not begin with a From_ line; c-client lets blanks stand first.
func TestWhatIsNoMboxGetsNoMail(t *testing.T) {
	for name, tt := range map[string]struct {
		before  string
		lenient []string // what servers that let blanks stand first show; nil: it is no mbox to them either
	}{
		"notes":                        {"to do\n", nil},
		"blanks, and notes":            {"\n\nto do\n", nil},
		"less than a word":             {"From", nil},
		"a From_ line in bad case":     {"from a@b  Sat Nov 21 18:00:00 2026\n\n", nil},
		"a header":                     {"Subject: 1\n\none\n\n", nil},
		"an empty line":                {"\n", []string{stored}},
		"an empty line, and a message": {"\n" + unended + "\n\n", []string{"Subject: 1\n\none\n", stored}},
		"a byte order mark":            {"\xef\xbb\xbf" + unended + "\n\n", []string{"Subject: 1\n\none\n", stored}},
		"MMDF":                         {"\x01\x01\x01\x01\n" + unended + "\n\x01\x01\x01\x01\n", nil},
		"NULs":                         {strings.Repeat("\x00", 4096), nil},
		"blanks without end":           {strings.Repeat(" ", 64<<10), nil},
	} {
		for _, server := range []string{"uw", "careful"} {
			if tt.lenient == nil {
				break
			}
			t.Run(name+", "+server, func(t *testing.T) {
				s := newScene(t)
				s.serves(server)
				s.own(s.inbox(), tt.before)
				s.wants(0, hello)
				profile, err := mbox.ProfileByName(server)
				s.must(err)
				s.same(server+" shows", s.inMboxAs(profile, s.inbox()), tt.lenient...)
			})
		}
		refuse := []string{"dovecot"}
		if tt.lenient == nil {
			refuse = append(refuse, "uw")
		}
		for _, server := range refuse {
			testRefused(t, name, server, tt.before)
		}
	}
}

func testRefused(t *testing.T, name, server, before string) {
	t.Run(name+", "+server, func(t *testing.T) {
		s := newScene(t)
		s.serves(server)
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
