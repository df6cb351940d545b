package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	gombox "github.com/emersion/go-mbox"

	"mailferry/internal/message"
)

// Outgoing is a message to be written to an mbox.
type Outgoing struct {
	// From is written as it is, if the profile's server takes it for a From_
	// line; else one is made of Sender and Date.
	From   FromLine
	Sender string    // envelope sender; "" is MAILER-DAEMON
	Date   time.Time // of delivery

	// State goes into header fields, as far as the profile's server hides them
	// from clients; nil: none.
	State *State

	Content io.ReaderAt // the message as clients see it; read several times
	Size    int64       // of Content, in bytes
}

// Written tells where a message lies in the mbox, and in what the profile's
// reading of it differs from Outgoing.Content, or from the message that was
// copied. It is final when the next message is begun or the Writer is closed.
type Written struct {
	Offset  int64 // where the From_ line begins, in bytes
	NewFrom bool  // Outgoing.From could not stand there
	Quoted  int   // lines that begin "From " and got a ">" before them, which nobody takes away
	Dropped int   // header fields left out: the server would take them for its own, and hides them
	CRs     int   // CRs that the header loses when it is read: no server shows those of CRLF
	Added   int   // LFs at the end
	Changed bool  // by Copy: other bytes than the base's, be it in hidden fields or behind the message
}

// Exact reports whether a scan gives back the very bytes of the message.
func (w *Written) Exact() bool { return w.Quoted+w.Dropped+w.CRs+w.Added == 0 }

// WriterOptions say for whom an mbox is written.
type WriterOptions struct {
	Profile Profile        // whose reading has to give back what was written
	Zone    *time.Location // of the server process, for the dates of new From_ lines; nil is time.Local

	// The mailbox's own state, for X-IMAPbase; UIDValidity 0: none. NextUID 0:
	// X-IMAPbase stays as the first message has it that is copied.
	UIDValidity, NextUID uint32
	Keywords             []string // all that messages may have, in the order of the index
}

// Writer writes an mbox that its profile reads back to the byte: no reader takes
// quoting away, so that a body which looks as if it held From_ lines stands as
// it is behind a Content-Length (mboxcl2, as Dovecot writes), if the profile's
// server believes that, and is quoted only if not.
//
// go-mbox writes every message that it can write to the byte, which is nearly
// all. It can't: where a line begins "From " (it quotes) or ends in CRLF (it
// drops the CR), where the message does not end in LF (it ends all with an
// empty line), where the From_ line is not in the form of asctime, and where a
// line is long (it holds lines whole). Those are written verbatim to the same
// stream. Before a byte is written, the profile's own splitter has to find the
// message's end in what is going to be.
//
// Memory is bounded whatever the size of a message.
type Writer struct {
	out     counter
	o       WriterOptions
	listed  map[string]struct{} // o.Keywords in lower case
	count   int
	lastUID uint32
	sep     separator // due behind last
	last    *Written
	waiting *copied // the last one, not written yet
	err     error   // sticky: the mbox is incomplete
	reader  splitter
	data    []byte // what reader's windows hold

	tracker  Tracker  // reads what is written
	landings landings // where wrong Content-Lengths point to
	base     *Scanner // that of the first copy
	other    bool     // what is written is not the beginning of base
}

// writeWindow holds most messages whole, so that they are read once only.
const writeWindow = 256 << 10

// NewWriter returns a Writer of a new mbox, which begins at w's position.
func NewWriter(w io.Writer, o WriterOptions) *Writer {
	out := &Writer{out: counter{w: bufio.NewWriterSize(w, 64<<10)}, o: o, listed: map[string]struct{}{}}
	out.data = make([]byte, 0, writeWindow)
	out.reader.p, out.reader.w = &out.o.Profile, &window{}
	out.tracker = Tracker{profile: &out.o.Profile, nextUID: 1, maxLast: math.MaxUint32 - 1, known: map[string]struct{}{}}
	if o.Zone == nil {
		out.o.Zone = time.Local
	}
	for _, k := range o.Keywords {
		out.listed[strings.ToLower(k)] = struct{}{}
	}
	return out
}

