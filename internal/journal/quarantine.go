package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"mailferry/internal/safefs"
)

// Quarantined says which message could not be represented, and why. It lies
// beside the raw bytes.
type Quarantined struct {
	User    string    `json:"user"`
	Mailbox string    `json:"mailbox"` // path of the mbox
	Offset  int64     `json:"offset"`  // of the From_ line, in bytes
	Length  int64     `json:"length"`  // of the raw bytes, set by Put
	Reason  string    `json:"reason"`
	File    string    `json:"file"` // name of the raw bytes, set by Put
	Time    time.Time `json:"time"` // set by Put
}

// Quarantine is where a run keeps messages of a user that could not be
// represented. It may be used while working as that user; the files are root's.
type Quarantine struct {
	run  *Run
	user string
	mu   sync.Mutex // guards n
	n    int
}

const quarantineName = "quarantine"

// Quarantine returns the user's quarantine. Nothing is made before the first
// Put. A user has one in a run.
func (r *Run) Quarantine(user string) *Quarantine { return &Quarantine{run: r, user: user} }

// Count is how many messages have been put here.
func (q *Quarantine) Count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}

// Put keeps the raw bytes of a message and the reason, durable, and returns the
// path of the bytes. It reads raw while the caller waits.
func (q *Quarantine) Put(m Quarantined, raw io.Reader) (path string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.User, m.Time = q.user, time.Now().UTC().Truncate(time.Microsecond)
	m.File = fmt.Sprintf("%06d.raw", q.n+1)
	if err := q.run.do(func() error { return q.put(&m, raw) }); err != nil {
		return "", fmt.Errorf("quarantine of %q: %w", q.user, err)
	}
	q.n++
	return filepath.Join(q.run.Dir(), quarantineName, fileName(q.user), m.File), nil
}

// put writes the bytes, then the reason: where there is a reason, the bytes
// are whole.
func (q *Quarantine) put(m *Quarantined, raw io.Reader) error {
	dir, err := q.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.RemoveAll(m.File); err != nil { // of a Put that failed
		return err
	}
	f, err := dir.Create(m.File, fileMode)
	if err != nil {
		return err
	}
	m.Length, err = io.Copy(f, raw)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, dir.RemoveAll(m.File))
	}
	escaped := *m
	escaped.User, escaped.Mailbox, escaped.Reason = escape(m.User), escape(m.Mailbox), escape(m.Reason)
	line, err := encode(escaped)
	if err != nil {
		return err
	}
	return replace(dir, []file{{fmt.Sprintf("%06d.json", q.n+1), line}})
}

// open makes the directories that are missing.
func (q *Quarantine) open() (*safefs.Dir, error) {
	all, err := makeSub(q.run.dir, quarantineName)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	return makeSub(all, fileName(q.user))
}
