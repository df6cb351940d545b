package deliver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// collector takes a message in, line by line.
type collector struct {
	*draft
	envelope Envelope

	from   bool // a From_ line came
	inFrom bool // its end did not
	begun  bool // the message itself has begun
	ended  bool // its first line has
	crlf   bool // in CRLF
	header bool // we are in its header
	bare   bool // it has none

	returnPath bool // the header has one
	delivered  bool // the header has Delivered-To with our recipient
}

// collect reads a whole message. A big one goes to a file without a name in dir.
func collect(ctx context.Context, r io.Reader, e Envelope, dir *safefs.Dir) (m *draft, err error) {
	if max(len(e.Sender), len(e.Recipient)) > maxAddress {
		return nil, fmt.Errorf("an address is longer than %d bytes", maxAddress)
	}
	c := &collector{draft: newDraft(dir), envelope: e}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if err := eachPiece(ctx, r, c.take); err != nil {
		return nil, err
	}
	if !c.begun {
		return nil, ErrEmpty
	}
	return c.draft, c.finish(fromLine(c.envelope.Sender), c.fields())
}

// take adds a piece to the message.
func (c *collector) take(p piece) error {
	if !c.begun {
		if c.isFromLine(p) {
			return nil
		}
		c.begin(p.text)
	}
	if p.last && !c.ended {
		c.ended, c.crlf = true, bytes.HasSuffix(p.text, []byte("\r\n"))
	}
	if p.first {
		c.notice(p.text)
	}
	switch {
	case c.crlf && bytes.HasSuffix(p.text, []byte("\r\n")):
		p.text = p.text[:len(p.text)-1]
		p.text[len(p.text)-1] = '\n'
	case p.last && !bytes.HasSuffix(p.text, []byte("\n")):
		p.text = append(bytes.Clone(p.text), '\n')
	}
	return c.add(p.text)
}

// isFromLine knows the From_ line that the MTA has put on top, in all of its
// pieces. "From :" is a field.
func (c *collector) isFromLine(p piece) bool {
	switch {
	case c.inFrom:
	case c.from || !isFrom(p.text) || message.IsHeaderLine(p.text):
		return false
	case !c.envelope.HasSender:
		c.takeSender(bytes.TrimRight(p.text, "\r\n"))
	}
	c.from, c.inFrom = true, !p.last
	return true
}

// takeSender believes the From_ line.
func (c *collector) takeSender(line []byte) {
	sender := mbox.FromLine{Raw: line}.Sender()
	if sender == "" || len(sender) > maxAddress {
		return
	}
	if sender == "MAILER-DAEMON" { // stands there for the null sender
		sender = ""
	}
	c.envelope.Sender, c.envelope.HasSender = sender, true
}

// begin looks at the beginning of the first line.
func (c *collector) begin(line []byte) {
	c.begun = true
	c.header = message.IsHeaderLine(line) || message.IsBlankLine(line)
	c.bare = !c.header
}

// notice looks at the beginning of a line.
func (c *collector) notice(line []byte) {
	c.changes = c.changes || isQuotable(line)
	if !c.header {
		return
	}
	if message.IsBlankLine(line) {
		c.header = false
		return
	}
	if f, _ := message.ParseField(line); hidden.Has(f) {
		c.changes = true
	}
	name, value, _ := strings.Cut(string(line[:min(len(line), 2*maxAddress)]), ":")
	switch {
	case strings.EqualFold(name, "Return-Path"):
		c.returnPath = true
	case strings.EqualFold(name, "Delivered-To") && strings.EqualFold(strings.TrimSpace(value), c.envelope.Recipient):
		c.delivered = true
	}
}

// fields are those that we add. A message without header gets the empty line
// that ends ours.
func (c *collector) fields() []byte {
	var b bytes.Buffer
	if c.envelope.HasSender && !c.returnPath {
		fmt.Fprintf(&b, "Return-Path: <%s>\n", clean(c.envelope.Sender))
	}
	if c.envelope.Recipient != "" && !c.delivered {
		fmt.Fprintf(&b, "Delivered-To: %s\n", clean(c.envelope.Recipient))
	}
	if c.bare {
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// clean keeps an address in its line.
func clean(address string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, address)
}
