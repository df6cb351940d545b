package mailgen

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
)

// SiteOptions say what mail server to make.
type SiteOptions struct {
	Users    int      // names that will be asked for
	Seed     uint64   // the same seed gives the same files
	Load     Load     // how much mail they have; the zero value is Tiny
	Problems float64  // share of users with a problem, at least one for each of Problems when above 0
	Codes    []string // problems are only those with these codes; nil: all
	FirstUID int      // of the first user, the others count up from it; 0: 20000
	Sticky   bool     // a spool directory of mode 1777, not 2775 with group mail
}

// Load is how much mail the users of a site have.
type Load struct {
	Messages func(*rand.Rand) int // messages of a mailbox
	Size     func(*rand.Rand) int // octets of content of a message, MinSize at least
}

// Tiny is for tests of thousands of users: a few messages of 384 octets to 2 KiB.
var Tiny = Load{
	Messages: func(r *rand.Rand) int { return r.IntN(7) },
	Size:     func(r *rand.Rand) int { return MinSize + r.IntN(r.IntN(1600)+64) },
}

// Office is for demonstrations: about 20 messages in a mailbox, most of them a few
// KiB, some with attachments of up to 1 MiB; about 1.5 MiB a user.
var Office = Load{
	Messages: func(r *rand.Rand) int { return int(min(12*math.Exp(r.NormFloat64()), 1000)) },
	Size:     func(r *rand.Rand) int { return min(MailSize(r)/2+MinSize, 1<<20) },
}

// Severities of SiteUser, the words of reports.
const (
	Sound  = ""       // nothing to report: the user is migrated
	Info   = "info"   // the user is migrated
	Warn   = "warn"   // the user is migrated
	Refuse = "refuse" // the user is left alone
)

// SiteUser is a user and what a look at him should bring up.
type SiteUser struct {
	Name     string
	UID, GID int    // 0 for a name that the users file lacks
	Home     string // absolute
	Spool    string // the mbox that is INBOX; may be missing

	Code     string   // of the finding to expect, "" for a sound user
	Case     string   // what exactly is the matter; "" for a sound user
	Severity string   // Sound, Info, Warn or Refuse
	Also     []string // codes that the same fault can't but bring up as well

	Mailboxes []SiteMailbox // what can be read of his mail, INBOX first
	Messages  int           // in all of them
	Bytes     int64         // in all of them
}

// Migrates reports whether the user is to be migrated, rather than left alone.
func (u SiteUser) Migrates() bool { return u.Severity != Refuse }

// SiteSummary is what a site was meant to be.
type SiteSummary struct {
	Dir       string
	Config    string // DIR/mailferry.toml
	UsersFile string // DIR/passwd, user:uid:gid:home lines
	NamesFile string // DIR/names, every name to ask for, one a line
	Users     []SiteUser
	Messages  int
	Bytes     int64
}

// User finds a user by name, nil if there is none.
func (s *SiteSummary) User(name string) *SiteUser {
	for i := range s.Users {
		if s.Users[i].Name == name {
			return &s.Users[i]
		}
	}
	return nil
}

// site is a mail server being made.
//
//	DIR/passwd            users file: user:uid:gid:home
//	DIR/names             every name to ask for, for --users-from
//	DIR/mailferry.toml    configuration
//	DIR/spool/USER        INBOX, of USER, group mail
//	DIR/home/USER/mail/   mailboxes
//	DIR/semaphores/       empty: nobody is enrolled
//	DIR/state/            empty
type site struct {
	SiteOptions
	dir   string
	slots []slot // by user
}

// slot is the problem that a user gets; none: he is sound.
type slot struct {
	problem *problem
	nth     int // of the users with this problem
	first   int // index of the first user of a pair
}

const (
	firstUID = 20000
	mailGID  = 8 // of group mail in Debian's base-passwd; the number alone matters
)

