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
	p.accept = func(c candidate) bool { return string(c.rest) == d.next && w.o.Profile.accept(c) }
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
	if w.reader.w.err != nil {
		return w.reader.w.err
	}
	if best.added == math.MaxInt {
		return fmt.Errorf("profile %s finds no end of it", p.Name)
	}
	return nil
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
	next             string // what follows behind the separator, or its beginning
	tail             []byte // the last bytes of the message; of the From_ line if it has so few

	sized bool // by a Content-Length

	closed int // the piece that is the separator and next

	// again makes the draft anew, with a Content-Length after some blanks; nil if
	// the server shows that. It does what is wanted only for the measurable.
	again      func(blanks int) (*draft, error)
	measurable bool

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
	if sized {
		fields += o.contentLength(m)
	}
	d, err := layOut(m, o, from, fields)
	if err != nil {
		return nil, err
	}
	d.sized = sized
	d.sep = separator{middle: "\n", last: "\n"}
	if w.mayStand(d, d.sep.middle) && w.ends(d) {
		return d, nil // that is so for nearly all
	}
	return d, w.settle(d)
}

// ends reports whether the profile's reading finds the draft's end before its
// separator.
func (w *Writer) ends(d *draft) bool {
	d.close(d.sep.middle)
	sp := w.splitDraft(d, d.size, &w.o.Profile)
	return sp.end == d.end && sp.next == d.end+int64(len(d.sep.middle))
}

// layOut puts a message's pieces together. Without from, its From_ line is the
// content's.
func layOut(m *Outgoing, o *outline, from []byte, fields string) (*draft, error) {
	d := &draft{content: m.Content, from: from, next: nextFromLine, Written: o.Written}
	if from == nil && o.start > 0 {
		d.add(piece{size: o.start})
	} else {
		d.add(piece{text: string(from) + "\n"})
	}
	d.start = d.size
	if o.crlf {
		fields = strings.ReplaceAll(fields, "\n", "\r\n")
	}
	if o.newline != "" && fields != "" {
		fields = o.newline + fields
		d.Added++
	}
	pos := o.start
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
	return d, nil
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

// close puts a separator and what follows behind the message.
func (d *draft) close(separator string) {
	d.pieces, d.size = d.pieces[:d.closed], d.end
	d.add(piece{text: separator + d.next})
}

// draft finds the form in which the profile's reading gives the message back:
// as it is, else behind a Content-Length, else quoted.
func (w *Writer) draft(m *Outgoing, fields string) (*draft, error) {
	o, err := w.outline(m, 0, w.o.Profile.hide)
	if err != nil {
		return nil, err
	}
	p := &w.o.Profile
	hidden := p.length != nil && p.Hides(message.ContentLength) && !o.tooMany
	measurable := hidden && o.body >= 0
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
	var again func(blanks int) (*draft, error)
	if hidden {
		again = func(blanks int) (*draft, error) {
			o.blanks = blanks
			d, err := w.compose(m, o, from, fields, true)
			if err != nil {
				return nil, err
			}
			d.again, d.measurable = again, measurable
			return d, w.quote(d)
		}
	}
	d.again, d.measurable = again, measurable
	if _, right := w.find(d); measurable && !sized && (!right || d.sep.added > 0) {
		return again(0)
	}
	return d, w.quote(d)
}

// quote has a draft quoted whose end the profile's reading does not find.
func (w *Writer) quote(d *draft) error {
	if next, right := w.find(d); !right {
		d.quoteHeader = next < d.body
		d.quoteBody = !d.measurable || !d.quoteHeader
	}
	return w.reader.w.err
}

// takesFromLine reports whether the profile's server takes the draft's From_
// line for one, where a message before it has ended.
func (w *Writer) takesFromLine(d *draft) bool {
	if !bytes.HasPrefix(d.from, fromPrefix) || bytes.Contains(d.from, lf) {
		return false
	}
	return w.isAccepted(d)
}

// isAccepted judges the draft's first line. To open an mbox it needs more, as in
// Scanner.checkFirst.
func (w *Writer) isAccepted(d *draft) bool {
	c := w.readerOf(d, d.size).candidate(0)
	c.blank = true
	if w.count == 0 && (c.long || bytes.IndexByte(c.line, '\r') >= 0) {
		return false
	}
	return w.o.Profile.accept(c)
}

// find returns where the profile's reading finds the next From_ line, and
// whether that is right.
func (w *Writer) find(d *draft) (next int64, right bool) {
	sp := w.splitDraft(d, d.size, &w.o.Profile)
	return sp.next, sp.next == d.end+int64(len(d.sep.middle)) && (sp.end == d.end || d.sep.added > 0)
}

// splitDraft reads the first size bytes of a draft by a profile. With all of
// what follows the message it is not at the end of the mbox.
func (w *Writer) splitDraft(d *draft, size int64, p *Profile) span {
	s := *w.readerOf(d, size)
	s.p = p
	if p.length != nil && size == d.size && d.next != "" {
		inside := *p
		inside.length = func(l landing) bool {
			l.atEnd = false
			return p.length(l)
		}
		s.p = &inside
	}
	return s.split(0)
}

// readerOf points the splitter at something else.
func (w *Writer) readerOf(r io.ReaderAt, size int64) *splitter {
	w.reader.w = &window{r: r, size: size, data: w.data[:0]}
	return &w.reader
}
