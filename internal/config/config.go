// Package config is what a site's admin has decided: one TOML file, waves of
// users beside it, environment variables and flags over it.
//
// Every key has one entry in a table, [Keys], from which the file, the flags,
// the environment variables, the checks and `config describe` all come. A flag
// counts more than an environment variable, that more than the file, that more
// than the default. What is unknown or wrong is an error that says where it
// stands; all errors are told at once.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// DefaultPath is the file that is read when none is named. It may be absent.
const DefaultPath = "/etc/mailferry/mailferry.toml"

// Config is a site's configuration, complete and checked in itself. The keys
// in Keys say more about each field.
type Config struct {
	Path string // of the file; "" if there is none

	Spool     string // templates, see account.Places
	Folders   []string
	Maildir   string
	Semaphore string
	Mirror    string
	Gate      string

	Users  string // see account.Load
	MinUID int

	Profile      mbox.Profile
	Quoting      message.Quoting
	EOL          mbox.EOL
	CorrectDates bool
	Layout       maildir.Folders
	Locks        mbox.LockOptions // which kinds

	State           string // directory
	Chunk           int    // users
	Jobs            int    // users at a time, at least 1
	CutoverJobs     int    // users at a time, at least 1
	MaxFailures     int    // users; 0: no limit
	Window          Window
	PauseBetween    time.Duration
	HoldLimit       time.Duration
	DrainLimit      time.Duration
	MaxRounds       int // at least 1
	Retries         int
	Grace           time.Duration
	Doveadm         string // path; "": none
	Postqueue       string // path; "": none
	Bandwidth       int64  // bytes a second; 0: no limit
	Nice            bool
	Order           Order
	FreeFloor       int64 // bytes
	AllowQuarantine bool

	Hooks Hooks
	Waves map[string]Wave

	settings map[string]Setting // by key, those that are no defaults
}

// Order is the order in which users are worked on.
type Order string

// The orders.
const (
	Listed   Order = "listed"    // as they were named
	Size     Order = "size"      // least mail first
	SizeDesc Order = "size-desc" // most mail first
)

// Hooks are executables, by the moment at which they run; "" for none.
type Hooks struct {
	BeforeHold, Drain, AfterFlip, AfterAbort string
}

// Setting is a value that is not the default, and where it comes from.
type Setting struct {
	Key  string // of Keys
	Text string // lists separated by commas
	From string // "FILE:LINE", "MAILFERRY_CHUNK" or "--chunk"
}

// Options say what Load reads.
type Options struct {
	Path   string              // of the file; "" for DefaultPath, which may be absent
	Getenv func(string) string // nil: no environment; an empty variable counts as unset
	Flags  []Setting
}

// Load reads the configuration and checks it in itself, without a look at the
// host beyond its files. The error joins all that is wrong, one line each.
func Load(o Options) (*Config, error) {
	c := &Config{Path: o.Path, Waves: map[string]Wave{}, settings: map[string]Setting{}}
	var problems []error
	for _, k := range keys {
		if err := k.set(c, k.Default); err != nil {
			problems = append(problems, fmt.Errorf("bug: default of %s: %w", k.Name, err))
		}
	}
	if o.Path == "" {
		c.Path = DefaultPath
	}
	dir := filepath.Join(filepath.Dir(c.Path), "conf.d")
	err := c.readFile()
	if o.Path == "" && errors.Is(err, fs.ErrNotExist) {
		c.Path, err = "", nil
	}
	problems = append(problems, err, c.readWaves(dir))
	if o.Getenv != nil {
		problems = append(problems, c.applyEnvironment(o.Getenv))
	}
	for _, s := range o.Flags {
		problems = append(problems, c.apply(s))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) applyEnvironment(getenv func(string) string) error {
	var problems []error
	for _, k := range keys {
		if text := getenv(k.Env()); text != "" {
			problems = append(problems, c.apply(Setting{k.Name, text, k.Env()}))
		}
	}
	return errors.Join(problems...)
}

// apply sets a key.
func (c *Config) apply(s Setting) error {
	k, ok := KeyByName(s.Key)
	if !ok {
		return fmt.Errorf("%s: %w", s.From, unknownKey(s.Key))
	}
	if err := k.set(c, s.Text); err != nil {
		return fmt.Errorf("%s: %w", s.From, err)
	}
	c.settings[s.Key] = s
	return nil
}

// With returns the configuration with one more setting, checked as Load does.
func (c *Config) With(s Setting) (*Config, error) {
	next := *c
	next.settings = maps.Clone(c.settings)
	if err := next.apply(s); err != nil {
		return nil, err
	}
	return &next, next.check()
}

// Text is the value of a key as text; "" for no key.
func (c *Config) Text(key string) string {
	if s, ok := c.settings[key]; ok {
		return s.Text
	}
	k, _ := KeyByName(key)
	return k.Default
}

// Settings are the values that are not defaults, in the order of Keys.
func (c *Config) Settings() []Setting {
	var list []Setting
	for _, k := range keys {
		if s, ok := c.settings[k.Name]; ok {
			list = append(list, s)
		}
	}
	return list
}

// Places are the templates of where mail lies.
func (c *Config) Places() account.Places {
	return account.Places{
		Spool: c.Spool, Folders: slices.Clone(c.Folders), Maildir: c.Maildir,
		Semaphore: c.Semaphore, Mirror: c.Mirror, Gate: c.Gate,
	}
}

// Scan is how mboxes are read.
func (c *Config) Scan() mbox.Options {
	return mbox.Options{Profile: c.Profile, EOL: c.EOL, Quoting: c.Quoting, CorrectDates: c.CorrectDates}
}

// from tells where a key's value comes from, for errors about several keys.
func (c *Config) from(key string) string {
	if s, ok := c.settings[key]; ok {
		return s.From
	}
	return "default"
}
