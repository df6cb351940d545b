// Package lmtp is the delivery agent as a server (RFC 2033): an MTA hands over
// messages through a socket, and each recipient gets an answer of his own.
//
//	250 2.x.x    the message is on the disk, where his semaphore says
//	550 5.1.1    the user is proved absent
//	4xx 4.x.x    everything else: the MTA keeps the message
//
// The message is stored once, in memory or in a file without a name, and put
// into every recipient's mailbox by package deliver, as that user.
package lmtp

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"time"

	"github.com/emersion/go-smtp"

	"mailferry/internal/deliver"
)

// Bounds of what clients may take.
const (
	maxConns      = 200             // connections; others wait in the kernel
	maxDeliveries = 64              // at the same moment
	maxRecipients = 1000            // of a message (RFC 5321 4.5.3.1.8 wants 100)
	maxCommand    = 64 << 10        // bytes in a command line
	patience      = 5 * time.Minute // for the client's next bytes, and for it to take ours (RFC 5321 4.5.3.2)
	grace         = 30 * time.Second
)

// Server delivers what it gets.
type Server struct {
	Agent      *deliver.Agent
	Delimiters string    // each of these characters may begin an address extension; as Postfix's recipient_delimiter
	Dir        string    // for messages that are too big for memory
	Log        io.Writer // gets what is wrong with the server itself

	slots chan struct{} // one for each delivery at work
	grace time.Duration // how long a stop waits for deliveries; 0 is 30 s
}

// Serve answers until ctx ends, and closes l. Then no more messages are taken;
// those that are being handed over are delivered and answered, for 30 s.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.grace == 0 {
		s.grace = grace
	}
	s.slots = make(chan struct{}, maxDeliveries)
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	guard := newGuard(l)
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{Server: s, ctx: work, conn: c.Conn().(*conn)}, nil
	}))
	server.LMTP = true
	server.Domain = "mailferry"
	server.MaxRecipients = maxRecipients
	server.MaxLineLength = 0 // conn limits commands; lines of messages have no limit
	server.WriteTimeout = patience
	server.EnableSMTPUTF8 = true // an address is bytes to us
	server.ErrorLog = log.New(s.Log, "mailferry-lmtp: ", 0)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(guard) }()
	select {
	case err := <-ended:
		return errors.Join(err, l.Close())
	case <-ctx.Done():
	}
	return s.end(server, guard, cancel)
}

// end lets those finish who are at work.
func (s *Server) end(server *smtp.Server, guard *guard, cancel func()) error {
	guard.stop()
	ctx, done := context.WithTimeout(context.Background(), s.grace)
	defer done()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		cancel() // a delivery that is not at its last step ends as if it had failed
		guard.closeAll()
		return errors.New("stopped in the middle of deliveries: the MTA has their messages")
	}
	return err
}
