package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"mailferry/internal/safefs"
)

// maxRules bounds what is read of a file of rules, in bytes.
const maxRules = 64 << 10

// ruleFiles are the files that say where a user's mail goes, and who reads a
// line of each.
var ruleFiles = []struct {
	name string
	read func(r *ruleReader, line string) (target string)
}{
	{".procmailrc", (*ruleReader).procmail},
	{".mailfilter", (*ruleReader).maildrop},
	{".forward", (*ruleReader).forward},
}

// rules looks for rules of the user that name an mbox. Lines that ask the
// semaphore are as they should be.
func (l *look) rules() {
	dir, err := safefs.OpenFor(l.a.Home, l.a.UID)
	if err != nil {
		return // said of the home
	}
	defer dir.Close()
	for _, file := range ruleFiles {
		path := filepath.Join(l.a.Home, file.name)
		text, err := readRules(dir, file.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			l.i.add("delivery-rule", path, "was not read: %v", reason(err))
			continue
		}
		r := &ruleReader{vars: map[string]string{"HOME": l.a.Home, "LOGNAME": l.a.Name, "USER": l.a.Name, "ORGMAIL": l.a.Spool, "DEFAULT": l.a.Spool, "MAIL": l.a.Spool}}
		r.own = append([]string{l.a.Spool}, l.a.Folders...)
		for n, line := range strings.Split(text, "\n") {
			target := file.read(r, strings.TrimSpace(line))
			if target != "" && target != l.a.Maildir {
				l.i.add("delivery-rule", path, "line %d delivers to %q", n+1, target)
			}
		}
	}
}

// readRules reads a file of rules.
func readRules(dir *safefs.Dir, name string) (string, error) {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	leaveAtime(f)
	text, err := io.ReadAll(io.LimitReader(f, maxRules+1))
	if len(text) > maxRules {
		return "", fmt.Errorf("it is longer than %d bytes", maxRules)
	}
	return string(text), err
}

// ruleReader reads the lines of one file.
type ruleReader struct {
	vars map[string]string
	own  []string // the spool, and the folders

	action bool // procmail: the next line that is no condition is an action
	asks   bool // the rule asks the semaphore
}

var (
	assignment = regexp.MustCompile(`^(\w+)\s*=\s*(\S.*)$`)
	variable   = regexp.MustCompile(`\$(\w+|\{\w+\})`)
)

// assign takes an assignment, and returns the mbox that it makes the default.
func (r *ruleReader) assign(line string) (target string, ok bool) {
	m := assignment.FindStringSubmatch(line)
	if m == nil {
		return "", false
	}
	value := r.expand(unquoted(m[2]))
	r.vars[m[1]] = value
	if (m[1] == "DEFAULT" || m[1] == "ORGMAIL") && !r.asks {
		return r.mbox(value), true
	}
	return "", true
}

func unquoted(s string) string {
	return strings.Trim(strings.TrimSuffix(strings.TrimSpace(s), ";"), `"'`)
}

func (r *ruleReader) expand(s string) string {
	return variable.ReplaceAllStringFunc(s, func(name string) string {
		if value, ok := r.vars[strings.Trim(name, "${}")]; ok {
			return value
		}
		return name
	})
}

// mbox returns a target that is an mbox: not a directory, as the slash at its
// end says, nor a program, an address or nothing at all.
func (r *ruleReader) mbox(target string) string {
	switch {
	case target == "", target == "/dev/null", strings.HasSuffix(target, "/"), strings.HasSuffix(target, "/."):
		return ""
	case strings.HasPrefix(target, "|"):
		return r.written(target)
	case strings.HasPrefix(target, "!"):
		return ""
	}
	return target
}

// written returns the mailbox of the user that a command names.
func (r *ruleReader) written(command string) string {
	for _, path := range r.own {
		if strings.Contains(command, path) {
			return path
		}
	}
	return ""
}

// procmail reads a line of procmailrc(5).
func (r *ruleReader) procmail(line string) string {
	switch {
	case line == "" || line[0] == '#':
		return ""
	case strings.HasPrefix(line, ":0"):
		r.action, r.asks = true, false
		return ""
	case line[0] == '*':
		r.asks = r.asks || strings.Contains(line, "MAILSTATE")
		return ""
	case line[0] == '{' || line[0] == '}':
		r.action = false
		return ""
	case !r.action:
		target, _ := r.assign(line)
		return target
	}
	r.action = false
	if r.asks {
		return ""
	}
	return r.mbox(r.expand(unquoted(line)))
}

// maildrop reads a line of maildropfilter(7).
func (r *ruleReader) maildrop(line string) string {
	if line == "" || line[0] == '#' {
		return ""
	}
	if line[0] == '}' {
		r.asks = false
	}
	if strings.Contains(line, "MAILSTATE") && strings.Contains(line, "if") {
		r.asks = true
	}
	if target, ok := r.assign(line); ok {
		return target
	}
	word, target, _ := strings.Cut(line, " ")
	if r.asks || word != "to" && word != "cc" {
		return ""
	}
	return r.mbox(r.expand(unquoted(target)))
}

// forward reads a line of .forward: targets with commas between (aliases(5)).
func (r *ruleReader) forward(line string) string {
	if strings.HasPrefix(line, "#") {
		return ""
	}
	for target := range strings.SplitSeq(line, ",") {
		target = unquoted(target)
		if strings.HasPrefix(target, "/") || strings.HasPrefix(target, "|") {
			if found := r.mbox(target); found != "" {
				return found
			}
		}
	}
	return ""
}
