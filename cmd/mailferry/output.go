package main

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mailferry/convert"
	"mailferry/mbox"
)

// printable spells out what a terminal might obey: names and header text were
// chosen by others.
func printable(s string) string {
	var b strings.Builder
	for i, width := 0, 0; i < len(s); i += width {
		var r rune
		if r, width = utf8.DecodeRuneInString(s[i:]); strconv.IsPrint(r) && (r != utf8.RuneError || width > 1) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.Quote(s[i:i+width]), `"`))
		}
	}
	return b.String()
}

// shellWord quotes a word for a POSIX shell.
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoted shows where a name begins and ends.
func quoted(s string) string {
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` && !strings.ContainsAny(s, " '$`*?;&|<>()") {
		return s
	}
	return q
}

func offsets(p mbox.Places) string {
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(p.Offsets)), ", "), "[]")
	if p.Count > len(p.Offsets) {
		list += ", ..."
	}
	return list
}

// oddText tells of a kind of oddity in a mailbox.
func oddText(kind mbox.Oddity, where string, p mbox.Places) string {
	return fmt.Sprintf("odd: %s: %s%s (%d, at %s)", kind, where, kind.Explain(), p.Count, offsets(p))
}

// oddList is what was odd about the mailboxes of users: a line for each mailbox
// and kind, or for each user when they are many.
type oddList struct {
	lines []string // of the first mailboxes
	users []string
	total map[mbox.Oddity]int
	many  bool // there are more lines
}

const (
	maxOddLines   = 100 // that somebody reads in the morning
	maxOddOffsets = 3   // enough to look at
)

// round enters the mailboxes of a user; nil for none.
func (l *oddList) round(user string, r *convert.Round) {
	if r == nil {
		return
	}
	l.add(user, func(yield func(string, convert.Odd) bool) {
		for _, m := range r.Mailboxes {
			if !yield(m.Path, m.Odd) {
				return
			}
		}
	})
}

// add enters the mailboxes of a user, by their paths.
func (l *oddList) add(user string, mailboxes iter.Seq2[string, convert.Odd]) {
	sum, n := map[mbox.Oddity]int{}, 0
	for path, odd := range mailboxes {
		if len(odd) > 0 {
			n++
		}
		for kind, p := range odd.All {
			sum[kind] += p.Count
			p.Offsets = p.Offsets[:min(len(p.Offsets), maxOddOffsets)]
			l.line(user + ": " + oddText(kind, quoted(path)+": ", p))
		}
	}
	if len(sum) == 0 {
		return
	}
	l.users = append(l.users, fmt.Sprintf("%s: odd: %s; in %s", user, oddCounts(sum), plural(n, "mailbox")))
	if l.total == nil {
		l.total = map[mbox.Oddity]int{}
	}
	for kind, count := range sum {
		l.total[kind] += count
	}
}

func (l *oddList) line(text string) {
	if l.many = len(l.lines) == maxOddLines; !l.many {
		l.lines = append(l.lines, text)
	}
}

// text are the lines for people.
func (l *oddList) text() []string {
	if !l.many {
		return l.lines
	}
	return append(l.users, "odd in all: "+oddCounts(l.total)+"; --json has the places")
}

// oddCounts lists counts by kind.
func oddCounts(sum map[mbox.Oddity]int) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(sum)) {
		list = append(list, fmt.Sprintf("%d %s", sum[kind], kind))
	}
	return strings.Join(list, ", ")
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "x"):
		noun += "es"
	case strings.HasSuffix(noun, "y"):
		noun = strings.TrimSuffix(noun, "y") + "ies"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func size(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// The JSON lines of all verbs are told apart by a message_type, which every one
// has; fields are only ever added. Those of one verb alone are beside it.
type jsonError struct {
	MessageType string `json:"message_type"` // "error": the run failed, no summary follows
	Error       string `json:"error"`
}
