package convert

import (
	"cmp"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// Standing is what a user's semaphore and the meta beside it say.
type Standing struct {
	User  string `json:"user"`
	State string `json:"state"` // what readers see: mbox, hold or maildir; "" if there is no semaphore

	// Who made the last change, as far as is known.
	Epoch uint64    `json:"epoch"`
	Run   string    `json:"run,omitempty"` // "": by hand
	Host  string    `json:"host,omitempty"`
	PID   int       `json:"pid,omitempty"`
	Time  time.Time `json:"time,omitzero"`

	Deadline  time.Time `json:"deadline,omitzero"`   // of a hold
	Expired   bool      `json:"expired,omitempty"`   // the hold is a run's or nobody knows whose, and past it, or never had one
	Abandoned bool      `json:"abandoned,omitempty"` // the hold is that of a run which is not at work any more: recover ends it
	Announced string    `json:"announced,omitempty"` // what the meta says, if the semaphore does not: the change did not happen

	Problem string `json:"problem,omitempty"` // why there is no account, or what can't be read
}

// NotEnrolled reports whether there is a user without a semaphore.
func (s Standing) NotEnrolled() bool { return s.State == "" && s.Problem == "" }

// ByHand reports whether the user is on a hold that an admin has made, which is
// past no deadline: nobody but an admin ends it.
func (s Standing) ByHand() bool {
	return s.State == semaphore.Hold.String() && s.Epoch != 0 && s.Run == "" && s.Announced == "" && s.Problem == ""
}

// standingOf reads the semaphore of an account.
func standingOf(a account.Account, now time.Time) Standing {
	s := Standing{User: a.Name}
	if a.Problem != nil {
		s.Problem = a.Problem.Error()
		return s
	}
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		s.Problem = err.Error()
		return s
	}
	state, meta, err := readBoth(sem)
	s.Epoch, s.Run, s.Host, s.PID, s.Time = meta.Epoch, meta.Run, meta.Host, meta.PID, meta.Time
	missing := errors.Is(err, fs.ErrNotExist)
	if missing && meta.Epoch != 0 || err == nil && meta.Ahead(state) {
		s.Announced = meta.State.String()
	}
	if missing {
		return s
	}
	s.State = state.String()
	if err != nil {
		s.Problem = err.Error()
	}
	if state == semaphore.Hold {
		s.Deadline, s.Expired = meta.Deadline, !s.ByHand() && meta.Expired(now)
	}
	return s
}

// abandoned reports whether recover takes a hold for that of a dead run, if no run
// is at work: it is of this host, or past its deadline.
func (s Standing) abandoned() bool {
	return s.State == semaphore.Hold.String() && s.Problem == "" && s.Run != "" && (s.Host == hostname() || s.Expired)
}

// readBoth reads a semaphore and its meta, both of one change. While there is
// none that can be read, the state is Hold.
func readBoth(sem *semaphore.Semaphore) (state semaphore.State, meta semaphore.Meta, err error) {
	const tries = 3 // who changes it so often, shall have it his way
	for range tries {
		var unread, again error
		meta, unread = sem.Meta()
		state, err = sem.Get()
		var after semaphore.Meta
		after, again = sem.Meta()
		if err == nil {
			err = cmp.Or(unread, again)
		}
		if after.Epoch == meta.Epoch {
			break
		}
	}
	return state, meta, err
}

// Mirror is what the copy of a semaphore in the home says.
type Mirror struct {
	Path    string `json:"path"`            // "" if the site has none
	State   string `json:"state,omitempty"` // "" if there is none that can be read
	Differs bool   `json:"differs"`         // from the semaphore: only a mirror that says hold is harmless
	Problem string `json:"problem,omitempty"`
}

// Reading is all that is known of a user's semaphore.
type Reading struct {
	Standing
	Mirror Mirror `json:"mirror"`
}

