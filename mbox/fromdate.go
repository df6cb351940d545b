package mbox

import (
	"bytes"
	"strings"
	"time"
)

// A stamp is the date of a From_ line as written, before any zone is applied.
type stamp struct {
	year, month, day, hour, min, sec int
	zone                             string // as written: "", "+0530", "PST", "MET DST"
}

// time gives the stamp in loc, which stands in when the zone says nothing.
func (s stamp) time(loc *time.Location) time.Time {
	return localTime(s.year, s.month, s.day, s.hour, s.min, s.sec, loc)
}

// localTime is mktime with tm_isdst -1, as glibc answers it where it was asked
// about an earlier message before: of the hour that comes twice in autumn the
// first counts, and in the hour that is skipped in spring the offset that held
// before. (In an hour that comes twice glibc prefers the offset that it found
// last, so a server shows either, by what it did before.)
func localTime(year, month, day, hour, min, sec int, loc *time.Location) time.Time {
	naive := time.Date(year, time.Month(month), day, hour, min, sec, 0, time.UTC)
	const aDay = 24 * time.Hour // no zone changes twice within two of them
	before := withOffsetAt(naive, naive.Add(-aDay), loc)
	after := withOffsetAt(naive, naive.Add(aDay), loc)
	if !sameClock(before, naive) && sameClock(after, naive) {
		return after
	}
	return before
}

// withOffsetAt reads the clock of naive with the offset that loc has at another time.
func withOffsetAt(naive, at time.Time, loc *time.Location) time.Time {
	_, offset := at.In(loc).Zone()
	return time.Unix(naive.Unix()-int64(offset), 0).In(loc)
}

func sameClock(t, naive time.Time) bool {
	return t.Hour() == naive.Hour() && t.Minute() == naive.Minute()
}

// zoneOffsets are the zones of RFC 822, 5.1 and those that Unix mailers wrote
// into From_ lines, in seconds east of UTC (c-client mail.c, mail_parse_zone).
var zoneOffsets = map[string]int{
	"UT": 0, "UTC": 0, "GMT": 0, "Z": 0, "WET": 0,
	"AST": -4 * 3600, "ADT": -3 * 3600,
	"EST": -5 * 3600, "EDT": -4 * 3600,
	"CST": -6 * 3600, "CDT": -5 * 3600,
	"MST": -7 * 3600, "MDT": -6 * 3600,
	"PST": -8 * 3600, "PDT": -7 * 3600,
	"HST": -10 * 3600, "BST": 3600, "WEST": 3600,
	"MET": 3600, "CET": 3600, "MEZ": 3600, "MEST": 7200, "CEST": 7200, "MESZ": 7200, "MET DST": 7200,
	"EET": 7200, "EEST": 10800, "MSK": 10800, "JST": 9 * 3600, "KST": 9 * 3600,
}

// zoneOffset returns what a written zone means, if that is known.
func zoneOffset(zone string) (seconds int, known bool) {
	zone = strings.Trim(zone, "()")
	if len(zone) == 5 && (zone[0] == '+' || zone[0] == '-') && digits(zone[1:]) == 4 {
		seconds = number(zone[1:3])*3600 + number(zone[3:5])*60
		if zone[0] == '-' {
			seconds = -seconds
		}
		return seconds, true
	}
	seconds, known = zoneOffsets[strings.ToUpper(zone)]
	return seconds, known
}

// trueTime applies the written zone; an unknown one is local, as mailers
// without a zone meant it.
func (s stamp) trueTime(loc *time.Location) time.Time {
	if off, ok := zoneOffset(s.zone); ok {
		loc = time.FixedZone("", off)
	}
	return s.time(loc)
}

// parseStamp finds the date in what follows "From " on a From_ line. It takes
// every shape that was seen in real mailboxes: asctime and RFC 822 order,
// without seconds, one-digit hours, two-digit years, tabs, zones of one or two
// words before or after the year, ISO 8601. The sender may hold blanks ("a at
// b", Pipermail). ok is false when no date is there: then the line is prose,
// or one of the undated From_ lines of Netscape, Thunderbird and Gmail.
func parseStamp(rest string) (sender string, s stamp, ok bool) {
	tokens := tokenize(rest)
	for i := range tokens {
		if s, ok := parseDate(tokens[i:]); ok {
			return strings.TrimRight(rest[:tokens[i].at], " \t"), s, true
		}
	}
	return strings.TrimSpace(rest), stamp{}, false
}

