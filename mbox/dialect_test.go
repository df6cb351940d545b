package mbox

import (
	"slices"
	"strings"
	"testing"

	"mailferry/internal/message"
)

func TestLeadingBlanks(t *testing.T) {
	mail := fromA + "A: 1\n\nx\n\n"
	one := []string{"A: 1\n\nx\n"}
	checkRules(t, []rule{
		{"empty lines", "careful uw", "\n\r\n\n" + mail, one},
		{"blanks and tabs", "careful uw", " \t\n  " + mail, one},
		{"a byte order mark", "careful", "\xef\xbb\xbf" + mail, one},
		{"a byte order mark and empty lines", "careful", "\xef\xbb\xbf\n\n" + mail, one},
		{"more than a window of empty lines", "careful", strings.Repeat("\n", windowSize+5) + mail, one},
		{"an empty line", "dovecot popa3d qpopper solid mailutils", "\n" + mail, nil},
		{"a byte order mark, to servers", "dovecot popa3d qpopper solid mailutils", "\xef\xbb\xbf" + mail, nil},
		{"two byte order marks", everyProfile, "\xef\xbb\xbf\xef\xbb\xbf" + mail, nil},
	})
	wantOddity(t, "\n\n"+mail, "careful", LeadingBlank, 0)
	wantOddity(t, mail, "careful", LeadingBlank)
	if got := mustRead(t, "\n \n"+mail, "careful"); got.lead != 3 || got.entries[0].Offset != 3 {
		t.Errorf("three blanks first: lead %d, the first message at %d", got.lead, got.entries[0].Offset)
	}
}

const mmdf = "\x01\x01\x01\x01\n"

