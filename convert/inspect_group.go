package convert

import (
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"mailferry/internal/account"
)

// groups knows who is in a group besides a user.
type groups struct {
	users []account.User // of the user database; empty if not known

	mu      sync.Mutex // of members
	members map[int]membership
}

type membership struct {
	names []string
	known bool
}

// private reports whether a group is the user's own and nobody else is in it.
// In doubt it is not.
func (g *groups) private(gid int, u account.User) bool {
	if gid != u.GID || len(g.users) == 0 {
		return false
	}
	for _, other := range g.users {
		if other.Name != u.Name && other.GID == gid {
			return false
		}
	}
	m := g.lookup(gid)
	for _, name := range m.names {
		if name != u.Name {
			return false
		}
	}
	return m.known
}

// lookup asks the group database, once for each group.
func (g *groups) lookup(gid int) membership {
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.members[gid]
	if !ok {
		if g.members == nil {
			g.members = map[int]membership{}
		}
		m = getentGroup(gid)
		g.members[gid] = m
	}
	return m
}

// getentGroup lists the members of a group that its entry names
// (name:password:gid:members, group(5)). A group without an entry has none.
func getentGroup(gid int) (m membership) {
	out, err := exec.Command("getent", "group", strconv.Itoa(gid)).Output()
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 2 { // no such key, getent(1)
		return membership{known: true}
	}
	fields := strings.Split(strings.TrimSuffix(string(out), "\n"), ":")
	if err != nil || len(fields) != 4 {
		return membership{}
	}
	m.known = true
	for name := range strings.SplitSeq(fields[3], ",") {
		if name != "" {
			m.names = append(m.names, name)
		}
	}
	return m
}
