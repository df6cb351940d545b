package mailgen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// change is what becomes of a message.
type change int

const (
	keep change = iota
	restate
	remove
)

// rewrite changes the mbox in place. Like a session of Dovecot it also writes
// UIDs to messages that came since the last one (mbox-sync-rewrite.c).
func (l *Live) rewrite(decide func(i int, m *Message) change) error {
	return l.locked(func(f *os.File) error {
		old, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		text, messages := l.edit(old, decide)
		if err := l.replace(f, old, text); err != nil {
			return err
		}
		l.Messages = messages
		return nil
	})
}

// edit makes the new text and says what is in it. X-IMAPbase stays with the
// first message, or in UW's pseudo message before it.
func (l *Live) edit(old []byte, decide func(int, *Message) change) (text []byte, messages []Message) {
	if len(l.Messages) == 0 {
		return old, nil
	}
	first := l.Messages[0]
	text = l.renumber(slices.Clone(old[:first.Offset]))
	base := field(old[first.Header:first.Body], imapBase)
	for i, m := range l.Messages {
		header := old[m.Header:m.Body]
		from, body := old[m.Offset:m.Header], old[m.Body:m.End]
		todo := decide(i, &m)
		if todo == remove {
			continue
		}
		if len(messages) > 0 {
			base = ""
		}
		if todo == restate || base != "" || l.UIDNext > 0 && field(header, "X-UID: ") == "" {
			header = l.renumber(m.restated(header, base))
		}
		m.Offset = int64(len(text))
		text = append(append(append(text, from...), header...), body...)
		m.End = int64(len(text))
		m.Body = m.End - int64(len(body))
		m.Header = m.Body - int64(len(header))
		messages = append(messages, m)
	}
	return text, messages
}

const imapBase = "X-IMAPbase: "

// field is the value of a field that is not folded, "" without it.
func field(header []byte, name string) string {
	for line := range bytes.Lines(header) {
		if value, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return strings.TrimRight(string(value), "\r\n")
		}
	}
	return ""
}

// renumber sets LASTUID of X-IMAPbase, or UW's X-IMAP, which has ten digits so
// that it can be written over.
func (l *Live) renumber(header []byte) []byte {
	for _, name := range []string{imapBase, "X-IMAP: "} {
		if base := field(header, name); base != "" {
			validity, _, _ := strings.Cut(base, " ")
			at := bytes.Index(header, []byte("\n"+name)) + len("\n"+name)
			if bytes.HasPrefix(header, []byte(name)) {
				at = len(name)
			}
			copy(header[at:], fmt.Sprintf("%s %010d", validity, l.UIDNext-1))
		}
	}
	return header
}

// restated is a header with the state of the message as Dovecot writes it.
func (m Message) restated(header []byte, base string) []byte {
	eol := "\n"
	if bytes.HasSuffix(header, []byte("\r\n")) {
		eol = "\r\n"
	}
	var out []byte
lines:
	for line := range bytes.Lines(header[:len(header)-len(eol)]) {
		for _, name := range []string{imapBase, "X-UID: ", "Status: ", "X-Status: ", "X-Keywords: "} {
			if bytes.HasPrefix(line, []byte(name)) {
				continue lines
			}
		}
		out = append(out, line...)
	}
	for _, line := range m.state(base) {
		out = append(out, line+eol...)
	}
	return append(out, eol...)
}

func (m Message) state(base string) []string {
	var lines []string
	if base != "" {
		lines = append(lines, imapBase+base)
	}
	if m.UID != 0 {
		lines = append(lines, fmt.Sprintf("X-UID: %d", m.UID))
	}
	lines = append(lines, "Status: "+map[bool]string{true: "RO", false: "O"}[strings.Contains(m.Flags, "S")])
	if x := strings.Map(xStatus, m.Flags); x != "" {
		lines = append(lines, "X-Status: "+x)
	}
	if len(m.Keywords) > 0 {
		lines = append(lines, fmt.Sprintf("X-Keywords: %-80s", strings.Join(m.Keywords, " ")))
	}
	return lines
}

// replace writes what differs over the old text and cuts what is left of it.
func (l *Live) replace(f *os.File, old, text []byte) error {
	start := 0
	for start < min(len(old), len(text)) && old[start] == text[start] {
		start++
	}
	end := len(text)
	for len(old) == len(text) && end > start && old[end-1] == text[end-1] {
		end--
	}
	if err := l.write(f, text[start:end], int64(start)); err != nil || len(old) <= len(text) {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// write writes in small pieces.
func (l *Live) write(f *os.File, p []byte, at int64) error {
	for len(p) > 0 {
		n := min(1+l.r.IntN(4096), len(p))
		if _, err := f.WriteAt(p[:n], at); err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
		if l.Pause != nil {
			l.Pause()
		}
	}
	return nil
}

// locked runs do with the mbox locked, open and at its beginning.
func (l *Live) locked(do func(*os.File) error) error {
	for start := time.Now(); ; {
		f, err := l.lock()
		if err == nil {
			return errors.Join(do(f), os.Remove(l.dotlock()), f.Close())
		}
		if !errors.Is(err, ErrMailboxBusy) || time.Since(start) > l.Timeout {
			return err
		}
		time.Sleep(time.Millisecond * time.Duration(5+rand.IntN(20))) // apart from whoever is in the way
	}
}

func (l *Live) dotlock() string { return l.Path + ".lock" }

// lock takes both locks or none, so that it can't lock up with a program that
// takes them in the other order. The fcntl lock is one of the open file: those of a
// process would be lost when a test's scanner closes the mbox (fcntl(2)).
func (l *Live) lock() (*os.File, error) {
	f, err := os.OpenFile(l.Path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := l.takeDotlock(); err != nil {
		f.Close()
		return nil, err
	}
	if err = takeFcntl(f); err == nil {
		err = l.same(f)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(l.dotlock()), f.Close())
	}
	return f, nil
}

func (l *Live) takeDotlock() error {
	lock, err := os.OpenFile(l.dotlock(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if errors.Is(err, fs.ErrExist) {
		return ErrMailboxBusy
	}
	if err != nil {
		return err
	}
	// The pid alone, as maildrop writes it: with our host name the project's own
	// locking would take it for the leftover of an earlier process with this pid.
	_, err = fmt.Fprintln(lock, os.Getpid())
	return errors.Join(err, lock.Close())
}

func takeFcntl(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrMailboxBusy
	}
	return err
}

// same checks that the mbox was not put away while the locks were taken.
func (l *Live) same(f *os.File) error {
	open, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(l.Path)
	if err != nil {
		return err
	}
	if !os.SameFile(open, named) {
		return ErrMailboxBusy
	}
	return nil
}
