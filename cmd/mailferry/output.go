package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

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
