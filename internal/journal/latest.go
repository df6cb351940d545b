package journal

import (
	"bytes"
	"errors"
	"slices"
)

// Latest returns the latest event of each user of all runs, or of the given
// users only. It reads the newest run first and takes apart only the lines
// that count, so an older line may be damaged unseen: Events sees it. A
// damaged line that it does see is a *Damaged; what could be read is returned
// with the error.
func Latest(state string, users ...string) (map[string]Event, error) {
	runs, err := Runs(state)
	if err != nil {
		return nil, err
	}
	l := latest{found: map[string]Event{}, wanted: map[string]bool{}}
	for _, u := range users {
		l.wanted[u] = true
	}
	for _, run := range slices.Backward(runs) {
		if err := l.read(state, run); err != nil {
			return l.found, errors.Join(err, l.bad.err())
		}
		if len(users) > 0 && len(l.found) == len(l.wanted) {
			break
		}
	}
	return l.found, l.bad.err()
}

type latest struct {
	found  map[string]Event
	wanted map[string]bool // all if empty
	bad    damages
}

// place is a line that may be a user's latest one.
type place struct {
	n    int
	line []byte
}

// read adds the users of a run that have not been found in a newer one.
func (l *latest) read(state, run string) error {
	last := map[string]*place{}
	err := eachLine(state, run, func(n int, line []byte, err error) error {
		if err != nil {
			l.bad.add(run, n, err)
			return nil
		}
		user, ok := userOf(line)
		if !ok {
			e, err := decode(line)
			if err != nil {
				l.bad.add(run, n, err)
				return nil
			}
			user = []byte(e.User)
		}
		if !l.counts(user) {
			return nil
		}
		p := last[string(user)]
		if p == nil {
			p = new(place)
			last[string(user)] = p
		}
		p.n, p.line = n, append(p.line[:0], line...)
		return nil
	})
	for user, p := range last {
		e, err := decode(p.line)
		if err != nil {
			l.bad.add(run, p.n, err)
			continue
		}
		l.found[user] = e
	}
	return err
}

// counts reports whether an event of the user is looked for.
func (l *latest) counts(user []byte) bool {
	if len(user) == 0 || len(l.wanted) > 0 && !l.wanted[string(user)] {
		return false
	}
	_, found := l.found[string(user)]
	return !found
}

// userOf finds the user in a line that is as Log writes it: time, run and
// user come first. It is 20 times as fast as to decode the line.
func userOf(line []byte) ([]byte, bool) {
	rest, ok := line, true
	for _, key := range []string{`{"time":"`, `,"run":"`} {
		if rest, ok = bytes.CutPrefix(rest, []byte(key)); !ok {
			return nil, false
		}
		if _, rest, ok = bytes.Cut(rest, []byte{'"'}); !ok {
			return nil, false
		}
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"user":"`)); !ok {
		return nil, false
	}
	user, _, ok := bytes.Cut(rest, []byte{'"'})
	return user, ok && bytes.IndexByte(user, '\\') < 0
}
