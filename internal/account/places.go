package account

import (
	"fmt"
	"path/filepath"
	"strings"
)

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

// CheckTemplate checks that a template is an absolute, clean path whose
// {words} are known, and that it has one of the words that it needs to be
// another path for each user.
func CheckTemplate(template string, needs ...string) error {
	if err := checkWords(template); err != nil {
		return err
	}
	rest := strings.ReplaceAll(template, "{home}", "/home")
	switch {
	case !filepath.IsAbs(template) && !strings.HasPrefix(template, "{home}"):
		return fmt.Errorf("%q is no absolute path", template)
	case strings.LastIndex(template, "{home}") > 0:
		return fmt.Errorf("%q: {home} is an absolute path, so it stands first", template)
	case strings.HasPrefix(template, "{home}") && template != "{home}" && template[len("{home}")] != '/':
		return fmt.Errorf("%q: a slash is missing after {home}", template)
	case strings.ContainsRune(template, 0):
		return fmt.Errorf("%q has a NUL in it", template)
	case hasDots(template):
		return fmt.Errorf("%q has a component \"..\"", template)
	case filepath.Clean(rest) == "/":
		return fmt.Errorf("%q is the root directory", template)
	}
	for _, word := range needs {
		if strings.Contains(template, word) {
			return nil
		}
	}
	if len(needs) > 0 {
		return fmt.Errorf("%q is one path for all users: it needs %s", template, strings.Join(needs, " or "))
	}
	return nil
}

// checkWords finds braces that are no word.
func checkWords(template string) error {
	for rest := template; ; {
		at := strings.IndexAny(rest, "{}")
		if at < 0 {
			return nil
		}
		end := strings.IndexByte(rest[at:], '}')
		if rest[at] == '}' || end < 0 {
			return fmt.Errorf("%q has a brace without its other half", template)
		}
		switch word := rest[at : at+end+1]; word {
		case "{user}", "{home}", "{uid}":
		default:
			return fmt.Errorf("%q has %s in it: known are {user}, {home}, {uid}", template, word)
		}
		rest = rest[at+end+1:]
	}
}
