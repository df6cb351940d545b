package mbox

import (
	"bytes"
	"math"
	"time"

	"mailferry/internal/message"
)

// Flags are the system flags that an mbox holds.
type Flags uint8

// The flags, with the letter of Status or X-Status that sets each.
const (
	Seen     Flags = 1 << iota // R
	Old                        // O: some session has seen that it exists; absent means \Recent
	Answered                   // A
	Flagged                    // F
	Draft                      // T
	Deleted                    // D
)

// State is what a server knew of one message beside its bytes.
type State struct {
	UID      uint32
	Flags    Flags
	Keywords []string
	Pseudo   bool // UW's and Dovecot's "FOLDER INTERNAL DATA": no message, but metadata of the mailbox
}

// Tracker follows the state of a mailbox from message to message, by the rules
// of dovecot mbox-sync-parse.c: UIDs come from strangers too, since any sender
// can write an X-UID field, so that only those are believed that the mailbox's
// own X-IMAPbase covers and that rise.
type Tracker struct {
	profile     *Profile
	odd         *Oddities
	uidValidity uint32
	nextUID     uint32
	prevUID     uint32
	maxLast     uint32 // of X-IMAPbase
	bySize      bool   // an X-IMAPbase was judged by the size of the file
	seq         int
	listed      []string            // keywords of X-IMAPbase, in its order
	known       map[string]struct{} // the same, in lower case
}

// NewTracker begins a mailbox, whose oddities go to the scanner's.
func NewTracker(s *Scanner) *Tracker {
	// Whoever writes to the first message can write X-IMAPbase. A last UID that
	// leaves no room for the messages that follow is no server's.
	most := min(s.w.size/int64(len(fromPrefix)+1), math.MaxUint32/2)
	return &Tracker{profile: &s.profile, odd: &s.odd, nextUID: 1, maxLast: uint32(math.MaxUint32 - 1 - most), known: map[string]struct{}{}}
}

// UIDValidity returns the mailbox's UIDVALIDITY, or 0 if it records none.
func (t *Tracker) UIDValidity() uint32 { return t.uidValidity }

// NextUID returns the UID that the next message to arrive would get. It never
// falls below what X-IMAPbase promises, even if the highest were expunged.
func (t *Tracker) NextUID() uint32 { return t.nextUID }

// Keywords returns the keywords that the mailbox lists, used or not, in order.
func (t *Tracker) Keywords() []string { return t.listed }

// State returns the state of the next message of the mailbox.
func (t *Tracker) State(e *Entry) State {
	t.seq++
	var s State
	var words []byte
	seenBase := false
	for _, h := range e.Fields {
		switch h.Field {
		case message.Status:
			s.Flags |= t.flags(h.Value, "RO")
		case message.XStatus:
			s.Flags |= t.flags(h.Value, "AFTD")
		case message.XIMAP, message.XIMAPbase:
			if t.seq == 1 && !seenBase && t.base(h.Value) {
				seenBase = true
				s.Pseudo = h.Field == message.XIMAP && t.profile.pseudo != nil && t.profile.pseudo(e.From)
			}
		case message.XUID:
			if s.UID == 0 {
				s.UID = t.uid(h.Value, t.seq > 1 || seenBase)
				if s.UID == 0 {
					t.odd.add(InvalidUID, e.Offset)
				}
			}
		case message.XKeywords:
			if words == nil {
				words = h.Value
			}
		}
	}
	// Behind the list that X-IMAPbase is, wherever in the header it stands: when
	// the first message was expunged, Dovecot puts it behind the X-Keywords of
	// the next, which it goes on showing out of its index.
	s.Keywords = t.keywords(words, e.Offset)
	if s.Pseudo {
		t.odd.add(PseudoMessage, e.Offset)
		s.UID = 0
		return s
	}
	if s.UID == 0 {
		s.UID = t.nextUID
		t.nextUID++
	}
	t.prevUID = s.UID
	return s
}

// flagLetters maps letters to flags, as every server does.
var flagLetters = map[byte]Flags{'R': Seen, 'O': Old, 'A': Answered, 'F': Flagged, 'T': Draft, 'D': Deleted}

// flags reads letters. Dovecot takes each only in the field where it belongs;
// c-client and mailutils in either: mailutils writes "Status: ORA".
func (t *Tracker) flags(value []byte, own string) Flags {
	var f Flags
	for _, c := range value {
		if t.profile.anyStatus || bytes.IndexByte([]byte(own), c) >= 0 {
			f |= flagLetters[c]
		}
	}
	return f
}

// base reads "UIDVALIDITY LASTUID [keyword ...]".
func (t *Tracker) base(value []byte) bool {
	words := bytes.Fields(value)
	if len(words) == 0 {
		return false
	}
	validity, ok := uint32Of(words[0])
	if !ok || validity == 0 {
		return false
	}
	var last uint32
	if len(words) > 1 {
		last, ok = uint32Of(words[1])
		t.bySize = t.bySize || last > math.MaxUint32/2
		if !ok || last > t.maxLast {
			return false
		}
	}
	t.uidValidity = validity
	t.nextUID = max(t.nextUID, last+1)
	for _, w := range words[min(2, len(words)):] {
		t.list(string(w))
	}
	return true
}

func (t *Tracker) list(keyword string) {
	key := string(bytes.ToLower([]byte(keyword)))
	if _, ok := t.known[key]; !ok {
		t.known[key] = struct{}{}
		t.listed = append(t.listed, keyword)
	}
}

// uid reads an X-UID; 0 means that it is not believed.
func (t *Tracker) uid(value []byte, allowed bool) uint32 {
	uid, ok := uint32Of(value)
	if !ok || !allowed || uid > t.nextUID || uid <= t.prevUID {
		return 0
	}
	if uid == t.nextUID {
		t.nextUID++
	}
	return uid
}

// keywords reads X-Keywords. Dovecot ignores the field if the mailbox's list
// lacks any word of it: then a stranger wrote it. The readings that no server
// stands behind list what they meet.
func (t *Tracker) keywords(value []byte, offset int64) []string {
	var words []string
	for _, w := range bytes.Fields(value) {
		_, known := t.known[string(bytes.ToLower(w))]
		if !known && t.profile.Name == Dovecot.Name {
			t.odd.add(UnlistedKeyword, offset)
			return nil
		}
		t.list(string(w))
		words = append(words, string(w))
	}
	return words
}

func uint32Of(digits []byte) (uint32, bool) {
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > math.MaxUint32 {
			return 0, false
		}
	}
	return uint32(n), len(digits) > 0
}

// deliveryDate is the date of a message: what the profile's server gave for
// its From_ line; for undated ones the Date field, as the nearest thing.
func (s *Scanner) deliveryDate() time.Time {
	if t, ok := s.date(s.entry.From, s.zone); ok && isCredible(t) {
		return t
	}
	if s.entry.FromLen > 0 {
		s.odd.add(Undated, s.entry.Offset)
	}
	return s.entry.sentDate()
}
