package livemail

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
)

// Message is a message on its way or delivered.
type Message struct {
	ID     string
	User   *User
	Box    string // the mailbox it goes to, as clients name it
	Agent  string // who delivers it
	Size   int    // octets
	Digest Digest

	seed uint64
}

// Digest is the SHA-256 of what must survive of a message: the header fields it
// was sent with, in their order, and the text, with one exception that the
// format makes: how often a line that begins with "From " is quoted.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:6]) }

// idField names a message in its header.
const idField = "X-Live-Id"

// ours are the fields that messages are sent with; servers and agents add others.
var ours = regexp.MustCompile(`(?i)^(From|To|Subject|Date|Message-ID|X-Live-Id):`)

// newMessage makes one up. All of its content comes from the seed.
func newMessage(id string, u *User, r *rand.Rand) *Message {
	m := &Message{ID: id, User: u, Box: "INBOX", seed: r.Uint64()}
	text := m.Text()
	m.Size = len(text)
	_, m.Digest = Identify(text)
	return m
}

// size draws how long a text is: letters, attachments, and one in a hundred of
// 1 to 3 MiB.
func size(r *rand.Rand) int {
	switch n := r.IntN(100); {
	case n == 0:
		return 1<<20 + r.IntN(2<<20)
	case n < 30:
		return 4<<10 + r.IntN(36<<10)
	}
	return 100 + r.IntN(4<<10)
}

// Text is the message with LF line ends, as an agent gets it.
func (m *Message) Text() []byte {
	r := rand.New(rand.NewPCG(m.seed, 0x6d657373))
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <a%d@example.org>\nTo: <%s@example.net>\nSubject: live %s\nDate: Mon, 2 Jan 2023 03:04:05 +0000\nMessage-ID: <%s@example.org>\n%s: %s\n\n",
		r.IntN(1000), m.User.Name, m.ID, m.ID, idField, m.ID)
	quoted := r.IntN(8) == 0
	for end := b.Len() + size(r); b.Len() < end; {
		if quoted && r.IntN(10) == 0 {
			b.WriteString(strings.Repeat(">", r.IntN(3)) + "From here it goes on\n")
		}
		word := r.Uint64()
		for range 1 + r.IntN(4) {
			fmt.Fprintf(&b, "%016x ", word)
			word = word*0x9e3779b97f4a7c15 + 1
		}
		b.WriteString(".\n")
	}
	return b.Bytes()
}

var fromLine = regexp.MustCompile(`(?m)^>*From `)

// Identify returns the id and the digest of a message as it was found; line ends
// may be CRLF. A message without an id has the id "".
func Identify(raw []byte) (id string, d Digest) {
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	head, text, _ := bytes.Cut(raw, []byte("\n\n"))
	h := sha256.New()
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSuffix(line, "\n")
		if !ours.MatchString(line) {
			continue
		}
		fmt.Fprintln(h, line)
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, idField) {
			id = strings.TrimSpace(value)
		}
	}
	fmt.Fprintln(h)
	h.Write(fromLine.ReplaceAll(text, []byte("From ")))
	return id, Digest(h.Sum(nil))
}
