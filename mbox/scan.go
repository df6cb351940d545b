package mbox

import (
	"bytes"
	"io"
	"math"
	"net/mail"
	"slices"
	"time"

	"mailferry/internal/message"
)

// Entry is one message of an mbox. Its slices are valid until the next call of
// Scanner.Next.
//
// In the file it is a From_ line, the message, and what separates it from the
// next From_ line; the entries of a mailbox and the scanner's Lead tile it:
//
//	Offset        Offset+FromLen                Offset+FromLen+Length
//	|From_ line   |header, empty line, body     |separator (SepLen)|
type Entry struct {
	Offset  int64 // where the From_ line begins, in bytes
	FromLen int64 // length of the From_ line with its line end; 0 in MMDF without
	Length  int64 // length of the message as stored
	SepLen  int64 // length of what separates it from the next

	From   FromLine
	Fields []HeaderField // the fields that scanning looks at, in file order

	Date time.Time // of delivery, as the profile's server gives it; zero if nothing tells

	Size   int64          // bytes of the message as the server showed it
	VSize  int64          // the same with every line end counted as CRLF
	Digest message.Digest // of those bytes, if Options.Digest asks for it

	header int64 // length of the header as stored, with its empty line
}

// HeaderField is a field of the top header that holds a server's state or
// identifies the message.
type HeaderField struct {
	Field message.Field
	Value []byte // without blanks around it
}

// Get returns the first value of a field.
func (e *Entry) Get(f message.Field) (value string, ok bool) {
	for _, h := range e.Fields {
		if h.Field == f {
			return string(h.Value), true
		}
	}
	return "", false
}

// sentDate is the Date field, or zero.
func (e *Entry) sentDate() time.Time {
	value, _ := e.Get(message.Date)
	t, err := mail.ParseDate(value)
	if err != nil || !isCredible(t) {
		return time.Time{}
	}
	return t
}

// isCredible reports whether a date is one of mail, and one that filesystems and
// servers can hold: spam comes from the year 9999.
func isCredible(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= math.MaxUint32 }

// Next is the offset behind the entry.
func (e *Entry) Next() int64 { return e.Offset + e.FromLen + e.Length + e.SepLen }

// EOL says what becomes of CRs in bodies. The CR of a header line always goes:
// no server shows it.
type EOL uint8

// The choices of --eol.
const (
	EOLAuto EOL = iota // as EOLLF if the first From_ line ends in CRLF: then it is a CRLF file
	EOLKeep            // bodies stay as they are
	EOLLF              // CRLF becomes LF
)

// Options of a scan.
type Options struct {
	Profile      Profile
	EOL          EOL
	Quoting      message.Quoting
	Zone         *time.Location // of the server process, for dates without one; nil is time.Local
	CorrectDates bool           // take dates as they were meant, not as the profile's server misreads them
	Digest       bool           // compute Entry.Digest, which takes longer than all the rest
}

// maxRepeats bounds what is kept of one header: a flood of one field, which any
// sender can write, must not push out another, such as the server's X-UID.
const maxRepeats = 8

// wanted are the fields that Entry.Fields may hold.
var wanted = message.SetOf(message.ContentLength, message.Date, message.MessageID, message.Status, message.XIMAP,
	message.XIMAPbase, message.XKeywords, message.XStatus, message.XUID, message.XUIDL)

// Scanner reads the messages of an mbox in order. Its memory is bounded,
// whatever the size of the mailbox or of a message.
type Scanner struct {
	splitter
	profile Profile
	kind    Kind
	lead    int64
	next    int64
	lf      bool
	crlf    bool // the first From_ line ends in CRLF
	count   int
	careful *follower
	odd     Oddities
	zone    *time.Location
	date    func(FromLine, *time.Location) (time.Time, bool)

	entry    Entry
	from     []byte
	values   []byte // what entry.Fields points into
	rewriter message.Rewriter
	measure  *message.Measure // nil: no digests asked for
	scratch  []byte

	// Made once, since they are called for each message.
	onField   func(message.Field, []byte)
	toScratch func([]byte) error
	content   []byte // the message at hand, if it fits into the window
}

// NewScanner begins a scan of the first size bytes of r. It fails with a
// *FormatError if they are no mailbox under the profile.
func NewScanner(r io.ReaderAt, size int64, o Options) (*Scanner, error) {
	return newScanner(r, size, o, windowSize)
}

