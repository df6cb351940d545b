package mbox

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"mailferry/internal/message"
)

// separator is what stands between a message and the next From_ line, or the
// end of the mbox.
type separator struct {
	middle, last string
	added        int // bytes of middle that the reader takes for the message's
}

// separators are what can stand there. Of a CR and an LF behind it some readers
// take both.
var separators = []string{"\n", "\r\n", "", "\n\n", "\r\n\n", "\n\n\n", "\r\n\n\n"}

// settle finds the separator that the profile's reading takes off again, or
// that adds least to the message, whatever looks like a From_ line inside.
func (w *Writer) settle(d *draft) error {
	p := w.o.Profile
	p.accept = func(c candidate) bool { return string(c.rest) == nextFromLine && w.o.Profile.accept(c) }
	best := separator{added: math.MaxInt}
	for _, text := range separators {
		if !w.mayStand(d, text) {
			continue
		}
		d.close(text)
		sp := w.splitDraft(d, d.size, &p)
		added := int(sp.end - d.end)
		if sp.next != d.end+int64(len(text)) || added < 0 {
			continue
		}
		if added > 0 && d.body == d.end && d.endsIn("\r") {
			if !strings.HasPrefix(text, "\r") {
				continue // the message's CR would go, as that of a header line's end
			}
			added--
		}
		if added < best.added {
			best = separator{text, text, added}
		}
		if added == 0 {
			break
		}
	}
	for _, text := range []string{"\n", "\r\n", ""} {
		if !w.mayStand(d, text) {
			continue
		}
		d.close(text)
		size := d.end + int64(len(text))
		if sp := w.splitDraft(d, size, &p); sp.next == size && sp.end == d.end {
			best.last = text
			break
		}
	}
	d.sep = best
	d.close(best.middle)
	if best.added == math.MaxInt {
		return fmt.Errorf("profile %s finds no end of it", p.Name)
	}
	return nil
}

