package mbox

import (
	"bytes"
	queue "container/heap"
	"errors"
	"math"

	"mailferry/internal/message"
)

// layCopy makes the draft of a copy; with a Content-Length behind some blanks,
// unless they are less than 0.
func (w *Writer) layCopy(c *copied, blanks int) (*draft, error) {
	o := &outline{start: c.fromLen, body: c.body, state: -1}
	drop, fields := c.drop, c.fields
	if blanks >= 0 && c.body >= 0 {
		drop |= message.SetOf(message.ContentLength)
	}
	if drop != 0 || blanks >= 0 {
		var err error
		if o, err = w.outline(c.stored, c.fromLen, drop); err != nil {
			return nil, err
		}
		if o.tooMany {
			return nil, errors.New("too many fields of its header would have to go")
		}
		o.crlf = c.crlf
	}
	if blanks >= 0 {
		o.blanks = blanks
		fields += o.contentLength(c.stored)
	}
	d, err := layOut(c.stored, o, c.from, fields)
	if err != nil {
		return nil, err
	}
	d.from, d.sized, d.NewFrom = nil, blanks >= 0, c.newFrom
	if c.open != nil && c.from == nil {
		d.next = ""
	}
	d.close(c.own)
	return d, nil
}

// fit finds the form in which the profile's reading finds the copy's end before
// what follows: with its own separator, else with another, else with a
// Content-Length, else quoted.
func (w *Writer) fit(c *copied, follows *draft) (d *draft, err error) {
	d, next := c.draft, nextFromLine
	if !c.sure || len(w.landings) > 0 {
		if next, err = follows.beginning(); err != nil {
			return nil, err
		}
	}
	if p := &w.o.Profile; p.length != nil && p.Hides(message.ContentLength) {
		d.measurable = c.body >= 0
		d.again = func(blanks int) (*draft, error) {
			measured, err := w.layCopy(c, blanks)
			if err != nil {
				return nil, err
			}
			measured.again, measured.measurable = d.again, d.measurable
			if err := w.endCopy(c, measured, next); err != nil {
				return nil, err
			}
			return measured, w.quote(measured)
		}
	}
	if c.sure {
		d.next, d.sep = next, separator{middle: c.own}
		d.close(c.own)
		return d, nil
	}
	err = w.endCopy(c, d, next)
	if _, right := w.find(d); d.measurable && (err != nil || !right || d.sep.added > 0) {
		return d.again(0)
	}
	if err != nil {
		return nil, err
	}
	return d, w.quote(d)
}

// endCopy separates a copy from what follows as it was in base, if the profile's
// reading finds the end so.
func (w *Writer) endCopy(c *copied, d *draft, next string) error {
	d.next, d.sep = next, separator{middle: c.own}
	if (c.inPlace || w.mayStand(d, c.own)) && w.ends(d) {
		return w.reader.w.err
	}
	return w.settle(d)
}

// endsHeader reports whether an empty line ends the header of the message that
// Next returned last.
func (s *Scanner) endsHeader(e *Entry) bool {
	start := e.Offset + e.FromLen
	tail := s.w.peek(max(start, start+e.header-3), int(min(3, e.header)))
	if !bytes.HasSuffix(tail, lf) {
		return false
	}
	n := trailingLineEnd(tail)
	return n == len(tail) || tail[len(tail)-n-1] == '\n'
}

// landings are the places that wrong Content-Lengths of copies point to, in the
// new mbox: it must not be that a message ends there, which in base did not. The
// next one is first.
type landings []int64

func (l landings) Len() int           { return len(l) }
func (l landings) Less(i, j int) bool { return l[i] < l[j] }
func (l landings) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *landings) Push(x any)        { *l = append(*l, x.(int64)) }
func (l *landings) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// remember keeps where the Content-Lengths of a copy point to, beyond it.
func (w *Writer) remember(c *copied, d *draft) {
	if w.o.Profile.length == nil || d != c.draft && d.measurable {
		return
	}
	begins := []int64{d.body}
	if d.body == d.end { // its separator may end the header
		begins = append(begins, d.end+int64(len(d.sep.middle)))
	}
	for _, length := range c.lengths {
		for _, begin := range begins {
			if end := begin + length; end > d.end+int64(len(d.sep.middle)) {
				queue.Push(&w.landings, d.Offset+end)
			}
		}
	}
}

