package mbox

import (
	"bytes"
	"fmt"

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

// recognize tells what a file is from its first bytes; lead is how many of
// them are blank and stand before the first From_ line. start holds a few
// kilobytes, or the whole file when atEnd.
func recognize(start []byte, atEnd bool) (k Kind, lead int, err error) {
	for _, f := range foreign {
		if bytes.HasPrefix(start, []byte(f.magic)) {
			return NotMailbox, 0, &FormatError{f.found, f.hint}
		}
	}
	if bytes.HasPrefix(start, mmdfLine) {
		return MMDF, 0, nil
	}
	rest := bytes.TrimLeft(bytes.TrimPrefix(start, byteOrderMark), " \t\r\n")
	lead = len(start) - len(rest)
	switch {
	case len(rest) == 0 && atEnd:
		return Empty, lead, nil
	case bytes.HasPrefix(rest, fromPrefix):
		return Mbox, lead, nil
	case len(rest) > 0 && message.IsHeaderLine(rest):
		return NotMailbox, 0, &FormatError{"begins like a single message, without a From_ line", ""}
	}
	return NotMailbox, 0, &FormatError{fmt.Sprintf("begins with %q", rest[:min(len(rest), 24)]), ""}
}
