package mbox

import (
	"slices"
	"strings"
	"testing"
)

// From_ lines for the tables of this package.
const (
	fromA = "From a@b Thu Nov 29 22:33:52 2001\n"
	fromC = "From c@d Fri Nov 30 01:02:03 2001\n"
	fromE = "From e@f Sat Dec  1 04:05:06 2001\n"
)

// The seven messages on which servers disagree. Message 4 has no empty line
// behind it; the body of message 5 has two lines that look like From_ lines.
const (
	seed1 = "Subject: one\nContent-Length: 18\nStatus: RO\n\n>From here quoted\n"
	seed2 = "Subject: two\n\nplain\n"
	seed3 = "Subject: three\n\nbody\n\nwith empty lines\n"
	seed4 = "Subject: four\n\nno blank after me\n"
	seed5 = "Subject: five\n\ntext\nFrom the beginning\nmore\n" + seed5b
	seed6 = "Subject: six\n\r\nCRLF body\r\nof two lines\r\n"
	seed7 = "Subject: seven\n\nlast\n"

	seed5b     = "From x Thu Nov 29 22:33:52 2001\n" + seed5inner
	seed5inner = "in mid-body\n"
	seed       = fromA + seed1 + "\n" + fromC + seed2 + "\n" + fromE + seed3 + "\n" + fromA + seed4 +
		fromC + seed5 + "\n" + fromE + seed6 + "\n" + fromA + seed7 + "\n"
)

func TestSeedIsReadAsEachServerReadsIt(t *testing.T) {
	chop := func(s string) string { return strings.TrimSuffix(s, "\n") }
	head := strings.TrimSuffix(seed5, seed5b)
	one := "Subject: one\n\n>From here quoted\n" // without Content-Length and Status
	six := strings.Replace(seed6, "six\n\r\n", "six\n\n", 1)
	for profile, want := range map[string][]string{
		// Eight to Dovecot, which drops the last LF before each From_ line.
		"dovecot": {one, seed2, seed3, chop(seed4), chop(head), seed5inner, six, seed7},
		// Eight to UW, which hides no Content-Length.
		"uw": {"Subject: one\nContent-Length: 18\n\n>From here quoted\n", seed2, seed3, seed4, head, seed5inner + "\n", six, seed7},
		// Eight to solid-pop3d, with the empty lines.
		"solid": {seed1 + "\n", seed2 + "\n", seed3 + "\n", seed4, head, seed5inner + "\n", six + "\n", seed7 + "\n"},
		// Six where an empty line has to stand before.
		"popa3d":    {seed1, seed2, seed3, seed4 + fromC + seed5, six, seed7},
		"mailutils": {seed1, seed2, seed3, seed4 + fromC + seed5, six, seed7},
		"qpopper":   {"Subject: one\nStatus: RO\n\n>From here quoted\n\n", seed2 + "\n", seed3 + "\n", seed4 + fromC + seed5 + "\n", six + "\n", seed7 + "\n"},
		// Seven, as a person counts.
		"careful": {one, seed2, seed3, seed4, seed5, six, seed7},
	} {
		t.Run(profile, func(t *testing.T) {
			wantMessages(t, seed, profile, want...)
			if got := mustRead(t, seed, profile).careful; got != 7 {
				t.Errorf("the careful count beside %s is %d, want 7", profile, got)
			}
		})
	}
}

func TestSeedDisagreementsAreReported(t *testing.T) {
	inner := int64(strings.Index(seed, seed5b))
	missing := int64(strings.Index(seed, fromC+"Subject: five"))
	for profile, want := range map[string][]int64{
		"dovecot": {inner}, "uw": {inner}, "solid": {inner},
		"popa3d": {missing}, "mailutils": {missing}, "qpopper": {missing},
		"careful": nil,
	} {
		wantOddity(t, seed, profile, ProfileDiffers, want...)
	}
	wantOddity(t, seed, "dovecot", NoEmptyLine, missing, inner)
	wantOddity(t, seed, "careful", NoEmptyLine, missing)
	wantOddity(t, seed, "careful", FromInBody, int64(strings.Index(seed, "From the")), inner)
	wantOddity(t, seed, "careful", WrongContentLength)
}

// rule is one rule of one or more profiles, by what they make of a small mailbox.
type rule struct {
	name, profiles, file string
	want                 []string // messages; nil: refused
}

