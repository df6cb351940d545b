package livemail

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// firstUID is that of the first user who has no entry in the user database.
const firstUID = 23000

// identities are uids for users. Maildrop demands an entry in the user database:
// the first users are some of those that every system has, below uid 60.
func identities(users int) (uids []int) {
	for uid := 1; uid < 60 && len(uids) < min(users, 12); uid++ {
		if _, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			uids = append(uids, uid)
		}
	}
	for uid := firstUID; len(uids) < users; uid++ {
		uids = append(uids, uid)
	}
	return uids
}

// User is one of the site's, with the places that mailferry's configuration has
// for him.
type User struct {
	Name      string
	UID, GID  int
	Home      string
	Spool     string // the mbox that is INBOX
	Folders   string // the directory of the other mboxes
	Maildir   string
	Semaphore string
	Mirror    string
	Gate      string

	client sync.Mutex // a client changes one user's mail at a time, so that the ledger knows the order
}

// Site is the files of a mail server.
//
//	DIR/spool/USER        INBOX; the directory has mode 1777
//	DIR/home/USER/mail/   mailboxes
//	DIR/semaphores/USER
//	DIR/state/            for mailferry
//	DIR/run/              Dovecot's
type Site struct {
	Dir   string
	Users []*User
}

// NewSite makes a server whose users are on mbox and have no mail. Everybody
// must get through the directories above dir.
func NewSite(tb testing.TB, dir string, users int) *Site {
	tb.Helper()
	s := &Site{Dir: dir}
	s.mkdir(tb, "", 0o755, 0)
	s.mkdir(tb, "spool", 0o777|os.ModeSticky, 0)
	for _, name := range []string{"home", "semaphores", "run"} {
		s.mkdir(tb, name, 0o755, 0)
	}
	s.mkdir(tb, "state", 0o711, 0)
	for i, uid := range identities(users) {
		s.Users = append(s.Users, s.newUser(tb, i, uid))
	}
	return s
}

func (s *Site) newUser(tb testing.TB, i, uid int) *User {
	tb.Helper()
	name := fmt.Sprintf("live%d", i)
	home := filepath.Join(s.Dir, "home", name)
	u := &User{
		Name: name, UID: uid, GID: uid, Home: home,
		Spool: filepath.Join(s.Dir, "spool", name), Folders: filepath.Join(home, "mail"), Maildir: filepath.Join(home, "Maildir"),
		Semaphore: filepath.Join(s.Dir, "semaphores", name), Mirror: filepath.Join(home, ".mailstate"), Gate: filepath.Join(home, ".mailstate.lock"),
	}
	s.mkdir(tb, filepath.Join("home", name), 0o700, u.UID)
	s.mkdir(tb, filepath.Join("home", name, "mail"), 0o700, u.UID)
	err := u.as(func() error { return os.WriteFile(u.Spool, nil, 0o600) })
	if err != nil {
		tb.Fatal(err)
	}
	sem, err := semaphore.For(u.Semaphore)
	if err == nil {
		err = sem.Enroll(semaphore.Meta{Epoch: 1})
	}
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// mkdir makes a directory of a user's, or of root's, whose gid is the uid.
func (s *Site) mkdir(tb testing.TB, name string, mode os.FileMode, uid int) {
	tb.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chown(path, uid, uid); err != nil {
		tb.Fatal(err)
	}
}

// known reports whether the user has an entry in the user database.
func (u *User) known() bool { return u.UID < firstUID }

// as runs work with the identity of the user.
func (u *User) as(work func() error) error {
	return safefs.AsUser(safefs.Identity{UID: u.UID, GID: u.GID}, work)
}

// State is what the semaphore says now.
func (u *User) State() semaphore.State {
	state, err := semaphore.Get(filepath.Dir(u.Semaphore), u.Name)
	if err != nil {
		return semaphore.Hold // as every reader has to take it
	}
	return state
}