// ReadSemaphore reads a user's semaphore, and the mirror as the user.
func (s Site) ReadSemaphore(a account.Account) Reading {
	r := Reading{standingOf(a, time.Now()), Mirror{Path: a.Mirror}}
	active, err := journal.Active(s.State)
	r.Abandoned = err == nil && active == nil && r.abandoned()
	if a.Mirror == "" || r.State == "" {
		return r
	}
	read := false
	err = asUser(a, func() error {
		state, err := readMirror(a)
		read = true
		if err == nil {
			r.Mirror.State = state.String()
		}
		return err
	})
	if err != nil {
		r.Mirror.Problem = err.Error()
	}
	r.Mirror.Differs = read && r.Mirror.State != r.State
	return r
}

// readMirror runs as the user.
func readMirror(a account.Account) (semaphore.State, error) {
	dir, err := safefs.OpenFor(filepath.Dir(a.Mirror), a.UID)
	if err != nil {
		return semaphore.Hold, err
	}
	defer dir.Close()
	return semaphore.ReadMirror(dir.Fd(), filepath.Base(a.Mirror), a.UID, 0)
}

// Status is how a user stands, and what the last run that came to him did.
type Status struct {
	Standing
	Last *journal.Event `json:"last,omitempty"`
}

// StatusTotal counts users. Each is in one of the states, and in Users; and
// in one of the outcomes, or has none.
type StatusTotal struct {
	Users       int `json:"users"`
	Mbox        int `json:"mbox"`
	Hold        int `json:"hold"`
	Maildir     int `json:"maildir"`
	NotEnrolled int `json:"not_enrolled"`
	Unknown     int `json:"unknown"` // who have no account

	Expired    int `json:"expired"`    // of those on hold: the deadline has passed
	Unreadable int `json:"unreadable"` // of those on hold: the semaphore can't be read

	Done      int `json:"done"`
	Skipped   int `json:"skipped"`
	Failed    int `json:"failed"`
	Untouched int `json:"untouched"`
}

// StatusReport is how users stand.
type StatusReport struct {
	Users  []Status
	Total  StatusTotal
	Active *journal.Holder // the run at work, nil if there is none
}

// Status reads the semaphores of accounts and the journal. When the journal
// can't be read, or not all of it, the report is returned with the error.
func (s Site) Status(list []account.Account) (*StatusReport, error) {
	report := &StatusReport{Users: make([]Status, len(list))}
	last, err := s.latest(list)
	now := time.Now()
	for i, a := range list {
		u := Status{Standing: standingOf(a, now)}
		if e, ok := last[a.Name]; ok {
			u.Last = &e
		}
		report.Users[i] = u
		report.Total.count(u)
	}
	active, unread := journal.Active(s.State)
	for i := range report.Users {
		u := &report.Users[i].Standing
		u.Abandoned = unread == nil && active == nil && u.abandoned()
	}
	if errors.Is(unread, fs.ErrNotExist) {
		unread = nil // no run has been
	}
	report.Active = active
	return report, errors.Join(err, unread)
}

// latest finds the last event of each account; without a state directory no
// run has been.
func (s Site) latest(list []account.Account) (map[string]journal.Event, error) {
	if len(list) == 0 {
		return nil, nil
	}
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.Name
	}
	last, err := journal.Latest(s.State, names...)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return last, err
}

func (t *StatusTotal) count(u Status) {
	t.Users++
	switch u.State {
	case semaphore.Mbox.String():
		t.Mbox++
	case semaphore.Maildir.String():
		t.Maildir++
	case semaphore.Hold.String():
		t.hold(u)
	default:
		if u.NotEnrolled() {
			t.NotEnrolled++
		} else {
			t.Unknown++
		}
	}
	if u.Last == nil {
		return
	}
	switch u.Last.Outcome {
	case journal.Done:
		t.Done++
	case journal.Skipped:
		t.Skipped++
	case journal.Failed:
		t.Failed++
	case journal.Untouched:
		t.Untouched++
	}
}

func (t *StatusTotal) hold(u Status) {
	t.Hold++
	switch {
	case u.Problem != "":
		t.Unreadable++
	case u.Expired:
		t.Expired++
	}
}
