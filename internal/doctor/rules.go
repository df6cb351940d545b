package doctor

import (
	"os"
	"os/user"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// rules are the lines of a file that count: no comments, no empty lines, no
// indentation.
func rules(text string) (lines []string) {
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "--") {
			lines = append(lines, line)
		}
	}
	return lines
}

// likeness is how far a file of the host is what a recipe has.
type likeness int

const (
	unlike likeness = iota // it knows of no semaphore
	alike                  // it reads semaphores in a way of its own
	same
)

// assignment is a line that may stand before the rules of a recipe.
var assignment = regexp.MustCompile(`^[A-Za-z_]+ *=`)

// reset is one that takes back what the rules have set.
var reset = regexp.MustCompile(`^(LOCKFILE|DROPPRIVS|MAILSTATE|DEFAULT|EXITCODE) *=|^(DEFAULT|LOCKFILE)$`)

// likeRules compares rules of procmail or maildrop with a recipe's: these must
// stand there in one piece, with nothing before but assignments, and nothing
// behind that takes back what they set. mark is what tells of semaphores.
func likeRules(text, recipe, mark string) likeness {
	got, want := rules(text), rules(recipe)
	for i := 0; i+len(want) <= len(got); i++ {
		if slices.Equal(got[i:i+len(want)], want) && settled(got[:i], got[i+len(want):]) {
			return same
		}
	}
	return unlikeUnless(text, mark)
}

func settled(before, after []string) bool {
	sets := func(line string) bool {
		return assignment.MatchString(line) && !strings.HasPrefix(line, "INCLUDERC") && !strings.HasPrefix(line, "SWITCHRC")
	}
	return !slices.ContainsFunc(before, func(line string) bool { return !sets(line) }) && !slices.ContainsFunc(after, reset.MatchString)
}

// likeScript compares a whole file with a recipe's.
func likeScript(text, recipe, mark string) likeness {
	if slices.Equal(rules(text), rules(recipe)) {
		return same
	}
	return unlikeUnless(text, mark)
}

func unlikeUnless(text, mark string) likeness {
	if mark != "" && strings.Contains(text, mark) {
		return alike
	}
	return unlike
}

// semaphoreMark is what a file has in it that reads semaphores of this site.
func (e *examination) semaphoreMark() string {
	before, _, _ := strings.Cut(e.config.Semaphore, "{")
	return before
}

// checkRules looks at the rules of procmail and maildrop if these deliver, and
// enters their locks.
func (e *examination) checkRules() {
	if slices.Contains(e.agents, procmail) {
		e.rulesOf("procmail", procmailPaths, "procmail.md", "/etc/procmailrc")
		e.procmailBuild()
	}
	if slices.Contains(e.agents, maildrop) {
		e.rulesOf("maildrop", maildropPaths, "maildrop.md", "/etc/maildroprc")
		e.locks("maildrop", []string{dotlock, fcntl}, true) // as Debian's does
	}
}

func (e *examination) rulesOf(program string, paths []string, recipe, file string) {
	if path := e.system.find(paths); path != "" {
		version, _ := e.banner(paths, "-v") // without, it is a program of some version
		e.Programs = append(e.Programs, Program{program, versionIn(version), path})
	}
	text, err := e.system.read(file)
	if err != nil {
		e.find(program, Unknown, "not-told", "", "%s could not be read: %s", file, reason(err))
		return
	}
	switch likeRules(text, e.snippet(recipe, file), e.semaphoreMark()) {
	case same:
		e.find(program, Fine, "rules", "", "%s has the rules of the recipe, which take the gate: that closes the race", file)
	case alike:
		e.find(program, Unknown, "rules-other", "Compare them with the recipe.", "%s reads semaphores, but not by the rules of the recipe: whether it does what they do can't be told", file)
		e.suggest(recipe, file)
	default:
		e.find(program, Do, "rules-missing", "Put the rules of the recipe first.", "%s reads no semaphore: mail that comes after a flip goes into a new mbox", file)
		e.suggest(recipe, file)
	}
}

// procmailSpool is the directory of the mboxes that procmail -v tells; false
// if they are not named after users.
func procmailSpool(lines []string) (dir string, ok bool) {
	for _, line := range lines {
		if mailbox, ok := strings.CutPrefix(line, "Your system mailbox:"); ok {
			mailbox = strings.TrimSpace(mailbox)
			me, err := user.LookupId(strconv.Itoa(os.Getuid()))
			return path.Dir(mailbox), err == nil && path.Base(mailbox) == me.Username
		}
	}
	return "", false
}

// procmailBuild looks at what procmail was built with: locks, spool.
func (e *examination) procmailBuild() {
	said, err := e.banner(procmailPaths, "-v")
	takes, told := parseProcmailLocks(said)
	if err != nil || !told {
		e.find("procmail", Unknown, "not-told", "", "which locks it takes is not known")
		return
	}
	e.locks("procmail", takes, true)
	if dir, ok := procmailSpool(said); ok {
		e.sameSpool("procmail", dir+"/{user}")
	}
}
