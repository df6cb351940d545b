package livemail

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mailferry/semaphore"
)

// Account settles the ledger with what is there, and returns what is wrong. It
// looks twice: at every file of every user, for messages that lie where nobody
// looks, and through the server, for all that a client is shown.
func (l *Load) Account() (wrong []string) {
	wrong = slices.Clone(l.Ledger.faults)
	for _, u := range l.Site.Users {
		s := &settlement{Load: l, u: u, found: map[string]int{}}
		if err := s.settle(); err != nil {
			s.tell("%v", err)
		}
		wrong = append(wrong, s.wrong...)
	}
	return wrong
}

// settlement is that of one user.
type settlement struct {
	*Load
	u     *User
	found map[string]int // messages by box and id
	wrong []string
}

func (s *settlement) tell(format string, args ...any) {
	s.wrong = append(s.wrong, s.u.Name+": "+fmt.Sprintf(format, args...))
}

func (s *settlement) settle() error {
	state := s.u.State()
	if state == semaphore.Hold {
		return errors.New("is held")
	}
	before := len(s.Ledger.faults)
	if err := s.server(); err != nil {
		return err
	}
	s.wrong = append(s.wrong, s.Ledger.faults[before:]...)
	for _, id := range slices.Sorted(maps.Keys(s.Ledger.entries)) {
		if e := s.Ledger.entries[id]; e.User == s.u {
			before := len(s.wrong)
			if s.entry(e); len(s.wrong) > before {
				s.tell("%s: its history: %s", e.ID, strings.Join(e.history, "; "))
			}
		}
	}
	return s.files(state)
}

// entry demands of a message what was promised.
func (s *settlement) entry(e *entry) {
	n := s.found[e.Box+" "+e.ID]
	if e.there == doubt || e.gone == doubt || e.gone == no && len(e.flags) > 1 {
		s.Figures.Add("in doubt", 1)
	}
	delete(s.found, e.Box+" "+e.ID)
	switch {
	case e.there == no && n > 0:
		s.tell("%s: deferred by %s, and there %d times", e.ID, e.Agent, n)
	case e.gone == yes && n > 0:
		s.tell("%s: expunged, and there %d times (%s)", e.ID, n, e.Agent)
	case n > 1:
		s.tell("%s: there %d times (%s, deferred %d times)", e.ID, n, e.Agent, e.deferrals)
	case e.there == yes && e.gone == no && n == 0:
		s.tell("%s: lost (%s, %d octets, UID %d, deferred %d times)", e.ID, e.Agent, e.Size, e.uid, e.deferrals)
	}
}

// server compares what clients see.
func (s *settlement) server() error {
	c, err := dialIMAP(s.Server, s.u)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for _, box := range []string{"INBOX", "Sent"} {
		validity, err := c.selectBox(box)
		var refused *refusal
		if errors.As(err, &refused) && box != "INBOX" {
			continue // nobody has made it
		}
		if err != nil {
			return err
		}
		list, err := c.fetch("1:*", "BODY.PEEK[]")
		if err != nil {
			return err
		}
		for _, m := range list {
			s.message(box, m, validity)
		}
	}
	return c.logout()
}

func (s *settlement) message(box string, m shown, validity uint32) {
	e := s.Ledger.entries[m.id]
	if e == nil || e.User != s.u || e.Box != box {
		s.tell("%s: UID %d is no message of it: %q", box, m.uid, m.id)
		return
	}
	s.found[box+" "+m.id]++
	s.Ledger.read(s.u.Name, m.raw, m.id)
	if e.gone != yes {
		s.Ledger.seen(s.u.Name, box, m, validity)
	}
	if !slices.Contains(e.flags, m.flags) {
		s.tell("%s: has the flags %q, of %q (UID %d, %s): its history: %s", m.id, m.flags, e.flags, m.uid, e.Agent, strings.Join(e.history, "; "))
	}
}

var (
	// asideName is that of what mailferry has put away, and nobody looks at.
	asideName = regexp.MustCompile(`\.mailferry-\d{8}T\d{6}Z$`)
	idLine    = regexp.MustCompile(`(?m)^` + idField + `: (m\d+)$`)
)

// files looks for messages where the semaphore does not point to.
func (s *settlement) files(state semaphore.State) error {
	for _, root := range []string{s.u.Home, s.u.Spool} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case asideName.MatchString(path) && d.IsDir():
				return fs.SkipDir
			case asideName.MatchString(path), !d.Type().IsRegular(), s.u.routed(path, state):
				return nil
			}
			content, err := os.ReadFile(path)
			for _, m := range idLine.FindAllSubmatch(content, -1) {
				s.stray(path, string(m[1]), state)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *settlement) stray(path, id string, state semaphore.State) {
	if e := s.Ledger.entries[id]; e != nil && (e.there != yes || e.gone != no) {
		return // what an agent or a server that broke off had not ended
	}
	s.tell("%s lies in %s, and the semaphore says %s", id, strings.TrimPrefix(path, s.Site.Dir+"/"), state)
}

// routed reports whether a server that was told the state looks at a file.
func (u *User) routed(path string, state semaphore.State) bool {
	if state == semaphore.Maildir {
		sub := filepath.Base(filepath.Dir(path))
		return strings.HasPrefix(path, u.Maildir+"/") && (sub == "cur" || sub == "new")
	}
	return path == u.Spool || strings.HasPrefix(path, u.Folders+"/") && !strings.HasPrefix(path, u.Folders+"/.imap/")
}

// Forget removes what mailferry has put away of a user who is on mbox, as an
// admin does in the end.
func (u *User) Forget() error {
	return u.as(func() error {
		var err error
		for _, pattern := range []string{u.Spool + ".mailferry-*", u.Folders + "/*.mailferry-*", u.Maildir + ".mailferry-*"} {
			list, failed := filepath.Glob(pattern)
			err = errors.Join(err, failed)
			for _, path := range list {
				if asideName.MatchString(path) {
					err = errors.Join(err, os.RemoveAll(path))
				}
			}
		}
		return err
	})
}
