package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// Looking before leaping
//
// An account is looked at as a whole before anything is written for it: one
// check that fails does not keep the next from being made, so that an admin
// reads all that is wrong at once. Root looks at what root alone can write: the
// user database, the semaphore, the state directory, the directories above the
// home, a spool's list of names. All else is looked at as the user, so that
// what he can't read is not read, and nothing is changed by it: files are
// opened without setting their atime, on which "you have new mail" depends.

// Inspection is what a look at an account brought up.
type Inspection struct {
	User     string    `json:"user"`
	State    string    `json:"state"` // what the semaphore says: mbox, hold or maildir; "" if there is none
	Refused  bool      `json:"refused"`
	Findings []Finding `json:"findings"`

	mailboxes []MailboxPlan
	need      need
	room      room
	more      map[string]int // findings of a code beyond maxFindings
}

// maxFindings bounds what is said under one code: a tree of 5,000 folders that
// others can read is one thing to know, not 5,000.
const maxFindings = 10

// add notes a finding. A code that is not in the list refuses: what nobody has
// thought of is not safe.
func (i *Inspection) add(code, path, format string, args ...any) {
	c, known := codes[code]
	if !known {
		c = codes["inspection-failed"]
	}
	i.Refused = i.Refused || c.severity == Refuse
	if i.count(code) >= maxFindings {
		if i.more == nil {
			i.more = map[string]int{}
		}
		i.more[code]++
		return
	}
	i.Findings = append(i.Findings, Finding{
		Code: code, Severity: c.severity, Path: path, Text: fmt.Sprintf(format, args...), Advice: i.personal(c.advice, path),
	})
}

func (i *Inspection) count(code string) (n int) {
	for _, f := range i.Findings {
		if f.Code == code {
			n++
		}
	}
	return n
}

// Has reports whether a look brought up a code.
func (i *Inspection) Has(code string) bool { return i.count(code) > 0 }

// personal fills in who and what an advice is about. Users choose names of
// files, and admins copy commands.
func (i *Inspection) personal(advice, path string) string {
	path = shellWord(path)
	return strings.NewReplacer("USER", shellWord(i.User), "FILE", path, "HOME", path).Replace(advice)
}

// shellWord quotes a word for a POSIX shell, where it needs to be.
func shellWord(s string) string {
	special := func(r rune) bool {
		return r > 'z' || !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || strings.ContainsRune("/._-", r))
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// end says how many findings were left out, and brings the gravest to the top.
func (i *Inspection) end() {
	for at, f := range i.Findings {
		if n := i.more[f.Code]; n > 0 {
			i.Findings[at].Text += fmt.Sprintf("; and %d more like it", n)
			delete(i.more, f.Code)
		}
	}
	slices.SortStableFunc(i.Findings, func(a, b Finding) int { return int(b.Severity) - int(a.Severity) })
}

// Inspector looks at accounts of a site. It may be used by several goroutines.
type Inspector struct {
	FreeFloor int64 // bytes that must stay free on the filesystem of a Maildir

	site    Site
	groups  groups
	spools  spools
	quota   func(fd, kind, id int) (dqblk, error)
	maxFile int64 // bytes that this process may write into a file
}

// NewInspector prepares to look at accounts of a site. users are those of the
// user database, of whom is asked who else is in a group; without them no
// home may be group-writable.
func NewInspector(s Site, users []account.User) *Inspector {
	return &Inspector{site: s, groups: groups{users: users}, quota: getQuota, maxFile: fileLimit()}
}

// Inspect looks at one account and changes nothing; messages are not read,
// their number is estimated. What is wrong, with the account or with looking at
// it, is among the findings.
func (in *Inspector) Inspect(a account.Account) *Inspection {
	return in.inspect(a, estimate)
}

// counter counts the messages of a mailbox of so many bytes.
type counter func(f *mailboxFile) (MailboxPlan, error)

func (in *Inspector) inspect(a account.Account, count counter) *Inspection {
	i := &Inspection{User: a.Name, Findings: []Finding{}}
	defer i.end()
	if !in.identify(a, i) {
		return i
	}
	l := &look{in: in, a: a, i: i, count: count, moved: in.semaphore(a, i)}
	in.above(a, i)
	l.parked, l.listed = in.spools.parked(filepath.Dir(a.Spool))
	l.record, _ = journal.ReadStaging(in.site.State, a.Name) // one that can't be read records nothing
	group, err := spoolGroup(a)
	if err != nil {
		group = 0 // the look at the spool will say what is wrong with it
	}
	err = safefs.AsUser(safefs.Identity{UID: a.UID, GID: a.GID, Groups: a.Groups, Spool: group}, l.look)
	if err != nil {
		i.add("inspection-failed", "", "%v", err)
	}
	if l.homeGroup != 0 && !in.groups.private(l.homeGroup, a.User) {
		i.add("home-writable", a.Home, "can be written by group %d, in which others are", l.homeGroup)
	}
	return i
}

// identify judges who the user is, and reports whether his account can be
// looked at: nobody works as root for a user.
func (in *Inspector) identify(a account.Account, i *Inspection) bool {
	switch {
	case errors.Is(a.Problem, account.ErrUnknown):
		i.add("no-user", "", "the user database does not know %q", a.Name)
		return false
	case a.Problem != nil:
		i.add("user-invalid", "", "%v", a.Problem)
		return false
	}
	for _, c := range a.Collisions {
		in.collision(a, c, i)
	}
	switch {
	case a.UID <= 0 || a.GID <= 0:
		i.add("system-user", "", "has uid %d and gid %d", a.UID, a.GID)
		return false
	case a.UID < in.site.MinUID:
		i.add("system-user", "", "has uid %d, and min-uid is %d", a.UID, in.site.MinUID)
	}
	return true
}

func (in *Inspector) collision(a account.Account, c account.Collision, i *Inspection) {
	own, other := 0, 1
	if c.Users[0] != a.Name {
		own, other = 1, 0
	}
	if c.What[own] == "uid" {
		i.add("shared-uid", "", "uid %s is that of %s as well", c.Path, c.Users[other])
		return
	}
	i.add("collision", c.Path, "is in the %s of this user and in the %s of %s", c.What[own], c.What[other], c.Users[other])
}

// semaphore reads what the authority says, and reports whether the user's mail is
// elsewhere than in his mboxes, or may be: what lies about is his, and no obstacle.
func (in *Inspector) semaphore(a account.Account, i *Inspection) (moved bool) {
	sem, err := semaphore.For(a.Semaphore)
	state, meta := semaphore.Hold, semaphore.Meta{}
	if err == nil {
		state, err = sem.Get()
		meta, _ = sem.Meta() // one that can't be read tells nothing
	}
	recorded, untouched := in.recorded(a.Name, state, meta), ""
	if recorded != "" {
		untouched = "; " + recorded + "; nothing of his is touched"
	}
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing && recorded != "":
		i.add("record-differs", a.Semaphore, "is not there%s", untouched)
	case missing:
		i.add("not-enrolled", a.Semaphore, "is not there")
	case err != nil && recorded != "":
		i.add("record-differs", a.Semaphore, "%v%s", err, untouched)
	case err != nil:
		i.add("semaphore-unreadable", a.Semaphore, "%v", err)
	case state == semaphore.Hold:
		i.add("held", a.Semaphore, "says hold%s%s", heldBy(a.Name, meta), untouched)
	case state == semaphore.Maildir:
		i.add("migrated", a.Semaphore, "says maildir%s", since(meta))
	case recorded != "":
		i.add("record-differs", a.Semaphore, "says mbox%s%s", since(meta), untouched)
	}
	if !missing {
		i.State = state.String()
	}
	return recorded != "" || i.State == semaphore.Maildir.String()
}

