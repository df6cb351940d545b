// Package mailgen makes mailboxes up from a seed: the same seed gives the same
// bytes. It streams, so memory does not grow with the mailbox or a message.
//
// Every message is reported to Options.Each as it was meant (where it lies, what
// a server shows of it, its date, flags and UID), so a test compares a reader
// with the intention and not with another parser.
//
// A message on disk:
//
//	From sender date            Message.FromLine, at Message.Offset
//	header fields               server-owned state last, Options.State
//	(empty line)
//	Id: <Message.ID> ...        first line of the text
//	body
//	(empty line)                the separator's LF, no part of the message
package mailgen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// MinSize is the smallest content in octets that holds a message's header and
// the line with its ID.
const MinSize = 384

// Dialect is how the writer of one message kept its body apart from From_ lines.
type Dialect int

const (
	Plain   Dialect = iota // no body line begins with "From "
	Mboxo                  // "From " became ">From " (procmail, Postfix)
	Mboxrd                 // every ^>*From line got one more ">" (maildrop)
	Mboxcl2                // body as it came, Content-Length is right (Dovecot)
)

// Odd is a set of oddities. Those of single messages befall about one message
// in six, each independently, and are noted in Message.Odd.
type Odd int

const (
	OddFromLines       Odd = 1 << iota // From_ dates and senders of all shapes that Dovecot accepts
	WrongContentLength                 // Content-Length that ends nowhere in particular
	NoBlankLine                        // the next From_ line follows the last line directly
	CRLF                               // header and body lines end in CR LF, the From_ line in LF
	BodyCR                             // CRs within lines of the body and single CR LFs
	NUL                                // NUL octets in the body
	Prose                              // an unquoted body line begins with "From " but holds no date
	SharedHeader                       // Received, Message-ID, Date, From, To and Subject of the message before
	CRLFFile                           // whole file: every line ends in CR LF, From_ lines too
	NoFinalNewline                     // whole file: no newline after the last message
	PseudoMessage                      // whole file: UW's internal message first; it is not reported. Needs State
)

const perFile = CRLFFile | NoFinalNewline | PseudoMessage

// AllOdd is every oddity that befalls single messages.
const AllOdd = OddFromLines | WrongContentLength | NoBlankLine | CRLF | BodyCR | NUL | Prose | SharedHeader

// Options say what mailbox to make. One of Messages and Bytes must be set.
type Options struct {
	Seed     uint64
	Messages int                  // stop after so many messages, 0: no limit
	Bytes    int64                // stop after the message that reaches this many octets of file, 0: no limit
	Size     func(*rand.Rand) int // content size in octets of the next message, nil: MailSize
	Dialects []Dialect            // one is drawn for each message, nil: all four
	Odd      Odd
	State    bool          // state fields as Dovecot writes them: X-IMAPbase, X-UID, Status, X-Status, X-Keywords, Content-Length
	Keywords int           // keywords named in X-IMAPbase, the last never used; 0: 7
	Fresh    int           // with State and Messages: so many last messages came after the server last wrote
	Each     func(Message) // told of each message once it is written
}

// Summary is what became of the mailbox as a whole.
type Summary struct {
	Messages    int
	Bytes       int64
	UIDValidity uint32   // 0 without State
	UIDNext     uint32   // as Dovecot reports it once it has seen the fresh messages; 0 without State
	Keywords    []string // in the order of X-IMAPbase
}

// FixedOptions are those of Fixed.
func FixedOptions(seed uint64, n, size int) Options {
	return Options{
		Seed: seed, Messages: n, Dialects: []Dialect{Mboxrd},
		Size: func(*rand.Rand) int { return size },
	}
}

// Fixed writes n messages of exactly size octets of content, in dialect Mboxrd,
// so that every program counts n.
func Fixed(w io.Writer, seed uint64, n, size int) (Summary, error) {
	return Generate(w, FixedOptions(seed, n, size))
}

// RealisticOptions are those of Realistic.
func RealisticOptions(seed uint64, bytes int64) Options {
	return Options{Seed: seed, Bytes: bytes, Dialects: []Dialect{Mboxrd}}
}

// Realistic writes a mailbox of about the given octets with the sizes of real mail,
// in dialect Mboxrd.
func Realistic(w io.Writer, seed uint64, bytes int64) (Summary, error) {
	return Generate(w, RealisticOptions(seed, bytes))
}

// Generate writes the mailbox that o describes to w. It fails on a write error,
// on a size below MinSize, and without a limit.
func Generate(w io.Writer, o Options) (Summary, error) {
	if o.Messages <= 0 && o.Bytes <= 0 {
		return Summary{}, errors.New("mailgen: neither Messages nor Bytes is set")
	}
	g := newGenerator(w, o)
	if g.Odd&PseudoMessage != 0 && o.State {
		g.pseudo()
	}
	for last := false; !last; {
		var err error
		if last, err = g.message(); err != nil {
			return g.sum, err
		}
	}
	g.sum.Bytes = g.out.off
	if o.State {
		g.sum.UIDNext = g.lastUID + 1
	}
	return g.sum, g.out.w.Flush()
}

// generator holds what one message hands on to the next.
type generator struct {
	Options
	r        *rand.Rand
	out      *output
	sum      Summary
	clock    int64    // delivery time of the last message, Unix seconds
	uid      uint32   // of the last message that the server saw
	lastUID  uint32   // LASTUID of X-IMAPbase, then the UID of the last fresh message
	identity identity // of the last message
	line     []byte   // scratch for one line of text
}

func newGenerator(w io.Writer, o Options) *generator {
	g := &generator{
		Options: o,
		r:       rand.New(rand.NewPCG(o.Seed, 0x6d61696c67656e)),
		out:     &output{w: bufio.NewWriterSize(w, 256<<10)},
		clock:   1451606400, // 2016-01-01
	}
	if g.Size == nil {
		g.Size = MailSize
	}
	if g.Dialects == nil {
		g.Dialects = []Dialect{Plain, Mboxo, Mboxrd, Mboxcl2}
	}
	if o.State {
		g.sum.UIDValidity = uint32(g.clock) + g.r.Uint32N(1e6)
		g.sum.Keywords = keywordNames(o.Keywords)
		g.lastUID = g.highestUID()
	}
	return g
}

// highestUID is a LASTUID that no message can exceed, as in a mailbox whose
// last messages were expunged: X-IMAPbase is written before the rest is known.
func (g *generator) highestUID() uint32 {
	n := int64(g.Messages)
	if n <= 0 {
		n = g.Bytes/MinSize + 1
	}
	return uint32(min(n*maxUIDStep, 1<<31))
}

func (g *generator) done(messages int, bytes int64) bool {
	return g.Messages > 0 && messages >= g.Messages || g.Bytes > 0 && bytes >= g.Bytes
}

// message draws, writes and reports one message and says if it was the last.
func (g *generator) message() (last bool, err error) {
	size := g.Size(g.r)
	if size < MinSize {
		return false, fmt.Errorf("mailgen: size %d of message %d is below %d", size, g.sum.Messages, MinSize)
	}
	d := g.draft(size)
	head := g.head(d)
	d.body = size - len(head)
	g.sum.Messages++
	last = g.done(g.sum.Messages, g.out.off+d.stored(head))
	if last && g.Odd&NoFinalNewline != 0 {
		d.endWithoutNewline()
	}
	parts := g.plan(d)
	g.write(d, head, parts)
	if g.Each != nil {
		g.Each(d.Message)
	}
	return last, g.out.err
}
