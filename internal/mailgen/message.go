package mailgen

import (
	"bytes"
	"fmt"
	"strings"
)

// Message is what one message was meant to be.
type Message struct {
	ID       string // in the first line of the text, and in Message-ID unless Odd has SharedHeader
	FromLine string // without its line ending
	Sender   string // of the From_ line, "" if that has none
	Dialect  Dialect
	Odd      Odd // oddities of this message

	Offset int64 // of the From_ line in the file
	Header int64 // of the first header field
	Body   int64 // of the first octet of the body
	End    int64 // of the next From_ line, or the file's size

	Content Sum // as written: all but the seven fields that Dovecot hides, header lines ending in LF
	Dovecot Sum // as Dovecot shows it: without the last newline where no empty line follows
	LF      Sum // Content with every CR LF as LF

	Time int64 // INTERNALDATE by Dovecot with TZ=UTC, Unix seconds (mbox-from.c, quirks included)
	True int64 // the instant that the From_ line means

	UID      uint32   // 0 without State
	Flags    string   // letters of a Maildir name, of DFRST, sorted
	Keywords []string // sorted as in Summary.Keywords
}

// maxUIDStep is the largest gap between UIDs: some messages were expunged.
const maxUIDStep = 3

// draft is a message being made.
type draft struct {
	Message
	size    int      // of the content, octets
	body    int      // of the body, octets
	kind    kind     // MIME structure
	eol     string   // of header and body lines
	fileEOL string   // of the From_ line
	sep     string   // between the body and the next From_ line
	cut     int      // octets that the body lacks at its end
	fresh   bool     // delivered after the server last wrote
	state   []string // fields as lines without their ending
	length  lengthField
	bound   string // MIME boundary
	to      string // address of the recipient
}

// lengthField says what Content-Length a message has.
type lengthField int

const (
	noLength lengthField = iota
	rightLength
	wrongLength
)

func (g *generator) draft(size int) *draft {
	n := g.sum.Messages
	g.clock += 1 + g.r.Int64N(2*3600)
	d := &draft{size: size, eol: "\n", fileEOL: "\n", to: "alice@" + host}
	d.ID = fmt.Sprintf("gen-%x-%d", g.Seed, n)
	d.Dialect = g.Dialects[g.r.IntN(len(g.Dialects))]
	d.Odd = g.oddities(d)
	d.fresh = !g.State || g.Fresh > 0 && g.Messages > 0 && n >= g.Messages-g.Fresh
	d.kind, d.bound = g.kind(size), "=_"+g.token(20)
	if d.Odd&CRLF != 0 {
		d.eol = "\r\n"
	}
	if g.Odd&CRLFFile != 0 {
		d.eol, d.fileEOL = "\r\n", "\r\n"
	}
	if d.Odd&NoBlankLine == 0 {
		d.sep = d.fileEOL
	}
	g.fromLine(d)
	g.setState(d)
	d.setLength()
	return d
}

// oddities draws those of one message, leaving out pairs whose meaning readers
// of one profile would dispute.
func (g *generator) oddities(d *draft) Odd {
	var odd Odd
	for bit := Odd(1); bit < perFile; bit <<= 1 {
		if g.Odd&AllOdd&bit != 0 && g.r.IntN(6) == 0 {
			odd |= bit
		}
	}
	if d.Dialect == Mboxcl2 { // its Content-Length must hold
		odd &^= WrongContentLength | NoBlankLine
	}
	if g.Odd&CRLFFile != 0 {
		odd &^= CRLF
	}
	if odd&CRLF != 0 {
		odd &^= NoBlankLine // whose is the CR before the LF?
	}
	if d.size < roomy {
		odd &^= BodyCR | NUL | Prose | SharedHeader
	}
	if g.sum.Messages == 0 {
		odd &^= SharedHeader
	}
	return odd
}

// setLength chooses the Content-Length. Dovecot writes one for each message
// that it writes, the mboxcl2 writer for each; one that ends before an LF which
// belongs to the message would be read differently by different profiles.
func (d *draft) setLength() {
	switch {
	case d.Odd&WrongContentLength != 0:
		d.length = wrongLength
	case d.Odd&NoBlankLine != 0:
		d.length = noLength
	case d.Dialect == Mboxcl2 || !d.fresh:
		d.length = rightLength
	}
}

// contentLength is the field's value. A wrong one ends within the body or
// within the next message's header, never at a From_ line.
func (d *draft) contentLength() int {
	n := d.body - d.cut
	if d.length == rightLength {
		return n
	}
	if d.size%2 == 0 {
		return n + 11 + d.size%100
	}
	return n - 7 - d.size%23
}

// endWithoutNewline is for the last message of a file. Dovecot believes a
// Content-Length at the end of the file only before a final LF
// (istream-raw-mbox.c), so the body may not depend on one.
func (d *draft) endWithoutNewline() {
	d.cut, d.sep = len(d.eol), ""
	if d.Dialect == Mboxcl2 {
		d.Dialect = Plain
	}
}

// serverFields are the fields that the profile dovecot hides, last in the header.
func (d *draft) serverFields() string {
	var b strings.Builder
	for _, line := range d.state {
		b.WriteString(line + d.eol)
	}
	if d.length != noLength {
		fmt.Fprintf(&b, "Content-Length: %d%s", d.contentLength(), d.eol)
	}
	return b.String()
}

// storedHead is head, which ends in an empty line, as it stands in the file.
func (d *draft) storedHead(head []byte) []byte {
	fields := bytes.ReplaceAll(head[:len(head)-1], []byte("\n"), []byte(d.eol))
	return append(append(fields, d.serverFields()...), d.eol...)
}

// stored is the length of the message in the file with From_ line and separator.
func (d *draft) stored(head []byte) int64 {
	return int64(len(d.FromLine) + len(d.fileEOL) + len(d.storedHead(head)) + d.body + len(d.sep))
}

// write puts the message out and fills in its offsets and sums.
func (g *generator) write(d *draft, head []byte, parts []part) {
	d.Offset = g.out.off
	g.out.string(d.FromLine)
	g.out.string(d.fileEOL)
	d.Header = g.out.off
	g.out.bytes(d.storedHead(head))
	d.Body = g.out.off

	if g.Each != nil {
		g.out.sums = newSums()
		g.out.sums.write(head)
	}
	g.out.room = d.body - d.cut
	for _, p := range parts {
		g.part(d, p)
	}
	if g.Each != nil {
		lost := 0 // Dovecot takes the last newline for the separator's
		if d.sep == "" && d.cut == 0 {
			lost = len(d.eol)
		}
		d.Content, d.Dovecot, d.LF = g.out.sums.finish(lost)
	}
	g.out.string(d.sep)
	d.End = g.out.off
}
