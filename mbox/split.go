package mbox

import (
	"bytes"
	"math"

	"mailferry/internal/message"
)

// lookAhead is how much of the file a decision about a From_ line may need to
// see: the line itself, and the beginning of the line after it.
const (
	maxFromLine = 8 << 10 // a longer line can't be a From_ line that anybody wrote
	lookAhead   = maxFromLine + 1<<10
)

// span is where a message lies in the file:
//
//	from        start              body             end        next
//	|From_ line |header, empty line|body            |separator |
type span struct {
	from, start, body, end, next int64

	agreed bool // the careful reading finds the same end
}

// splitter finds where messages end, by the rules of one profile.
type splitter struct {
	w    *window
	p    *Profile
	mmdf bool
	odd  *Oddities // nil: nobody asks

	compare bool // tell where the careful reading differs

	landed int64 // the last place in the file where a Content-Length said that a body ends
	beyond int64 // the first one behind the end of the file; 0: there was none
}

// split measures the message whose From_ line begins at from.
func (s *splitter) split(from int64) span {
	if s.mmdf {
		return s.splitMMDF(from)
	}
	sp := span{from: from, start: s.lineEnd(from), agreed: true}
	length := int64(-1)
	sp.body, sp.next, length = s.header(&sp)
	if sp.next >= 0 {
		sp.end = sp.next - s.separator(&sp)
		sp.body = min(sp.body, sp.end)
		return sp
	}
	if length >= 0 && s.trusts(&sp, length) {
		sp.end = sp.body + length
		sp.next = sp.end + s.lineEndAt(sp.end)
		s.countSpanned(sp)
		return sp
	}
	sp.next = s.nextFrom(&sp, sp.body)
	sp.end = sp.next - s.separator(&sp)
	sp.body = min(sp.body, sp.end)
	return sp
}

// header walks the lines from the start of a message to the empty line that
// ends its header. next is -1, or where a From_ line or the end of the file
// cuts the header short. length is the first valid Content-Length, or -1.
func (s *splitter) header(sp *span) (body, next, length int64) {
	length = -1
	off := sp.start
	for off < s.w.size {
		b := s.w.from(off, lookAhead)
		if len(b) == 0 {
			break
		}
		n, done := 0, false
		for n < len(b) && !done && (len(b)-n >= lookAhead || s.w.end() == s.w.size) {
			line := b[n:]
			nl := bytes.IndexByte(line, '\n')
			switch {
			case message.IsBlankLine(line):
				return off + int64(n+nl+1), -1, length
			case bytes.HasPrefix(line, fromPrefix) && (off+int64(n) > sp.start || s.p.doubled) && s.accepts(sp, off+int64(n), true):
				return off + int64(n), off + int64(n), length
			case line[0]|0x20 == 'c' && length < 0:
				length = contentLength(line[:min(len(line), lookAhead)])
			}
			if nl < 0 {
				done = true
				break
			}
			n += nl + 1
		}
		off += int64(n)
		if done {
			off = s.lineEnd(off)
		}
	}
	return s.w.size, s.w.size, length
}

// contentLength reads a Content-Length line: digits, then blanks
// (dovecot mbox-sync-parse.c, parse_content_length). Else it is -1.
func contentLength(line []byte) int64 {
	f, at := message.ParseField(line)
	if f != message.ContentLength {
		return -1
	}
	value, _, _ := bytes.Cut(line[at:], lf)
	value = bytes.Trim(value, " \t\r")
	n := digits(value)
	if n == 0 || n != len(value) {
		return -1
	}
	if n > 18 {
		return math.MaxInt64
	}
	var length int64
	for _, c := range value {
		length = length*10 + int64(c-'0')
	}
	return length
}

// trusts decides whether a Content-Length is believed.
func (s *splitter) trusts(sp *span, length int64) bool {
	if length > math.MaxInt64-sp.body || sp.body+length > s.w.size {
		s.odd.add(WrongContentLength, sp.from)
		s.reach(sp.body, length)
		return false
	}
	end := sp.body + length
	s.landed = max(s.landed, end)
	l := landing{lineStart: bytes.Equal(s.w.peek(end-1, 1), lf)}
	l.rest = s.w.peek(end, lookAhead)
	l.atEnd = end+int64(len(l.rest)) == s.w.size
	believed := s.p.length != nil && s.p.length(l)
	carefully := landsCarefully(l)
	if believed != carefully {
		sp.agreed = false
	}
	if !believed && !carefully {
		s.odd.add(WrongContentLength, sp.from)
	}
	return believed
}

// reach remembers a Content-Length that leads behind the end of the file, where
// it may land when the file has grown.
func (s *splitter) reach(body, length int64) {
	if end := body + length; end > 0 && (s.beyond == 0 || end < s.beyond) {
		s.beyond = end
	}
}

// countSpanned reports the From_ lines inside a message whose Content-Length
// was believed: the reading without Content-Length would have split there.
func (s *splitter) countSpanned(sp span) {
	if s.odd == nil {
		return
	}
	inside := splitter{w: s.w, p: s.p}
	for off := sp.body; ; {
		next := inside.nextFrom(&span{from: sp.from, start: sp.start}, off)
		if next >= sp.end {
			return
		}
		s.odd.add(FromInsideLength, next)
		off = s.lineEnd(next)
	}
}

// nextFrom returns where the next From_ line that separates begins, at off,
// which is the start of a line, or behind it; the size of the file if none does.
func (s *splitter) nextFrom(sp *span, off int64) int64 {
	for off < s.w.size {
		b := s.w.from(off, lookAhead)
		if len(b) == 0 {
			break
		}
		for i := 0; i < len(b); {
			j := indexFrom(b[i:])
			if j < 0 {
				break
			}
			i += j
			if s.startsLine(off, b, i) {
				if s.accepts(sp, off+int64(i), false) {
					return off + int64(i)
				}
				// Looking at the line may have moved the window.
				off += int64(i)
				b, i = s.w.from(off, lookAhead), 0
			}
			i++
		}
		if s.w.end() >= s.w.size {
			break
		}
		off = max(off+1, s.w.end()-int64(len(fromPrefix)-1))
	}
	return s.w.size
}

