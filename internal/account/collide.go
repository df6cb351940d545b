package account

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Collision is something of a user's that is another's, too, or that he
// himself needs for something else.
type Collision struct {
	Users [2]string // the one whom it stops, and the other or himself again
	What  [2]string // it is to each of them: "uid", "spool", "maildir", "folders", "semaphore", ...
	Path  string    // of both, or of the one that lies in the other; for a uid, the number
}

// claim is a path that a user needs for himself.
type claim struct {
	path  string
	order string // sorts a directory right before what lies in it
	user  string
	what  string
	tree  bool // what lies below is his, too
	told  bool // its collision has been found
}

// Collisions finds those users of a list who share a uid, and the paths that
// two need, or one for two purposes. If it is one path, it is a collision of
// both. If one lies in a directory whose content is all another's mail, it is
// a collision of this other alone: nobody shall be able to stop a user by a
// home directory above his. Users with a Problem count for nothing.
//
// Each uid and path of a user has one collision at most, with the first whom
// it is found with: thousands of users may share a home.
func Collisions(list []Account) []Collision {
	return append(sharedUIDs(list), sharedPaths(list)...)
}

// Collide notes in each account of a list its Collisions with the list and
// with others.
func Collide(list, others []Account) {
	at := make(map[string]int, len(list))
	for i := range list {
		at[list[i].Name] = i
		list[i].Collisions = nil
	}
	all := slices.Clone(list)
	for _, o := range others {
		if _, listed := at[o.Name]; !listed {
			all = append(all, o)
		}
	}
	for _, c := range Collisions(all) {
		if i, listed := at[c.Users[0]]; listed {
			list[i].Collisions = append(list[i].Collisions, c)
		}
	}
}

func sharedUIDs(list []Account) (found []Collision) {
	first := map[int]*claim{}
	for _, a := range list {
		if a.Problem != nil {
			continue
		}
		c := &claim{path: strconv.Itoa(a.UID), user: a.Name, what: "uid"}
		if other := first[a.UID]; other != nil {
			found = append(other.tell(found, c), c.with(other))
		} else {
			first[a.UID] = c
		}
	}
	return found
}

// sharedPaths sorts all claims so that what lies in a directory comes behind
// it, and compares each with the claims that it lies in.
func sharedPaths(list []Account) (found []Collision) {
	claims := claimsOf(list)
	slices.SortStableFunc(claims, func(a, b claim) int { return cmp.Compare(a.order, b.order) })
	var around []*claim // outermost first
	for i := range claims {
		c := &claims[i]
		for len(around) > 0 && !within(c.path, around[len(around)-1].path) {
			around = around[:len(around)-1]
		}
		same := false
		for _, a := range around {
			if a.excludes(c) {
				found = a.tell(found, c)
			}
			if a.path == c.path {
				same = true
				if a.user != c.user {
					found = c.tell(found, a)
				}
			}
		}
		if !same || c.tree && !around[len(around)-1].tree {
			around = append(around, c)
		}
	}
	return found
}

// tell adds the collision of a claim with another, if it is its first.
func (a *claim) tell(found []Collision, c *claim) []Collision {
	if a.told {
		return found
	}
	a.told = true
	return append(found, a.with(c))
}

// excludes reports whether another claim may not be at or below this one.
func (a *claim) excludes(c *claim) bool {
	switch {
	case a.path == c.path:
		return true
	case a.user == c.user && a.what == "folders":
		return c.what == "folders" // his spool, Maildir and mirror may lie among his folders
	}
	return a.tree
}

// with is the collision of a claim with another, at the inner one's path.
func (a *claim) with(c *claim) Collision {
	path := a.path
	if len(c.path) > len(path) {
		path = c.path
	}
	return Collision{[2]string{a.user, c.user}, [2]string{a.what, c.what}, path}
}

func claimsOf(list []Account) (claims []claim) {
	for _, a := range list {
		if a.Problem != nil {
			continue
		}
		add := func(path, what string, tree bool) {
			claims = append(claims, claim{path, strings.ReplaceAll(path, "/", "\x00"), a.Name, what, tree, false})
		}
		add(a.Spool, "spool", false)
		add(a.Spool+".lock", "dotlock of the spool", false)
		add(a.Maildir, "maildir", true)
		for _, f := range a.Folders {
			add(f, "folders", true)
		}
		add(a.Semaphore, "semaphore", false)
		add(a.Semaphore+".meta", "semaphore's meta", false)
		add(a.Mirror, "mirror", false)
		add(a.Gate, "gate", false)
	}
	return slices.DeleteFunc(claims, func(c claim) bool { return !strings.HasPrefix(c.path, "/") }) // no template, no claim
}

// within reports whether a clean path is a directory or lies in it.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/' || dir == "/")
}
