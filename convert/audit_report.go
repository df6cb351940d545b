package convert

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// AuditCounts tell what became of the messages of parked mboxes: each is one of
// Kept, Moved, Returned, Astray, Deleted.
type AuditCounts struct {
	Messages  int `json:"messages"`  // in the parked mboxes
	Kept      int `json:"kept"`      // in their folder, under their UID
	Reflagged int `json:"reflagged"` // of those kept: with other flags or keywords
	Moved     int `json:"moved"`     // in another folder
	Returned  int `json:"returned"`  // in their folder under a later UID: moved away and back
	Astray    int `json:"astray"`    // in their folder under a wrong UID; each is a difference
	Deleted   int `json:"deleted"`   // in no folder
	Came      int `json:"came"`      // in the Maildir, and in no parked mbox
}

// Add adds those of another user or mailbox.
func (c *AuditCounts) Add(o AuditCounts) {
	c.Messages += o.Messages
	c.Kept += o.Kept
	c.Reflagged += o.Reflagged
	c.Moved += o.Moved
	c.Returned += o.Returned
	c.Astray += o.Astray
	c.Deleted += o.Deleted
	c.Came += o.Came
}

// String tells the counts in words, those that are 0 left out.
func (c AuditCounts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d messages: %d kept", c.Messages, c.Kept)
	if c.Reflagged > 0 {
		fmt.Fprintf(&b, " (%d reflagged)", c.Reflagged)
	}
	for _, part := range []struct {
		n    int
		word string
	}{{c.Moved, "moved"}, {c.Returned, "moved away and back"}, {c.Astray, "astray"}, {c.Deleted, "deleted"}, {c.Came, "came"}} {
		if part.n > 0 {
			fmt.Fprintf(&b, ", %d %s", part.n, part.word)
		}
	}
	return b.String()
}

// MailboxAudit is the part of one mailbox, or of a folder that was made since.
type MailboxAudit struct {
	Name    string `json:"name"`
	Path    string `json:"path,omitempty"`    // of the parked mbox; empty for a folder that was made since
	Folder  string `json:"folder"`            // its directory now, relative to the Maildir; empty if gone
	Renamed string `json:"renamed,omitempty"` // the name that it has now
	Gone    bool   `json:"gone,omitempty"`    // there is no folder any more
	Remade  bool   `json:"remade,omitempty"`  // deleted and made anew
	AuditCounts
	Differing int `json:"differing"` // differences, of which the report has the first 100
}

// AuditReport tells what an audit found.
type AuditReport struct {
	User        string          `json:"user"`
	State       string          `json:"state"`          // of the semaphore; empty: not enrolled
	Note        string          `json:"note,omitempty"` // why nothing was compared
	Mailboxes   []*MailboxAudit `json:"mailboxes,omitempty"`
	Skips       []Skip          `json:"skips,omitempty"`
	Unparked    []string        `json:"unparked,omitempty"` // what is or may be mail where nobody reads it: left there at the flip, or delivered by somebody who ignores semaphores
	Differences []Difference    `json:"differences,omitempty"`
	Differing   int             `json:"differing"` // differences, also those that the list leaves out
	AuditCounts
	Took time.Duration `json:"took_ns"`
}

// String is the report in a line.
func (r *AuditReport) String() string {
	if r.Note != "" {
		return fmt.Sprintf("%s %s", r.User, r.Note)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %v", r.User, r.AuditCounts)
	for _, m := range r.Mailboxes {
		switch {
		case m.Renamed != "":
			fmt.Fprintf(&b, "; %q is now %q", m.Name, m.Renamed)
		case m.Gone:
			fmt.Fprintf(&b, "; folder %q is gone", m.Name)
		case m.Remade:
			fmt.Fprintf(&b, "; folder %q was made anew", m.Name)
		}
	}
	for _, path := range r.Unparked {
		fmt.Fprintf(&b, "; %q is at its old path", path)
	}
	if r.Differing == 0 {
		b.WriteString("; no difference")
	} else {
		fmt.Fprintf(&b, "; %d DIFFERENCES", r.Differing)
	}
	return b.String()
}

// Passed are the skips that somebody has to know of: not those of earlier
// migrations.
func (r *AuditReport) Passed() []Skip {
	return slices.DeleteFunc(slices.Clone(r.Skips), func(s Skip) bool { return s.code == parkedLeft })
}

// total sums up, and checks that every message is accounted for.
func (r *AuditReport) total() error {
	for _, m := range r.Mailboxes {
		r.Add(m.AuditCounts)
		r.Differing += m.Differing
		if m.Messages != m.Kept+m.Moved+m.Returned+m.Astray+m.Deleted {
			return fmt.Errorf("bug: the audit of %q does not add up: %v", m.Path, m.AuditCounts)
		}
	}
	return nil
}
