package livemail

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flagSets are what clients set; keywords are among them.
var flagSets = [][]string{
	{}, {`\Seen`}, {`\Flagged`}, {`\Answered`, `\Seen`}, {`\Draft`}, {"$Label1"}, {`\Seen`, "Work"}, {"$Label1", "Later", `\Flagged`}, {`\Answered`, "Work"},
}

// session is one login of a client.
type session struct {
	*Load
	u       *User
	random  *rand.Rand
	pending []func(done bool) // what the ledger is told once the server has confirmed
}

// where names the session in faults.
func (s *session) where(protocol, box string) string {
	return fmt.Sprintf("%s of %s by %s", box, s.u.Name, protocol)
}

// did enters what the server said OK to, or, err being set, may have done.
// Where clients confirm, that waits for the end of the session.
func (s *session) did(err error, enter func(done bool)) error {
	if err == nil && s.Confirm {
		s.pending = append(s.pending, enter)
		return nil
	}
	enter(err == nil)
	return err
}

// settle tells the ledger of what waited.
func (s *session) settle(done bool) {
	for _, enter := range s.pending {
		enter(done)
	}
	s.pending = nil
}

// client uses the mail of one user for one session.
func (l *Load) client(u *User, random *rand.Rand) {
	u.client.Lock()
	defer u.client.Unlock()
	s := &session{Load: l, u: u, random: random}
	protocol, use := "imap", s.imap
	if random.IntN(4) == 0 {
		protocol, use = "pop3", s.pop3
	}
	err := use()
	s.settle(false) // what is still there was not confirmed
	switch {
	case err == nil:
		l.Figures.Add("sessions "+protocol, 1)
	case errors.Is(err, errIgnored):
		l.Figures.Add("commands without effect", 1)
	case errors.Is(err, errRefused):
		l.Figures.Add("logins refused "+protocol, 1)
	default:
		l.Figures.Add("sessions broken "+protocol, 1)
		l.note("%s: %v", u.Name, err)
	}
}

// think is what people do between commands, so that sessions are open when
// their user is moved.
func (s *session) think() {
	if s.Think > 0 && s.random.IntN(4) == 0 {
		time.Sleep(time.Duration(s.random.Int64N(int64(s.Think))))
	}
}

func (s *session) imap() error {
	c, err := dialIMAP(s.Server, s.u)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if s.Append && s.random.IntN(4) == 0 {
		if err := s.append(c); err != nil {
			return err
		}
	}
	box := "INBOX"
	if s.Append && s.random.IntN(4) == 0 {
		box = "Sent"
		c.do("CREATE Sent") // is there already, mostly
	}
	validity, err := c.selectBox(box)
	if err != nil {
		return err
	}
	list, err := c.fetch("1:*", header)
	if err != nil {
		return err
	}
	for _, m := range list {
		s.Ledger.seen(s.where("imap", box), box, m, validity)
	}
	if err := s.work(c, box, list); err != nil {
		return err
	}
	if s.Confirm {
		if _, err := c.do("CHECK"); err != nil { // an mbox is not written before
			return err
		}
		s.settle(true)
	}
	return c.logout()
}

// work reads, flags and expunges.
func (s *session) work(c *imap, box string, list []shown) error {
	s.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	if s.ReadOnly {
		return s.look(c, box, list)
	}
	expunge := min(len(list), s.random.IntN(2)+max(0, len(list)-s.Keep)/2)
	if err := s.expunge(c, list[:expunge]); err != nil {
		return err
	}
	list = list[expunge:]
	for _, m := range list[:min(len(list), 1+s.random.IntN(4))] {
		s.think()
		flags := flagSets[s.random.IntN(len(flagSets))]
		if joined(flags) == m.flags {
			continue // no server shows that
		}
		if err := s.did(c.store(m.uid, joined(flags)), func(done bool) { s.Ledger.stored(m.id, joined(flags), done) }); err != nil {
			return err
		}
		s.Figures.Add("flags stored", 1)
	}
	return s.look(c, box, list)
}

// look reads some messages.
func (s *session) look(c *imap, box string, list []shown) error {
	for _, m := range list[:min(len(list), s.random.IntN(3))] {
		got, err := c.fetch(fmt.Sprint(m.uid), "BODY.PEEK[]")
		if err != nil {
			return err
		}
		for _, g := range got {
			s.Ledger.read(s.where("imap", box), g.raw, m.id)
			s.Figures.Add("messages read", 1)
		}
	}
	return nil
}

func (s *session) expunge(c *imap, list []shown) error {
	for _, m := range list {
		s.think()
		err := c.store(m.uid, `\Deleted`)
		s.Ledger.stored(m.id, `\Deleted`, false)
		if err == nil {
			err = s.did(c.expunge(m.uid), func(done bool) { s.Ledger.expunged(m.id, done) })
		}
		if err != nil {
			return err
		}
		s.Figures.Add("expunged by imap", 1)
	}
	return nil
}

// append puts a message into Sent.
func (s *session) append(c *imap) error {
	m := newMessage(s.nextID(), s.u, s.random)
	m.Box, m.Agent = "Sent", "imap append"
	s.Ledger.offer(m)
	c.do("CREATE Sent") // is there already, mostly
	_, err := c.do("APPEND Sent {%d+}\r\n%s", m.Size, m.Text())
	s.Ledger.delivered(m.ID, resultOf(err))
	if err == nil {
		s.Figures.Add("appended by imap", 1)
	}
	return err
}

func resultOf(err error) Result {
	if err != nil {
		return Unknown
	}
	return Accepted
}

// pop3 reads some messages, and deletes what is too many.
func (s *session) pop3() error {
	c, err := dialPOP3(s.Server, s.u)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	var count int
	status, err := c.do("STAT")
	if err != nil {
		return err
	}
	if _, err := fmt.Sscanf(status, "+OK %d", &count); err != nil {
		return err
	}
	gone := []string{}
	for _, i := range s.random.Perm(count)[:min(count, 3+max(0, count-s.Keep)/2)] {
		s.think()
		raw, err := c.text("RETR %d", i+1)
		if err != nil {
			return err
		}
		id, _ := Identify(raw)
		s.Ledger.read(s.where("pop3", "INBOX"), raw, id)
		s.Figures.Add("messages read", 1)
		if s.ReadOnly || s.random.IntN(2) == 0 && count <= s.Keep {
			continue
		}
		if _, err := c.do("DELE %d", i+1); err != nil {
			return err
		}
		gone = append(gone, id)
	}
	_, err = c.do("QUIT")
	for _, id := range gone {
		s.Ledger.expunged(id, err == nil)
	}
	if err == nil {
		s.Figures.Add("expunged by pop3", len(gone))
	}
	return err
}
