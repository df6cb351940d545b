package dovecottest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Digest is the SHA-256 of the bytes that a client gets.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Sum returns the digest of data.
func Sum(data string) Digest { return sha256.Sum256([]byte(data)) }

// Message is what IMAP shows of a message.
type Message struct {
	UID          uint32
	Flags        []string // system flags and keywords, sorted, without \Recent
	InternalDate time.Time
	Size         int64  // RFC822.SIZE: octets, a bare LF counted as two
	Digest       Digest // of BODY[]: every line ends in CRLF, and NUL is sent as 0x80
}

// Mailbox is what IMAP shows of a mailbox.
type Mailbox struct {
	Name        string   // as on the wire: "/" between levels, modified UTF-7
	Attrs       []string // of LIST, sorted
	Selectable  bool
	UIDValidity uint32
	UIDNext     uint32
	Keywords    []string  // of the FLAGS response, sorted; system flags are always the same
	Messages    []Message // in order of UID
	// Error says why SELECT or FETCH failed, "" when they did not: what was asked and the server's answer,
	// or that the server went away, with its log. Then the fields after Attrs and Selectable are incomplete.
	Error string
}

// Dump is what IMAP shows of a user.
type Dump struct {
	Mailboxes  []Mailbox // in order of name
	Subscribed []string  // as LSUB returns them, sorted
}

