package main

import (
	"fmt"
	"slices"
	"testing"

	"mailferry/convert"
	"mailferry/mbox"
)

// oneMailbox is a user's only mailbox.
func oneMailbox(path string, odd convert.Odd) *convert.Round {
	return &convert.Round{Mailboxes: []convert.MailboxRound{{Path: path, Odd: odd}, {Path: "/fine"}}}
}

func TestWhatIsOddHasALineForEachMailboxAndKindWhileTheyAreFew(t *testing.T) {
	var l oddList
	l.round("nobody", nil)
	l.round("carol", oneMailbox("/c", nil))
	l.round("alice", oneMailbox("/var/mail/a b", convert.Odd{
		"invalid-uid":      {Count: 4, Offsets: []int64{0, 114, 228, 342}},
		"no-final-newline": {Count: 1, Offsets: []int64{500}},
		"no-code":          {Count: 1, Offsets: []int64{1}}, // as a staging's owner may write
	}))
	want := []string{
		`alice: odd: no-final-newline: "/var/mail/a b": the file does not end in a newline (1, at 500)`,
		`alice: odd: invalid-uid: "/var/mail/a b": an X-UID that the rules refuse was replaced by a new UID (4, at 0, 114, 228, ...)`,
	}
	if got := l.text(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestWhatIsOddHasALineForEachUserWhenTheyAreMany(t *testing.T) {
	var l oddList
	for i := range maxOddLines {
		l.round(fmt.Sprint("user", i), oneMailbox("/m", convert.Odd{"from-in-body": {Count: 2, Offsets: []int64{7, 9}}}))
	}
	if got := l.text(); len(got) != maxOddLines || got[1] != `user1: odd: from-in-body: /m: `+mbox.FromInBody.Explain()+` (2, at 7, 9)` {
		t.Errorf("%q", got)
	}
	l.round("last", oneMailbox("/m", convert.Odd{"from-in-body": {Count: 5, Offsets: []int64{7}}, "invalid-uid": {Count: 3, Offsets: []int64{1}}}))
	l.round("fine", oneMailbox("/m", nil))
	got := l.text()
	if len(got) != maxOddLines+2 || got[0] != "user0: odd: 2 from-in-body; in 1 mailbox" ||
		got[maxOddLines] != "last: odd: 5 from-in-body, 3 invalid-uid; in 1 mailbox" ||
		got[maxOddLines+1] != "odd in all: 205 from-in-body, 3 invalid-uid; --json has the places" {
		t.Errorf("%q", got)
	}
}
