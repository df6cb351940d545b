package mbox

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"mailferry/internal/message"
)

// A Profile is the reading of an mbox by one server: where messages end, which
// header fields are the server's own, what the From_ date means. Converting
// with the profile of the server that serves the users now keeps every count,
// size and date that their clients know.
type Profile struct {
	Name string

	// accept says whether a line that begins "From " separates messages.
	accept func(candidate) bool
	// doubled: a From_ line directly behind another separates, with an empty
	// message between; to other servers it is a header line.
	doubled bool
	// length says whether a Content-Length may be believed: whether a message
	// whose body would end there is followed by something that fits. nil: the
	// server ignores Content-Length.
	length func(landing) bool
	// ending is what of the bytes before the next From_ line belongs to the
	// separator and not to the message.
	ending ending
	// mmdf: the server reads MMDF as well.
	mmdf bool
	// lenient: blank lines, blanks and a byte order mark may stand first.
	lenient bool
	// hide holds the header fields that clients do not see.
	hide message.Set
	// pseudo tells whether a first message with a valid X-IMAP field is the
	// mailbox's metadata and no mail, so that clients do not see it.
	pseudo func(FromLine) bool
	// anyStatus: a flag's letter counts in Status and in X-Status.
	anyStatus bool
	// date is the delivery date that the server gives, in its zone.
	date func(FromLine, *time.Location) (time.Time, bool)
	// uidl computes the POP3 UIDL from the header, for servers that do so.
	uidl func(header []byte) string
}

// ending names what separates a message from the next.
type ending uint8

const (
	emptyLine     ending = iota // an empty line, if one is there
	bodyEmptyLine               // the same, but not the one that ends the header
	lastLF                      // the last line end, whatever line it ends
	nothing                     // all bytes are the message's
)

// candidate is a line that begins "From ", and what can decide about it.
type candidate struct {
	line     []byte // without its line end
	rest     []byte // the line and what follows it, a few hundred bytes at least if the file has them
	blank    bool   // an empty line, or nothing at all, is before it
	long     bool   // the line was cut, being longer than anybody writes
	inHeader bool   // no empty line has ended the header of the message before

	firstOfBody bool // the empty line before it ends the header
}

// next returns the beginning of the line after the candidate.
func (c candidate) next() []byte {
	if i := bytes.IndexByte(c.rest, '\n'); i >= 0 {
		return c.rest[i+1:]
	}
	return nil
}

// landing is the place where a Content-Length says that the body ends.
type landing struct {
	rest      []byte // what follows, a few hundred bytes at least if the file has them
	atEnd     bool   // rest reaches the end of the file
	lineStart bool   // an LF stands before it
}

// The fields that mbox servers keep for themselves.
var (
	// dovecot mbox-storage.c, mbox_hide_headers
	dovecotHidden = message.SetOf(message.ContentLength, message.Status, message.XIMAP, message.XIMAPbase,
		message.XKeywords, message.XStatus, message.XUID)
	// c-client unix.c, unix_hlines
	uwHidden = message.SetOf(message.Status, message.XIMAP, message.XIMAPbase, message.XKeywords,
		message.XStatus, message.XUID)
	// qpopper pop_send.c; it writes its own X-UIDL in place of the one there
	qpopperHidden = message.SetOf(message.ContentLength)
)

// Careful is the reading of archives that no server serves: the rule that was
// right on every real mailbox looked at. See docs/boundaries.md.
var Careful = Profile{
	Name:      "careful",
	accept:    acceptCareful,
	length:    landsCarefully,
	ending:    emptyLine,
	mmdf:      true,
	lenient:   true,
	hide:      dovecotHidden,
	pseudo:    fromMailer,
	anyStatus: true,
	date:      trueDate,
}

// Dovecot is the reading of Dovecot 2.x (lib-storage/index/mbox/istream-raw-mbox.c).
var Dovecot = Profile{
	Name:   "dovecot",
	accept: func(c candidate) bool { return isDovecotFrom(c.rest) },
	length: landsForDovecot,
	ending: lastLF,
	hide:   dovecotHidden,
	pseudo: anySender,
	date:   servedByDovecot,
}

// anySender: dovecot mbox-sync-parse.c, parse_x_imap, and c-client unix.c ask
// for the field alone.
func anySender(FromLine) bool { return true }

// fromMailer: Dovecot and c-client write MAILER_DAEMON or MAILER-DAEMON into
// the From_ line of their pseudo-message; a stranger's field is not enough.
func fromMailer(f FromLine) bool {
	return bytes.HasPrefix(f.rest(), []byte("MAILER_DAEMON ")) || bytes.HasPrefix(f.rest(), []byte("MAILER-DAEMON "))
}

