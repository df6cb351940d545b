package mbox

import (
	"io"
	"slices"
)

// Mark is a place between two messages where a scan can be taken up again when
// the file has grown: all that was found before it follows from the bytes that
// the file had, whatever comes behind them.
type Mark struct {
	next, size   int64
	count        int
	odd          Oddities
	splits       [2]splits // by the profile, and by the careful reading
	carefulCount int
	uidValidity  uint32
	nextUID      uint32
	prevUID      uint32
	seq          int
	listed       []string
}

// splits is what a splitter remembers from message to message.
type splits struct{ next, landed, beyond int64 }

// Mark marks the place behind the message that Next returned last, of which t
// has told the state. There is none where what was found depends on the end of
// the file: too close to it, behind a Content-Length that leads there, in MMDF.
func (s *Scanner) Mark(t *Tracker) (m Mark, ok bool) {
	if s.kind != Mbox || s.count == 0 || t.bySize {
		return m, false
	}
	m.splits[0] = splits{s.next, s.landed, s.beyond}
	if c := s.careful; c != nil {
		m.splits[1] = splits{c.next, c.landed, c.beyond}
		m.carefulCount = c.count
	}
	for _, p := range m.splits {
		if max(p.next, p.landed)+lookAhead > s.w.size {
			return m, false
		}
	}
	m.next, m.size, m.count, m.odd = s.next, s.w.size, s.count, s.odd
	m.uidValidity, m.nextUID, m.prevUID, m.seq, m.listed = t.uidValidity, t.nextUID, t.prevUID, t.seq, t.listed
	return m, true
}

// Offset is where the next message begins, in bytes.
func (m *Mark) Offset() int64 { return m.next }

// Fits reports whether a scan of size bytes can be taken up, if the file begins
// with all of the bytes that it had when it was marked.
func (m *Mark) Fits(size int64) bool {
	for _, p := range m.splits {
		if p.beyond > 0 && p.beyond <= size {
			return false
		}
	}
	return size >= m.size
}

// Resume is NewScanner and NewTracker for a scan that goes on behind a mark of
// another one with the same options, which must fit the size.
func Resume(r io.ReaderAt, size int64, o Options, m *Mark) (*Scanner, *Tracker, error) {
	s, err := NewScanner(r, size, o)
	if err != nil {
		return nil, nil, err
	}
	s.next, s.count, s.odd = m.next, m.count, m.odd
	for kind := range s.odd.places {
		p := &s.odd.places[kind]
		p.Offsets = slices.Clip(p.Offsets) // the mark keeps its own
	}
	s.landed, s.beyond = m.splits[0].landed, m.splits[0].beyond
	if c := s.careful; c != nil {
		c.next, c.landed, c.beyond, c.count = m.splits[1].next, m.splits[1].landed, m.splits[1].beyond, m.carefulCount
	}
	t := NewTracker(s)
	t.uidValidity, t.nextUID, t.prevUID, t.seq = m.uidValidity, m.nextUID, m.prevUID, m.seq
	for _, name := range m.listed {
		t.list(name)
	}
	return s, t, nil
}
