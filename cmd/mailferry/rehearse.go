package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/journal"
)

func rehearseCommand() *cobra.Command {
	return runCommand(convert.Rehearse, rehearseKeys, &cobra.Command{
		Use:   "rehearse [USER]...",
		Short: "Take the mail of users to Maildir and back in a scratch directory, and compare",
		Long: `rehearse converts the mailboxes of each user into a Maildir in a scratch directory
below the state directory, builds the mailboxes anew from that, and compares them
with the live ones byte for byte: once as a rollback does that has the parked mbox
at hand, once as after its retirement, from the Maildir alone. Both ways are
timed; plan uses the figures. The mailboxes are only read, without locks; nothing
else of the user's is touched, and the scratch directory is removed.

Who was rehearsed, and has the same mailboxes still, is passed by: a rehearsal of
the whole site can be stopped at any time, and be run again. Users need not be
enrolled; those on Maildir are skipped.
` + exitHelp,
		Example: `  mailferry rehearse --all --nice --bwlimit 20M
  mailferry rehearse alice bob`,
	})
}

// rehearseKeys are the keys that decide what a rehearsal does.
var rehearseKeys = []string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore",
	"profile", "quoting", "eol", "correct-dates", "chunk", "jobs", "max-failures", "window", "pause-between",
	"bwlimit", "nice", "order", "free-floor"}

// rehearsed is what rehearsals come to.
type rehearsed struct {
	Users    int     `json:"users"`
	Exact    int     `json:"exact"`              // users whose mail came back byte for byte
	Alone    int     `json:"from_maildir_alone"` // likewise
	Same     int     `json:"read_the_same"`      // users whose mail from the Maildir alone is read as it was
	Messages int     `json:"messages"`
	Bytes    int64   `json:"bytes"`
	Forth    float64 `json:"forth_seconds"`
	Back     float64 `json:"back_seconds"`
	Scratch  int64   `json:"scratch_bytes"` // the most that a user took
}

// add counts the rehearsal of a user, if there was one in this run.
func (r *rehearsed) add(u convert.User) {
	h := u.Rehearsal
	if h == nil || u.Already {
		return
	}
	r.Users++
	if h.Exact {
		r.Exact++
	}
	if h.Alone.Exact {
		r.Alone++
	}
	if h.Alone.Misread == 0 {
		r.Same++
	}
	r.Messages += h.Messages
	r.Bytes += h.Bytes
	r.Forth += h.Forth
	r.Back += h.Back
	r.Scratch = max(r.Scratch, h.Scratch)
}

// sums are nil if there was no rehearsal.
func (r *rehearsed) sums() *rehearsed {
	if r.Users == 0 {
		return nil
	}
	return r
}

// text are the lines of the sums; none if there was no rehearsal.
func (r *rehearsed) text() string {
	if r.Users == 0 {
		return ""
	}
	return fmt.Sprintf("%s there and back: %d byte for byte; after retire, from the Maildir alone, %d read the same\n%s; one user took up to %s of scratch\n",
		plural(r.Users, "user"), r.Exact, r.Same, ways(r.Messages, r.Bytes, r.Forth, r.Back), size(r.Scratch))
}

// rehearsalText is what an admin reads of a rehearsal.
func rehearsalText(u convert.User) string {
	h := *u.Rehearsal
	if u.Already {
		return fmt.Sprintf("was rehearsed at %s, and his mailboxes have not changed since", h.Time.UTC().Format("2006-01-02 15:04:05Z"))
	}
	return fmt.Sprintf("%s, %s: %s; %s of scratch; came back byte for byte; after retire, from the Maildir alone, %s",
		plural(h.Messages, "message"), size(h.Bytes), ways(h.Messages, h.Bytes, h.Forth, h.Back), size(h.Scratch), aloneText(h.Alone))
}

// aloneText is no alarm where all is as it has to be: a Maildir has no place for
// the header fields by which an mbox keeps flags and UIDs.
func aloneText(a journal.Alone) string {
	switch {
	case a.Exact:
		return "too"
	case a.Misread == 0:
		return "read the same, as expected: only what an mbox has beside the mail (Status, X-UID) is made anew"
	}
	return fmt.Sprintf("%s would be read otherwise: content, date, flags, keywords or UID", plural(a.Misread, "message"))
}

// ways are the times of both ways.
func ways(messages int, bytes int64, forth, back float64) string {
	way := func(seconds float64) string {
		text := time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
		if seconds > 0 {
			text += fmt.Sprintf(" (%s/s, %.0f messages/s)", size(int64(float64(bytes)/seconds)), float64(messages)/seconds)
		}
		return text
	}
	return "forth " + way(forth) + ", back " + way(back)
}
