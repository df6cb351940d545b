package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// check finds keys that contradict each other.
func (c *Config) check() error {
	return errors.Join(c.checkTemplates()...)
}

// named is a template and its key.
type named struct{ key, path string }

// checkTemplates finds templates that give one path for two purposes, or a
// path inside a directory that must hold nothing else.
func (c *Config) checkTemplates() (problems []error) {
	list := []named{{"spool", c.Spool}, {"maildir", c.Maildir}, {"semaphore", c.Semaphore}, {"mirror", c.Mirror}, {"gate", c.Gate}, {"state", c.State}}
	for _, f := range c.Folders {
		list = append(list, named{"folders", f})
	}
	for i, a := range list {
		for j, b := range list {
			if a.path == "" || b.path == "" || i == j {
				continue
			}
			if err := c.checkPair(a, b, i < j); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return problems
}

// checkPair tells whether b may be where it is, seen from a.
func (c *Config) checkPair(a, b named, first bool) error {
	outer, inner := filepath.Clean(a.path), filepath.Clean(b.path)
	rest, inside := strings.CutPrefix(inner, outer)
	switch {
	case outer == inner && first:
		return fmt.Errorf("%s: %s: %q is the path of %s, too (%s)", c.from(b.key), b.key, b.path, a.key, c.from(a.key))
	case !inside || rest == "" || rest[0] != '/':
		return nil
	case a.key == "maildir", a.key == "folders" && b.key == "folders", a.key == "spool", a.key == "semaphore", a.key == "mirror", a.key == "gate":
		return fmt.Errorf("%s: %s: %q lies in %s, %q (%s)", c.from(b.key), b.key, b.path, a.key, a.path, c.from(a.key))
	}
	return nil
}
