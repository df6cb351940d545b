package lmtp

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// guard is a listener that bounds the number of connections, and can end those
// that wait for a next message.
type guard struct {
	net.Listener
	room chan struct{}

	lock     sync.Mutex
	conns    map[*conn]struct{}
	stopping bool
}

func newGuard(l net.Listener) *guard {
	return &guard{Listener: l, room: make(chan struct{}, maxConns), conns: map[*conn]struct{}{}}
}

// Accept waits until there is room for one more.
func (g *guard) Accept() (net.Conn, error) {
	g.room <- struct{}{}
	raw, err := g.Listener.Accept()
	if err != nil {
		<-g.room
		return nil, err
	}
	c := &conn{Conn: raw, guard: g, in: bufio.NewReader(raw)}
	g.lock.Lock()
	defer g.lock.Unlock()
	g.conns[c] = struct{}{}
	return c, nil
}

// stop wakes the connections that have no message under way.
func (g *guard) stop() {
	g.lock.Lock()
	defer g.lock.Unlock()
	g.stopping = true
	for c := range g.conns {
		if !c.busy {
			_ = c.SetReadDeadline(time.Now())
		}
	}
}

func (g *guard) closeAll() {
	g.lock.Lock()
	defer g.lock.Unlock()
	for c := range g.conns {
		_ = c.Conn.Close()
	}
}

// conn is a connection below the library: what it lets through is safe for mail.
type conn struct {
	net.Conn
	guard *guard
	once  sync.Once

	// These belong to guard.lock.
	busy bool // a message is under way, from MAIL to the last answer
	body bool // its text is being read: the lines may have any length

	// These belong to who reads: the library, or LMTPData in its place.
	in    *bufio.Reader
	line  int     // bytes of the line that is being read
	data  *spread // the message that follows DATA; nil for commands and chunks
	again bool    // a CR is to be read once more
}

// set changes busy or body.
func (c *conn) set(flag *bool, to bool) {
	c.guard.lock.Lock()
	defer c.guard.lock.Unlock()
	*flag = to
}

// begin tells what the next Read reads.
func (c *conn) begin() (busy, body bool, err error) {
	c.guard.lock.Lock()
	defer c.guard.lock.Unlock()
	if c.guard.stopping && !c.busy {
		return false, false, os.ErrDeadlineExceeded // the library answers 421 and ends
	}
	return c.busy, c.body, c.SetReadDeadline(time.Now().Add(patience))
}

// Read limits commands and time. An end in the middle of a message is none: the
// library takes a chunk (BDAT) that is cut short for whole.
func (c *conn) Read(b []byte) (int, error) {
	busy, body, err := c.begin()
	if err != nil {
		return 0, err
	}
	n, err := c.fill(b)
	if err == io.EOF && busy {
		err = io.ErrUnexpectedEOF
	}
	if !body && c.line > maxCommand {
		return 0, errors.New("a command is too long")
	}
	return n, err
}

// fill reads what is there, but not beyond a line of commands or chunks, nor
// beyond the end of DATA: the library would keep what is behind, and how that
// is to be read is not known yet.
func (c *conn) fill(b []byte) (n int, err error) {
	for n < len(b) && (n == 0 || c.again || c.in.Buffered() > 0) {
		if c.again {
			b[n], c.again = '\r', false
			n++
			continue
		}
		if b[n], err = c.in.ReadByte(); err != nil {
			return n, err
		}
		n++
		if c.take(b[n-1]) {
			break
		}
	}
	return n, nil
}

// take tells whether a byte is the last one of what it belongs to.
func (c *conn) take(last byte) (end bool) {
	if c.data != nil {
		if c.again, end = c.data.next(last); end {
			c.data = nil
		}
		return end
	}
	if c.line++; last == '\n' {
		c.line = 0
	}
	return last == '\n'
}

// goAhead begins the answer to DATA, and to nothing else.
var goAhead = []byte("354 ")

// absent begins the only answer that may make mail bounce.
var absent = []byte("550 5.1.1 ")

// Write makes the library's own refusals, as of an address that it can't read,
// temporary. The library writes line by line, and reads nothing while it answers
// DATA.
func (c *conn) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, goAhead) {
		c.data = newSpread()
	}
	if len(b) > 4 && b[0] == '5' && !bytes.HasPrefix(b, absent) {
		b = bytes.Clone(b)
		b[0] = '4'
		if b[4] == '5' {
			b[4] = '4'
		}
	}
	return c.Conn.Write(b)
}

// Close makes room. The library closes more than once.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.guard.lock.Lock()
		delete(c.guard.conns, c)
		c.guard.lock.Unlock()
		<-c.guard.room
	})
	return c.Conn.Close()
}
