package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailferry/internal/account"
	"mailferry/mbox"
)

// The setters of the table: each makes a function that reads a text into the
// field that it is given. Errors don't name the key; the caller does.

func template(field func(*Config) *string, needs ...string) func(*Config, string) error {
	return func(c *Config, text string) error {
		*field(c) = text
		return account.CheckTemplate(text, needs...)
	}
}

// optional lets a text be empty.
func optional(set func(*Config, string) error, field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, text string) error {
		if text == "" {
			*field(c) = ""
			return nil
		}
		return set(c, text)
	}
}

func path(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, text string) error {
		*field(c) = filepath.Clean(text)
		return checkPath(text)
	}
}

// checkPath checks a path that is the same for all users.
func checkPath(text string) error {
	if strings.ContainsAny(text, "{}") {
		return fmt.Errorf("%q is one path for all users: it can't have {words}", text)
	}
	return account.CheckTemplate(text)
}

// program is an executable, or none.
func program(field func(*Config) *string) func(*Config, string) error {
	return optional(path(field), field)
}

func hook(field func(*Hooks) *string) func(*Config, string) error {
	return program(func(c *Config) *string { return field(&c.Hooks) })
}

func integer(field func(*Config) *int, least int) func(*Config, string) error {
	return func(c *Config, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n > 1<<31-1 {
			return fmt.Errorf("%q is no number", text)
		}
		if n < least {
			return fmt.Errorf("%d: at least %d", n, least)
		}
		*field(c) = n
		return nil
	}
}

func boolean(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, text string) error {
		yes, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q: choose true or false", text)
		}
		*field(c) = yes
		return nil
	}
}

func duration(field func(*Config) *time.Duration, least time.Duration) func(*Config, string) error {
	return func(c *Config, text string) error {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration such as 90s, 5m or 1h30m", text)
		}
		if d < least {
			return fmt.Errorf("%s: at least %s", d, least)
		}
		*field(c) = d
		return nil
	}
}

func size(field func(*Config) *int64) func(*Config, string) error {
	return func(c *Config, text string) (err error) {
		*field(c), err = ParseSize(text)
		return err
	}
}

// word maps one of a few words to its value.
func word[T any](field func(*Config) *T, words []string, values ...T) func(*Config, string) error {
	return func(c *Config, text string) error {
		at := slices.Index(words, text)
		if at < 0 {
			return fmt.Errorf("%q: choose one of %s", text, strings.Join(words, ", "))
		}
		*field(c) = values[at]
		return nil
	}
}

// items splits the text of a list.
func items(text string) []string {
	if text == "" {
		return nil
	}
	list := strings.Split(text, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func setFolders(c *Config, text string) error {
	c.Folders = items(text)
	for _, f := range c.Folders {
		if err := account.CheckTemplate(f, "{user}", "{home}", "{uid}"); err != nil {
			return err
		}
	}
	return nil
}

// setSemaphore keeps the authority out of homes: it is root's word.
func setSemaphore(c *Config, text string) error {
	c.Semaphore = text
	if strings.Contains(text, "{home}") {
		return fmt.Errorf("%q lies in the home, where the user could forge it: that is the mirror's place", text)
	}
	return account.CheckTemplate(text, "{user}")
}

func setLocks(c *Config, text string) error {
	c.Locks = mbox.LockOptions{}
	for _, kind := range items(text) {
		var taken *bool
		switch kind {
		case "dotlock":
			taken = &c.Locks.Dotlock
		case "fcntl":
			taken = &c.Locks.Fcntl
		case "flock":
			taken = &c.Locks.Flock
		default:
			return fmt.Errorf("%q: choose from dotlock, fcntl, flock", kind)
		}
		if *taken {
			return fmt.Errorf("%s stands there twice", kind)
		}
		*taken = true
	}
	if !c.Locks.Dotlock && !c.Locks.Fcntl && !c.Locks.Flock {
		return errors.New("without locks, mail that comes during a cutover would be lost: name those that the site's programs take")
	}
	return nil
}