// profiles lists every profile by name.
var profiles = []Profile{
	Careful,
	Dovecot,
	{
		// c-client unix.c: VALID on every line of the body, never in the
		// header; the empty line at the end of a body is flushed; blanks may
		// stand first (unix_isvalid_fd); mmdf.c reads MMDF.
		Name:      "uw",
		accept:    func(c candidate) bool { return !c.inHeader && uwValid(c.line) },
		ending:    bodyEmptyLine,
		lenient:   true,
		mmdf:      true,
		hide:      uwHidden,
		pseudo:    anySender,
		anyStatus: true,
		date:      trueDate,
	},
	{
		// popa3d 1.0.3 mailbox.c, measured: any "From " behind an empty line;
		// that line is dropped, unless it ends the header; nothing is hidden.
		Name:      "popa3d",
		accept:    func(c candidate) bool { return c.blank },
		ending:    bodyEmptyLine,
		anyStatus: true,
		date:      trueDate,
		uidl:      popa3dUIDL,
	},
	{
		// qpopper pop_dropcopy.c: behind an empty line, VALID as in c-client;
		// every line up to the next From_ line is counted and sent.
		Name:      "qpopper",
		accept:    func(c candidate) bool { return c.blank && uwValid(c.line) },
		ending:    nothing,
		mmdf:      true,
		hide:      qpopperHidden,
		anyStatus: true,
		date:      trueDate,
	},
	{
		// solid-pop3d 0.15, measured: a line "From ..." of 27 bytes or more,
		// whatever it says and wherever it stands; nothing is dropped.
		Name:      "solid",
		accept:    func(c candidate) bool { return len(c.line) >= 27 },
		doubled:   true,
		ending:    nothing,
		anyStatus: true,
		date:      trueDate,
		uidl:      solidUIDL,
	},
	{
		// GNU mailutils 3.15 libproto/mbox: measured: VALID as in c-client,
		// behind an empty line of the body.
		Name:      "mailutils",
		accept:    func(c candidate) bool { return c.blank && !c.firstOfBody && uwValid(c.line) },
		ending:    bodyEmptyLine,
		anyStatus: true,
		date:      trueDate,
	},
}

// ProfileByName returns the profile of a server.
func ProfileByName(name string) (Profile, error) {
	for _, p := range profiles {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, fmt.Errorf("no profile %q: choose one of %s", name, strings.Join(ProfileNames(), ", "))
}

// ProfileNames lists the names that ProfileByName knows.
func ProfileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.Name
	}
	return names
}

// Hides reports whether the profile's server keeps a header field to itself.
func (p Profile) Hides(f message.Field) bool { return p.hide.Has(f) }

// acceptCareful: a dated From_ line needs an empty line before it or a header
// line after it; an undated one needs the header line. Archives leave the
// empty line out (Pipermail, after scrubbed parts), and prose that begins
// "From " has no date.
func acceptCareful(c candidate) bool {
	if c.long || bytes.IndexByte(c.line, '\r') >= 0 {
		return false // what follows would be lost in the From_ line
	}
	_, dated := stampOf(c.line[len(fromPrefix):])
	if message.IsHeaderLine(c.next()) {
		return dated || isUndated(c.line)
	}
	return c.blank && dated && isFormal(c)
}

// isFormal reports whether a date stands where servers look for it, at the end
// of the line or right behind the sender. Without a header line to bear it out,
// a date somewhere in the line may be prose: "From Jan 5 10:30 on, call ...".
func isFormal(c candidate) bool {
	_, _, ok := parseDovecotFrom(c.rest[len(fromPrefix):])
	return ok || uwValid(c.line)
}

// landsCarefully: the body ends at the end of the file or at a From_ line,
// give or take the empty line between.
func landsCarefully(l landing) bool {
	for range 2 {
		if len(l.rest) == 0 {
			return l.atEnd
		}
		if l.lineStart && bytes.HasPrefix(l.rest, fromPrefix) {
			line, _, _ := bytes.Cut(l.rest, lf)
			return acceptCareful(candidate{line: line, rest: l.rest, blank: true})
		}
		if !message.IsBlankLine(l.rest) {
			return false
		}
		l.rest = l.rest[bytes.IndexByte(l.rest, '\n')+1:]
		l.lineStart = true
	}
	return false
}

// landsForDovecot: dovecot istream-raw-mbox.c, istream_raw_mbox_is_valid_from.
func landsForDovecot(l landing) bool {
	if !message.IsBlankLine(l.rest) {
		return false
	}
	l.rest = l.rest[bytes.IndexByte(l.rest, '\n')+1:]
	if len(l.rest) == 0 {
		return l.atEnd
	}
	return bytes.HasPrefix(l.rest, fromPrefix) && isDovecotFrom(l.rest)
}

// isDovecotFrom judges a line that begins "From ". At the end of the file it
// needs its LF: Dovecot looks at it only when it has seen that.
func isDovecotFrom(rest []byte) bool {
	if len(rest) < lookAhead && bytes.IndexByte(rest, '\n') < 0 {
		return false
	}
	_, _, ok := parseDovecotFrom(rest[len(fromPrefix):])
	return ok
}

// uwValid is the macro VALID of c-client (src/osdep/unix/unix.h): the date is
// known by the place of its blanks, counted from the end of the line. line has
// no line end.
func uwValid(line []byte) bool {
	x := len(line)
	at := func(i int) byte { return line[x+i] }
	if x >= 41 {
		if i := bytes.LastIndexByte(line, ' '); i >= 12 && string(line[i-12:i]) == " remote from" {
			x = i - 12
		}
	}
	if x < 27 {
		return false
	}
	ti := 0
	switch {
	case at(-5) == ' ':
		switch {
		case at(-8) == ':':
			ti = -5
		case at(-9) == ' ':
			ti = -9
		case at(-11) == ' ' && (at(-10) == '+' || at(-10) == '-'):
			ti = -11
		}
	case at(-4) == ' ':
		if at(-9) == ' ' {
			ti = -9
		}
	case at(-6) == ' ':
		if at(-11) == ' ' && (at(-5) == '+' || at(-5) == '-') {
			ti = -11
		}
	}
	if ti == 0 || at(ti-3) != ':' {
		return false
	}
	if at(ti-6) == ':' {
		ti -= 9
	} else {
		ti -= 6
	}
	return x+ti-11 >= 0 && at(ti) == ' ' && at(ti-3) == ' ' && at(ti-7) == ' ' && at(ti-11) == ' '
}
