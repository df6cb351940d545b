package semaphore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Meta says who made the last change of a semaphore, and when. It lies beside
// the semaphore and not in it, since that is read as a procmail rc file, too.
type Meta struct {
	Epoch    uint64    `json:"epoch"`             // above that of the change before it
	State    State     `json:"state"`             // what the semaphore is set to; what a caller gives is ignored
	From     State     `json:"from,omitzero"`     // of a hold and of what ends it: what it said before. Left out: mbox
	Run      string    `json:"run,omitempty"`     // the run that does it
	Host     string    `json:"host,omitempty"`    // "": os.Hostname
	PID      int       `json:"pid,omitempty"`     // 0: this process
	Deadline time.Time `json:"deadline,omitzero"` // when a hold must have ended; of the hold and of what ends it
	Time     time.Time `json:"time"`              // zero: now
}

// Expired reports whether the deadline of a hold has passed. Without a
// deadline it has.
func (m Meta) Expired(now time.Time) bool { return !now.Before(m.Deadline) }

// Before is what the semaphore said before a hold, and goes back to if what the
// hold is for does not come about.
func (m Meta) Before() State {
	if m.From == Maildir {
		return Maildir
	}
	return Mbox
}

// Ahead reports whether the change that m announces has not reached the
// semaphore, which says s: who made it is at work, or crashed.
func (m Meta) Ahead(s State) bool { return m.Epoch != 0 && m.State != s }

const (
	metaSuffix = ".meta"
	maxMeta    = 4096 // bytes; ours have about 200
)

// complete fills in the defaults.
func (m Meta) complete(to State) (Meta, error) {
	m.State = to
	m.Deadline = m.Deadline.UTC()
	if m.PID == 0 {
		m.PID = os.Getpid()
	}
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	m.Time = m.Time.UTC()
	if m.Host != "" {
		return m, nil
	}
	var err error
	m.Host, err = os.Hostname()
	return m, err
}

func (m Meta) encode() ([]byte, error) {
	content, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(content) >= maxMeta {
		return nil, fmt.Errorf("meta of %d bytes: too long", len(content))
	}
	return append(content, '\n'), nil
}

// parseMeta reads the content of a meta file. Fields that it doesn't know are
// those of a later version.
func parseMeta(content []byte) (Meta, error) {
	var m Meta
	if err := json.Unmarshal(content, &m); err != nil {
		return Meta{}, err
	}
	if m.Epoch == 0 {
		return Meta{}, errors.New("no epoch")
	}
	return m, nil
}

func (s *Semaphore) meta(dir *directory) (Meta, error) {
	content, err := dir.read(s.user+metaSuffix, maxMeta)
	if errors.Is(err, fs.ErrNotExist) {
		return Meta{}, nil
	}
	var m Meta
	if err == nil {
		m, err = parseMeta(content)
	}
	if err != nil {
		return Meta{}, fmt.Errorf("meta %q: %w", s.Path()+metaSuffix, err)
	}
	return m, nil
}