// newScanner holds no more than window bytes of the file, which changes nothing
// of what is found.
func newScanner(r io.ReaderAt, size int64, o Options, window int) (*Scanner, error) {
	s := &Scanner{profile: o.Profile}
	if o.Digest {
		s.measure = message.NewMeasure()
	}
	s.splitter = splitter{w: newWindow(r, size, window), p: &s.profile, odd: &s.odd}
	s.onField = s.found
	s.toScratch = func(piece []byte) error {
		s.scratch = append(s.scratch, piece...)
		return nil
	}
	s.compare = o.Profile.Name != Careful.Name
	s.rewriter = message.Rewriter{Hide: o.Profile.hide, Keep: wanted, Unquote: o.Quoting}
	s.date, s.zone = o.Profile.date, o.Zone
	if s.zone == nil {
		s.zone = time.Local
	}
	if o.CorrectDates {
		s.date = trueDate
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	s.crlf = s.endsInCRLF(s.next)
	s.lf = o.EOL == EOLLF || o.EOL == EOLAuto && s.crlf
	s.rewriter.LF = s.lf
	if s.kind == Mbox && s.compare {
		s.careful = newFollower(newWindow(r, size, min(window, followerWindow)), s.next, &s.odd)
	}
	return s, nil
}

func (s *Scanner) endsInCRLF(from int64) bool {
	end := s.lineEnd(from)
	return end-from >= 2 && bytes.Equal(s.w.peek(end-2, 2), []byte("\r\n"))
}

// Kind tells what the file is.
func (s *Scanner) Kind() Kind { return s.kind }

// Lead is the number of bytes before the first From_ line.
func (s *Scanner) Lead() int64 { return s.lead }

// Offset is how far the scan has come, in bytes.
func (s *Scanner) Offset() int64 { return s.next }

// Oddities tells what was odd so far.
func (s *Scanner) Oddities() *Oddities { return &s.odd }

// CarefulCount is the number of messages by the careful reading; it is final
// once Next has returned io.EOF.
func (s *Scanner) CarefulCount() int {
	if s.careful == nil {
		return s.count
	}
	return s.careful.count
}

// Next returns the next message, or io.EOF.
func (s *Scanner) Next() (*Entry, error) {
	if s.next >= s.w.size || s.w.err != nil {
		return nil, s.finish()
	}
	s.w.keep = s.next
	sp := s.split(s.next)
	if s.w.err != nil {
		return nil, s.w.err
	}
	s.entry = Entry{
		Offset: sp.from, FromLen: sp.start - sp.from, Length: sp.end - sp.start, SepLen: sp.next - sp.end,
		From: s.fromLine(sp), Fields: s.entry.Fields[:0], header: sp.body - sp.start,
	}
	s.values = s.values[:0]
	if err := s.read(); err != nil {
		return nil, err
	}
	s.entry.Date = s.deliveryDate()
	if s.careful != nil {
		if err := s.careful.follow(sp); err != nil {
			return nil, err
		}
	}
	s.next = sp.next
	s.count++
	return &s.entry, nil
}

// finish ends the scan.
func (s *Scanner) finish() error {
	if s.w.err != nil {
		return s.w.err
	}
	if s.w.size > 0 && s.kind != Empty && !bytes.Equal(s.w.peek(s.w.size-1, 1), lf) && s.odd.Of(NoFinalNewline).Count == 0 {
		s.odd.add(NoFinalNewline, s.w.size)
	}
	return io.EOF
}

// fromLine copies the From_ line, since the window may move on.
func (s *Scanner) fromLine(sp span) FromLine {
	n := sp.start - sp.from
	if n > maxFromLine {
		s.odd.add(LongFromLine, sp.from)
	}
	line := s.w.peek(sp.from, int(min(n, maxFromLine)))
	if crlf := bytes.HasSuffix(line, []byte("\r\n")); crlf != s.crlf && n > 0 && n <= maxFromLine {
		s.odd.add(MixedLineEnds, sp.from)
	}
	s.from = append(s.from[:0], bytes.TrimRight(line, "\r\n")...)
	return FromLine{s.from}
}

// read measures the message and collects its fields.
func (s *Scanner) read() error {
	e := &s.entry
	s.rewriter.Reset()
	s.rewriter.Found = s.onField
	if e.FromLen+e.Length <= int64(cap(s.w.data)-lookBehind) {
		b := s.w.from(e.Offset+e.FromLen, int(e.Length))
		if s.w.err != nil {
			return s.w.err
		}
		s.content = s.rewrite(b[:e.Length])
		s.measureContent()
		return nil
	}
	s.content = nil
	return s.measureStream()
}

func (s *Scanner) measureContent() {
	sizes := message.SizesOf(s.content)
	if s.measure != nil {
		sizes, s.entry.Digest = message.MeasureBytes(s.content)
	}
	s.entry.Size, s.entry.VSize = sizes.Size, sizes.VSize
}

func (s *Scanner) measureStream() error {
	if s.measure == nil {
		var sizes message.Sizes
		err := s.stream(&sizes)
		s.entry.Size, s.entry.VSize = sizes.Size, sizes.VSize
		return err
	}
	s.measure.Reset()
	err := s.stream(s.measure)
	s.entry.Size, s.entry.VSize, s.entry.Digest = s.measure.Size, s.measure.VSize, s.measure.Digest()
	return err
}

func (s *Scanner) found(f message.Field, value []byte) {
	same := 0
	for i, h := range s.entry.Fields {
		if h.Field != f {
			continue
		}
		if f == message.Status || f == message.XStatus { // all of them count
			s.entry.Fields[i].Value = flagsOnly(slices.Concat(h.Value, value))
			return
		}
		same++
	}
	if same >= maxRepeats {
		return
	}
	if f == message.Status || f == message.XStatus {
		value = flagsOnly(value)
	}
	at := len(s.values)
	s.values = append(s.values, value...)
	s.entry.Fields = append(s.entry.Fields, HeaderField{f, s.values[at:len(s.values):len(s.values)]})
}

// flagsOnly is what of a Status field means something, each letter once.
func flagsOnly(value []byte) []byte {
	var letters []byte
	for _, c := range value {
		if flagLetters[c] != 0 && bytes.IndexByte(letters, c) < 0 {
			letters = append(letters, c)
		}
	}
	return letters
}

// rewrite returns the message as its server showed it: b itself if nothing has
// to change, else a copy.
func (s *Scanner) rewrite(b []byte) []byte {
	s.scratch = s.scratch[:0]
	s.rewriter.Emit = s.toScratch
	header := b[:s.entry.header]
	s.rewriter.Header(header) // appending does not fail
	s.rewriter.EndHeader()
	if !s.lf && s.rewriter.Unquote == message.Keep && len(s.scratch) == len(header) {
		return b
	}
	s.rewriter.Body(b[len(header):])
	return s.scratch
}

// ReadsAgain reports whether WriteContent reads the message from the file once
// more, because it is too long to be held.
func (s *Scanner) ReadsAgain() bool { return s.content == nil && s.entry.Size > 0 }

// WriteContent writes the message that Next returned last, as its server
// showed it.
func (s *Scanner) WriteContent(w io.Writer) error {
	if s.content != nil || s.entry.Size == 0 {
		_, err := w.Write(s.content)
		return err
	}
	s.rewriter.Reset()
	s.rewriter.Found = func(message.Field, []byte) {}
	return s.stream(w)
}

// stream rewrites a message that does not fit into the window.
func (s *Scanner) stream(w io.Writer) error {
	s.rewriter.Emit = func(piece []byte) error {
		_, err := w.Write(piece)
		return err
	}
	start := s.entry.Offset + s.entry.FromLen
	body := start + s.entry.header
	if err := s.pieces(start, body, s.rewriter.Header); err != nil {
		return err
	}
	s.rewriter.EndHeader()
	return s.pieces(body, start+s.entry.Length, s.rewriter.Body)
}

// pieces feeds the bytes from off to end in the pieces that message.Rewriter asks for.
func (s *Scanner) pieces(off, end int64, feed func([]byte) error) error {
	for off < end {
		b := s.w.from(off, int(min(end-off, int64(cap(s.w.data)/2))))
		if s.w.err != nil {
			return s.w.err
		}
		if int64(len(b)) >= end-off {
			b = b[:end-off]
		} else if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			b = b[:i+1]
		} else if b[len(b)-1] == '\r' {
			b = b[:len(b)-1]
		}
		if err := feed(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// Close gives the scanner's memory back. The entry that Next returned last is
// gone with it.
func (s *Scanner) Close() { s.w.release() }

// Profile returns the name of the profile.
func (s *Scanner) Profile() string { return s.profile.Name }
