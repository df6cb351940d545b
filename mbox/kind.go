package mbox

import (
	"bytes"
	"fmt"
	"io"

	"mailferry/internal/message"
)

// Kind is what a file is by its first bytes.
type Kind uint8

// The kinds that are mailboxes to some server.
const (
	NotMailbox Kind = iota
	Empty           // no byte, or nothing but blank lines: a mailbox without messages
	Mbox            // begins with a From_ line
	MMDF            // begins with a line of four ^A
)

// FormatError says that a file is no mbox and what it is instead. The file
// was only read.
type FormatError struct {
	Found string // what it is, or its first bytes quoted
	Hint  string // what to do, if there is something
}

func (e *FormatError) Error() string {
	if e.Hint == "" {
		return "not an mbox: " + e.Found
	}
	return "not an mbox: " + e.Found + "; " + e.Hint
}

// foreign are the formats that are found where mboxes are expected.
var foreign = []struct{ magic, found, hint string }{
	{"\x1f\x8b", "gzip compressed file", "unpack it first: gzip -dc FILE > FILE.mbox"},
	{"BZh", "bzip2 compressed file", "unpack it first: bzip2 -dc FILE > FILE.mbox"},
	{"\x28\xb5\x2f\xfd", "zstd compressed file", "unpack it first: zstd -dc FILE > FILE.mbox"},
	{"\xfd7zXZ\x00", "xz compressed file", "unpack it first: xz -dc FILE > FILE.mbox"},
	{"\x04\x22\x4d\x18", "lz4 compressed file", "unpack it first: lz4 -dc FILE > FILE.mbox"},
	{"PK\x03\x04", "zip archive", "unpack it first: unzip FILE"},
	{"\x01\x01\x01\x01\r\n", "MMDF mailbox whose lines end in CRLF", "make them LF first: dos2unix FILE"},
	{"*mbx*\r\n", "c-client mbx mailbox", "let its own server export it: mailutil copy, of UW imap-utils"},
	{"*mtx*\r\n", "c-client mtx mailbox", "let its own server export it: mailutil copy, of UW imap-utils"},
	{"BABYL OPTIONS", "Babyl mailbox of Emacs Rmail", "let Emacs export it: M-x unrmail"},
	{"!BDN", "Outlook PST file", "convert it first: readpst, of libpst"},
	{"\xcf\xad\x12\xfe", "Outlook Express DBX file", "convert it first: readdbx, of libpst"},
	{"SQLite format 3\x00", "SQLite database", ""},
	{"%PDF-", "PDF document", ""},
	{"\x7fELF", "program", ""},
}

// mmdfLine stands before and after each message of an MMDF mailbox.
var mmdfLine = []byte("\x01\x01\x01\x01\n")

var byteOrderMark = []byte("\xef\xbb\xbf")

// blanks may stand before the first From_ line.
const blanks = " \t\r\n"

// recognize tells what a file is from the first bytes that are no blanks.
func recognize(text []byte) (Kind, error) {
	for _, f := range foreign {
		if bytes.HasPrefix(text, []byte(f.magic)) {
			return NotMailbox, &FormatError{f.found, f.hint}
		}
	}
	switch {
	case len(text) == 0:
		return Empty, nil
	case bytes.HasPrefix(text, mmdfLine):
		return MMDF, nil
	case bytes.HasPrefix(text, fromPrefix):
		return Mbox, nil
	case message.IsHeaderLine(text):
		return NotMailbox, &FormatError{"begins like a single message, without a From_ line", ""}
	}
	return NotMailbox, &FormatError{fmt.Sprintf("begins with %q", text[:min(len(text), 24)]), ""}
}

// begin recognizes the file and finds the first From_ line.
func (s *Scanner) begin() error {
	lead := s.afterBlanks()
	kind, err := recognize(s.w.peek(lead, lookAhead))
	if s.w.err != nil {
		return s.w.err
	}
	if err != nil {
		return err
	}
	s.kind, s.lead, s.next = kind, lead, lead
	switch {
	case kind == Empty:
		return nil
	case lead > 0 && !s.profile.lenient:
		return &FormatError{fmt.Sprintf("%d bytes of blanks stand before the first From_ line, and %s refuses that", lead, s.profile.Name), "use --profile careful"}
	case lead > 0:
		s.odd.add(LeadingBlank, 0)
	}
	switch {
	case kind == MMDF && !s.profile.mmdf:
		return &FormatError{"MMDF, which " + s.profile.Name + " does not read", "use --profile careful"}
	case kind == MMDF:
		s.mmdf = true
		s.lead = s.afterMMDF(s.lead)
		s.next = s.lead
	default:
		return s.checkFirst()
	}
	return nil
}

// checkFirst judges the first From_ line, before which nothing stands. One
// without an end would be all that there is of the file: it is refused,
// whatever the profile's server makes of it.
func (s *Scanner) checkFirst() error {
	c := s.candidate(s.next)
	if s.w.err != nil {
		return s.w.err
	}
	c.blank = true
	quote := c.line[:min(len(c.line), 80)]
	switch {
	case bytes.IndexByte(c.line, '\r') >= 0:
		return &FormatError{fmt.Sprintf("begins with %q: a CR inside its first line; lines may end in CR alone, as on old Macintosh", quote), "look at it, and make line ends LF first"}
	case c.long:
		return &FormatError{fmt.Sprintf("begins with %q ..., a line of more than %d bytes", quote, maxFromLine), ""}
	case !s.profile.accept(c):
		return &FormatError{fmt.Sprintf("begins with %q, which is no From_ line to %s", quote, s.profile.Name), s.hint()}
	}
	return nil
}

// afterBlanks returns where the first byte is that is neither a blank nor of a
// byte order mark.
func (s *Scanner) afterBlanks() int64 {
	off := int64(0)
	if bytes.Equal(s.w.peek(0, len(byteOrderMark)), byteOrderMark) {
		off = int64(len(byteOrderMark))
	}
	for off < s.w.size {
		b := s.w.from(off, 1)
		text := bytes.TrimLeft(b, blanks)
		off += int64(len(b) - len(text))
		if len(text) > 0 || len(b) == 0 {
			break
		}
	}
	return off
}

// Begins reports whether a file begins as an mbox to the profile's server, so that what
// is appended is seen: with "From ", which some let blanks stand before (c-client unix.c,
// unix_isvalid_fd, looks at the first KiB). One with nothing in it begins as one.
func (p Profile) Begins(r io.ReaderAt) (bool, error) {
	text := make([]byte, lookAhead)
	n, err := r.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return false, err
	}
	text = text[:n]
	if p.lenient {
		text = bytes.TrimLeft(bytes.TrimPrefix(text, byteOrderMark), blanks)
	}
	return bytes.HasPrefix(text, fromPrefix) || len(text) == 0 && err == io.EOF, nil
}

func (s *Scanner) hint() string {
	if s.profile.Name == Careful.Name {
		return ""
	}
	return "use --profile careful if no server has to be matched"
}