// stampOf is the date alone. Nearly every From_ line ends in an asctime date,
// "Thu Nov 29 22:33:52 2001", which takes no search and no memory.
func stampOf(rest []byte) (s stamp, ok bool) {
	const layout = len("Thu Nov 29 22:33:52 2001")
	if n := len(rest) - layout; n > 0 && rest[n-1] == ' ' && bytes.IndexByte(rest[:n], ':') < 0 && s.asctime(rest[n:]) {
		return s, true
	}
	_, s, ok = parseStamp(string(rest))
	return s, ok
}

// asctime reads a date in the exact form of asctime(3).
func (s *stamp) asctime(b []byte) bool {
	for i, blank := range []int{3, 7, 10, 19} {
		if b[blank] != ' ' || i == 0 && !isWeekday(string(b[:3])) {
			return false
		}
	}
	day := bytes.TrimPrefix(b[8:10], []byte{' '})
	if digits(day) != len(day) || digits(b[20:]) != 4 || b[13] != ':' || b[16] != ':' ||
		digits(b[11:]) != 2 || digits(b[14:]) != 2 || digits(b[17:]) != 2 {
		return false
	}
	s.day, s.hour, s.min, s.sec, s.year = number(day), number(b[11:13]), number(b[14:16]), number(b[17:19]), number(b[20:24])
	return monthOf(string(b[4:7]), &s.month) && s.day >= 1 && s.day <= 31 && s.hour < 24 && s.min < 60 && s.sec <= 60
}

type token struct {
	string
	at int
}

// maxTokens bounds the work on a line of words.
const maxTokens = 40

func tokenize(s string) []token {
	var list []token
	for i := 0; i < len(s) && len(list) < maxTokens; {
		if s[i] == ' ' || s[i] == '\t' || s[i] == '\r' {
			i++
			continue
		}
		end := i + strings.IndexAny(s[i:]+" ", " \t\r")
		list = append(list, token{s[i:end], i})
		i = end
	}
	return list
}

// parseDate reads a date that begins at the first token.
func parseDate(t []token) (s stamp, ok bool) {
	if isoDate(t, &s) {
		return s, true
	}
	if len(t) > 0 && isWeekday(t[0].string) {
		t = t[1:]
	}
	if len(t) >= 2 && imapDay(t[0].string, &s) && clock(t[1].string, &s) {
		s.zone = zoneAt(t, 2)
		return s, true
	}
	switch {
	case len(t) >= 4 && monthOf(t[0].string, &s.month) && dayOf(t[1].string, &s.day) && clock(t[2].string, &s):
		return s, yearAndZone(t[3:], &s)
	case len(t) >= 4 && monthOf(t[0].string, &s.month) && dayOf(t[1].string, &s.day) && yearOf(t[2].string, &s.year) && clock(t[3].string, &s):
		s.zone = zoneAt(t, 4)
		return s, true
	case len(t) >= 4 && dayOf(t[0].string, &s.day) && monthOf(t[1].string, &s.month) && yearOf(t[2].string, &s.year) && clock(t[3].string, &s):
		s.zone = zoneAt(t, 4)
		return s, true
	}
	return s, false
}

// zoneAt returns the zone that stands at a place, if one does.
func zoneAt(t []token, i int) string {
	if i < len(t) && isZone(t[i].string) {
		return t[i].string
	}
	return ""
}

// imapDay reads "29-Nov-2001".
func imapDay(w string, s *stamp) bool {
	parts := strings.Split(w, "-")
	return len(parts) == 3 && dayOf(parts[0], &s.day) && monthOf(parts[1], &s.month) && yearOf(parts[2], &s.year)
}

// yearAndZone reads what follows the time of an asctime date: the year, with
// up to three words of zone before it or one after it.
func yearAndZone(t []token, s *stamp) bool {
	for i := 0; i < len(t) && i <= 3; i++ {
		if yearOf(t[i].string, &s.year) {
			words := make([]string, i)
			for j := range words {
				words[j] = t[j].string
			}
			s.zone = strings.Join(words, " ")
			if i == 0 {
				s.zone = zoneAt(t, 1)
			}
			return true
		}
		if !isZone(t[i].string) {
			return false
		}
	}
	return false
}

