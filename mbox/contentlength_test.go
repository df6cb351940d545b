package mbox

import (
	"strings"
	"testing"
)

// spanned is a message whose body holds a whole From_ line with a header.
const spanned = "text\n\n" + fromC + "A: 2\n\ny\n"

func TestContentLength(t *testing.T) {
	last := fromE + "A: 3\n\nz\n\n"
	three := []string{"A: 1\n\ntext\n", "A: 2\n\ny\n", "A: 3\n\nz\n"}
	checkRules(t, []rule{
		{"right: it spans a From_ line", "careful dovecot", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n" + last, []string{"A: 1\n\n" + spanned, "A: 3\n\nz\n"}},
		{"ignored", "popa3d mailutils", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n" + last, []string{"A: 1\nContent-Length: 48\n\ntext\n", "A: 2\n\ny\n", "A: 3\n\nz\n"}},
		{"ignored and visible", "uw", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n" + last, []string{"A: 1\nContent-Length: 48\n\ntext\n", "A: 2\n\ny\n", "A: 3\n\nz\n"}},
		{"ignored and hidden", "qpopper", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n" + last, []string{"A: 1\n\ntext\n\n", "A: 2\n\ny\n\n", "A: 3\n\nz\n\n"}},
		{"right, and the last LF left out: Dovecot's own", "careful dovecot", fromA + "A: 1\nContent-Length: 47\n\n" + spanned + last, []string{"A: 1\n\n" + spanned[:47], "A: 3\n\nz\n"}},
		{"right, no empty line behind", "careful", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + last, []string{"A: 1\n\n" + spanned, "A: 3\n\nz\n"}},
		{"Dovecot wants a line end behind it", "dovecot", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + last, []string{"A: 1\n\ntext\n", "A: 2\n\ny", "A: 3\n\nz\n"}},
		{"one too small", "careful dovecot", fromA + "A: 1\nContent-Length: 46\n\n" + spanned + "\n" + last, three},
		{"one too big lands on From_", "careful", fromA + "A: 1\nContent-Length: 49\n\n" + spanned + "\n" + last, []string{"A: 1\n\n" + spanned + "\n", "A: 3\n\nz\n"}},
		{"one too big", "dovecot", fromA + "A: 1\nContent-Length: 49\n\n" + spanned + "\n" + last, three},
		{"lands on prose", "careful dovecot", fromA + "A: 1\nContent-Length: 5\n\ntext\n\nFrom here on\n\n" + last, []string{"A: 1\n\ntext\n\nFrom here on\n", "A: 3\n\nz\n"}},
		{"in the middle of a line", "careful dovecot", fromA + "A: 1\nContent-Length: 2\n\ntext\n\n" + last, []string{"A: 1\n\ntext\n", "A: 3\n\nz\n"}},
		{"0 where text follows", "careful dovecot", fromA + "A: 1\nContent-Length: 0\n\ntext\n\n" + last, []string{"A: 1\n\ntext\n", "A: 3\n\nz\n"}},
		{"0 of an empty body", "careful dovecot", fromA + "A: 1\nContent-Length: 0\n\n\n" + last, []string{"A: 1\n\n", "A: 3\n\nz\n"}},
		{"with CRLF", "careful dovecot", fromA + "A: 1\r\nContent-Length: 47\r\n\r\n" + spanned[:47] + "\r\n" + last, []string{"A: 1\n\n" + spanned[:47], "A: 3\n\nz\n"}},
		{"in any case, blanks before the colon", "careful dovecot", fromA + "A: 1\ncontent-LENGTH : 48 \n\n" + spanned + "\n" + last, []string{"A: 1\n\n" + spanned, "A: 3\n\nz\n"}},
	})
}

func TestContentLengthAtTheEndOfTheFile(t *testing.T) {
	two := []string{"A: 1\n\ntext\n", "A: 2\n\ny\n"}
	checkRules(t, []rule{
		{"the body ends the file", "careful", fromA + "A: 1\nContent-Length: 48\n\n" + spanned, []string{"A: 1\n\n" + spanned}},
		{"Dovecot wants the file's last LF behind it", "dovecot", fromA + "A: 1\nContent-Length: 48\n\n" + spanned, []string{"A: 1\n\ntext\n", "A: 2\n\ny"}},
		{"but for the last LF", "careful dovecot", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n", []string{"A: 1\n\n" + spanned}},
		{"but for the last LF of a line", "careful dovecot", fromA + "A: 1\nContent-Length: 47\n\n" + spanned, []string{"A: 1\n\n" + spanned[:47]}},
		{"but for the last CRLF", "careful dovecot", fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\r\n", []string{"A: 1\n\n" + spanned}},
		{"two line ends before the end", "careful dovecot", fromA + "A: 1\nContent-Length: 47\n\n" + spanned + "\n", two},
		{"one byte too many", "careful", fromA + "A: 1\nContent-Length: 49\n\n" + spanned, two},
		{"huge", "careful", fromA + "A: 1\nContent-Length: 999999999999999999\n\n" + spanned, two},
		{"more than 64 bits", "careful", fromA + "A: 1\nContent-Length: 99999999999999999999999999999999\n\n" + spanned, two},
	})
}

func TestContentLengthThatIsNoNumber(t *testing.T) {
	next := []string{"A: 1\n\ntext\n", "A: 2\n\ny\n"}
	right := []string{"A: 1\n\n" + spanned}
	for _, tt := range []struct {
		name, fields string
		want         []string
	}{
		{"the first of two counts", "Content-Length: 48\nContent-Length: 5\n", right},
		{"a wrong first of two counts", "Content-Length: 3\nContent-Length: 48\n", next},
		{"the first that is a number counts", "Content-Length: many\nContent-Length: 48\n", right},
		{"letters behind the number", "Content-Length: 48 bytes\n", next},
		{"a sign", "Content-Length: +48\n", next},
		{"nothing", "Content-Length:\n", next},
		{"hexadecimal", "Content-Length: 0x30\n", next},
		{"a longer name", "Content-Lengths: 48\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := fromA + "A: 1\n" + tt.fields + "\n" + spanned + "\n"
			for _, profile := range []string{"careful", "dovecot"} {
				want := tt.want
				if want == nil {
					want = []string{"A: 1\n" + tt.fields + "\ntext\n", "A: 2\n\ny\n"}
				}
				wantMessages(t, file, profile, want...)
			}
		})
	}
}

func TestContentLengthIsReportedWhereItIsWrong(t *testing.T) {
	right := fromA + "A: 1\nContent-Length: 48\n\n" + spanned + "\n"
	wrong := fromA + "A: 1\nContent-Length: 7\n\n" + spanned + "\n"
	huge := fromA + "A: 1\nContent-Length: 9999999999999999999999\n\n" + spanned + "\n"
	inner := int64(strings.Index(right, fromC))
	for _, profile := range strings.Fields(everyProfile) {
		wantOddity(t, right, profile, WrongContentLength)
		wantOddity(t, wrong, profile, WrongContentLength, 0)
		wantOddity(t, huge, profile, WrongContentLength, 0)
	}
	wantOddity(t, right, "careful", FromInsideLength, inner)
	wantOddity(t, right, "dovecot", FromInsideLength, inner)
	wantOddity(t, right, "popa3d", FromInsideLength)
	wantOddity(t, right, "popa3d", ProfileDiffers, inner)
}
