package convert

import (
	"slices"
	"time"

	"mailferry/mbox"
)

// MailboxReport tells what became of one mailbox.
type MailboxReport struct {
	Name     string // folder, "INBOX" or "A/B"
	Path     string // of the mbox
	Messages int
	Careful  int   // messages by the careful reading
	Bytes    int64 // of the messages as written
	Oddities *mbox.Oddities
	Left     []LeftKeyword
}

// Odd is what a scan doubted of a mailbox: the places, by the code of their kind.
type Odd map[string]mbox.Places

// oddOf keeps of a scan what it doubted; nil for nothing.
func oddOf(seen *mbox.Oddities) (odd Odd) {
	for kind, places := range seen.All {
		if odd == nil {
			odd = Odd{}
		}
		odd[kind.String()] = places
	}
	return odd
}

// lastKind is the last of the kinds of package mbox.
const lastKind = mbox.NoHeader

// All yields the kinds that were seen, in the order of package mbox. A code that
// is none is passed over: in a staging, its owner can write what he likes.
func (o Odd) All(yield func(mbox.Oddity, mbox.Places) bool) {
	for kind := range lastKind + 1 {
		if p, seen := o[kind.String()]; seen && !yield(kind, p) {
			return
		}
	}
}

// LeftKeyword is a keyword that got no letter, for a Maildir has 26: Dovecot
// can still hold it in its index.
type LeftKeyword struct {
	Keyword string `json:"keyword"`
	UIDs    string `json:"uids"` // an IMAP set, "1:3,7"
}

// Report tells what Convert or Verify did.
type Report struct {
	Mailboxes   []MailboxReport // in order of folder
	Messages    int
	Bytes       int64
	Quarantined int // messages that could not be represented; a plain conversion has none
	Skips       []Skip
	Differences []Difference // Verify only
	Took        time.Duration
}

func (r *Report) total() {
	r.Messages, r.Bytes = 0, 0
	for _, m := range r.Mailboxes {
		r.Messages += m.Messages
		r.Bytes += m.Bytes
	}
}

// has reports whether the mbox of that path was read.
func (r *Report) has(path string) bool {
	return slices.ContainsFunc(r.Mailboxes, func(m MailboxReport) bool { return m.Path == path })
}

// Oddities counts those of all mailboxes.
func (r *Report) Oddities() (n int) {
	for _, m := range r.Mailboxes {
		n += m.Oddities.Total()
	}
	return n
}