func checkRules(t *testing.T, rules []rule) {
	t.Helper()
	for _, tt := range rules {
		for _, profile := range strings.Fields(tt.profiles) {
			t.Run(tt.name+"/"+profile, func(t *testing.T) {
				got, err := readAll(strings.NewReader(tt.file), int64(len(tt.file)), options(t, profile), windowSize)
				switch {
				case tt.want == nil && err == nil:
					t.Errorf("%q has %d messages, want a refusal\n%q", tt.file, len(got.contents), got.contents)
				case tt.want != nil && err != nil:
					t.Errorf("%q: %v", tt.file, err)
				case !slices.Equal(got.contents, tt.want):
					t.Errorf("%q has messages\n%q\nwant\n%q", tt.file, got.contents, tt.want)
				}
			})
		}
	}
}

const everyProfile = "careful dovecot uw popa3d qpopper solid mailutils"

func TestEndings(t *testing.T) {
	checkRules(t, []rule{
		{"an empty line before From_", "careful dovecot uw popa3d mailutils", fromA + "A: 1\n\nx\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n\nx\n", "A: 2\n\ny\n"}},
		{"the empty line is the message's", "solid qpopper", fromA + "A: 1\n\nx\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n\nx\n\n", "A: 2\n\ny\n\n"}},
		{"two empty lines: one is the message's", "careful dovecot uw popa3d", fromA + "A: 1\n\nx\n\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n\nx\n\n", "A: 2\n\ny\n"}},
		{"the last LF is the separator, even of a line", "dovecot", fromA + "A: 1\n\nx\n" + fromC + "A: 2\n\ny\n", []string{"A: 1\n\nx", "A: 2\n\ny"}},
		{"the last LF of a line is the line's", "careful uw solid", fromA + "A: 1\n\nx\n" + fromC + "A: 2\n\ny\n", []string{"A: 1\n\nx\n", "A: 2\n\ny\n"}},
		{"CRLF is one line end", "careful dovecot uw popa3d", fromA + "A: 1\n\nx\r\n\r\n" + fromC + "A: 2\n\ny\r\n\r\n", []string{"A: 1\n\nx\r\n", "A: 2\n\ny\r\n"}},
		{"CRLF goes as a whole", "dovecot", fromA + "A: 1\n\nx\r\n" + fromC + "A: 2\n\ny\r\n", []string{"A: 1\n\nx", "A: 2\n\ny"}},
		{"no newline at the end of the file", "careful dovecot uw popa3d qpopper solid mailutils", fromA + "A: 1\n\nx", []string{"A: 1\n\nx"}},
		{"an empty body", "careful dovecot popa3d uw", fromA + "A: 1\n\n\n" + fromC + "A: 2\n\n\n", []string{"A: 1\n\n", "A: 2\n\n"}},
		{"a header only: its empty line is the separator", "careful dovecot", fromA + "A: 1\n\n" + fromC + "A: 2\n\n", []string{"A: 1\n", "A: 2\n"}},
		{"a header only: its empty line is its own", "uw popa3d", fromA + "A: 1\n\n" + fromC + "A: 2\n\n", []string{"A: 1\n\n", "A: 2\n\n"}},
		{"nothing between two From_ lines but an empty line", "careful dovecot", fromA + "\n" + fromC + "A: 2\n\ny\n\n", []string{"", "A: 2\n\ny\n"}},
		{"a From_ line alone", everyProfile, fromA, []string{""}},
		{"a From_ line alone, without newline", "careful popa3d", strings.TrimSuffix(fromA, "\n"), []string{""}},
		{"a From_ line and an empty line", "careful dovecot", fromA + "\n", []string{""}},
		{"a From_ line and an empty line, which ends the header", "uw popa3d qpopper solid mailutils", fromA + "\n", []string{"\n"}},
	})
}