// startsLine reports whether b[i], at off+i, begins a line.
func (s *splitter) startsLine(off int64, b []byte, i int) bool {
	if i > 0 {
		return b[i-1] == '\n'
	}
	before := s.w.before(off)
	return len(before) == 0 || before[len(before)-1] == '\n'
}

// indexFrom finds "From " in b. F is rare, so that looking for it alone runs
// at the speed of memory.
func indexFrom(b []byte) int {
	for i := 0; ; {
		j := bytes.IndexByte(b[i:], 'F')
		if j < 0 {
			return -1
		}
		i += j
		if bytes.HasPrefix(b[i:], fromPrefix) {
			return i
		}
		i++
	}
}

// accepts decides about the line at off, which begins "From ", unless the file
// was cut since.
func (s *splitter) accepts(sp *span, off int64, inHeader bool) bool {
	c := s.candidate(off)
	if s.w.err != nil {
		return false
	}
	c.inHeader, c.firstOfBody = inHeader, off == sp.body
	before := s.w.before(off)
	c.blank = bytes.HasSuffix(before, []byte("\n\n")) || bytes.HasSuffix(before, []byte("\n\r\n"))
	yes := s.p.accept(c)
	if s.compare && yes != (off > sp.start && acceptCareful(c)) {
		sp.agreed = false
	}
	if s.odd != nil {
		s.note(c, off, yes)
	}
	return yes
}

// candidate takes the line at off, and as much of what follows whatever the
// window holds.
func (s *splitter) candidate(off int64) (c candidate) {
	c.rest = s.w.from(off, lookAhead)
	c.rest = c.rest[:min(len(c.rest), lookAhead)]
	line, _, _ := bytes.Cut(c.rest, lf)
	c.line = bytes.TrimSuffix(line[:min(len(line), maxFromLine)], []byte{'\r'})
	c.long = len(line) > maxFromLine
	return c
}

// note reports what is odd about a line that begins "From ".
func (s *splitter) note(c candidate, off int64, separates bool) {
	if separates && !message.IsHeaderLine(c.next()) {
		s.odd.add(NoHeader, off)
	}
	switch {
	case separates && !c.blank:
		s.odd.add(NoEmptyLine, off)
	case !separates && !c.inHeader:
		s.odd.add(FromInBody, off)
	}
}

// separator measures what before sp.next belongs to no message.
func (s *splitter) separator(sp *span) int64 {
	start, next := sp.start, sp.next
	if s.p.ending == bodyEmptyLine {
		start = sp.body
	}
	tail := s.w.peek(max(start, next-3), int(min(3, next-start)))
	switch {
	case s.p.ending == nothing || len(tail) == 0 || tail[len(tail)-1] != '\n':
		return 0
	case s.p.ending == lastLF:
		return int64(trailingLineEnd(tail))
	}
	n := trailingLineEnd(tail)
	if int64(n) == next-start || tail[len(tail)-n-1] == '\n' {
		return int64(n)
	}
	return 0
}

// trailingLineEnd is the length of the LF or CRLF that b ends with.
func trailingLineEnd(b []byte) int {
	if bytes.HasSuffix(b, []byte("\r\n")) {
		return 2
	}
	return 1
}

// lineEndAt is the length of the LF or CRLF at off, or 0.
func (s *splitter) lineEndAt(off int64) int64 {
	b := s.w.peek(off, 2)
	if !message.IsBlankLine(b) {
		return 0
	}
	return int64(bytes.IndexByte(b, '\n') + 1)
}

// lineEnd returns where the line after the one at off begins.
func (s *splitter) lineEnd(off int64) int64 {
	for off < s.w.size {
		b := s.w.from(off, 1)
		if len(b) == 0 {
			break
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			return off + int64(i) + 1
		}
		off += int64(len(b))
	}
	return s.w.size
}

// splitMMDF measures a message of an MMDF mailbox: from is behind the ^A line
// that opens it. A From_ line may stand first, or not.
func (s *splitter) splitMMDF(from int64) span {
	sp := span{from: from, start: from}
	if bytes.Equal(s.w.peek(from, len(fromPrefix)), fromPrefix) {
		sp.start = s.lineEnd(from)
	}
	sp.end = s.w.size
	for off := sp.start; off < s.w.size; off = s.lineEnd(off) {
		if bytes.Equal(s.w.peek(off, len(mmdfLine)), mmdfLine) {
			sp.end = off
			break
		}
	}
	if sp.end == s.w.size {
		s.odd.add(UnclosedMMDF, from)
	}
	sp.next = s.afterMMDF(sp.end)
	sp.body = sp.start
	for ended := false; sp.body < sp.end && !ended; {
		ended = s.lineEndAt(sp.body) > 0
		sp.body = min(s.lineEnd(sp.body), sp.end)
	}
	return sp
}

// afterMMDF passes over ^A lines, those that close a message and those that open
// the next, and over empty lines before one of them or the end of the file.
func (s *splitter) afterMMDF(off int64) int64 {
	for {
		next := off
		for n := s.lineEndAt(next); n > 0; n = s.lineEndAt(next) {
			next += n
		}
		switch {
		case next >= s.w.size:
			return s.w.size
		case !bytes.Equal(s.w.peek(next, len(mmdfLine)), mmdfLine):
			return off
		}
		off = next + int64(len(mmdfLine))
	}
}