// lengthOf is the number that a Content-Length begins with, if a file can be so
// long, or 0.
func lengthOf(value []byte) int64 {
	n := digits(value)
	if n == 0 || n > 15 {
		return 0
	}
	return contentLength([]byte("Content-Length: " + string(value[:n])))
}

// errTrapped is for a message that is made for it, whose header begins with a
// From_ line: where that stands can't be changed.
var errTrapped = errors.New("the wrong Content-Length of another message would be right where this one has to stand")

// maxBlanks bounds how far a message is moved to be out of the way.
const maxBlanks = 1000

// escape moves a draft's body by its Content-Length, as long as the wrong one of
// a message before it would come true.
func (w *Writer) escape(d *draft) (*draft, error) {
	var near []int64
	end := w.out.n + d.end + w.quoted(d, math.MaxInt64)
	behind := end + int64(len(d.sep.middle))
	for len(w.landings) > 0 && w.landings[0] <= behind+2*maxBlanks {
		near = append(near, queue.Pop(&w.landings).(int64))
	}
	for blanks := 0; w.isTrapped(d, near); blanks++ {
		if d.again == nil || blanks == maxBlanks {
			return nil, errTrapped
		}
		next, err := d.again(blanks)
		if err != nil {
			return nil, err
		}
		d = next
	}
	for _, at := range near {
		if at > end {
			queue.Push(&w.landings, at)
		}
	}
	return d, w.reader.w.err
}

// isTrapped reports whether a Content-Length that points to one of the places
// would be believed.
func (w *Writer) isTrapped(d *draft, places []int64) bool {
	if len(places) == 0 {
		return false
	}
	for _, at := range places {
		off := at - w.out.n
		off -= w.quoted(d, off)
		s := w.readerOf(d, d.size)
		if off < 0 || off > d.end+int64(len(d.sep.middle)) {
			continue
		}
		l := landing{lineStart: off == 0 || string(s.w.peek(off-1, 1)) == "\n"}
		l.rest = s.w.peek(off, lookAhead)
		l.atEnd = d.next == "" && off+int64(len(l.rest)) == d.size
		from := off + int64(bytes.Index(l.rest[:min(len(l.rest), lookBehind+len(fromPrefix))], fromPrefix))
		if w.o.Profile.length(l) && !w.isQuoted(d, from) {
			return true
		}
	}
	return false
}

// quoted counts the ">" that are going to stand before off, measured with them.
func (w *Writer) quoted(d *draft, off int64) (n int64) {
	if !d.quoteHeader && !d.quoteBody {
		return 0
	}
	w.readerOf(d, d.size)
	for at := range w.quotes(d) {
		if at+n >= off {
			break
		}
		n++
	}
	return n
}

func (w *Writer) isQuoted(d *draft, off int64) bool {
	if !d.quoteHeader && !d.quoteBody {
		return false
	}
	w.readerOf(d, d.size)
	for at := range w.quotes(d) {
		if at >= off {
			return at == off
		}
	}
	return false
}

// beginning is what a reading of the message before may look at: the From_ line,
// the line behind it, and more, where no mbox ends. Of no draft it is nothing.
func (d *draft) beginning() (string, error) {
	if d == nil {
		return "", nil
	}
	b := make([]byte, min(d.size, lookAhead))
	if n, err := d.ReadAt(b, 0); n < len(b) {
		return "", err
	}
	from := bytes.IndexByte(b, '\n') + 1
	second := from + bytes.IndexByte(b[from:], '\n') + 1
	if second > from && second < lookAhead-len(more) {
		return string(b[:second]) + more, nil
	}
	return string(b), nil
}

const more = "and so on"