func TestMMDF(t *testing.T) {
	one, two := "A: 1\n\nx\n", "A: 2\n\n"+fromC+"A: no\n\ny\n"
	checkRules(t, []rule{
		{"with From_ lines", "careful uw qpopper", mmdf + fromA + one + mmdf + mmdf + fromC + two + mmdf, []string{one, two}},
		{"without From_ lines", "careful uw qpopper", mmdf + one + mmdf + mmdf + two + mmdf, []string{one, two}},
		{"an opening line for each, none that closes", "careful", mmdf + one + mmdf + two + mmdf, []string{one, two}},
		{"no closing line at the end", "careful", mmdf + one + mmdf + mmdf + two, []string{one, two}},
		{"the message keeps its last empty line", "careful", mmdf + one + "\n" + mmdf, []string{one + "\n"}},
		{"the server's fields are hidden", "careful", mmdf + "A: 1\nStatus: RO\n\nStatus: x\n" + mmdf, []string{"A: 1\n\nStatus: x\n"}},
		{"no header: the first line is empty", "careful", mmdf + "\nStatus: x\n\ny\n" + mmdf, []string{"\nStatus: x\n\ny\n"}},
		{"a header only", "careful", mmdf + "A: 1\nStatus: R\n" + mmdf, []string{"A: 1\n"}},
		{"^A in running text", "careful", mmdf + one + "\x01\x01\x01\x01 x\n" + mmdf, []string{one + "\x01\x01\x01\x01 x\n"}},
		{"Content-Length is not looked at", "careful", mmdf + "A: 1\nContent-Length: 99\n\nx\n" + mmdf, []string{"A: 1\n\nx\n"}},
		{"no message", "careful", mmdf, []string{}},
		{"not read by servers of mbox", "dovecot popa3d solid mailutils", mmdf + fromA + one + mmdf, nil},
	})
	wantOddity(t, mmdf+one, "careful", UnclosedMMDF, 5)
	wantOddity(t, mmdf+one+mmdf, "careful", UnclosedMMDF)
	got := mustRead(t, mmdf+fromA+one+mmdf+mmdf+two+mmdf, "careful")
	if got.kind != MMDF || got.careful != 2 || string(got.entries[0].From.Raw) != strings.TrimSpace(fromA) || len(got.entries[1].From.Raw) > 0 {
		t.Errorf("kind %v, %d messages, From_ lines %q and %q", got.kind, got.careful, got.entries[0].From.Raw, got.entries[1].From.Raw)
	}
	if got.entries[0].Date.IsZero() || !got.entries[1].Date.IsZero() {
		t.Errorf("dates %v and %v, want one of the From_ line and none", got.entries[0].Date, got.entries[1].Date)
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestCRLF(t *testing.T) {
	one, two := "A: 1\n folded\n\nx\n\ny\n", "A: 2\n\nz\n"
	file := crlf(fromA + one + "\n" + fromC + two + "\n")
	for _, tt := range []struct {
		name, file string
		eol        EOL
		want       []string
	}{
		{"a CRLF file becomes LF", file, EOLAuto, []string{one, two}},
		{"a CRLF file that keeps the CRs of bodies", file, EOLKeep, []string{"A: 1\n folded\n\n" + crlf("x\n\ny\n"), "A: 2\n\nz\r\n"}},
		{"LF From_ lines: bodies stay", fromA + crlf(one+"\n") + fromC + crlf(two+"\n"), EOLAuto, []string{"A: 1\n folded\n\n" + crlf("x\n\ny\n"), "A: 2\n\nz\r\n"}},
		{"LF From_ lines: bodies become LF when asked", fromA + crlf(one+"\n") + fromC + crlf(two+"\n"), EOLLF, []string{one, two}},
		{"a CR inside a line stays", fromA + "A: 1\n\na\rb\r\r\n\n", EOLLF, []string{"A: 1\n\na\rb\r\n"}},
	} {
		for _, profile := range []string{"careful", "dovecot", "uw", "popa3d"} {
			t.Run(tt.name+"/"+profile, func(t *testing.T) {
				o := options(t, profile)
				o.EOL = tt.eol
				got, err := readAll(strings.NewReader(tt.file), int64(len(tt.file)), o, windowSize)
				if err != nil || !slices.Equal(got.contents, tt.want) {
					t.Errorf("got %q, %v\nwant %q", got.contents, err, tt.want)
				}
			})
		}
	}
	wantOddity(t, file, "careful", MixedLineEnds)
	wantOddity(t, crlf(fromA+one+"\n")+fromC+two, "careful", MixedLineEnds, int64(len(crlf(fromA+one+"\n"))))
}

func TestQuotingIsTakenBackOnlyWhenAsked(t *testing.T) {
	file := fromA + "A: 1\n\n>From x\n>>From y\n\n"
	for quoting, want := range map[message.Quoting]string{
		message.Keep:   "A: 1\n\n>From x\n>>From y\n",
		message.MboxO:  "A: 1\n\nFrom x\n>>From y\n",
		message.MboxRD: "A: 1\n\nFrom x\n>From y\n",
	} {
		o := options(t, "careful")
		o.Quoting = quoting
		got, err := readAll(strings.NewReader(file), int64(len(file)), o, windowSize)
		if err != nil || !slices.Equal(got.contents, []string{want}) {
			t.Errorf("quoting %d: got %q, %v, want %q", quoting, got.contents, err, want)
		}
	}
}

func TestHiddenFieldsAreThoseOfTheServer(t *testing.T) {
	header := "A: 1\nX-IMAPbase: 1 2\nX-UID: 1\nStatus: RO\nX-Status: A\nX-Keywords: k\nContent-Length: 2\nX-UIDL: u\nX-IMAP: 1 2\nB: 2\n"
	sep := map[string]string{"dovecot": "\n"} // Dovecot drops the last newline
	for _, tt := range []struct{ profiles, want string }{
		{"careful dovecot", "A: 1\nX-UIDL: u\nB: 2\n"},
		{"uw", "A: 1\nContent-Length: 2\nX-UIDL: u\nB: 2\n"},
		{"qpopper", "A: 1\nX-IMAPbase: 1 2\nX-UID: 1\nStatus: RO\nX-Status: A\nX-Keywords: k\nX-UIDL: u\nX-IMAP: 1 2\nB: 2\n"},
		{"popa3d mailutils", header},
	} {
		for _, profile := range strings.Fields(tt.profiles) {
			wantMessages(t, fromA+header+"\nx\n"+sep[profile], profile, tt.want+"\nx\n")
		}
	}
}