// isZone reports whether a word can be part of a zone: +hhmm, -hhmm or letters.
func isZone(w string) bool {
	if w[0] == '+' || w[0] == '-' {
		return len(w) >= 3 && digits(w[1:]) == len(w)-1
	}
	w = strings.Trim(w, "()")
	for i := range len(w) {
		if !isLetter(w[i]) {
			return false
		}
	}
	return w != "" && w != "remote"
}

func isoDate(t []token, s *stamp) bool {
	if len(t) == 0 || len(t[0].string) < 10 {
		return false
	}
	d := t[0].string
	if digits(d) != 4 || d[4] != '-' || digits(d[5:]) != 2 || d[7] != '-' || digits(d[8:]) != 2 {
		return false
	}
	s.year, s.month, s.day = number(d[:4]), number(d[5:7]), number(d[8:10])
	if s.month < 1 || s.month > 12 || s.day < 1 || s.day > 31 {
		return false
	}
	time, rest := "", t[1:]
	switch {
	case len(d) > 11 && (d[10] == 'T' || d[10] == 't'):
		time = d[11:]
	case len(d) == 10 && len(t) > 1:
		time, rest = t[1].string, t[2:]
	}
	if i := strings.IndexAny(time, "Zz+-"); i > 0 {
		time, s.zone = time[:i], strings.ToUpper(strings.ReplaceAll(time[i:], ":", ""))
	} else {
		s.zone = zoneAt(rest, 0)
	}
	time, _, _ = strings.Cut(time, ".")
	return clock(time, s)
}

func isWeekday(w string) bool {
	return nameIn("sunmontuewedthufrisat", strings.TrimSuffix(w, ",")) >= 0
}

func monthOf(w string, month *int) bool {
	*month = nameIn("janfebmaraprmayjunjulaugsepoctnovdec", w) + 1
	return *month > 0
}

// nameIn returns the place of a name of three letters in a list of such, or -1.
func nameIn(list, name string) int {
	for i := 0; len(name) == 3 && i < len(list); i += 3 {
		if strings.EqualFold(list[i:i+3], name) {
			return i / 3
		}
	}
	return -1
}

func dayOf(w string, day *int) bool {
	w = strings.TrimSuffix(w, ",")
	if n := digits(w); n != len(w) || n < 1 || n > 2 {
		return false
	}
	*day = number(w)
	return *day >= 1 && *day <= 31
}

// clock reads H:MM or H:MM:SS.
func clock(w string, s *stamp) bool {
	parts := strings.Split(w, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return false
	}
	for i, p := range parts {
		if n := digits(p); n != len(p) || n == 0 || n > 2 || i > 0 && n != 2 {
			return false
		}
	}
	s.hour, s.min, s.sec = number(parts[0]), number(parts[1]), 0
	if len(parts) == 3 {
		s.sec = number(parts[2])
	}
	return s.hour < 24 && s.min < 60 && s.sec <= 60
}

// yearOf reads a year of four digits, or of two: 70-99 are of the twentieth
// century and 00-69 of this one (POSIX strptime %y).
func yearOf(w string, year *int) bool {
	n := digits(w)
	if n != len(w) {
		return false
	}
	*year = number(w)
	switch n {
	case 4:
		return true
	case 2:
		*year += 1900
		if *year < 1970 {
			*year += 100
		}
		return true
	}
	return false
}

// digits counts the ASCII digits that s begins with.
func digits[T ~string | ~[]byte](s T) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}

// number is the value of a few ASCII digits.
func number[T ~string | ~[]byte](s T) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// isUndated reports whether line, without its end, has a shape that mailers
// write when they know no date: nothing (bare archives), "-" (Netscape,
// Thunderbird) or one address (Gmail). Prose never had it in any real mailbox seen.
func isUndated(line []byte) bool {
	word := bytes.TrimSpace(line[len(fromPrefix):])
	if len(word) == 0 || string(word) == "-" {
		return true
	}
	return bytes.IndexByte(word, '@') > 0 && !bytes.ContainsAny(word, " \t")
}
