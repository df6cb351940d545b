// Package semaphore answers one question: in which format does this user have
// his mail now? One file per user says so in one line, and whoever delivers or
// serves mail reads it each time.
//
//	MAILSTATE=mbox      the mbox is live
//	MAILSTATE=hold      a cutover is at work: defer deliveries, let logins wait
//	MAILSTATE=maildir   the Maildir is live
//
// Anything else, a missing or unreadable file too, means hold: nobody may
// guess a format, for the wrong guess loses mail.
package semaphore

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// State is what a semaphore says.
type State uint8

// The states. The zero value is the one that is safe to act on.
const (
	Hold State = iota
	Mbox
	Maildir
)

var words = [...]string{Hold: "hold", Mbox: "mbox", Maildir: "maildir"}

// String returns the word in the file.
func (s State) String() string { return words[s] }

// Line returns the whole content of a semaphore file.
func (s State) Line() string { return "MAILSTATE=" + s.String() + "\n" }

// maxLine is longer than any valid content.
const maxLine = 64

// Parse reads the content of a semaphore file. Only the exact line counts;
// everything else is Hold and an error that quotes it.
func Parse(content []byte) (State, error) {
	for s := range words {
		if string(content) == State(s).Line() {
			return State(s), nil
		}
	}
	return Hold, fmt.Errorf("semaphore says %q, which is no state: holding", content[:min(len(content), maxLine)])
}

// Get reads a user's semaphore from the directory dir, which is trusted. The
// user's name comes from strangers and must be a single path component. The
// file is not waited for if it is a FIFO, nor followed if it is a symlink.
// With every error the state is Hold.
func Get(dir, user string) (State, error) {
	if user == "" || user == "." || user == ".." || strings.ContainsAny(user, "/\x00") {
		return Hold, fmt.Errorf("%q is no user name: holding", user)
	}
	path := filepath.Join(dir, user)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Hold, fmt.Errorf("semaphore %q: %w: holding", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return Hold, fmt.Errorf("semaphore %q is not a regular file: holding", path)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil {
		return Hold, fmt.Errorf("semaphore %q: %w: holding", path, err)
	}
	return Parse(content)
}
