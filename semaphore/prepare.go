package semaphore

import (
	"errors"
	"fmt"
)

// Prepared is a change made ready ahead: its files are written and synced, its
// descriptors open, and Flip only renames, which a full disk does not stop. It
// belongs to one goroutine.
type Prepared struct {
	to   State
	m    Meta
	dir  *directory
	lock *locked
	w    *written
	done bool
}

// Prepare makes ready a hold, or the change to mbox or maildir that will end it.
// Both ends should be prepared, since the way back must not fail either, and all
// before the hold begins: with the last epoch at E, Prepare Hold with E+1, where
// it is to lead with E+2, the way back with E+3; all three with the same Run,
// Deadline and From. Flip the first and one of the others, Discard all.
//
// While another process has the same change prepared for this user, the error
// is ErrBusy. Discard must be called in the end.
func (s *Semaphore) Prepare(to State, m Meta) (*Prepared, error) {
	if to == Hold && m.Deadline.IsZero() {
		return nil, fmt.Errorf("semaphore of %q: hold without a deadline", s.user)
	}
	dir, err := s.openDir()
	if err != nil {
		return nil, err
	}
	lock, err := openLock(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	p := &Prepared{to: to, m: m, dir: dir, lock: lock}
	kind := p.kind()
	if err = lock.try(s.user, kind); err == nil {
		p.w, err = s.write(dir, kind, to, m)
	}
	if err != nil {
		lock.free(s.user, kind)
		return nil, errors.Join(err, lock.Close(), dir.Close())
	}
	return p, nil
}

func (p *Prepared) kind() string { return "next-" + p.to.String() }

// Flip makes the change. What ends a hold demands that the semaphore says hold, by
// the run of the prepared meta, and what begins one that it does not, else the
// error is ErrState; and the epoch must rise, else ErrEpoch. In both cases
// somebody else has changed the semaphore since. Unless the error is
// ErrNotDurable, the semaphore is as it was.
func (p *Prepared) Flip() error {
	s := p.w.s
	if p.done {
		return fmt.Errorf("semaphore of %q: flipped or discarded already: %w", s.user, ErrState)
	}
	return s.exclusively(p.lock, func() error {
		allowed := p.ours
		if p.to == Hold {
			allowed = unheld
		}
		if err := s.admit(p.dir, p.m, allowed); err != nil {
			return err
		}
		p.done = true
		return p.w.commit()
	})
}

// ours is the condition that the hold is that of the run that prepared. On the
// way back its meta may be ahead: of a flip that was announced, and failed.
func (p *Prepared) ours(now State, err error, last Meta) error {
	switch {
	case err != nil:
		return err
	case now != Hold || last.State != Hold && p.to != p.m.Before():
		return fmt.Errorf("%w: it says %s, not hold", ErrState, now)
	case last.Run != p.m.Run:
		return fmt.Errorf("%w: held by run %q, not by %q", ErrState, last.Run, p.m.Run)
	}
	return nil
}

// Discard removes what was prepared and not renamed, and lets others prepare.
// A second Discard does nothing.
func (p *Prepared) Discard() error {
	if p.lock == nil {
		return nil
	}
	p.done = true
	err := errors.Join(p.w.remove(), p.lock.free(p.w.s.user, p.kind()), p.lock.Close(), p.dir.Close())
	p.lock = nil
	return err
}