// counter counts what go-mbox and Writer write.
type counter struct {
	w *bufio.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// WriteMessage appends a message. An error about the message itself, such as a
// UID that does not rise, leaves the mbox as it was; after an error of writing
// every call returns it.
func (w *Writer) WriteMessage(m Outgoing) (*Written, error) {
	if w.err != nil {
		return nil, w.err
	}
	fields, err := w.fields(m.State, stateFields)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", w.count+1, err)
	}
	d, err := w.draft(&m, fields)
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", w.count+1, err)
	}
	if w.err = w.end(d); w.err != nil {
		return nil, w.err
	}
	if d, w.err = w.escape(d); w.err != nil {
		return nil, w.err
	}
	d.Offset, w.other = w.out.n, true
	if w.err = w.write(d); w.err != nil {
		return nil, w.err
	}
	w.count++
	w.last = &d.Written
	w.tracker.State(&Entry{Fields: parseFields(fields)})
	if m.State != nil && m.State.UID != 0 {
		w.lastUID = m.State.UID
	}
	return w.last, nil
}

// end ends what was written last: before d, or, if that is nil, the mbox.
func (w *Writer) end(d *draft) error {
	if w.waiting != nil {
		return w.flush(d)
	}
	if d == nil {
		return w.separate(w.sep.last)
	}
	if w.last != nil {
		w.last.Added += w.sep.added
	}
	return w.separate(w.sep.middle)
}

// Close ends the last message and flushes; it does not close the underlying
// writer. A mailbox without messages keeps its UIDVALIDITY in a pseudo-message,
// as with Dovecot and c-client.
func (w *Writer) Close() error {
	if w.err == nil && w.count == 0 && w.o.UIDValidity != 0 && w.o.Profile.Hides(message.XIMAP) {
		_, w.err = w.WriteMessage(Outgoing{
			Sender: "MAILER_DAEMON", Date: time.Now(), State: &State{Flags: Seen | Old, Pseudo: true},
			Content: strings.NewReader(pseudoMessage), Size: int64(len(pseudoMessage)),
		})
	}
	if w.err != nil {
		return w.err
	}
	if w.err = w.end(nil); w.err == nil {
		w.err = w.out.w.Flush()
	}
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("mbox: the Writer is closed")
	return nil
}

// pseudoMessage is recognized by its X-IMAP; the subject is for people who see
// it in a program that does not.
const pseudoMessage = "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\n" +
	"This text is part of the internal format of your mail folder, and is not\n" +
	"a real message. It is made and kept by the mail server; without it the\n" +
	"folder's data is lost and made anew.\n"

func (w *Writer) separate(text string) error {
	_, err := io.WriteString(&w.out, text)
	return err
}

// write writes a draft, by go-mbox if that gives the same bytes.
func (w *Writer) write(d *draft) error {
	w.sep = d.sep
	if w.reader.w.r != io.ReaderAt(d) {
		w.readerOf(d, d.size)
	}
	sender, date, ok := asGoMbox(d.from)
	if ok && w.isPlain(d) {
		w.sep = separator{}
		// A go-mbox Writer ends a message only when the next is begun through
		// it, or when it is closed; hence one for each message.
		g := gombox.NewWriter(&w.out)
		text, err := g.CreateMessage(sender, date)
		if err != nil {
			return err
		}
		if err := w.copy(text, d.start, d.end-1); err != nil { // Close gives the LF back, and the empty line
			return err
		}
		return g.Close()
	}
	off := int64(0)
	for at := range w.quotes(d) {
		if err := w.copy(&w.out, off, at); err != nil {
			return err
		}
		if err := w.separate(">"); err != nil {
			return err
		}
		d.Quoted++
		off = at
	}
	return w.copy(&w.out, off, d.end)
}

