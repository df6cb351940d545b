package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// By hand
//
// What an admin sets is marked in the meta by what it lacks: a run. No run
// touches such a hold, and no hand touches that of a run that lives. A cutover
// that is at work for the user makes each of these calls fail with
// semaphore.ErrBusy, and a change of the semaphore while they work with
// semaphore.ErrEpoch. If the authority has changed and the mirror could not be
// written, the error says so.

// SetSemaphore sets the semaphore to mbox or maildir, whatever it says. No mail
// is moved by it.
func (s Site) SetSemaphore(a account.Account, to semaphore.State) error {
	if to == semaphore.Hold {
		return fmt.Errorf("semaphore of %q: set to hold: %w", a.Name, semaphore.ErrState)
	}
	return s.byHand(a, func(sem *semaphore.Semaphore, m semaphore.Meta) (semaphore.State, error) {
		return to, sem.Set(to, m)
	})
}

// HoldSemaphore begins a hold that is to end within a time; nobody but an admin
// ends it.
func (s Site) HoldSemaphore(a account.Account, limit time.Duration) error {
	return s.byHand(a, func(sem *semaphore.Semaphore, m semaphore.Meta) (semaphore.State, error) {
		before, err := sem.Get()
		if err != nil {
			return before, err
		}
		m.Deadline, m.From = time.Now().Add(limit), before
		return semaphore.Hold, sem.Hold(m)
	})
}

// ReleaseSemaphore ends a hold: the semaphore says again what it said before,
// and that is returned. While the run that holds may be alive, the error is a
// journal.ErrLocked; when it can't be told what was before, it is a *Doubt. A
// user who is not held stays as he is; his mirror is written.
func (s Site) ReleaseSemaphore(a account.Account) (before semaphore.State, err error) {
	err = s.byHand(a, func(sem *semaphore.Semaphore, m semaphore.Meta) (semaphore.State, error) {
		var err error
		if before, err = sem.Get(); err != nil || before != semaphore.Hold {
			return before, err
		}
		meta, err := s.runHolds(sem)
		if err != nil {
			return before, err
		}
		if before, err = s.before(a, meta); err != nil {
			return before, err
		}
		return before, sem.Set(before, m)
	})
	return before, err
}

// byHand makes a change of the authority, and writes what comes of it to the
// mirror. The change has the next epoch, and is nobody's run.
func (s Site) byHand(a account.Account, change func(*semaphore.Semaphore, semaphore.Meta) (semaphore.State, error)) error {
	switch {
	case a.Problem != nil:
		return a.Problem
	case a.UID == 0 || a.UID < s.MinUID:
		return fmt.Errorf("uid %d is below min-uid, %d: left alone", a.UID, s.MinUID)
	}
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		return err
	}
	free, err := exclude(sem)
	if err != nil {
		return err
	}
	last, err := sem.Meta()
	if err != nil {
		return errors.Join(err, free())
	}
	state, err := change(sem, semaphore.Meta{Epoch: last.Epoch + 1})
	if err == nil || errors.Is(err, semaphore.ErrNotDurable) {
		err = errors.Join(err, tellMirror(a, state))
	}
	return errors.Join(err, free())
}

// runHolds refuses while a run is at work, if the hold is a run's: the very
// one, or one that may be about to recover it.
func (s Site) runHolds(sem *semaphore.Semaphore) (semaphore.Meta, error) {
	meta, err := sem.Meta()
	if err != nil || meta.Run == "" {
		return meta, err
	}
	active, err := journal.Active(s.State)
	if errors.Is(err, fs.ErrNotExist) || err == nil && active == nil {
		return meta, nil
	}
	if err != nil {
		return meta, err
	}
	return meta, fmt.Errorf("held by run %s: %w", meta.Run, &journal.Locked{Path: filepath.Join(s.State, "lock"), Holder: *active})
}

// Doubt says that nobody but an admin can tell in which format a user has his
// mail.
type Doubt struct {
	User string
	Seen string // what speaks for what
}

func (e *Doubt) Error() string {
	return fmt.Sprintf("what %s was before the hold can't be told: %s; left on hold. What a killed run holds, the next run puts right; else say what is true: mailferry semaphore set %s mbox, or maildir",
		e.User, e.Seen, e.User)
}

// trace is what a user's mail tells about where it is.
type trace struct {
	maildir   bool // is there, and not empty
	published bool // it is a staging directory that got its name, and was not flipped to
	mboxes    bool // live, with mail
	parked    bool // mboxes are
	moved     bool // the journal says so
}

func (t trace) String() string {
	choose := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	list := []string{
		choose(t.maildir, "there is a Maildir with something in it", "the Maildir is empty or not there"),
		choose(t.mboxes, "there is mail in mboxes", "there is no mail in mboxes"),
		choose(t.parked, "mboxes are parked", "no mbox is parked"),
	}
	if t.published {
		list = append(list, "the Maildir was published by a cutover that did not end")
	}
	if t.moved {
		list = append(list, "the last run that came to him moved him")
	}
	return strings.Join(list, ", ")
}

// before tells what the semaphore of a held user said before. What the meta of a
// hold by hand says counts if his mail says nothing else; of others, his mail
// has to tell:
//
//	Maildir  published  mboxes  parked or moved   then
//	-        -          any     -                 mbox
//	there    -          -       yes               maildir
//
// All else is in doubt: a foreign Maildir, a cutover killed on its way, mail that
// came to the old place afterwards.
func (s Site) before(a account.Account, meta semaphore.Meta) (semaphore.State, error) {
	t, err := s.trace(a)
	byHand := meta.Run == "" && meta.State == semaphore.Hold
	switch moved := t.parked || t.moved; {
	case err != nil:
		return semaphore.Hold, &Doubt{a.Name, err.Error()}
	case byHand && meta.From == semaphore.Mbox && !t.maildir, byHand && meta.From == semaphore.Maildir && t.maildir && !t.published && !t.mboxes:
		return meta.From, nil
	case !t.maildir && !moved:
		return semaphore.Mbox, nil
	case t.maildir && !t.published && !t.mboxes && moved:
		return semaphore.Maildir, nil
	}
	return semaphore.Hold, &Doubt{a.Name, t.String()}
}

func (s Site) trace(a account.Account) (t trace, err error) {
	last, err := s.latest([]account.Account{a})
	if err != nil {
		return t, err
	}
	e := last[a.Name]
	t.moved = e.Outcome == journal.Done && slices.Contains([]string{string(Migrate), string(Cutover), string(Retire), sweepPhase}, e.Phase)
	record, err := journal.ReadStaging(s.State, a.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	err = asUser(a, func() error {
		if err := t.maildirOf(a, record); err != nil {
			return err
		}
		return t.mailOf(a)
	})
	return t, err
}

// maildirOf runs as the user.
func (t *trace) maildirOf(a account.Account, record journal.Staging) error {
	parent, err := safefs.OpenFor(filepath.Dir(a.Maildir), a.UID)
	if err != nil {
		return err
	}
	defer parent.Close()
	name := filepath.Base(a.Maildir)
	dir, err := parent.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	empty, err := dir.Empty()
	t.maildir = !empty
	t.published = record.Final == name && record.Ino == idOf(info).ino
	return err
}

// mailOf runs as the user.
func (t *trace) mailOf(a account.Account) error {
	live, err := findAccount(a)
	if err != nil {
		return err
	}
	t.mboxes = live.bytes() > 0
	live.close()
	parked, err := findParked(a)
	if err != nil {
		return err
	}
	t.parked = len(parked.sources) > 0
	parked.close()
	return nil
}
