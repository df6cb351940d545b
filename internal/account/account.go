// Package account knows who the users are and where the mail of each lies.
//
// Who they are comes from the user database (through getent, so that every
// NSS source counts) or from a file; where their mail lies from templates. A
// user about whom something is wrong is never left out: he is listed with the
// problem, for a report to name, and the others go on. A database that could
// not be read to its end is an error, never a shorter list.
package account

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// User is an entry of the user database.
type User struct {
	Name   string
	UID    int
	GID    int
	Groups []int // supplementary, the user's own as initgroups(3) finds them, without GID
	Home   string

	// Problem says why nothing may be done for him, whoever he is; nil if
	// there is nothing. ErrUnknown for a name that nobody has, whose other
	// fields mean nothing.
	Problem error
}

// ErrUnknown is the problem of a name that the user database does not know.
var ErrUnknown = errors.New("there is no such user")

// Account is a user and where his mail lies. All paths are absolute and
// clean; they are empty if the user has a Problem.
type Account struct {
	User
	Spool     string   // the mbox that is INBOX
	Folders   []string // directories of mboxes
	Maildir   string   // where it will lie
	Semaphore string   // the authority, in a directory of root's
	Mirror    string   // its copy in the home; "" for none
	Gate      string   // the dotlock that agents take before they read the semaphore

	Collisions []Collision // as Collide found them
}

// CheckName refuses names that can't be a single component of a path, or that
// a shell or log would misread.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no user name", name)
	case len(name) > 255:
		return fmt.Errorf("%.40q... is no user name: longer than 255 bytes", name)
	case name[0] == '-' || name[0] == '.': // an option; a hidden file, as temporary ones are
		return fmt.Errorf("%q is no user name: begins with %q", name, name[:1])
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || r <= ' ' || r == 0x7f || r == '\uFFFD' }):
		return fmt.Errorf("%q is no user name: has a slash, colon, blank, control character or invalid UTF-8", name)
	}
	return nil
}

// checkHome refuses a home directory that is none: a template filled with it
// would lie somewhere else.
func checkHome(home string) error {
	switch {
	case home == "":
		return errors.New("the user database names no home directory")
	case !filepath.IsAbs(home):
		return fmt.Errorf("the home directory %q is no absolute path", home)
	case strings.ContainsRune(home, 0):
		return fmt.Errorf("the home directory %q has a NUL in it", home)
	case hasDots(home):
		return fmt.Errorf("the home directory %q has a component \"..\"", home)
	case filepath.Clean(home) == "/":
		return errors.New(`the home directory is "/"`)
	}
	return nil
}

// hasDots reports whether a path goes up, which means another place with a
// symlink than without.
func hasDots(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// Account fills in the templates for a user.
func (p Places) Account(u User) Account {
	if u.Problem != nil {
		return Account{User: u}
	}
	words := strings.NewReplacer("{user}", u.Name, "{home}", u.Home, "{uid}", strconv.Itoa(u.UID))
	fill := func(template string) string {
		if template == "" {
			return ""
		}
		return filepath.Clean(words.Replace(template))
	}
	a := Account{
		User: u, Spool: fill(p.Spool), Maildir: fill(p.Maildir),
		Semaphore: fill(p.Semaphore), Mirror: fill(p.Mirror), Gate: fill(p.Gate),
	}
	for _, f := range p.Folders {
		a.Folders = append(a.Folders, fill(f))
	}
	return a
}