// quotes yields the lines that need quoting: of a header that a From_ line cuts
// all that could, since to the careful reading a quoted line is a header line,
// which can turn the line before it into a From_ line; of a body those that
// separate.
func (w *Writer) quotes(d *draft) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		any := w.reader
		any.p = &Profile{accept: func(candidate) bool { return true }}
		first := d.start
		if !w.o.Profile.doubled {
			first = any.lineEnd(first)
		}
		for at := first; d.quoteHeader; at = any.lineEnd(at) {
			if at = any.nextFrom(&span{}, at); at >= d.body {
				break
			}
			if !yield(at) {
				return
			}
		}
		for at := d.body; d.quoteBody; at = w.reader.lineEnd(at) {
			if at = w.reader.nextFrom(&span{}, at); at >= d.end || !yield(at) {
				return
			}
		}
	}
}

// copy writes a part of the draft at hand.
func (w *Writer) copy(to io.Writer, off, end int64) error {
	for off < end {
		b := w.reader.w.from(off, 1)
		if len(b) == 0 {
			return w.reader.w.err
		}
		n, err := to.Write(b[:min(int64(len(b)), end-off)])
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// maxPlainLine bounds the lines that go-mbox, which holds them whole, is given.
const maxPlainLine = 64 << 10

// isPlain reports whether go-mbox leaves all lines as they are and ends the
// message as its reader needs it.
func (w *Writer) isPlain(d *draft) bool {
	if d.sep != (separator{middle: "\n", last: "\n"}) {
		return false
	}
	for off := d.start; off < d.end; {
		b := w.reader.w.from(off, maxPlainLine)
		n := bytes.IndexByte(b[:min(len(b), maxPlainLine)], '\n')
		if n < 0 || off+int64(n) >= d.end || n > 0 && b[n-1] == '\r' || bytes.HasPrefix(b, fromPrefix) {
			return false
		}
		off += int64(n) + 1
	}
	return d.end > d.start
}

// asGoMbox takes a From_ line apart into what go-mbox makes the same line of.
// A zero time is now to go-mbox.
func asGoMbox(line []byte) (sender string, t time.Time, ok bool) {
	at := len(line) - len(time.ANSIC)
	if at <= len(fromPrefix)+1 || line[at-1] != ' ' {
		return "", t, false
	}
	stamp := string(line[at:])
	t, err := time.Parse(time.ANSIC, stamp)
	return string(line[len(fromPrefix) : at-1]), t, err == nil && !t.IsZero() && t.Format(time.ANSIC) == stamp
}

// FormatFromLine makes a From_ line, without its line end, as Dovecot does
// (mbox-from.c, mbox_from_create): a clock of the zone loc, which the line does
// not name. The hour that comes twice in autumn is given in UTC, with +0000
// behind it as c-client writes, where it would be read as the other one. Blanks
// outside of a quoted local part and controls become "_", since no reader takes
// the line with them. A zero time, or a year of more than four digits, becomes
// the start of 1970.
func FormatFromLine(sender string, t time.Time, loc *time.Location) []byte {
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	clean := []byte(sender)
	n, ok := dovecotSender(clean)
	for i, c := range clean {
		if c < ' ' || c == 0x7f || (!ok || n < len(clean)) && (c == ' ' || c == '"') {
			clean[i] = '_'
		}
	}
	if t.IsZero() || t.Year() < 0 || t.Year() > 9999 {
		t = time.Unix(0, 0)
	}
	zone := ""
	t = t.In(loc)
	if localTime(t.Year(), int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second(), loc).Unix() != t.Unix() {
		t, zone = t.UTC(), " +0000"
	}
	return []byte("From " + string(clean) + "  " + t.Format("Mon Jan 02 15:04:05 2006") + zone)
}
