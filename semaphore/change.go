package semaphore

import (
	"errors"
	"fmt"
	"io/fs"
)

// What callers decide by; all other errors are those of system calls.
var (
	ErrEpoch      = errors.New("its epoch does not rise")                      // somebody has changed it since: read it again
	ErrBusy       = errors.New("busy")                                         // somebody is changing it: later
	ErrState      = errors.New("not from this state")                          // a hold of a hold; a flip without our hold
	ErrEnrolled   = errors.New("enrolled already")                             // Enroll of a user who has a semaphore
	ErrNotDurable = errors.New("changed, but a power loss may change it back") // its fsync failed: Get tells what readers see
)

// condition says whether a change may be made where the semaphore is s, or can't be
// read for the reason err, and last is its meta.
type condition func(s State, err error, last Meta) error

// Enroll writes mbox for a user who has no semaphore; else the error is
// ErrEnrolled. A user whose meta says hold or maildir has lost his semaphore
// and is not new: ErrState, and an admin has to Set what is true.
func (s *Semaphore) Enroll(m Meta) error {
	return s.change(Mbox, m, func(_ State, err error, last Meta) error {
		switch {
		case !errors.Is(err, fs.ErrNotExist):
			return ErrEnrolled
		case last.Ahead(Mbox):
			return fmt.Errorf("%w: there is none, but epoch %d has set it to %s", ErrState, last.Epoch, last.State)
		}
		return nil
	})
}

// Set changes the state, from whatever it is: the word of an admin or of a
// recovery. m.Epoch must be above that of Meta, else the error is ErrEpoch.
// Unless the error is ErrNotDurable, the semaphore is as it was; the meta may
// be ahead of it.
func (s *Semaphore) Set(to State, m Meta) error {
	return s.change(to, m, func(State, error, Meta) error { return nil })
}

// Hold begins a hold, from mbox or maildir only. m.Deadline is required.
func (s *Semaphore) Hold(m Meta) error {
	if m.Deadline.IsZero() {
		return fmt.Errorf("semaphore of %q: hold without a deadline", s.user)
	}
	return s.change(Hold, m, unheld)
}

// unheld is the condition that a hold begins where there is none.
func unheld(now State, err error, _ Meta) error {
	if err == nil && now == Hold {
		err = fmt.Errorf("%w: it says hold", ErrState)
	}
	return err
}

// change makes a change at once: it writes both files, renames both.
func (s *Semaphore) change(to State, m Meta, allowed condition) error {
	dir, err := s.openDir()
	if err != nil {
		return err
	}
	defer dir.Close()
	lock, err := openLock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.exclusively(lock, func() error {
		if err := s.admit(dir, m, allowed); err != nil {
			return err
		}
		w, err := s.write(dir, "set", to, m)
		if err != nil {
			return err
		}
		if err := w.commit(); err != nil {
			return errors.Join(err, w.remove())
		}
		return nil
	})
}

// exclusively does what reads and then changes the semaphore.
func (s *Semaphore) exclusively(lock *locked, do func() error) error {
	if err := lock.wait(s.user, "change"); err != nil {
		return err
	}
	defer lock.free(s.user, "change") // no reason to call a change that was made a failure
	return do()
}

// admit refuses a change of which the epoch does not rise, or that is not allowed.
func (s *Semaphore) admit(dir *directory, m Meta, allowed condition) error {
	last, err := s.meta(dir)
	if err != nil {
		return err
	}
	if m.Epoch <= last.Epoch {
		return fmt.Errorf("semaphore of %q: %w: %d after %d, set by run %q, pid %d on %q",
			s.user, ErrEpoch, m.Epoch, last.Epoch, last.Run, last.PID, last.Host)
	}
	now, err := s.get(dir)
	if err := allowed(now, err, last); err != nil {
		return fmt.Errorf("semaphore of %q: %w", s.user, err)
	}
	return nil
}

// written is a change of which both files are on the disk, under other names.
type written struct {
	s    *Semaphore
	dir  *directory
	name string // of the new semaphore; that of its meta has the suffix
}

// write makes a change ready under names made of kind, which only one process
// at a time uses. What a killed one left of it is in the way and goes.
func (s *Semaphore) write(dir *directory, kind string, to State, m Meta) (*written, error) {
	m, err := m.complete(to)
	if err != nil {
		return nil, err
	}
	meta, err := m.encode()
	if err != nil {
		return nil, err
	}
	w := &written{s, dir, "." + s.user + "." + kind}
	err = w.remove()
	if err == nil {
		err = writeFile(dir.fd, w.name+metaSuffix, meta)
	}
	if err == nil {
		err = writeFile(dir.fd, w.name, []byte(to.Line()))
	}
	if err != nil {
		return nil, fmt.Errorf("semaphore of %q: %w", s.user, errors.Join(err, w.remove()))
	}
	return w, nil
}

// commit renames, the meta first and durably: no semaphore is newer than its epoch.
func (w *written) commit() error {
	if err := replace(w.dir.fd, w.name+metaSuffix, w.s.user+metaSuffix); err != nil {
		// Not ErrNotDurable: the semaphore has not changed.
		return fmt.Errorf("meta of the semaphore of %q, which is unchanged: %v", w.s.user, err)
	}
	if err := replace(w.dir.fd, w.name, w.s.user); err != nil {
		return fmt.Errorf("semaphore of %q: %w", w.s.user, err)
	}
	return nil
}

// remove takes away what was not renamed.
func (w *written) remove() error {
	return errors.Join(unlink(w.dir.fd, w.name), unlink(w.dir.fd, w.name+metaSuffix))
}