func TestFromLinesInHeaders(t *testing.T) {
	inHeader := fromA + "A: 1\nB: 1\n" + fromC + "A: 2\n\ny\n\n"
	whole := "A: 1\nB: 1\n" + fromC + "A: 2\n\ny\n"
	behind := fromA + fromC + "A: 2\n\ny\n\n"
	prose := fromA + "A: 1\nFrom : p@q\n>From x Fri Nov 30 01:02:03 2001\nFrom - \nB: 1\n\ny\n\n"
	checkRules(t, []rule{
		{"a From_ line in a header separates", "careful", inHeader, []string{"A: 1\nB: 1\n", "A: 2\n\ny\n"}},
		{"a From_ line in a header takes the LF before it", "dovecot", inHeader, []string{"A: 1\nB: 1", "A: 2\n\ny\n"}},
		{"a header has no From_ lines", "uw popa3d mailutils", inHeader, []string{whole}},
		{"a header has no From_ lines, and ends are kept", "qpopper", inHeader, []string{whole + "\n"}},
		{"a From_ line separates wherever it is", "solid", inHeader, []string{"A: 1\nB: 1\n", "A: 2\n\ny\n\n"}},
		{"a From_ line directly behind another is a header line", "careful dovecot uw popa3d mailutils", behind, []string{fromC + "A: 2\n\ny\n"}},
		{"a From_ line directly behind another separates", "solid", behind, []string{"", "A: 2\n\ny\n\n"}},
		{"From : and >From are header lines", "dovecot uw popa3d mailutils", prose, []string{strings.TrimPrefix(prose[:len(prose)-1], fromA)}},
		{"an undated From_ line in a header separates", "careful", fromA + "A: 1\nFrom - \nB: 1\n\ny\n\n", []string{"A: 1\n", "B: 1\n\ny\n"}},
	})
}

func TestFromLinesInBodies(t *testing.T) {
	prose := "A: 1\n\nFrom here on\n\nFrom now on\n"
	undated := fromA + "A: 1\n\nx\n\nFrom - \nA: 2\n\ny\n\n"
	undatedText := fromA + "A: 1\n\nx\n\nFrom - \ny\n\n"
	pipermail := fromA + "A: 1\n\nx\nFrom e at f  Sat Dec  1 04:05:06 2001\nA: 2\n\ny\n\n"
	checkRules(t, []rule{
		{"prose is text", "careful dovecot uw mailutils", fromA + prose + "\n", []string{prose}},
		{"prose behind an empty line separates", "popa3d", fromA + prose + "\n", []string{"A: 1\n\n", "\n", "\n"}},
		{"27 bytes of prose separate", "solid", fromA + "A: 1\n\nFrom here on to the very en\nFrom here on to the very e\n", []string{"A: 1\n\n", "From here on to the very e\n"}},
		{"undated, a header line behind", "careful popa3d", undated, []string{"A: 1\n\nx\n", "A: 2\n\ny\n"}},
		{"undated is text", "dovecot uw mailutils", undated, []string{"A: 1\n\nx\n\nFrom - \nA: 2\n\ny\n"}},
		{"undated, text behind", "careful", undatedText, []string{"A: 1\n\nx\n\nFrom - \ny\n"}},
		{"Pipermail: no empty line, a sender with blanks", "careful", pipermail, []string{"A: 1\n\nx\n", "A: 2\n\ny\n"}},
		{"Pipermail: UW looks at the date alone", "uw", pipermail, []string{"A: 1\n\nx\n", "A: 2\n\ny\n"}},
		{"Pipermail: Dovecot takes no sender with blanks", "dovecot popa3d", pipermail, []string{"A: 1\n\nx\nFrom e at f  Sat Dec  1 04:05:06 2001\nA: 2\n\ny\n"}},
		{"a quoted From_ line is text and stays quoted", "careful dovecot uw popa3d mailutils", fromA + "A: 1\n\n>" + fromC + ">>From x\n\n", []string{"A: 1\n\n>" + fromC + ">>From x\n"}},
		{"a From_ line in an attached message separates", "careful dovecot uw popa3d mailutils", fromA + "A: 1\n\n--b\nContent-Type: message/rfc822\n\n" + fromC + "A: 2\n\ny\n\n",
			[]string{"A: 1\n\n--b\nContent-Type: message/rfc822\n", "A: 2\n\ny\n"}},
		{"behind the empty line that ends the header", "careful dovecot", fromA + "A: 1\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n", "A: 2\n\ny\n"}},
		{"behind the empty line that ends the header", "uw popa3d", fromA + "A: 1\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n\n", "A: 2\n\ny\n"}},
		{"mailutils wants an empty line of the body", "mailutils", fromA + "A: 1\n\n" + fromC + "A: 2\n\ny\n\n", []string{"A: 1\n\n" + fromC + "A: 2\n\ny\n"}},
		{"From_ behind a CR alone is text", "careful dovecot uw", fromA + "A: 1\n\nx\r" + fromC + "\n", []string{"A: 1\n\nx\r" + fromC}},
	})
}
