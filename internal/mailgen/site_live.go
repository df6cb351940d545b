package mailgen

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// Live is an mbox in use: it does to the file what delivery agents and servers do,
// each time under fcntl lock and dotlock, and knows what is in it then. Its
// changes come from the seed. It belongs to one goroutine, and the file may have
// no other writers.
type Live struct {
	Path        string
	Messages    []Message // as they lie in the file now
	UIDValidity uint32    // 0 where no server has seen the mailbox
	UIDNext     uint32    // 0 where no server has seen the mailbox

	Pause   func()        // called after each of the small writes, with the locks held; may be nil
	Timeout time.Duration // how long to wait for the locks; NewLive sets 30 s

	seed     uint64
	made     int // messages delivered
	r        *rand.Rand
	size     func(*rand.Rand) int
	keywords []string // named in X-IMAPbase
}

// ErrMailboxBusy is returned when the locks could not be had in Live.Timeout.
// The mbox is unchanged.
var ErrMailboxBusy = errors.New("mailgen: the mbox is locked")

// Live puts a mailbox of a site to use. Different seeds give different changes
// and message IDs.
func (m SiteMailbox) Live(seed uint64) (*Live, error) {
	sum := Summary{UIDValidity: m.UIDValidity, UIDNext: m.UIDNext, Keywords: m.keywords}
	other := m.options.Seed ^ (seed+1)*0x9e3779b97f4a7c15 // odd, so that no seed gives the mailbox's own IDs
	l := NewLive(m.Path, other, nil, sum)
	l.size = m.options.Size
	return l, m.Each(func(msg Message) { l.Messages = append(l.Messages, msg) })
}

// NewLive puts the mbox at path to use, which Generate made with the messages
// told of and that summary, and which ends in a newline. New messages get IDs
// from the seed, which is that of no other mailbox.
func NewLive(path string, seed uint64, messages []Message, sum Summary) *Live {
	return &Live{
		Path: path, Messages: messages, UIDValidity: sum.UIDValidity, UIDNext: sum.UIDNext,
		Timeout: 30 * time.Second, seed: seed, r: rand.New(rand.NewPCG(seed, 0x6c697665)), size: MailSize,
		keywords: sum.Keywords,
	}
}

// Deliver appends a new message as a delivery agent does, in several small
// writes. A missing mbox is an error that is fs.ErrNotExist.
func (l *Live) Deliver() (Message, error) {
	var text bytes.Buffer
	m, err := l.compose(&text)
	if err != nil {
		return m, err
	}
	err = l.locked(func(f *os.File) error {
		end, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		for _, at := range []*int64{&m.Offset, &m.Header, &m.Body, &m.End} {
			*at += end
		}
		return l.write(f, text.Bytes(), end)
	})
	if err != nil {
		return m, err
	}
	l.made++
	if l.UIDNext > 0 {
		m.UID = l.UIDNext
		l.UIDNext++
	}
	l.Messages = append(l.Messages, m)
	return m, nil
}

// compose makes a message that came after the last one, as the only one of a file.
func (l *Live) compose(w io.Writer) (m Message, err error) {
	o := Options{Seed: l.seed, Messages: l.made + 1, Size: l.size, Dialects: []Dialect{Mboxo}}
	o.Each = func(msg Message) { m = msg }
	g := newGenerator(w, o)
	g.r = rand.New(rand.NewPCG(l.seed, uint64(l.made)))
	g.sum.Messages = l.made
	if n := len(l.Messages); n > 0 {
		g.clock = l.Messages[n-1].True
	}
	if _, err = g.message(); err != nil {
		return m, err
	}
	return m, g.out.w.Flush()
}

// Expunge removes up to n messages, but never all, and closes the gaps in
// place. It returns those that are gone, as they were.
func (l *Live) Expunge(n int) ([]Message, error) {
	gone := l.pick(min(n, len(l.Messages)-1))
	var removed []Message
	err := l.rewrite(func(i int, m *Message) change {
		if !gone[i] {
			return keep
		}
		removed = append(removed, *m)
		return remove
	})
	return removed, err
}

// Reflag gives up to n messages other flags, and some of them other keywords
// where a server keeps those, in place. It returns those messages as they are then.
func (l *Live) Reflag(n int) ([]Message, error) {
	chosen := l.pick(min(n, len(l.Messages)))
	err := l.rewrite(func(i int, m *Message) change {
		if !chosen[i] {
			return keep
		}
		g := generator{r: l.r, sum: Summary{Keywords: l.keywords}}
		for old := m.Flags; m.Flags == old; {
			m.Flags = g.flags()
		}
		if len(l.keywords) > 0 && l.r.IntN(3) == 0 {
			m.Keywords = g.keywords()
		}
		return restate
	})
	if err != nil {
		return nil, err
	}
	var changed []Message
	for i, m := range l.Messages {
		if chosen[i] {
			changed = append(changed, m)
		}
	}
	return changed, nil
}

// pick draws n indexes of messages.
func (l *Live) pick(n int) map[int]bool {
	picked := map[int]bool{}
	for _, i := range l.r.Perm(len(l.Messages))[:max(n, 0)] {
		picked[i] = true
	}
	return picked
}
