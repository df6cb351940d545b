// Package message knows as much of RFC 5322 as moving a message between
// storage formats takes: where header fields begin and end, which of them the
// old server kept for itself, and what the bytes that go to the user measure.
package message

import "bytes"

// Field names a header field that the conversion looks at.
type Field uint8

// The fields that mbox servers keep state in, and those that identify a
// message. Every other field is Other.
const (
	Other Field = iota
	ContentLength
	Date
	MessageID
	Status
	XIMAP
	XIMAPbase
	XKeywords
	XStatus
	XUID
	XUIDL
)

var fieldNames = [...]string{
	Other:         "",
	ContentLength: "content-length",
	Date:          "date",
	MessageID:     "message-id",
	Status:        "status",
	XIMAP:         "x-imap",
	XIMAPbase:     "x-imapbase",
	XKeywords:     "x-keywords",
	XStatus:       "x-status",
	XUID:          "x-uid",
	XUIDL:         "x-uidl",
}

// String returns the field's name in lower case.
func (f Field) String() string { return fieldNames[f] }

// Set is a set of fields.
type Set uint16

// SetOf returns the set of the given fields.
func SetOf(fields ...Field) Set {
	var s Set
	for _, f := range fields {
		s |= 1 << f
	}
	return s
}

// Has reports whether f is in s.
func (s Set) Has(f Field) bool { return f != Other && s>>f&1 != 0 }

// maxName is longer than any name in fieldNames with blanks before the colon.
const maxName = 40

// ParseField returns which field a header line begins and where its value
// begins. Names compare without regard to case, and blanks before the colon
// are no part of them, as in dovecot message-header-parser.c.
func ParseField(line []byte) (f Field, value int) {
	if len(line) == 0 {
		return Other, 0
	}
	switch line[0] | 0x20 {
	case 'c', 'd', 'm', 's', 'x':
	default:
		return Other, 0
	}
	colon := bytes.IndexByte(line[:min(len(line), maxName)], ':')
	if colon < 0 {
		return Other, 0
	}
	name := bytes.TrimRight(line[:colon], " \t")
	for f := ContentLength; int(f) < len(fieldNames); f++ {
		if len(name) == len(fieldNames[f]) && equalFold(name, fieldNames[f]) {
			return f, colon + 1
		}
	}
	return Other, 0
}

// equalFold compares ASCII letters without regard to case; lower is in lower
// case and as long as b.
func equalFold(b []byte, lower string) bool {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// IsHeaderLine reports whether line begins as a header field does: a name of
// printable ASCII without a colon, then a colon, perhaps after blanks (the
// obsolete syntax of RFC 5322, 4.5). A quoted From_ line, which UUCP-era
// agents leave at the top of a header, counts too; a URL does not.
func IsHeaderLine(line []byte) bool {
	if bytes.HasPrefix(line, []byte(">From ")) {
		return true
	}
	i := 0
	for i < len(line) && line[i] > ' ' && line[i] < 0x7f && line[i] != ':' {
		i++
	}
	if i == 0 {
		return false
	}
	for i < len(line) && (line[i] == ' ' || line[i] == '\t') {
		i++
	}
	return i < len(line) && line[i] == ':' && !bytes.HasPrefix(line[i:], []byte("://"))
}

// IsBlankLine reports whether b begins with a line end: LF or CRLF.
func IsBlankLine(b []byte) bool {
	return len(b) > 0 && (b[0] == '\n' || len(b) > 1 && b[0] == '\r' && b[1] == '\n')
}
