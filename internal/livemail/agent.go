package livemail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/semaphore"
)

// Agent delivers messages. Deliver is called by several goroutines.
type Agent interface {
	Name() string
	Deliver(ctx context.Context, m *Message) (Result, error)
}

// serves reports whether an agent delivers to a user: all do that don't say no.
func serves(a Agent, u *User) bool {
	s, ok := a.(interface{ Serves(*User) bool })
	return !ok || s.Serves(u)
}

// Result is what an agent says of a delivery.
type Result int

// Results.
const (
	Deferred Result = iota // not delivered: try again
	Accepted
	Unknown // it broke off: the message may have been delivered
)

// Honest is an agent of ours that does all that it has to:
//
//	gate → semaphore → mbox under dotlock and fcntl, or Maildir tmp and new, or defer
type Honest struct{ Pause time.Duration } // between the small writes of a delivery

// Name is "honest".
func (Honest) Name() string { return "honest" }

// Deliver delivers as the semaphore says, with the gate held.
func (h Honest) Deliver(ctx context.Context, m *Message) (r Result, err error) {
	err = m.User.as(func() error {
		return m.User.Gated(ctx, func() (err error) {
			r, err = m.Put(ctx, m.User.State(), true, h.Pause)
			return err
		})
	})
	if errors.Is(err, semaphore.ErrGateBusy) || errors.Is(err, ErrLocked) {
		return Deferred, nil
	}
	return r, err
}

// As runs work as the message's user: an agent has no other rights.
func (u *User) As(work func() error) error { return u.as(work) }

// Gated runs work with the gate held. The caller has the user's identity.
func (u *User) Gated(ctx context.Context, work func() error) error {
	home, err := os.Open(u.Home)
	if err != nil {
		return err
	}
	defer home.Close()
	gate, err := semaphore.TakeGate(ctx, int(home.Fd()), filepath.Base(u.Gate), semaphore.GateOptions{Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	return errors.Join(work(), gate.Release())
}

// Put delivers where a state of the semaphore says. The caller has the user's
// identity. Without locked, the mbox is not locked.
func (m *Message) Put(ctx context.Context, state semaphore.State, locked bool, pause time.Duration) (Result, error) {
	switch state {
	case semaphore.Mbox:
		return m.intoMbox(ctx, locked, pause)
	case semaphore.Maildir:
		return m.intoMaildir(pause)
	}
	return Deferred, nil
}

// ErrLocked says that the mbox could not be locked in time: nothing was written.
var ErrLocked = errors.New("the mbox is locked")

func (m *Message) intoMbox(ctx context.Context, locked bool, pause time.Duration) (Result, error) {
	if !locked {
		f, err := os.OpenFile(m.User.Spool, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return Deferred, err
		}
		defer f.Close()
		return m.appendTo(f, pause)
	}
	for start := time.Now(); ; time.Sleep(3 * time.Millisecond) {
		f, unlock, err := lockMbox(m.User.Spool)
		if err == nil {
			r, err := m.appendTo(f, pause)
			return r, errors.Join(err, unlock())
		}
		if !errors.Is(err, ErrLocked) || ctx.Err() != nil || time.Since(start) > 5*time.Second {
			return Deferred, err
		}
	}
}

// PutWaiting opens the mbox, waits for its fcntl lock, and appends to the file
// that it has opened, whatever became of its name meanwhile. The caller has the
// user's identity.
func (m *Message) PutWaiting(pause time.Duration) (Result, error) {
	f, err := os.OpenFile(m.User.Spool, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return Deferred, err
	}
	defer f.Close()
	for start := time.Now(); ; time.Sleep(3 * time.Millisecond) {
		err := lockFile(f)
		if err == nil {
			return m.appendTo(f, pause)
		}
		if !errors.Is(err, ErrLocked) || time.Since(start) > 5*time.Second {
			return Deferred, err
		}
	}
}

// appendTo appends in small writes, and takes back what it can't end.
func (m *Message) appendTo(f *os.File, pause time.Duration) (Result, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Deferred, err
	}
	from := "From a@example.org " + time.Now().UTC().Format(time.ANSIC) + "\n"
	text := fromLine.ReplaceAll(m.Text(), []byte(">$0"))
	if err := small(f, append(append([]byte(from), text...), '\n'), pause); err != nil {
		return Unknown, errors.Join(err, f.Truncate(end))
	}
	return Accepted, nil
}

// writes is how many writes a delivery of ours takes.
const writes = 5

func small(w io.Writer, text []byte, pause time.Duration) error {
	step := len(text)/writes + 1
	for len(text) > 0 {
		n := min(step, len(text))
		if _, err := w.Write(text[:n]); err != nil {
			return err
		}
		text = text[n:]
		time.Sleep(pause)
	}
	return nil
}

var deliveries atomic.Int64

// intoMaildir delivers as maildir(5) says. A missing Maildir defers.
func (m *Message) intoMaildir(pause time.Duration) (Result, error) {
	name := fmt.Sprintf("%d.M%dP%dQ%d.live", time.Now().Unix(), time.Now().Nanosecond()/1000, os.Getpid(), deliveries.Add(1))
	tmp := filepath.Join(m.User.Maildir, "tmp", name)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return Deferred, nil
	}
	if err != nil {
		return Deferred, err
	}
	if err := errors.Join(small(f, m.Text(), pause), f.Close()); err != nil {
		return Deferred, errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, filepath.Join(m.User.Maildir, "new", name)); err != nil {
		return Deferred, errors.Join(err, os.Remove(tmp))
	}
	return Accepted, nil
}

// lockMbox takes dotlock and fcntl lock, or none of them; it makes the mbox when
// it is missing.
func lockMbox(path string) (f *os.File, unlock func() error, err error) {
	dot := path + ".lock"
	lock, err := os.OpenFile(dot, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil, ErrLocked
	}
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintln(lock, os.Getpid())
	lock.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(dot))
		}
	}()
	if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, nil, err
	}
	if err = lockOpen(f, path); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, func() error { return errors.Join(f.Close(), os.Remove(dot)) }, nil
}

// lockFile takes the fcntl lock of an open file. It is one of the file: those of
// a process end when anybody in it closes the mbox.
func lockFile(f *os.File) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrLocked
	}
	return err
}

// lockOpen is lockFile for a file that must still have its name.
func lockOpen(f *os.File, path string) error {
	if err := lockFile(f); err != nil {
		return err
	}
	open, err := f.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(path); err != nil || !os.SameFile(open, named) {
		return ErrLocked
	}
	return nil
}
