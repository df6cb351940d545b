package account

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Passwd is the spec of the host's user database.
const Passwd = "passwd"

// overflowUID is whose the kernel says a file is when it can't say whose: of
// nobody, and of no user with mail (user_namespaces(7)).
const overflowUID = 65534

// Users are those of a user database, in its order.
type Users struct {
	list   []User
	index  map[string]int
	getent bool // who is not in the list may still be found by name
}

// CheckSpec checks the word for a user database: "passwd", or "file:" and an
// absolute path.
func CheckSpec(spec string) error {
	path, isFile := strings.CutPrefix(spec, "file:")
	switch {
	case spec == Passwd, isFile && filepath.IsAbs(path):
		return nil
	case isFile:
		return fmt.Errorf("%q: %q is no absolute path", spec, path)
	}
	return fmt.Errorf("%q: choose passwd, or file: and the path of a file with lines user:uid:gid:home", spec)
}

// Load reads a user database: "passwd" is what `getent passwd` prints,
// "file:PATH" has lines user:uid:gid:home. A database that can't be read to
// its end or has a malformed line is an error.
//
// A name service need not list everybody (sssd does not unless told to);
// Pick finds those, too.
func Load(ctx context.Context, spec string) (*Users, error) {
	if err := CheckSpec(spec); err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(spec, "file:"); ok {
		list, err := readFile(path)
		if err != nil {
			return nil, err
		}
		return newUsers(list, false), nil
	}
	list, err := getentPasswd(ctx)
	if err != nil {
		return nil, err
	}
	return newUsers(list, true), nil
}

// newUsers keeps the first entry of each name, as getpwnam(3) does; if a
// further one contradicts it, nobody can say which the mail belongs to.
func newUsers(list []User, getent bool) *Users {
	u := &Users{index: make(map[string]int, len(list)), getent: getent}
	for _, entry := range list {
		at, double := u.index[entry.Name]
		if !double {
			u.index[entry.Name] = len(u.list)
			u.list = append(u.list, entry)
			continue
		}
		first := &u.list[at]
		if same := first.UID == entry.UID && first.GID == entry.GID && first.Home == entry.Home; !same && first.Problem == nil {
			first.Problem = fmt.Errorf("the user database has him twice: uid %d, gid %d, home %q, and uid %d, gid %d, home %q",
				first.UID, first.GID, first.Home, entry.UID, entry.GID, entry.Home)
		}
	}
	return u
}

// All returns all users, without their supplementary groups.
func (u *Users) All() []User { return u.list }

// Find returns the user of that name, without his supplementary groups, if
// he is listed.
func (u *Users) Find(name string) (User, bool) {
	at, ok := u.index[name]
	if !ok {
		return User{}, false
	}
	return u.list[at], true
}

// Names are the names of those who may have mail: all with a uid of min or
// more, but never uid 0, nor nobody.
func (u *Users) Names(min int) []string {
	var names []string
	for _, user := range u.list {
		if user.UID >= min && user.UID > 0 && user.UID != overflowUID {
			names = append(names, user.Name)
		}
	}
	return names
}

// Pick returns the users of these names, in this order, with their
// supplementary groups. A name that nobody has stands in the list with
// ErrUnknown; a name is listed once, however often it was asked for.
func (u *Users) Pick(ctx context.Context, names []string) ([]User, error) {
	names = once(names)
	others, err := u.ask(ctx, names)
	if err != nil {
		return nil, err
	}
	picked := make([]User, len(names))
	var known []string
	for i, name := range names {
		user, ok := u.Find(name)
		if !ok {
			user, ok = others.Find(name)
		}
		if !ok {
			user = User{Name: name, UID: -1, GID: -1, Problem: ErrUnknown}
		}
		if user.Problem == nil {
			known = append(known, name)
		}
		picked[i] = user
	}
	if !u.getent {
		return picked, nil
	}
	groups, err := getentGroups(ctx, known)
	if err != nil {
		return nil, err
	}
	for i := range picked {
		if picked[i].Problem == nil {
			picked[i].Groups = without(groups[picked[i].Name], picked[i].GID)
		}
	}
	return picked, nil
}

// ask looks up by name who is not listed.
func (u *Users) ask(ctx context.Context, names []string) (*Users, error) {
	var unlisted []string
	for _, name := range names {
		if _, ok := u.Find(name); !ok && u.getent && CheckName(name) == nil {
			unlisted = append(unlisted, name)
		}
	}
	list, err := getentNames(ctx, unlisted)
	return newUsers(list, false), err
}

// once leaves out what came before.
func once(names []string) []string {
	seen := make(map[string]bool, len(names))
	var list []string
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	return list
}

func without(groups []int, gid int) []int {
	var rest []int
	for _, g := range groups {
		if g != gid {
			rest = append(rest, g)
		}
	}
	return rest
}
