package livemail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Options say what use is made of the server.
type Options struct {
	Seed    uint64
	Agents  []Agent       // each delivers one message at a time
	Clients int           // sessions at a time
	Rest    time.Duration // between two deliveries of an agent, on average
	Think   time.Duration // of clients between some commands, at most
	// ReadOnly has clients change nothing.
	ReadOnly bool

	Keep   int  // messages in an INBOX from which on clients make room
	Append bool // whether clients append to Sent

	// Confirm has clients wait for CHECK before they rely on flags and
	// expunges: Dovecot writes those to an mbox late, and a session that is
	// still open at the flip has them in its index only.
	Confirm bool
}

// Load is the use that is made of a server.
type Load struct {
	Options
	Site    *Site
	Server  *Dovecot
	Ledger  *Ledger
	Figures *Figures

	tb    testing.TB
	count atomic.Int64

	ctx     context.Context // of clients, and of new messages
	stop    context.CancelFunc
	clients sync.WaitGroup
	agents  sync.WaitGroup

	mu       sync.Mutex
	deferred []deferral
	underway int // deliveries
	notes    []string
}

type deferral struct {
	*Message
	due time.Time
}

// NewLoad starts a Dovecot for the site and begins nothing else.
func NewLoad(tb testing.TB, s *Site, o Options) *Load {
	tb.Helper()
	l := &Load{Options: o, Site: s, Server: StartDovecot(tb, s), Ledger: newLedger(), Figures: &Figures{}, tb: tb}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// Start begins deliveries and sessions.
func (l *Load) Start() {
	for i, a := range l.Agents {
		random := rand.New(rand.NewPCG(l.Seed, uint64(i)))
		l.agents.Go(func() { l.deliverOn(a, random) })
	}
	for i := range l.Clients {
		random := rand.New(rand.NewPCG(l.Seed, 1000+uint64(i)))
		l.clients.Go(func() {
			for l.ctx.Err() == nil {
				l.client(l.Site.Users[random.IntN(len(l.Site.Users))], random)
			}
		})
	}
}

// drainLimit is how long the queue may take once nothing is moved any more.
const drainLimit = time.Minute

// Stop ends the sessions and the stream of new messages, and waits until what
// was deferred is delivered.
func (l *Load) Stop() {
	l.tb.Helper()
	l.stop()
	l.clients.Wait()
	ended := make(chan struct{})
	go func() { defer close(ended); l.agents.Wait() }()
	select {
	case <-ended:
	case <-time.After(drainLimit):
		l.tb.Errorf("deliveries are still deferred after %v", drainLimit)
		l.mu.Lock()
		l.deferred = nil
		l.mu.Unlock()
		<-ended
	}
}

func (l *Load) nextID() string { return fmt.Sprintf("m%d", l.count.Add(1)) }

// note keeps some of what happened to sessions, for a look when a test fails.
func (l *Load) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.notes) < 200 {
		l.notes = append(l.notes, fmt.Sprintf(format, args...))
	}
}

// Notes are the ends of sessions that broke off.
func (l *Load) Notes() []string { return l.notes }

// deliverOn delivers until nothing more comes and nothing is deferred.
func (l *Load) deliverOn(a Agent, random *rand.Rand) {
	for {
		m := l.take(a)
		switch {
		case m != nil:
		case l.ctx.Err() == nil:
			u := l.Site.Users[random.IntN(len(l.Site.Users))]
			if !serves(a, u) {
				continue
			}
			m = newMessage(l.nextID(), u, random)
			l.Ledger.offer(m)
			l.begin()
		case l.idle():
			return
		default:
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.attempt(a, m, random)
		if l.ctx.Err() == nil && l.Rest > 0 {
			time.Sleep(time.Duration(random.Int64N(int64(2 * l.Rest))))
		}
	}
}

func (l *Load) attempt(a Agent, m *Message, random *rand.Rand) {
	m.Agent = a.Name()
	r, err := a.Deliver(context.Background(), m)
	if err != nil {
		l.Ledger.Fault("%s: delivery of %s to %s: %v", a.Name(), m.ID, m.User.Name, err)
	}
	l.Ledger.delivered(m.ID, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underway--
	if r != Deferred || err != nil {
		l.Figures.Add("delivered by "+a.Name(), 1)
		return
	}
	l.Figures.Add("deferred by "+a.Name(), 1)
	l.deferred = append(l.deferred, deferral{m, time.Now().Add(time.Duration(20+random.IntN(200)) * time.Millisecond)})
}

// take returns a deferred message that is due, for an agent.
func (l *Load) take(a Agent) *Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, d := range l.deferred {
		if time.Now().After(d.due) && serves(a, d.User) {
			l.deferred = append(l.deferred[:i], l.deferred[i+1:]...)
			l.underway++
			return d.Message
		}
	}
	return nil
}

func (l *Load) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underway++
}

// idle reports whether nothing can be deferred any more.
func (l *Load) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.deferred) == 0 && l.underway == 0
}
