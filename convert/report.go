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
