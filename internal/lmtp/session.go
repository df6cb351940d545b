package lmtp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/emersion/go-smtp"
	"golang.org/x/sys/unix"

	"mailferry/internal/deliver"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// session is one connection. The library calls it from one goroutine, but for
// LMTPData, during which it may reset it.
type session struct {
	*Server
	ctx  context.Context
	conn *conn

	lock   sync.Mutex
	sender string
	to     []deliver.Envelope // in the order of RCPT; Recipient is its address
}

// Mail begins a message.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.conn.set(&s.conn.busy, true)
	s.lock.Lock()
	defer s.lock.Unlock()
	s.sender, s.to = from, nil
	return nil
}

// Reset ends it.
func (s *session) Reset() {
	s.conn.set(&s.conn.busy, false)
	s.lock.Lock()
	defer s.lock.Unlock()
	s.sender, s.to = "", nil
}

// Logout does nothing.
func (s *session) Logout() error { return nil }

// Rcpt accepts an address of a user who is there.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	user, extension, err := s.find(to)
	if err != nil {
		return answer(err)
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.to = append(s.to, deliver.Envelope{User: user, Extension: extension, Recipient: to, Sender: s.sender, HasSender: true})
	return nil
}

// Data is not called: the library prefers LMTPData.
func (s *session) Data(io.Reader) error { return answer(errors.New("this is LMTP")) }

// LMTPData takes the message and delivers it to each recipient.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	s.lock.Lock()
	to := s.to
	s.lock.Unlock()
	if _, chunks := r.(*io.PipeReader); !chunks {
		r = &gather{Reader: r}
	}
	s.conn.set(&s.conn.body, true)
	m, err := store(s.Dir, r)
	s.conn.set(&s.conn.body, false)
	if err != nil {
		return answer(err)
	}
	defer m.close()
	var work sync.WaitGroup
	for _, e := range to {
		work.Go(func() { status.SetStatus(e.Recipient, answer(s.deliver(e, m))) })
	}
	work.Wait()
	return nil
}

// deliver waits for its turn.
func (s *session) deliver(e deliver.Envelope, m *stored) (err error) {
	s.slots <- struct{}{}
	defer func() {
		<-s.slots
		if p := recover(); p != nil {
			err = fmt.Errorf("bug: %v", p)
			fmt.Fprintf(s.Log, "mailferry-lmtp: %v\n%s", err, debug.Stack())
		}
	}()
	return s.Agent.Deliver(s.ctx, e, m.reader())
}

// answer is what the client is told of an error, or of none. Without a code of
// its own an error would make the library answer 554.
func answer(err error) *smtp.SMTPError {
	code, enhanced := classify(err)
	text := "delivered"
	if err != nil {
		text = deliver.Complaint(err)
	}
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}

func classify(err error) (int, smtp.EnhancedCode) {
	var lock *mbox.LockError
	switch {
	case err == nil:
		return 250, smtp.EnhancedCode{2, 0, 0}
	case errors.Is(err, deliver.ErrNoUser):
		return 550, smtp.EnhancedCode{5, 1, 1}
	case errors.Is(err, deliver.ErrHeld):
		return 451, smtp.EnhancedCode{4, 2, 1}
	case errors.Is(err, semaphore.ErrGateBusy) || errors.As(err, &lock) && lock.Busy():
		return 451, smtp.EnhancedCode{4, 2, 0}
	case errors.Is(err, unix.EDQUOT):
		return 452, smtp.EnhancedCode{4, 2, 2}
	case errors.Is(err, unix.ENOSPC):
		return 452, smtp.EnhancedCode{4, 3, 1}
	}
	return 451, smtp.EnhancedCode{4, 3, 0}
}
