package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"mailferry/internal/safefs"
)

// A side-car keeps what a Maildir can't hold of a mailbox whose mbox was
// retired: the From_ line of each message, verbatim. It lies in the state
// directory, a file for each mailbox of a user, and has a line for each
// message, in order of UIDs:
//
//	{"uid":N,"from":"From ..."}
const (
	fromLinesDir    = "fromlines"
	fromLinesSuffix = ".jsonl"
)

// FromLine is a line of a side-car.
type FromLine struct {
	UID  uint32 `json:"uid"`
	From string `json:"from"` // without its line end; any bytes
}

// FromLinesWriter writes a side-car in constant memory. It gets its name by
// Commit, durably; until then an older one counts.
type FromLinesWriter struct {
	dir  *safefs.Dir
	name string
	f    *os.File
	out  *bufio.Writer
	last uint32
	err  error
}

// NewFromLines begins the side-car of a mailbox, by the name that reports have
// it under. Either Commit or Discard ends it.
func NewFromLines(state, user, mailbox string) (*FromLinesWriter, error) {
	top, err := makeState(state)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	all, err := makeSub(top, fromLinesDir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	dir, err := makeSub(all, fileName(user))
	if err != nil {
		return nil, err
	}
	w := &FromLinesWriter{dir: dir, name: fileName(mailbox) + fromLinesSuffix}
	if err := dir.RemoveAll(w.temp()); err != nil { // of a killed run
		return nil, errors.Join(err, dir.Close())
	}
	if w.f, err = dir.Create(w.temp(), fileMode); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	w.out = bufio.NewWriterSize(w.f, 1<<16)
	return w, nil
}

func (w *FromLinesWriter) temp() string { return "." + w.name + ".new" }

// Add adds a line; UIDs must rise.
func (w *FromLinesWriter) Add(l FromLine) error {
	if w.err != nil {
		return w.err
	}
	if l.UID <= w.last {
		return fmt.Errorf("the From_ line of UID %d comes behind that of %d", l.UID, w.last)
	}
	w.last, l.From = l.UID, escape(l.From)
	line, err := encode(l)
	if err == nil {
		_, err = w.out.Write(line)
	}
	w.err = err
	return err
}

// Commit makes the side-car durable and gives it its name.
func (w *FromLinesWriter) Commit() error {
	if w.err != nil {
		return errors.Join(w.err, w.Discard())
	}
	if err := errors.Join(w.out.Flush(), w.f.Sync()); err != nil {
		return errors.Join(err, w.Discard())
	}
	err := errors.Join(w.f.Close(), w.dir.Rename(w.temp(), w.name, true), w.dir.Sync())
	return errors.Join(err, w.dir.Close())
}

// Discard throws away what was written.
func (w *FromLinesWriter) Discard() error {
	return errors.Join(w.f.Close(), w.dir.Unlink(w.temp()), w.dir.Close())
}

// FromLines reads a side-car in constant memory.
type FromLines struct {
	f    *os.File
	in   *bufio.Reader
	next FromLine
	read bool // next is waiting
}

// OpenFromLines opens the side-car of a mailbox; fs.ErrNotExist when there is
// none.
func OpenFromLines(state, user, mailbox string) (*FromLines, error) {
	dir, err := openPath(state, fromLinesDir, fileName(user))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenRegular(fileName(mailbox) + fromLinesSuffix)
	if err != nil {
		return nil, err
	}
	return &FromLines{f: f, in: bufio.NewReaderSize(f, 1<<16)}, nil
}

// Find returns the From_ line of a UID, "" if the side-car has none. It is asked
// for UIDs that rise.
func (l *FromLines) Find(uid uint32) (string, error) {
	for {
		if !l.read {
			more, err := l.advance()
			if !more || err != nil {
				return "", err
			}
		}
		if l.next.UID > uid {
			return "", nil
		}
		l.read = false
		if l.next.UID == uid {
			return l.next.From, nil
		}
	}
}

// advance reads a line. What follows the last LF was never finished.
func (l *FromLines) advance() (more bool, err error) {
	line, err := l.in.ReadBytes('\n')
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.next = FromLine{}
	if err := json.Unmarshal(line, &l.next); err != nil {
		return false, fmt.Errorf("%s: %w", filepath.Base(l.f.Name()), err)
	}
	l.next.From, l.read = unescape(l.next.From), true
	return true, nil
}

// Rewind goes back to the first line.
func (l *FromLines) Rewind() error {
	_, err := l.f.Seek(0, io.SeekStart)
	l.in.Reset(l.f)
	l.read = false
	return err
}

// Close closes the file.
func (l *FromLines) Close() error { return l.f.Close() }
