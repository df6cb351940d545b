package doctor

import (
	"slices"
	"strings"
)

// The locks of an mbox.
const (
	dotlock = "dotlock"
	fcntl   = "fcntl"
	flock   = "flock"
)

// locker is a program that locks mboxes.
type locker struct {
	who    string
	takes  []string // in this order
	writes bool
	waits  bool // for one lock, while it keeps another
}

// locks enters a program of others, which take one lock after the other and
// keep those that they have.
func (e *examination) locks(who string, takes []string, writes bool) {
	l := locker{who, takes, writes, true}
	if !slices.ContainsFunc(e.lockers, func(o locker) bool { return o.who == who && slices.Equal(o.takes, takes) }) {
		e.lockers = append(e.lockers, l)
	}
}

// postfixLocks are those of mailbox_delivery_lock. In whatever order they stand
// there, the dotlock is first (postfix global/mbox_open.c).
func postfixLocks(setting string) (takes []string) {
	words := strings.FieldsFunc(setting, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	for _, kind := range []string{dotlock, fcntl, flock} {
		if slices.Contains(words, kind) {
			takes = append(takes, kind)
		}
	}
	return takes
}

// eximLocks are those of an appendfile transport, in its order.
func eximLocks(t driver) (takes []string) {
	for _, l := range []struct{ option, kind string }{{"use_lockfile", dotlock}, {"use_fcntl_lock", fcntl}, {"use_flock_lock", flock}} {
		if t.is(l.option) {
			takes = append(takes, l.kind)
		}
	}
	return takes
}

// dovecotLocks are those of mbox_read_locks or mbox_write_locks. dotlock_try
// goes on without, and so excludes nobody; lockf is fcntl on Linux.
func dovecotLocks(setting string) (takes []string) {
	for _, word := range strings.Fields(setting) {
		switch word {
		case dotlock, fcntl, flock:
			takes = append(takes, word)
		case "lockf":
			takes = append(takes, fcntl)
		}
	}
	return takes
}

// parseProcmailLocks reads what procmail -v says; false if it does not say.
func parseProcmailLocks(lines []string) (takes []string, told bool) {
	for _, line := range lines {
		rest, ok := strings.CutPrefix(line, "Locking strategies:")
		if !ok {
			continue
		}
		for _, word := range strings.Split(rest, ",") {
			switch strings.TrimSpace(word) {
			case "dotlocking":
				takes = append(takes, dotlock)
			case "fcntl()", "lockf()":
				takes = append(takes, fcntl)
			case "flock()":
				takes = append(takes, flock)
			}
		}
		return slices.Compact(takes), true
	}
	return nil, false
}

// siteLocks are those that mailferry and its agent take.
func (e *examination) siteLocks() (takes []string) {
	for _, l := range []struct {
		taken bool
		kind  string
	}{{e.config.Locks.Dotlock, dotlock}, {e.config.Locks.Fcntl, fcntl}, {e.config.Locks.Flock, flock}} {
		if l.taken {
			takes = append(takes, l.kind)
		}
	}
	return takes
}

// checkLocks compares the locks of all programs that touch mboxes, two by two.
func (e *examination) checkLocks() {
	e.lockers = append(e.lockers, locker{who: "mailferry", takes: e.siteLocks(), writes: true}) // all or none (mbox.Lock)
	found := len(e.Findings)
	for i, a := range e.lockers {
		for _, b := range e.lockers[:i] {
			e.comparedLocks(b, a)
		}
	}
	if found == len(e.Findings) && len(e.lockers) > 1 {
		e.find("locks", Fine, "locks", "", "%s exclude one another", strings.Join(lockersOf(e.lockers), "; "))
	}
}

func lockersOf(list []locker) (words []string) {
	for _, l := range list {
		words = append(words, l.who+" by "+strings.Join(l.takes, ", "))
	}
	return words
}

// comparedLocks judges two programs. Two readers need not exclude each other.
func (e *examination) comparedLocks(a, b locker) {
	if !a.writes && !b.writes {
		return
	}
	first, second := common(a.takes, b.takes), common(b.takes, a.takes)
	both := strings.Join(lockersOf([]locker{a, b}), ", ")
	switch {
	case len(first) == 0:
		e.find("locks", Do, "locks-disjoint", "Give both a lock in common, and name all locks of all programs in locks.",
			"%s: they don't exclude each other: one writes what the other overwrites, or reads half of it", both)
	case a.waits && b.waits && !slices.Equal(first, second):
		e.find("locks", Do, "lock-order", "Set mbox_write_locks = dotlock fcntl in Dovecot, the order of all other programs.",
			"%s: when they meet, each keeps the one lock and waits for the other, for up to 2 minutes", both)
	}
}

// common are those of a that are in b, in a's order.
func common(a, b []string) (list []string) {
	for _, x := range a {
		if slices.Contains(b, x) {
			list = append(list, x)
		}
	}
	return list
}