// outline is how a message has to be changed so that the profile's reading of
// it is the message.
type outline struct {
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
func (w *Writer) outline(m *Outgoing) (*outline, error) {
	o := &outline{body: -1}
	s := w.readerOf(m.Content, m.Size)
	// State fields go to the end, as Dovecot puts them. They can't follow a line
	// without an LF; and a line that begins "From " and was no From_ line could
	// become one with a field behind it, so that they go before it. A message
	// of one such line alone gets an LF.
	place := edit{off: -1}
	placeAt, afterFrom, dropping, off := 0, false, false, int64(0)
	for off < m.Size && s.w.err == nil {
		line := s.w.from(off, lookAhead)
		if message.IsBlankLine(line) {
			o.body = off + s.lineEndAt(off)
			break
		}
		if starts := len(line) > 0 && line[0] != ' ' && line[0] != '\t'; starts {
			f, _ := message.ParseField(line)
			if dropping = w.o.Profile.Hides(f); dropping {
				o.Dropped++
			} else {
				from := bytes.HasPrefix(line, fromPrefix)
				if !afterFrom && !(from && off == 0) { // the first line is never a From_ line
					place.off, placeAt = off, len(o.edits)
				}
				afterFrom = from && off > 0
			}
		}
		end := s.lineEnd(off)
		tail := s.w.peek(max(off, end-2), int(min(2, end-off)))
		switch {
		case dropping:
			o.edit(edit{off: off, cut: end - off})
		case string(tail) == "\r\n":
			o.edit(edit{off: end - 2, cr: true})
		default:
			o.newline = newlineAfter(tail)
		}
		off = end
	}
	o.settleCRs(o.body-off == 2)
	if place.off >= 0 && (o.newline != "" || afterFrom) {
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

// draft is a message as it is going to stand in the mbox, with a From_ line
// behind it that stands for the next one.
type draft struct {
	content          io.ReaderAt
	pieces           []piece
	size             int64
	from             []byte
	start, body, end int64 // of the message, as in span
	sep              separator
	tail             []byte // the last bytes of the message; of the From_ line if it has so few

	sized bool // by a Content-Length

	closed int // the piece that is the separator and nextFromLine

	quoteHeader, quoteBody bool
	Written
}

// piece is text, or else a part of the content.
type piece struct {
	at, size int64 // in the draft
	text     string
	off      int64
}

// nextFromLine is taken for a From_ line by every profile, and for a header
// line besides: the worst that can follow.
const nextFromLine = "From : Thu Jan  1 00:00:00 1970\n\n"

func (d *draft) add(p piece) {
	if p.size += int64(len(p.text)); p.size > 0 {
		p.at = d.size
		d.pieces = append(d.pieces, p)
		d.size += p.size
	}
}

// ReadAt implements io.ReaderAt.
func (d *draft) ReadAt(b []byte, off int64) (n int, err error) {
	i, found := slices.BinarySearchFunc(d.pieces, off, func(p piece, off int64) int { return cmp.Compare(p.at, off) })
	if !found {
		i--
	}
	for ; i < len(d.pieces) && n < len(b); i++ {
		p := d.pieces[i]
		skip := off + int64(n) - p.at
		if skip >= p.size {
			break
		}
		part := b[n:min(int64(len(b)), int64(n)+p.size-skip)]
		if p.text != "" {
			n += copy(part, p.text[skip:])
			continue
		}
		got, err := d.content.ReadAt(part, p.off+skip)
		if n += got; got < len(part) {
			return n, err
		}
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// compose makes the draft of a message.
func (w *Writer) compose(m *Outgoing, o *outline, from []byte, fields string, sized bool) (*draft, error) {
	d := &draft{content: m.Content, from: from, sized: sized, Written: o.Written}
	d.add(piece{text: string(from) + "\n"})
	d.start = d.size
	if sized {
		fields += fmt.Sprintf("Content-Length: %d\n", m.Size-o.body)
	}
	if o.newline != "" && fields != "" {
		fields = o.newline + fields
		d.Added++
	}
	pos := int64(0)
	for i, e := range o.edits {
		d.add(piece{off: pos, size: e.off - pos})
		if i == o.state {
			e.text = fields
		}
		d.add(piece{text: e.text})
		pos = e.off + e.cut
	}
	d.add(piece{off: pos, size: m.Size - pos})
	d.body, d.end = d.size, d.size
	if o.body >= 0 {
		d.body -= m.Size - o.body
	}
	d.tail = make([]byte, min(d.end, int64(len("\nFrom "))))
	if _, err := d.ReadAt(d.tail, d.end-int64(len(d.tail))); err != nil {
		return nil, err
	}
	d.closed = len(d.pieces)
	d.sep = separator{middle: "\n", last: "\n"}
	d.close(d.sep.middle)
	if sp := w.splitDraft(d, d.size, &w.o.Profile); w.mayStand(d, d.sep.middle) && sp.end == d.end && sp.next == d.end+1 {
		return d, nil // that is so for nearly all
	}
	return d, w.settle(d)
}

// mayStand refuses an LF where Dovecot 2.3.19 loses the next message: behind a
// Content-Length that ends between CR and LF it finds it "unexpectedly lost"
// and dies; behind "From " at the start of a line it is still busy with that.
func (w *Writer) mayStand(d *draft, separator string) bool {
	if !strings.HasPrefix(separator, "\n") || !d.sized && w.o.Profile.ending != lastLF {
		return true
	}
	return !d.endsIn("\r") && !d.endsIn("\nFrom ")
}

func (d *draft) endsIn(text string) bool { return bytes.HasSuffix(d.tail, []byte(text)) }

// close puts a separator and nextFromLine behind the message.
func (d *draft) close(separator string) {
	d.pieces, d.size = d.pieces[:d.closed], d.end
	d.add(piece{text: separator + nextFromLine})
}

// draft finds the form in which the profile's reading gives the message back:
// as it is, else behind a Content-Length, else quoted.
func (w *Writer) draft(m *Outgoing, fields string) (*draft, error) {
	o, err := w.outline(m)
	if err != nil {
		return nil, err
	}
	p := &w.o.Profile
	measurable := p.length != nil && p.Hides(message.ContentLength) && o.body >= 0 && !o.tooMany
	sized := measurable && m.State != nil // Dovecot measures every message that it saves
	from := bytes.TrimRight(m.From.Raw, "\r\n")
	d, err := w.compose(m, o, from, fields, sized)
	if err == nil && !w.takesFromLine(d) {
		o.NewFrom = len(from) > 0
		from = FormatFromLine(m.Sender, m.Date, w.o.Zone)
		d, err = w.compose(m, o, from, fields, sized)
	}
	if err != nil {
		return nil, err
	}
	next, right := w.find(d)
	if measurable && !sized && (!right || d.sep.added > 0) {
		if d, err = w.compose(m, o, from, fields, true); err != nil {
			return nil, err
		}
		next, right = w.find(d)
	}
	if !right {
		d.quoteHeader = next < d.body
		d.quoteBody = !measurable || !d.quoteHeader
	}
	return d, w.reader.w.err
}

// takesFromLine reports whether the profile's server takes the draft's From_
// line for one, where a message before it has ended.
func (w *Writer) takesFromLine(d *draft) bool {
	if !bytes.HasPrefix(d.from, fromPrefix) || bytes.Contains(d.from, lf) {
		return false
	}
	c := w.readerOf(d, d.size).candidate(0)
	c.blank = true
	return w.o.Profile.accept(c)
}

// find returns where the profile's reading finds the next From_ line, and
// whether that is right.
func (w *Writer) find(d *draft) (next int64, right bool) {
	sp := w.splitDraft(d, d.size, &w.o.Profile)
	return sp.next, sp.next == d.end+int64(len(d.sep.middle)) && (sp.end == d.end || d.sep.added > 0)
}

// splitDraft reads the first size bytes of a draft by a profile.
func (w *Writer) splitDraft(d *draft, size int64, p *Profile) span {
	s := *w.readerOf(d, size)
	s.p = p
	return s.split(0)
}

// readerOf points the splitter at something else.
func (w *Writer) readerOf(r io.ReaderAt, size int64) *splitter {
	w.reader.w = &window{r: r, size: size, data: w.data[:0]}
	return &w.reader
}
