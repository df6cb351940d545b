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
//
// # On disk
//
// In a directory that only root can write, such as
// /var/lib/mailferry/semaphores:
//
//	USER                    the authority: one of the three lines, mode 0644
//	USER.meta               who set it and when, JSON, see [Meta]
//	.USER.set[.meta]        being written, under the lock
//	.USER.next-STATE[.meta] prepared by a cutover at work, see [Prepared]
//	.lock                   kernel locks, a byte for each user; empty, mode 0600
//
// In the user's home, where he can do as he likes:
//
//	.mailstate              the mirror: a copy for rules that run as the user
//	.mailstate.lock         the gate: a dotlock, see [TakeGate]
//	NAME.mailferry-RANDOM   being written, for one of these two
//
// # Invariants
//
// A reader sees an old or a new content, whole, and never nothing: content is
// replaced by rename. What a call has reported as done survives a power loss:
// write, fsync, rename, fsync of the directory.
//
// Epochs only rise. Each change has a higher epoch than the one before it, or
// it is refused; two who read the same epoch can't both go on.
//
// The meta is durable before the semaphore changes. A crash between the two
// leaves a meta ahead of its semaphore ([Meta.Ahead]): the semaphore counts,
// the change was announced and did not happen, and its epoch is spent. For an
// instant every change looks like that. So the change that ends a hold bears
// the hold's deadline as well: a hold whose meta is ahead is left alone until
// that has passed ([Meta.Expired]), like any other.
//
// What a killed process leaves beside is overwritten by the next change of that
// user, or removed by [Sweep] in a home; no reader looks at it.
package semaphore

import (
	"fmt"
	"path/filepath"
	"strings"
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
func (s State) String() string {
	if int(s) >= len(words) {
		return fmt.Sprintf("State(%d)", uint8(s))
	}
	return words[s]
}

// Line returns the whole content of a semaphore file.
func (s State) Line() string { return "MAILSTATE=" + s.String() + "\n" }

// MarshalText gives the word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText accepts the three words.
func (s *State) UnmarshalText(word []byte) (err error) {
	*s, err = Parse([]byte("MAILSTATE=" + string(word) + "\n"))
	return err
}

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

// Get reads the semaphore of a user, whose name comes from strangers, from the
// directory dir. With every error the state is Hold.
func Get(dir, user string) (State, error) {
	if err := fitUser(user); err != nil {
		return Hold, err
	}
	return (&Semaphore{dir, user}).Get()
}

// fitUser refuses what is no single component of a path, and names that lie
// beside the semaphores.
func fitUser(name string) error {
	if fitName(name) != nil || strings.HasPrefix(name, ".") || strings.HasSuffix(name, metaSuffix) {
		return fmt.Errorf("%.80q is no user name: holding", name)
	}
	return nil
}

// fitName refuses what is no single component of a path.
func fitName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%.80q is not the name of a file in a directory", name)
	}
	return nil
}

// Semaphore is that of one user: the authority. It holds nothing open, and
// may be used by several goroutines.
type Semaphore struct {
	dir, user string
}

// For finds a user's semaphore by the path of the authority, such as
// /var/lib/mailferry/semaphores/alice. The last component must be a fit user
// name: not one that begins with a dot or ends in ".meta". Nothing is opened.
func For(path string) (*Semaphore, error) {
	dir, user := filepath.Split(path)
	if err := fitUser(user); err != nil {
		return nil, err
	}
	return &Semaphore{filepath.Clean(dir), user}, nil
}

// Path returns the path of the authority.
func (s *Semaphore) Path() string { return filepath.Join(s.dir, s.user) }

// Get reads the state. With every error it is Hold. An error that is
// fs.ErrNotExist says that the user is not enrolled.
func (s *Semaphore) Get() (State, error) {
	dir, err := s.openDir()
	if err != nil {
		return Hold, err
	}
	defer dir.Close()
	return s.get(dir)
}

func (s *Semaphore) get(dir *directory) (State, error) {
	content, err := dir.read(s.user, maxLine)
	if err != nil {
		return Hold, fmt.Errorf("semaphore %q: %w: holding", s.Path(), err)
	}
	return Parse(content)
}

// Meta reads who made the last change, or announced it ([Meta.Ahead]). Without
// a meta it is zero and no error: epoch 0, set by nobody of ours. One that
// can't be read is an error and allows no change until an admin removes it.
func (s *Semaphore) Meta() (Meta, error) {
	dir, err := s.openDir()
	if err != nil {
		return Meta{}, err
	}
	defer dir.Close()
	return s.meta(dir)
}