// Site makes a mail server up in dir, which is empty or does not exist. Users
// own their files by number and need no entries in the user database, so it
// must be called by root, and users must get through the directories above. No
// user has another problem than SiteUser.Code and Also say.
//
// Not made, since files alone don't make them: held, migrated, not-enrolled,
// mirror-differs, maildir-mount, space, inodes, quota, dotlock-live.
func Site(dir string, o SiteOptions) (*SiteSummary, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := newSite(dir, o)
	if err != nil {
		return nil, err
	}
	if err := s.ground(); err != nil {
		return nil, err
	}
	sum := &SiteSummary{
		Dir: dir, Config: s.path("mailferry.toml"), UsersFile: s.path("passwd"), NamesFile: s.path("names"),
		Users: make([]SiteUser, o.Users),
	}
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for i := range sum.Users {
		group.Go(func() (err error) {
			sum.Users[i], err = s.user(i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, u := range sum.Users {
		sum.Messages += u.Messages
		sum.Bytes += u.Bytes
	}
	return sum, s.lists(sum.Users)
}

func newSite(dir string, o SiteOptions) (*site, error) {
	if o.Users <= 0 {
		return nil, errors.New("mailgen: a site needs users")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("mailgen: a site has files of many users, which only root can make")
	}
	o.FirstUID = cmp.Or(o.FirstUID, firstUID)
	if o.Load.Messages == nil {
		o.Load = Tiny
	}
	s := &site{SiteOptions: o, dir: dir, slots: make([]slot, o.Users)}
	return s, s.assign()
}

// assign gives the problems out, in turn and at even distances.
func (s *site) assign() error {
	if s.Problems <= 0 {
		return nil
	}
	turn := s.turn()
	if len(turn) == 0 {
		return fmt.Errorf("mailgen: no problem has a code of %q", s.Codes)
	}
	n := max(int(math.Round(s.Problems*float64(s.Users))), len(turn))
	if n > s.Users {
		return fmt.Errorf("mailgen: %d users are too few for %d problems", s.Users, n)
	}
	at := func(k int) int { return (2*k + 1) * s.Users / (2 * n) }
	for k := 0; k < n; k++ {
		p, nth := turn[k%len(turn)], k/len(turn)
		if p.pair && k+1 == n {
			break // half a pair is no problem
		}
		s.slots[at(k)] = slot{problem: p, nth: nth, first: at(k)}
		if p.pair {
			s.slots[at(k+1)] = slot{problem: p, nth: nth, first: at(k)}
			k++
		}
	}
	return nil
}

// turn lists the problems asked for, those of pairs twice.
func (s *site) turn() []*problem {
	var turn []*problem
	for i := range problems {
		p := &problems[i]
		if !s.wants(p.code) {
			continue
		}
		turn = append(turn, p)
		if p.pair {
			turn = append(turn, p)
		}
	}
	return turn
}

func (s *site) wants(code string) bool {
	for _, c := range s.Codes {
		if c == code {
			return true
		}
	}
	return s.Codes == nil
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// stranger is a uid that no user has.
func (s *site) stranger() int { return s.FirstUID + s.Users }

// name of a user: readable and, by its number, the only one.
func (s *site) name(i int) string {
	return fmt.Sprintf("%s%d", strings.ToLower(names[i%len(names)]), i)
}

// ground makes what all users share.
func (s *site) ground() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if there, err := os.ReadDir(s.dir); err != nil || len(there) > 0 {
		return errors.Join(err, fmt.Errorf("mailgen: %s is not empty", s.dir))
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if err := passable(s.dir); err != nil {
		return err
	}
	spool := fs.FileMode(0o775) | fs.ModeSetgid
	if s.Sticky {
		spool = 0o777 | fs.ModeSticky
	}
	var h hands
	h.mkdir(s.path("spool"), spool, 0, mailGID)
	h.mkdir(s.path("home"), 0o755, 0, 0)
	h.mkdir(s.path("semaphores"), 0o755, 0, 0)
	h.mkdir(s.path("state"), 0o700, 0, 0)
	h.write(s.path("mailferry.toml"), s.config(), 0o644, 0, 0)
	return h.err
}

// passable checks that everybody may go through dir and all above it.
func passable(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&1 == 0 {
			return fmt.Errorf("mailgen: users of a site can't get through %s, mode %v", dir, info.Mode())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (s *site) config() string {
	var b strings.Builder
	for _, line := range []struct{ key, value string }{
		{"users", "file:" + s.path("passwd")},
		{"spool", s.path("spool", "{user}")},
		{"maildir", "{home}/Maildir"},
		{"layout", "maildir++"},
		{"semaphore", s.path("semaphores", "{user}")},
		{"mirror", "{home}/.mailstate"},
		{"gate", "{home}/.mailstate.lock"},
		{"state", s.path("state")},
		{"profile", "dovecot"},
		{"grace", "0s"}, // no agent is at work there
	} {
		fmt.Fprintf(&b, "%s = %q\n", line.key, line.value)
	}
	b.WriteString("folders = [\"{home}/mail\"]\nlocks = [\"dotlock\", \"fcntl\"]\nmin-uid = 1000\n")
	return b.String()
}

// lists writes the users file and the names.
func (s *site) lists(users []SiteUser) error {
	var passwd, names strings.Builder
	passwd.WriteString("# user:uid:gid:home\n")
	for _, u := range users {
		fmt.Fprintln(&names, u.Name)
		if u.UID != 0 {
			fmt.Fprintf(&passwd, "%s:%d:%d:%s\n", u.Name, u.UID, u.GID, u.Home)
		}
	}
	var h hands
	h.write(s.path("passwd"), passwd.String(), 0o644, 0, 0)
	h.write(s.path("names"), names.String(), 0o644, 0, 0)
	return h.err
}
