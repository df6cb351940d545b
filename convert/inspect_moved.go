package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// Where the semaphore and our own records differ, the records tell whose the
// Maildir and the parked mboxes are: not foreign, not left over, but the user's
// mail. Nobody is to be told to clear them away.

// move is what the records say of a user whose mail is not, or not only, in his
// mboxes.
type move struct {
	soak journal.Soak // of a user who was moved; else zero
	back bool         // a rollback was begun, and has not come to its end
	says string       // all of it, with where it stands; "": he is on his mboxes
}

// moveOf reads the records of a user's move and of his way back.
func (s Site) moveOf(user string) (m move, err error) {
	soak, err := journal.ReadSoak(s.State, user)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	if !soak.Flipped.IsZero() && soak.Back.IsZero() {
		m.soak = soak
		m.says = fmt.Sprintf("the record %q says that he was moved at %s", s.recordPath("soak", user), second(soak.Flipped))
	}
	way, err := journal.ReadRollback(s.State, user)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	m.back = true
	m.says = fmt.Sprintf("the record %q says that a rollback of his, begun at %s, has not come to its end", s.recordPath("rollback", user), second(way.Time))
	return m, nil
}

// recordPath is where a user's record lies; of a name that is no file's, the directory.
func (s Site) recordPath(kind, user string) string {
	path := filepath.Join(s.State, kind, user+".json")
	if _, err := os.Lstat(path); err != nil {
		return filepath.Dir(path)
	}
	return path
}

func second(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// recorded is what the records say against a semaphore that does not say maildir;
// "" if nothing. A staging is no more than a precopy, unless a run holds the user.
// A process that may not read them may not touch his mail either.
func (in *Inspector) recorded(user string, state semaphore.State, m semaphore.Meta) string {
	moved, err := in.site.moveOf(user)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return ""
	case err != nil:
		return fmt.Sprintf("whether he was moved can't be told: %v", err)
	case moved.says != "" || state != semaphore.Hold || m.Run == "":
		return moved.says
	}
	record, err := journal.ReadStaging(in.site.State, user)
	if err != nil || isPromise(record) {
		return ""
	}
	return fmt.Sprintf("the record %q says that he is being moved, since %s", in.site.recordPath("staging", user), second(record.Time))
}

// isByHand reports whether a meta is that of a hold which an admin has made, and
// nobody but an admin ends.
func isByHand(m semaphore.Meta) bool {
	return m.Epoch != 0 && m.State == semaphore.Hold && m.Run == ""
}

// heldBy tells who holds a user and since when, as far as is known.
func heldBy(user string, m semaphore.Meta) string {
	if isByHand(m) {
		return fmt.Sprintf(": held by hand since %s; mailferry semaphore release %s ends it", second(m.Time), shellWord(user))
	}
	return since(m)
}

// since tells who set a semaphore and when, as far as is known.
func since(m semaphore.Meta) string {
	switch {
	case m.Time.IsZero():
		return ""
	case m.Run == "":
		return fmt.Sprintf(" since %s, by hand, pid %d", second(m.Time), m.PID)
	}
	return fmt.Sprintf(" since %s, by run %q, pid %d", second(m.Time), m.Run, m.PID)
}
