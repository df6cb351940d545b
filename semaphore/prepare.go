package semaphore

import (
	"errors"
	"fmt"
)

// Prepared is the end of a hold, made ready before the hold began: its files
// are written and synced, its descriptors open, and Flip only renames, which a
// full disk does not stop. It belongs to one goroutine.
type Prepared struct {
	to   State
	m    Meta
	dir  *directory
	lock *locked
	w    *written
	done bool
}

// Prepare makes ready the change to mbox or maildir that will end a hold. Both
// should be prepared, since the way back must not fail either: with the last
// epoch at E, Prepare both with E+2, Hold with E+1, Flip one, Discard the other;
// all three with the same Run and Deadline.
//
// While another process has the same change prepared for this user, the error
// is ErrBusy. Discard must be called in the end.
func (s *Semaphore) Prepare(to State, m Meta) (*Prepared, error) {
	if to != Mbox && to != Maildir {
		return nil, fmt.Errorf("semaphore of %q: preparing %s: %w", s.user, to, ErrState)
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

// Flip ends the hold. The semaphore must say hold, by the run of the prepared
// meta, else the error is ErrState; and the epoch must rise, else ErrEpoch. In
// both cases somebody else has changed the semaphore since. Unless the error is
// ErrNotDurable, the semaphore is as it was.
func (p *Prepared) Flip() error {
	s := p.w.s
	if p.done {
		return fmt.Errorf("semaphore of %q: flipped or discarded already: %w", s.user, ErrState)
	}
	return s.exclusively(p.lock, func() error {
		if err := s.admit(p.dir, p.m, p.ours); err != nil {
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