// above looks at the directories above the home, which must be root's or the
// user's own.
func (in *Inspector) above(a account.Account, i *Inspection) {
	if !usesHome(a) {
		return
	}
	for path := filepath.Dir(a.Home); path != "/"; path = filepath.Dir(path) {
		dir, err := safefs.OpenFor(path, a.UID)
		var untrusted *safefs.Untrusted
		switch {
		case errors.As(err, &untrusted):
			i.add("home-untrusted", a.Home, "%v", err)
			return
		case err != nil:
			continue // said of the home itself
		}
		info, err := dir.Stat()
		dir.Close()
		if err == nil && info.Mode()&(0o002|fs.ModeSticky) == 0o002 {
			i.add("home-untrusted", a.Home, "everybody can rename it: %q has mode %04o", path, info.Mode().Perm())
			return
		}
	}
}

// usesHome reports whether something of an account lies in the home.
func usesHome(a account.Account) bool {
	return below(a.Home, a.Spool, a.Maildir, a.Mirror, a.Gate) || below(a.Home, a.Folders...)
}

// below reports whether one of the paths lies in a directory.
func below(dir string, paths ...string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return p == dir || strings.HasPrefix(p, dir+"/") })
}

// spools knows what lies parked in the directories of spools: one listing of a
// directory serves all who have their mail there.
type spools struct {
	mu    sync.Mutex // of lists
	lists map[string]*spoolList
}

type spoolList struct {
	once   sync.Once
	parked map[string][]string // by the name that it had
	ok     bool
}

// parked lists what is parked in a directory of root's; false for any other.
func (s *spools) parked(path string) (map[string][]string, bool) {
	s.mu.Lock()
	if s.lists == nil {
		s.lists = map[string]*spoolList{}
	}
	list := s.lists[path]
	if list == nil {
		list = &spoolList{}
		s.lists[path] = list
	}
	s.mu.Unlock()
	list.once.Do(func() {
		dir, err := safefs.OpenFor(path, 0)
		if err != nil {
			return
		}
		defer dir.Close()
		list.parked, err = parkedIn(dir)
		list.ok = err == nil
	})
	return list.parked, list.ok
}

// parkedIn lists what is parked in a directory.
func parkedIn(dir *safefs.Dir) (map[string][]string, error) {
	found := map[string][]string{}
	err := dir.Names(func(name string) error {
		if live, parked := unparked(name); parked {
			found[live] = append(found[live], name)
		}
		return nil
	})
	return found, err
}