// Mailbox returns the mailbox called name, or nil.
func (d *Dump) Mailbox(name string) *Mailbox {
	i := slices.IndexFunc(d.Mailboxes, func(m Mailbox) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &d.Mailboxes[i]
}

// DumpIMAP selects every mailbox of the location and fetches every message.
// A mailbox that can't be read gets an Error, and the dump goes on, in a new session if the server has died.
//
// SELECT is what makes Dovecot assign UIDs. It writes them, and more, into an mbox, moves new/ to cur/
// in a Maildir, and makes index files in both: pass a copy of what has to stay as it is.
// What is shown is the first open of the location. A later dump of the same location can differ, by
// Dovecot's own fault: one real mbox of 415 messages shows 414 at the second open.
func DumpIMAP(tb testing.TB, loc Location) *Dump {
	tb.Helper()
	s := Start(tb, loc)
	d := &Dump{Mailboxes: s.list(), Subscribed: s.subscribed()}
	for i := range d.Mailboxes {
		box := &d.Mailboxes[i]
		if !box.Selectable {
			continue
		}
		if err := s.dump(box); err != nil {
			box.Error = s.explain(err)
		}
		if s.dead {
			s = Start(tb, loc)
		}
	}
	s.Close()
	return d
}

// explain adds the log to answers that refer to it.
func (s *Session) explain(err error) string {
	if refusal := (*Refusal)(nil); errors.As(err, &refusal) && strings.Contains(refusal.Answer, "SERVERBUG") {
		return err.Error() + "\n" + s.log()
	}
	return err.Error()
}

// list returns all mailboxes, not yet opened.
func (s *Session) list() []Mailbox {
	s.tb.Helper()
	var boxes []Mailbox
	for _, t := range s.listing("LIST") {
		attrs := t[0].texts()
		slices.Sort(attrs)
		boxes = append(boxes, Mailbox{
			Name:       t[2].text,
			Attrs:      attrs,
			Selectable: !slices.Contains(attrs, `\Noselect`) && !slices.Contains(attrs, `\NonExistent`),
		})
	}
	slices.SortFunc(boxes, func(a, b Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	return boxes
}

// subscribed returns the subscriptions.
func (s *Session) subscribed() []string {
	s.tb.Helper()
	var names []string
	for _, t := range s.listing("LSUB") {
		names = append(names, t[2].text)
	}
	slices.Sort(names)
	return names
}

// listing returns attributes, separator and name of each response to LIST or LSUB.
func (s *Session) listing(command string) [][]token {
	s.tb.Helper()
	var out [][]token
	for _, line := range s.Command(`%s "" "*"`, command) {
		args, ok := strings.CutPrefix(line, "* "+command+" ")
		if !ok {
			continue
		}
		t, err := tokens(args)
		if err != nil || len(t) != 3 {
			s.tb.Fatalf("imap: %q: %v", line, err)
		}
		out = append(out, t)
	}
	return out
}

// dump fills in what SELECT and FETCH show of box.
func (s *Session) dump(box *Mailbox) error {
	lines, err := s.Try("SELECT %s", Quote(box.Name))
	if err != nil {
		return err
	}
	exists, err := box.selected(lines)
	if err != nil || exists == 0 {
		return err
	}
	all := make([]fetched, exists)
	err = s.run("FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])", s.digest, func(line string) error {
		return collect(all, line)
	})
	for i, m := range all {
		if m.seen == complete {
			box.Messages = append(box.Messages, m.Message)
		} else if err == nil {
			err = fmt.Errorf("message %d of %d: FETCH was answered in part", i+1, exists)
		}
	}
	return err
}

// selected reads the responses to SELECT and returns the number of messages.
func (box *Mailbox) selected(lines []string) (exists int, err error) {
	for _, line := range lines {
		var n uint32
		if code, ok := strings.CutPrefix(line, "* OK ["); ok {
			if _, err := fmt.Sscanf(code, "UIDVALIDITY %d]", &n); err == nil {
				box.UIDValidity = n
			} else if _, err := fmt.Sscanf(code, "UIDNEXT %d]", &n); err == nil {
				box.UIDNext = n
			}
		}
		if isStatus(line) {
			continue
		}
		t, err := tokens(line)
		if err != nil {
			return 0, err
		}
		switch {
		case len(t) == 3 && t[1].text == "FLAGS":
			box.Keywords = slices.DeleteFunc(t[2].texts(), func(f string) bool { return strings.HasPrefix(f, `\`) })
			slices.Sort(box.Keywords)
		case len(t) == 3 && t[2].text == "EXISTS":
			if exists, err = strconv.Atoi(t[1].text); err != nil {
				return 0, err
			}
		}
	}
	return exists, nil
}

// fetched is a message and which of its items have come.
type fetched struct {
	Message
	seen int
}

const (
	seenUID = 1 << iota
	seenFlags
	seenDate
	seenSize
	seenBody
	complete = 1<<iota - 1
)

// digestMark begins the atom that stands for a literal; no quoted or missing BODY[] can look like it.
const digestMark = "sha256:"

// digest reads a literal without holding it and puts its digest in its place.
func (s *Session) digest(size int64) (string, error) {
	h := sha256.New()
	if _, err := io.CopyN(h, s.out, size); err != nil {
		return "", err
	}
	return digestMark + hex.EncodeToString(h.Sum(nil)), nil
}

// collect adds the items of a FETCH response to the message that it is about; other responses are let pass.
func collect(all []fetched, line string) error {
	if isStatus(line) {
		return nil
	}
	t, err := tokens(line)
	if err != nil {
		return err
	}
	if len(t) != 4 || t[2].text != "FETCH" {
		return nil
	}
	n, err := strconv.Atoi(t[1].text)
	if err != nil || n < 1 || n > len(all) || len(t[3].list)%2 != 0 {
		return fmt.Errorf("unexpected %q", line)
	}
	for items := t[3].list; len(items) > 0; items = items[2:] {
		if err := all[n-1].set(items[0].text, items[1]); err != nil {
			return fmt.Errorf("message %d: %s: %w", n, items[0].text, err)
		}
	}
	return nil
}

// set takes one item of a FETCH response.
func (m *fetched) set(item string, value token) (err error) {
	switch item {
	case "UID":
		var uid uint64
		uid, err = strconv.ParseUint(value.text, 10, 32)
		m.UID = uint32(uid)
		m.seen |= seenUID
	case "FLAGS":
		m.Flags = slices.DeleteFunc(value.texts(), func(f string) bool { return f == `\Recent` })
		slices.Sort(m.Flags)
		m.seen |= seenFlags
	case "INTERNALDATE":
		m.InternalDate, err = time.Parse("_2-Jan-2006 15:04:05 -0700", value.text)
		m.InternalDate = m.InternalDate.UTC()
		m.seen |= seenDate
	case "RFC822.SIZE":
		m.Size, err = strconv.ParseInt(value.text, 10, 64)
		m.seen |= seenSize
	case "BODY[]":
		err = m.setDigest(value.text)
	}
	return err
}

func (m *fetched) setDigest(text string) error {
	sum, ok := strings.CutPrefix(text, digestMark)
	if !ok {
		return fmt.Errorf("%q is not a literal", text)
	}
	_, err := hex.Decode(m.Digest[:], []byte(sum))
	m.seen |= seenBody
	return err
}
