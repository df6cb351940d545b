// Package account knows who the users are and where the mail of each lies.
package account

import (
	"fmt"
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
}

// Account is a user and where his mail lies. All paths are absolute.
type Account struct {
	User
	Spool     string   // the mbox that is INBOX
	Folders   []string // directories of mboxes
	Maildir   string   // where it will lie
	Semaphore string   // the authority, in a directory of root's
	Mirror    string   // its copy in the home; "" for none
	Gate      string   // the dotlock that agents take before they read the semaphore
}

// Places says where users' mail lies, as templates with {user}, {home} and
// {uid}.
type Places struct {
	Spool     string
	Folders   []string
	Maildir   string
	Semaphore string
	Mirror    string
	Gate      string
}

// CheckName refuses names that can't be a single component of a path, or that
// a shell or log would misread.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("%q is no user name", name)
	case len(name) > 255:
		return fmt.Errorf("%.40q... is no user name: longer than 255 bytes", name)
	case strings.HasPrefix(name, "-"):
		return fmt.Errorf("%q is no user name: begins with a dash", name)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || r <= ' ' || r == 0x7f || r == '\uFFFD' }):
		return fmt.Errorf("%q is no user name: has a slash, colon, blank, control character or invalid UTF-8", name)
	}
	return nil
}

// Account fills in the templates for a user.
func (p Places) Account(u User) Account {
	fill := strings.NewReplacer("{user}", u.Name, "{home}", u.Home, "{uid}", strconv.Itoa(u.UID)).Replace
	a := Account{
		User: u, Spool: fill(p.Spool), Maildir: fill(p.Maildir),
		Semaphore: fill(p.Semaphore), Mirror: fill(p.Mirror), Gate: fill(p.Gate),
	}
	for _, f := range p.Folders {
		a.Folders = append(a.Folders, fill(f))
	}
	return a
}
