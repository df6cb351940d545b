package mbox

import (
	"strings"
	"testing"
	"time"
)

// newYork has a zone that shows where a date was taken for local time.
func newYork(t testing.TB) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// takes says whether a profile separates at line, with an empty line before it
// or not and the next line given.
func takes(t testing.TB, profile, line string, blank bool, next string) bool {
	t.Helper()
	p, err := ProfileByName(profile)
	if err != nil {
		t.Fatal(err)
	}
	return p.accept(candidate{line: []byte(line), rest: []byte(line + "\n" + next), blank: blank})
}

func stampString(date time.Time, ok bool) string {
	if !ok {
		return ""
	}
	return date.UTC().Format(time.DateTime)
}

// TestFromLineShapes: each shape that was seen in real mailboxes (docs/boundaries.md)
// or that Dovecot's grammar has a rule for. served is what Dovecot serves as
// INTERNALDATE in New York, true what the line means there, both in UTC.
func TestFromLineShapes(t *testing.T) {
	loc := newYork(t)
	for _, tt := range []struct {
		name, line           string
		dovecot, uw, careful bool // separates, behind an empty line and before a header
		sender, served, true string
	}{
		{"asctime", "From a@b Thu Nov 29 22:33:52 2001", true, true, true,
			"a@b", "2001-11-30 03:33:52", "2001-11-30 03:33:52"},
		{"two blanks behind the sender", "From a@b  Mon Jul  2 03:04:05 2001", true, true, true,
			"a@b", "2001-07-02 07:04:05", "2001-07-02 07:04:05"},
		{"numeric zone behind the year: Dovecot takes the minutes for seconds", "From a@b Mon Jan  2 03:04:05 2023 +0530", true, true, true,
			"a@b", "2023-01-01 22:03:35", "2023-01-01 21:34:05"},
		{"numeric zone without minutes", "From a@b Mon Jan  2 03:04:05 2023 -0700", true, true, true,
			"a@b", "2023-01-02 10:04:05", "2023-01-02 10:04:05"},
		{"numeric zone before the year: Dovecot passes it over", "From a@b Mon Jan  2 03:04:05 -0700 2023", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 10:04:05"},
		{"named zone before the year: Dovecot passes it over", "From a@b Mon Jan  2 03:04:05 PST 2023", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 11:04:05"},
		{"named zone behind the year", "From a@b Mon Jan  2 03:04:05 2023 MET", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 02:04:05"},
		{"an unknown zone means local time", "From a@b Mon Jan  2 03:04:05 XYZ 2023", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"RFC 822 order", "From a@b Mon, 2 Jan 2023 03:04:05 -0700", true, false, true,
			"a@b", "2023-01-02 10:04:05", "2023-01-02 10:04:05"},
		{"RFC 822 order without a zone", "From a@b Mon, 12 Jan 2023 03:04:05", true, false, true,
			"a@b", "2023-01-12 08:04:05", "2023-01-12 08:04:05"},
		{"no seconds", "From a@b Mon Jan  2 03:04 2023", true, true, true,
			"a@b", "2023-01-02 08:04:00", "2023-01-02 08:04:00"},
		{"no seconds, with a zone", "From a@b Mon Jan  2 03:04 EST 2023", true, true, true,
			"a@b", "2023-01-02 08:04:00", "2023-01-02 08:04:00"},
		{"no sender", "From  Mon Jan  2 03:04:05 2023", true, true, true,
			"", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"Netscape with a date", "From - Mon Jan  2 03:04:05 2023", true, true, true,
			"-", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"quoted local part with a blank", `From "a b"@c Mon Jan  2 03:04:05 2023`, true, true, true,
			`"a b"@c`, "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"remote from", "From a@b Mon Jan  2 03:04:05 2023 remote from zz", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"small letters", "From a@b mon jan  2 03:04:05 2023", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"a day with a zero", "From a@b Mon Jan 02 03:04:05 2023", true, true, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"a day of one digit and one blank", "From a@b Mon Jan 2 03:04:05 2023", true, false, true,
			"a@b", "2023-01-02 08:04:05", "2023-01-02 08:04:05"},
		{"1969 comes back from Dovecot's cache as 2105", "From a@b Mon Jan  2 03:04:05 1969", true, true, true,
			"a@b", "2105-02-08 14:32:21", "1969-01-02 08:04:05"},
		{"the last second before 1970 is no date to Dovecot", "From a@b Wed Dec 31 18:59:59 1969", true, true, true,
			"a@b", "1970-01-01 00:00:00", "1969-12-31 23:59:59"},
		{"31 February is 3 March", "From a@b Mon Feb 31 03:04:05 2023", true, true, true,
			"a@b", "2023-03-03 08:04:05", "2023-03-03 08:04:05"},
		{"31 February with a zone is no date to Dovecot", "From a@b Mon Feb 31 03:04:05 2023 +0000", false, true, true,
			"a@b", "", "2023-03-03 03:04:05"},
		{"a leap second with a zone", "From a@b Sat Dec 31 23:59:60 2016 +0000", true, true, true,
			"a@b", "2016-12-31 23:59:59", "2017-01-01 00:00:00"},
		{"Dovecot's special mbox", "From a@b Mon ??? 12 03:04:05 2023", true, true, false,
			"a@b Mon ??? 12 03:04:05 2023", "2023-01-12 08:04:05", ""},

		{"an hour of one digit", "From a@b Mon Jan 02 3:04:05 2023", false, false, true,
			"a@b", "", "2023-01-02 08:04:05"},
		{"a at b, as Pipermail writes", "From a at b  Mon Jan  2 03:04:05 2023", false, true, true,
			"a at b", "", "2023-01-02 08:04:05"},
		{"a zone of two words", "From a@b Mon Jan  2 03:04:05 MET DST 2023", false, false, true,
			"a@b", "", "2023-01-02 01:04:05"},
		{"tabs", "From a@b\tMon Jan  2 03:04:05 2023", false, false, true,
			"a@b", "", "2023-01-02 08:04:05"},
		{"a year of two digits", "From a@b Mon Jan  2 03:04:05 99", false, false, true,
			"a@b", "", "1999-01-02 08:04:05"},
		{"ISO 8601", "From a@b 2023-01-02T03:04:05Z", false, false, true,
			"a@b", "", "2023-01-02 03:04:05"},
		{"ISO 8601 in two words, with a zone", "From a@b 2023-01-02 03:04:05 +0530", false, false, true,
			"a@b", "", "2023-01-01 21:34:05"},
		{"no weekday", "From alice@b Jan  2 03:04:05 2023", false, false, true,
			"alice@b", "", "2023-01-02 08:04:05"},
		{"Gmail", "From 1844674407370955@xxx Mon Jan 02 03:04:05 +0000 2023", true, true, true,
			"1844674407370955@xxx", "2023-01-02 08:04:05", "2023-01-02 03:04:05"},

		{"nothing, as bare archives have it", "From ", false, false, true, "", "", ""},
		{"Netscape and Thunderbird", "From -", false, false, true, "-", "", ""},
		{"an address alone", "From 1844674407370955@xxx", false, false, true, "1844674407370955@xxx", "", ""},
		{"prose", "From the beginning", false, false, false, "the beginning", "", ""},
		{"prose with an address", "From what a@b says", false, false, false, "what a@b says", "", ""},
		{"a header field", "From : p@q", false, false, false, ": p@q", "", ""},
		{"a month without a time", "From May 2001 on we knew", false, false, false, "May 2001 on we knew", "", ""},
		{"a time without a date", "From 10:00 to 11:00", false, false, false, "10:00 to 11:00", "", ""},
		{"a day that is none", "From a@b Mon Jan 32 03:04:05 2023", true, true, false,
			"a@b Mon Jan 32 03:04:05 2023", "2023-02-01 08:04:05", ""},
		{"an hour that is none", "From a@b Mon Jan  2 25:04:05 2023", true, true, false,
			"a@b Mon Jan  2 25:04:05 2023", "2023-01-03 06:04:05", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for profile, want := range map[string]bool{
				"dovecot": tt.dovecot, "uw": tt.uw, "qpopper": tt.uw, "mailutils": tt.uw,
				"solid": len(tt.line) >= 27, "careful": tt.careful, "popa3d": true,
			} {
				if got := takes(t, profile, tt.line, true, "Subject: x\n"); got != want {
					t.Errorf("%s: %q separates: %v, want %v", profile, tt.line, got, want)
				}
			}
			f := FromLine{[]byte(tt.line)}
			if got := f.Sender(); got != tt.sender {
				t.Errorf("the sender of %q is %q, want %q", tt.line, got, tt.sender)
			}
			if got := stampString(servedByDovecot(f, loc)); got != tt.served {
				t.Errorf("Dovecot serves %q as %q, want %q", tt.line, got, tt.served)
			}
			if got := stampString(f.Date(loc)); got != tt.true {
				t.Errorf("%q means %q, want %q", tt.line, got, tt.true)
			}
		})
	}
}

func TestWhatStandsAroundAFromLineDecides(t *testing.T) {
	const (
		dated   = "From a@b Thu Nov 29 22:33:52 2001"
		undated = "From -"
		prose   = "From here on"
	)
	for _, tt := range []struct {
		name, line string
		blank      bool
		next       string
		takers     string
	}{
		{"dated, empty line before, header behind", dated, true, "Subject: x\n", "careful dovecot uw popa3d qpopper solid mailutils"},
		{"dated, no empty line, header behind", dated, false, "Subject: x\n", "careful dovecot uw solid"},
		{"dated, empty line before, text behind", dated, true, "some text\n", "careful dovecot uw popa3d qpopper solid mailutils"},
		{"dated, no empty line, text behind", dated, false, "some text\n", "dovecot uw solid"},
		{"dated, the last line of the file", dated, true, "", "careful dovecot uw popa3d qpopper solid mailutils"},
		{"dated, quoted From_ line behind", dated, false, ">From c@d Thu Nov 29 22:33:52 2001\n", "careful dovecot uw solid"},
		{"undated, empty line before, header behind", undated, true, "Subject: x\n", "careful popa3d"},
		{"undated, no empty line, header behind", undated, false, "Subject: x\n", "careful"},
		{"undated, empty line before, text behind", undated, true, "some text\n", "popa3d"},
		{"prose behind an empty line, a header-like line behind", prose, true, "He said: no\nNo: yes\n", "popa3d"},
		{"prose of 27 bytes", "From here on to the very en", false, "some text\n", "solid"},
		{"prose in running text", prose, false, "some text\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			takers := map[string]bool{}
			for _, p := range strings.Fields(tt.takers) {
				takers[p] = true
			}
			for _, profile := range ProfileNames() {
				if got := takes(t, profile, tt.line, tt.blank, tt.next); got != takers[profile] {
					t.Errorf("%s separates: %v", profile, got)
				}
			}
		})
	}
}

// FuzzFromLine: nothing panics; what Dovecot takes has a date; the fast path for
// asctime finds what the search finds; and no blank is part of a sender's edge.
func FuzzFromLine(f *testing.F) {
	for _, line := range []string{
		"From a@b Thu Nov 29 22:33:52 2001", "From a@b Mon Jan  2 03:04:05 2023 +0530", "From a@b Mon, 2 Jan 2023 03:04 -0700",
		"From \"a\\\" b\"@c Mon Jan 2 03:04:05 PST 2023 remote from z", "From a at b 2023-01-02T03:04:05.25+01:00", "From -", "From ",
		"From a@b Mon ??? 00 99:99:99 0000 -9999", "From x Mon Jan  2 3:04:05 MET DST 99",
	} {
		f.Add([]byte(line[len("From "):]), []byte("Subject: x\n"))
	}
	loc := newYork(f)
	f.Fuzz(func(t *testing.T, rest, next []byte) {
		line := FromLine{append([]byte("From "), rest...)}
		line.Sender()
		_, slow, slowOK := parseStamp(string(rest))
		fast, fastOK := stampOf(rest)
		if fast != slow && fastOK || fastOK != slowOK {
			t.Fatalf("%q: %+v %v by the fast way, %+v %v by the search", rest, fast, fastOK, slow, slowOK)
		}
		if date, ok := line.Date(loc); ok && (date.Year() < -1 || date.Year() > 10000) {
			t.Fatalf("%q means %v", rest, date)
		}
		served, ok := servedByDovecot(line, loc)
		if _, _, takes := parseDovecotFrom(append(append(rest, "\n        "...), next...)); ok && !takes {
			t.Fatalf("%q is refused when %q follows", rest, next)
		}
		if ok && (served.Unix() < 0 || served.Unix() >= 1<<32) {
			t.Fatalf("Dovecot serves %q as %v", rest, served)
		}
		for _, p := range profiles {
			p.accept(candidate{line: line.Raw, rest: append(append(line.Raw, '\n'), next...)})
			p.date(line, loc)
		}
	})
}
