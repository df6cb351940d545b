package deliver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// collector takes a message in, line by line.
type collector struct {
	*draft
	envelope Envelope

	from   bool // a From_ line came
	begun  bool // the message itself has begun
	ended  bool // its first line has
	crlf   bool // in CRLF
	header bool // we are in its header
	bare   bool // it has none
	hiding bool // we are in a field that is left out

	returnPath bool // the header has Return-Path with our sender
	delivered  bool // the header has Delivered-To with our recipient
}

// collect reads a whole message. A big one goes to a file without a name in dir.
func collect(ctx context.Context, r io.Reader, e Envelope, dir *safefs.Dir) (m *draft, err error) {
	if max(len(e.Sender), len(e.Recipient)) > maxAddress {
		return nil, fmt.Errorf("an address is longer than %d bytes", maxAddress)
	}
	e.Sender = withoutDaemon(e.Sender)
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
	if c.hiding {
		return nil
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

// isFromLine knows the From_ line that the MTA has put on top: it has a date.
// "From :" is a field, "From me to you" is the text of a message without header.
func (c *collector) isFromLine(p piece) bool {
	if c.from || !p.last || !isFrom(p.text) || message.IsHeaderLine(p.text) {
		return false
	}
	line := mbox.FromLine{Raw: bytes.TrimRight(p.text, "\r\n")}
	if _, dated := line.Date(time.Local); !dated {
		return false
	}
	if !c.envelope.HasSender {
		c.takeSender(line)
	}
	c.from = true
	return true
}

// takeSender believes the From_ line.
func (c *collector) takeSender(line mbox.FromLine) {
	sender := line.Sender()
	if sender == "" || len(sender) > maxAddress {
		return
	}
	c.envelope.Sender, c.envelope.HasSender = withoutDaemon(sender), true
}

// withoutDaemon is an address without the name that MTAs give the null sender
// where there must be one.
func withoutDaemon(sender string) string {
	if sender == "MAILER-DAEMON" {
		return ""
	}
	return sender
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
		c.header, c.hiding = false, false
		return
	}
	if line[0] == ' ' || line[0] == '\t' {
		return
	}
	c.hiding = false
	if f, _ := message.ParseField(line); hidden.Has(f) {
		c.changes = true
	}
	name, value, _ := strings.Cut(string(line[:min(len(line), 2*maxAddress)]), ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	switch {
	case strings.EqualFold(name, "Return-Path") && c.envelope.HasSender:
		c.hiding = c.returnPath || !c.isSender(value)
		c.returnPath = c.returnPath || !c.hiding
	case strings.EqualFold(name, "Delivered-To") && strings.EqualFold(value, c.envelope.Recipient):
		c.delivered = true
	}
}

// isSender tells whether a Return-Path has the envelope's sender. Of one that is
// censored it is the better source.
func (c *collector) isSender(path string) bool {
	if len(path) < 2 || path[0] != '<' || path[len(path)-1] != '>' {
		return false
	}
	address, sender := unquoted(path[1:len(path)-1]), unquoted(c.envelope.Sender)
	if address == sender || address == c.envelope.Sender {
		return true
	}
	if !c.envelope.Censored || censored(address) != censored(sender) {
		return false
	}
	c.envelope.Sender = address
	return true
}

// unquoted is an address without the quotes of its local part, and the
// backslashes in them (RFC 5321 4.1.2).
func unquoted(address string) string {
	var b strings.Builder
	for i := 0; i < len(address); i++ {
		if address[i] == '\\' && i+1 < len(address) {
			i++
		} else if address[i] == '"' {
			continue
		}
		b.WriteByte(address[i])
	}
	return b.String()
}

// censored is an address as Postfix puts it into the environment: with "_" for
// each byte that is not in command_expansion_filter (postconf(5)).
func censored(address string) string {
	const safe = "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	b := []byte(address)
	for i := range b {
		if strings.IndexByte(safe, b[i]) < 0 {
			b[i] = '_'
		}
	}
	return string(b)
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
