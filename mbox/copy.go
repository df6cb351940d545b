package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"mailferry/internal/message"
)

// ErrMMDF is returned by Writer.Copy for a message of an MMDF mailbox, which
// the Writer does not write. WriteMessage takes its content.
var ErrMMDF = errors.New("mbox: a message of an MMDF mailbox can't be copied as it is stored")

// Copy appends a message of another mbox, byte for byte: From_ line, header with
// the fields that the server hides, body, separator. e is what s returned last,
// and s has the Writer's profile and goes through the mbox in order; its file
// stays open until the next message is begun or the Writer is closed, since the
// copy is written only when it is known what follows it. What stands before the
// first From_ line goes with the first copy, if nothing was written before.
//
// Only if the new mbox would say something else of the message than now, the
// fields that hold state are changed: they go to the end of the header, or to its
// top where one of them stood, and every other byte stays where it was. All of them are left alone where now is nil,
// or where the profile hides none; all but the flags where
// WriterOptions.UIDValidity is 0.
//
// If the profile's reading would not find the message's end before what
// follows, as is possible for the last one of an mbox, it gets what WriteMessage
// gives: another separator, a Content-Length, quoting. So does a message that
// would end, in its new place, where the wrong Content-Length of one before it
// points to. Written says so, when it is final.
//
// An error about the message itself leaves the mbox as it was.
func (w *Writer) Copy(s *Scanner, e *Entry, now *State) (*Written, error) {
	if w.err != nil {
		return nil, w.err
	}
	c, t, err := w.copied(s, e, now)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", w.count+1, err)
	}
	if b := w.waiting; b != nil {
		b.inPlace = b.base == s && b.next == e.Offset && !b.isChanged() && !c.isChanged()
		b.sure = b.inPlace && c.closed
	}
	if w.err = w.end(c.draft); w.err != nil {
		return nil, w.err
	}
	if w.count == 0 {
		w.base = s
	}
	w.count++
	w.tracker, w.lastUID = t, t.prevUID
	w.sep, w.last = separator{}, nil
	w.waiting = c
	return c.written, nil
}

// Same reports, once the Writer is closed, whether it has written the mbox of s,
// byte for byte.
func (w *Writer) Same(s *Scanner) bool {
	return w.base == s && !w.other && w.waiting == nil && w.out.n == s.w.size
}

// copied is a copy that waits for what follows it.
type copied struct {
	draft   *draft
	written *Written
	inPlace bool // what follows does so in base, and neither is changed
	sure    bool // so that its end is found where it was

	base               *Scanner
	lead, offset, next int64     // in base
	stored             *Outgoing // From_ line and message
	fromLen, body      int64     // where parts of stored begin; body is -1 if no empty line ends the header
	own                string    // the separator
	crlf               bool      // the From_ line ends in CRLF
	open               []byte    // the From_ line, if the mbox ends in it: what follows needs a line of its own
	closed             bool      // its last line has an end, so that nothing behind it matters to what is before it
	lengths            []int64   // of its Content-Length fields

	// What is changed: the fields to drop, those instead, and the From_ line.
	drop    message.Set
	fields  string
	from    []byte
	newFrom bool
}

func (c *copied) isChanged() bool { return c.drop != 0 || c.from != nil }

// copied makes the draft of a copy, and tells what the mbox says behind it.
func (w *Writer) copied(s *Scanner, e *Entry, now *State) (*copied, Tracker, error) {
	switch {
	case s.kind == MMDF:
		return nil, Tracker{}, ErrMMDF
	case s.profile.Name != w.o.Profile.Name:
		return nil, Tracker{}, fmt.Errorf("profile %s reads it, and the mbox is for profile %s", s.profile.Name, w.o.Profile.Name)
	}
	c := newCopied(s, e)
	if w.count == 0 {
		c.lead = s.lead
		w.tracker.maxLast = NewTracker(s).maxLast
	}
	t, err := w.restate(c, e, now)
	if err != nil {
		return nil, t, err
	}
	if c.drop != 0 {
		c.from = c.open
	}
	if c.draft, err = w.layCopy(c, -1); err != nil {
		return nil, t, err
	}
	if (c.drop != 0 || w.count == 0) && !w.isAccepted(c.draft) {
		c.from, c.newFrom = FormatFromLine("", e.Date, w.o.Zone), true
		c.draft, err = w.layCopy(c, -1)
	}
	return c, t, errors.Join(err, s.w.err)
}

func newCopied(s *Scanner, e *Entry) *copied {
	size := e.FromLen + e.Length
	c := &copied{
		base: s, offset: e.Offset, next: e.Next(), written: &Written{},
		stored:  &Outgoing{Content: io.NewSectionReader(s.w.r, e.Offset, size), Size: size},
		fromLen: e.FromLen, body: -1, crlf: string(s.w.peek(e.Offset+max(e.FromLen-2, 0), 2)) == "\r\n",
	}
	if s.endsHeader(e) {
		c.body = e.FromLen + e.header
	}
	c.own = string(s.w.peek(c.next-e.SepLen, int(e.SepLen)))
	c.closed = e.Length+e.SepLen > 0 && string(s.w.peek(c.next-1, 1)) == "\n"
	if e.Length+e.SepLen == 0 && string(s.w.peek(c.next-1, 1)) != "\n" {
		c.open = bytes.Clone(e.From.Raw)
	}
	for _, h := range e.Fields {
		if h.Field == message.ContentLength {
			c.lengths = append(c.lengths, lengthOf(h.Value))
		}
	}
	return c
}

// flush writes the copy that waits, before next or, if that is nil, at the end
// of the mbox.
func (w *Writer) flush(next *draft) error {
	c := w.waiting
	w.waiting = nil
	if next == nil {
		c.inPlace = c.next == c.base.w.size && !c.isChanged()
		c.sure = c.inPlace
	}
	if next != nil && c.from == nil && c.open != nil {
		var err error
		c.from = c.open
		if c.draft, err = w.layCopy(c, -1); err != nil {
			return err
		}
	}
	if _, err := io.Copy(&w.out, io.NewSectionReader(c.base.w.r, 0, c.lead)); err != nil {
		return err
	}
	d, err := w.fit(c, next)
	if err != nil {
		return err
	}
	same := c.base == w.base && c.offset == w.out.n
	if w.other || !c.sure || !same {
		if d, err = w.escape(d); err != nil {
			return err
		}
	}
	d.Offset = w.out.n
	d.Changed = c.isChanged() || d != c.draft || d.quoteHeader || d.quoteBody || d.sep.middle != c.own
	w.other = w.other || d.Changed || !same
	if err = w.write(d); err != nil {
		return err
	}
	w.sep = separator{}
	d.Added += d.sep.added
	*c.written = d.Written
	w.remember(c, d)
	return w.separate(d.sep.middle)
}
