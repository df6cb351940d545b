package mbox

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Prose with a date in it is text: what stands on a From_ line is in no message,
// so that taking prose for one would lose it.
func TestProseWithADateStaysText(t *testing.T) {
	for _, line := range []string{
		"From 2001-11-29 10:00 on, call 555-1234 (gate code 42)",
		"From Monday, 29 Nov 2001 10:00 onward the server is down.",
		"From Jan 5 10:30 to 12 people came.",
		"From Jan 5 10:30 until 12",
		"From the log of Thu Nov 29 22:33:52 2001 we see",
		"From Nov 29 2001 10:00 we",
		"From 29-Nov-2001 10:00 on, no mail",
	} {
		for _, next := range []string{"for help.\n", "http://example.org/\n", ""} {
			body := "A: 1\n\nhi\n\n" + line + "\n" + next
			wantMessages(t, fromA+body, "careful", body)
		}
	}
	wantOddity(t, fromA+"A: 1\n\nhi\n\n"+fromC+"no header\n", "careful", NoHeader, int64(len(fromA+"A: 1\n\nhi\n\n")))
}

func TestALineWithACRInsideIsNoFromLine(t *testing.T) {
	body := "A: 1\n\nhi\n\nFrom a@b Thu Nov 29 22:33:52 2001\rA: 2\r\rprecious\r\r"
	wantMessages(t, fromA+body, "careful", body)
	for _, p := range profiles {
		file := "From a@b Thu Nov 29 22:33:52 2001\rA: 2\r\rprecious\r"
		var format *FormatError
		if _, err := NewScanner(strings.NewReader(file), int64(len(file)), Options{Profile: p}); !errors.As(err, &format) {
			t.Errorf("%s: %v for a file of one line with CRs", p.Name, err)
		}
	}
}

func TestDovecotTakesNoFromLineWithoutItsLF(t *testing.T) {
	last := strings.TrimSuffix(fromC, "\n")
	wantMessages(t, fromA+"A: 1\n\nhi\n\n"+last, "dovecot", "A: 1\n\nhi\n\n"+last)
	wantMessages(t, fromA+"A: 1\n\nhi\n\n"+fromC, "dovecot", "A: 1\n\nhi\n", "")
}

func TestMMDFLinesAndBlanksBetweenMessagesAreNone(t *testing.T) {
	one, two := "A: 1\n\nx\n", "A: 2\n\ny\n"
	for name, file := range map[string]string{
		"a blank line between":   mmdf + one + mmdf + "\n" + mmdf + two + mmdf,
		"blank lines at the end": mmdf + one + mmdf + mmdf + two + mmdf + "\n\n",
		"several opening lines":  mmdf + mmdf + mmdf + one + mmdf + mmdf + two + mmdf,
	} {
		got := mustRead(t, file, "careful")
		if len(got.contents) != 2 || got.contents[0] != one || got.contents[1] != two {
			t.Errorf("%s: %q", name, got.contents)
		}
		checkTiles(t, []byte(file), got)
	}
	file := strings.ReplaceAll(mmdf+one+mmdf, "\n", "\r\n")
	if _, err := NewScanner(strings.NewReader(file), int64(len(file)), options(t, "careful")); err == nil || !strings.Contains(err.Error(), "MMDF") {
		t.Errorf("MMDF in CRLF: %v", err)
	}
}

// A stranger's X-IMAPbase must not leave later messages without a UID.
func TestALastUIDThatLeavesNoRoomIsNotBelieved(t *testing.T) {
	got := mustRead(t, withFields("X-IMAPbase: 5 4294967294\n", ""), "dovecot")
	if len(got.states) != 2 || got.states[0].UID != 1 || got.states[1].UID != 2 || got.tracker.UIDValidity() != 0 {
		t.Errorf("states %+v, UIDVALIDITY %d", got.states, got.tracker.UIDValidity())
	}
}

func TestIncredibleDatesGiveWayToTheDateField(t *testing.T) {
	sent := time.Date(2001, 11, 29, 22, 33, 52, 0, time.UTC)
	for year, want := range map[string]time.Time{"9999": sent, "1901": sent, "2001": time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC)} {
		file := "From a@b Tue Jan  2 03:04:05 " + year + "\nDate: Thu, 29 Nov 2001 22:33:52 +0000\n\nx\n"
		if got := mustRead(t, file, "careful"); !got.entries[0].Date.Equal(want) {
			t.Errorf("year %s: %v, want %v", year, got.entries[0].Date, want)
		}
	}
	file := "From a@b Tue Jan  2 03:04:05 9999\nDate: Thu, 29 Nov 9999 22:33:52 +0000\n\nx\n"
	if got := mustRead(t, file, "careful"); !got.entries[0].Date.IsZero() {
		t.Errorf("nothing credible: %v", got.entries[0].Date)
	}
}
