package journal

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// Rehearsal is what a rehearsal has measured of a user: his mail was taken to a
// Maildir and back in a scratch directory. Sizes are in bytes, times in seconds,
// without waiting for a limit of bandwidth.
type Rehearsal struct {
	User        string    `json:"user"`
	Run         string    `json:"run"`
	Time        time.Time `json:"time"`
	Fingerprint string    `json:"fingerprint"` // of the mailboxes and of the settings

	Mailboxes int   `json:"mailboxes"`
	Messages  int   `json:"messages"`
	Bytes     int64 `json:"bytes"`         // of the mailboxes
	Scratch   int64 `json:"scratch_bytes"` // that it took, at most

	Forth   float64 `json:"forth_seconds"`
	Back    float64 `json:"back_seconds"`       // with the mbox at hand, as long as it is parked
	Inbox   int64   `json:"inbox_bytes"`        // of INBOX
	Reading float64 `json:"inbox_read_seconds"` // of INBOX, as a hold does
	Exact   bool    `json:"exact"`              // each mailbox came back byte for byte
	Alone   Alone   `json:"from_maildir_alone"`
}

// Alone tells what the way back makes without the mbox, as after its
// retirement, of Maildir and From_ lines.
type Alone struct {
	Exact   bool `json:"exact"`            // byte for byte
	Altered int  `json:"altered_messages"` // that have other bytes: header fields of state, mostly
	Misread int  `json:"misread_messages"` // that are read otherwise: content, date, flags, keywords or UID
}

var rehearsals = records[Rehearsal]{rehearsalDir, func(r Rehearsal) string { return r.User }, func(r Rehearsal, do func(string) string) Rehearsal {
	r.User = do(r.User)
	return r
}}

const rehearsalDir = "rehearsal"

// WriteRehearsal writes the record of a user, durable and whole.
func WriteRehearsal(state string, r Rehearsal) error { return rehearsals.write(state, []Rehearsal{r}) }

// ReadRehearsal reads the record of a user; fs.ErrNotExist when there is none.
func ReadRehearsal(state, user string) (Rehearsal, error) { return rehearsals.read(state, user) }

// ListRehearsal returns all records, by user, with the error of those that can't
// be read.
func ListRehearsal(state string) ([]Rehearsal, error) { return rehearsals.list(state) }

// Scratch is a directory of the length of a rehearsal, below the state
// directory. Nobody but root gets there by a path:
//
//	rehearsal/scratch-RANDOM        root's; side-cars
//	rehearsal/scratch-RANDOM/work   the user's, who works in it by its descriptor
type Scratch struct {
	State string // a state directory of its own, for side-cars
	Work  *safefs.Dir

	dir  *safefs.Dir
	name string
}

const (
	scratchPrefix = "scratch-"
	scratchWork   = "work"
)

// MakeScratch makes a scratch directory for a user. Remove ends it.
func MakeScratch(state string, uid, gid int) (*Scratch, error) {
	top, err := makeState(state)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	s := &Scratch{}
	if s.dir, err = makeSub(top, rehearsalDir); err != nil {
		return nil, err
	}
	random := make([]byte, 8)
	rand.Read(random)
	s.name = scratchPrefix + hex.EncodeToString(random)
	s.State = filepath.Join(s.dir.Path(), s.name)
	if err := s.make(uid, gid); err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	return s, nil
}

func (s *Scratch) make(uid, gid int) error {
	own, err := s.dir.Mkdir(s.name, dirMode)
	if err != nil {
		return err
	}
	defer own.Close()
	if s.Work, err = own.Mkdir(scratchWork, dirMode); err != nil {
		return err
	}
	if err := unix.Fchown(s.Work.Fd(), uid, gid); err != nil {
		return fmt.Errorf("%s: %w", s.Work.Path(), err)
	}
	return nil
}

// Remove removes the directory and all in it.
func (s *Scratch) Remove() (err error) {
	if s.Work != nil {
		err = s.Work.Close()
	}
	return errors.Join(err, removeScratch(s.dir, s.name), s.dir.Close())
}

// removeScratch removes what lies in the working directory first: the depth of
// folders is counted from there.
func removeScratch(dir *safefs.Dir, name string) error {
	own, err := dir.Sub(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	work, err := own.Sub(scratchWork)
	own.Close()
	if err == nil {
		err = work.Names(work.RemoveAll)
		err = errors.Join(err, work.Close())
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, dir.RemoveAll(name))
}

// ClearScratch removes what rehearsals have left that were killed. No rehearsal
// is at work meanwhile.
func ClearScratch(state string) error {
	dir, err := openPath(state, rehearsalDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Names(func(name string) error {
		if !strings.HasPrefix(name, scratchPrefix) || strings.HasSuffix(name, recordSuffix) {
			return nil
		}
		return removeScratch(dir, name)
	})
}
