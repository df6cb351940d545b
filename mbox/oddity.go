package mbox

import "fmt"

// Oddity is a kind of thing in an mbox that an admin should know of. None of
// them stops a conversion, and nothing is repaired because of one.
type Oddity uint8

// The oddities, each with the place where it was seen.
const (
	LeadingBlank Oddity = iota
	NoEmptyLine
	NoFinalNewline
	Undated
	FromInBody
	FromInsideLength
	WrongContentLength
	LongFromLine
	UnclosedMMDF
	MixedLineEnds
	ProfileDiffers
	InvalidUID
	UnlistedKeyword
	InvalidKeyword
	PseudoMessage
	NoHeader
	numOddities
)

var oddityTexts = [numOddities]struct{ code, text string }{
	LeadingBlank:       {"leading-blank", "blanks or a byte order mark before the first From_ line were passed over"},
	NoEmptyLine:        {"no-empty-line", "a From_ line without an empty line before it"},
	NoFinalNewline:     {"no-final-newline", "the file does not end in a newline"},
	Undated:            {"undated-from", "a From_ line without a date"},
	FromInBody:         {"from-in-body", "a body line begins with \"From \" and was taken as text"},
	FromInsideLength:   {"from-inside-content-length", "a From_ line inside a message whose Content-Length is right was taken as text"},
	WrongContentLength: {"wrong-content-length", "a Content-Length that fits no message end was ignored"},
	LongFromLine:       {"long-from-line", "a From_ line of more than 8 KiB"},
	UnclosedMMDF:       {"unclosed-mmdf", "the last MMDF message has no closing line"},
	MixedLineEnds:      {"mixed-line-ends", "a From_ line ends otherwise (LF, CRLF) than the first one"},
	ProfileDiffers:     {"profile-differs", "the profile and the careful reading disagree about a message boundary"},
	InvalidUID:         {"invalid-uid", "an X-UID that the rules refuse was replaced by a new UID"},
	UnlistedKeyword:    {"unlisted-keyword", "X-Keywords with a word that X-IMAPbase does not list was ignored"},
	PseudoMessage:      {"pseudo-message", "the first message holds the mailbox's own data and is no mail"},
	NoHeader:           {"no-header", "a From_ line without a header line after it"},
	InvalidKeyword:     {"invalid-keyword", "a keyword that the Maildir side can't hold was left out"},
}

// String returns the oddity's code, as reports print it.
func (o Oddity) String() string { return oddityTexts[o].code }

// Explain says what the oddity is in a sentence.
func (o Oddity) Explain() string { return oddityTexts[o].text }

// maxPlaces bounds the offsets kept of one oddity: enough to look at, whatever
// a hostile file holds.
const maxPlaces = 10

// Places tells how often an oddity was seen, and where first.
type Places struct {
	Count   int     `json:"count"`
	Offsets []int64 `json:"offsets"` // bytes from the start of the file; the first few
}

// Oddities collects what is odd about one mailbox.
type Oddities struct {
	places [numOddities]Places
}

func (o *Oddities) add(kind Oddity, offset int64) {
	if o == nil {
		return
	}
	p := &o.places[kind]
	if p.Count++; len(p.Offsets) < maxPlaces {
		p.Offsets = append(p.Offsets, offset)
	}
}

// Of returns where an oddity was seen.
func (o *Oddities) Of(kind Oddity) Places { return o.places[kind] }

// All yields the oddities that were seen.
func (o *Oddities) All(yield func(Oddity, Places) bool) {
	for kind, p := range o.places {
		if p.Count > 0 && !yield(Oddity(kind), p) {
			return
		}
	}
}

// Total counts all of them.
func (o *Oddities) Total() int {
	n := 0
	for _, p := range o.places {
		n += p.Count
	}
	return n
}

// String lists the oddities, for logs.
func (o *Oddities) String() string {
	s := ""
	for kind, p := range o.All {
		s += fmt.Sprintf("%s: %d at %v\n", kind, p.Count, p.Offsets)
	}
	return s
}
