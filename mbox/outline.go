package mbox

import (
	"bytes"
	"fmt"
	"slices"

	"mailferry/internal/message"
)

// outline is how a message has to be changed so that the profile's reading of
// it is the message.
type outline struct {
	start   int64 // of the header: behind the From_ line of a copy, else 0
	crlf    bool  // state fields end in CRLF
	blanks  int   // before the number of a Content-Length
	edits   []edit
	state   int    // the edit that is the place for state fields
	newline string // what they need before them: nothing, LF or CRLF
	body    int64  // where the body begins; -1: no empty line ends the header
	tooMany bool   // edits are missing
	Written
}

// edit takes cut bytes away at off and puts text there.
type edit struct {
	off, cut int64
	text     string
	cr       bool // the CR of a header line stands at off
}

// maxEdits bounds the memory for a hostile header. What is not edited the
// reader does: it hides the field, or takes the CR.
const maxEdits = 1 << 15

func (o *outline) edit(e edit) {
	if o.tooMany = len(o.edits) == maxEdits; !o.tooMany {
		o.edits = append(o.edits, e)
	} else if e.cr {
		o.CRs++
	}
}

// outline walks the header. The reader hides the server's fields, and drops one
// CR at the end of a header line: so a field that would be taken for the
// server's is left out, and a line that ends in CRLF gets another CR. A header
// wholly in CRLF stays as it is, since the CR of its empty line goes anyway.
//
// A copy stands as it is stored, but for the fields to drop: start is where its
// header begins.
func (w *Writer) outline(m *Outgoing, start int64, drop message.Set) (*outline, error) {
	o := &outline{start: start, body: -1}
	stored := start > 0
	s := w.readerOf(m.Content, m.Size)
	// State fields go to the end, as Dovecot puts them. They can't follow a line
	// without an LF; and a line that begins "From " and was no From_ line could
	// become one with a field behind it, so that they go before it. A message
	// of one such line alone gets an LF.
	place := edit{off: -1}
	placeAt, afterFrom, dropping, off := 0, false, false, start
	top := false // a From_ line may count only because a field follows it
	for off < m.Size && s.w.err == nil {
		line := s.w.from(off, lookAhead)
		if message.IsBlankLine(line) {
			o.body = off + s.lineEndAt(off)
			break
		}
		if starts := len(line) > 0 && line[0] != ' ' && line[0] != '\t'; starts {
			f, _ := message.ParseField(line)
			if dropping = drop.Has(f); dropping {
				o.Dropped++
				top = top || stored && off == start
			} else {
				from := bytes.HasPrefix(line, fromPrefix)
				if !afterFrom && !(from && off == start) { // the first line is never a From_ line
					place.off, placeAt = off, len(o.edits)
				}
				afterFrom = from && off > start
			}
		}
		end := s.lineEnd(off)
		tail := s.w.peek(max(off, end-2), int(min(2, end-off)))
		switch {
		case dropping:
			o.edit(edit{off: off, cut: end - off})
		case string(tail) == "\r\n" && !stored:
			o.edit(edit{off: end - 2, cr: true})
		default:
			o.newline = newlineAfter(tail)
		}
		off = end
	}
	if stored {
		o.Dropped = 0 // nobody has seen them
	} else {
		o.settleCRs(o.body-off == 2)
	}
	if top {
		o.newline, place.off, placeAt = "", start, 0
	} else if place.off >= 0 && (o.newline != "" || afterFrom) {
		o.newline = ""
	} else {
		place.off, placeAt = off, len(o.edits)
	}
	o.state = placeAt
	o.edits = slices.Insert(o.edits, placeAt, place)
	return o, s.w.err
}

// newlineAfter ends a header line, of whose CRs one is dropped.
func newlineAfter(tail []byte) string {
	switch {
	case bytes.HasSuffix(tail, lf):
		return ""
	case bytes.HasSuffix(tail, []byte{'\r'}):
		return "\r\n"
	}
	return "\n"
}

func (o *outline) settleCRs(crlf bool) {
	if crlf {
		o.CRs++
	}
	for i := range o.edits {
		switch e := &o.edits[i]; {
		case e.cr && crlf:
			o.CRs++
		case e.cr:
			e.text = "\r"
		}
	}
}

// contentLength is the field that measures the body. A header that no empty line
// ends can't have one, and gets as many blanks in another that says nothing.
func (o *outline) contentLength(m *Outgoing) string {
	if o.body < 0 {
		return fmt.Sprintf("Status: %*s\n", o.blanks, "")
	}
	return fmt.Sprintf("Content-Length: %*s%d\n", o.blanks, "", m.Size-o.body)
}
