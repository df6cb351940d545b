package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailferry/internal/account"
	"mailferry/internal/config"
)

// siteFlags are the flags of commands that work on a site's users: which
// configuration, which of its keys are set otherwise, and which users.
type siteFlags struct {
	path, usersFrom, wave string
	all, json             bool
	keys                  []*keyFlag
}

// add gives a command --config, --json and the flags of the state directory
// and of further keys.
func (f *siteFlags) add(cmd *cobra.Command, names ...string) {
	flags := cmd.Flags()
	flags.StringVar(&f.path, "config", "", "configuration `FILE` (default "+config.DefaultPath+", if it is there)")
	flags.BoolVar(&f.json, "json", false, "print JSON lines, the summary last")
	for _, name := range append([]string{"state"}, names...) {
		f.addKey(flags, name)
	}
}

// addUsers gives a command the flags that select users.
func (f *siteFlags) addUsers(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.usersFrom, "users-from", "", "users named in `FILE`, one a line, in that order; - for standard input")
	flags.BoolVar(&f.all, "all", false, "all users whose uid is min-uid or more")
	flags.StringVar(&f.wave, "wave", "", "users of the wave `NAME` of conf.d")
}

// addKey gives a command the flag of a key.
func (f *siteFlags) addKey(flags *pflag.FlagSet, name string) {
	key, ok := config.KeyByName(name)
	if !ok {
		panic("bug: no key " + name)
	}
	value := &keyFlag{key: key}
	f.keys = append(f.keys, value)
	usage := key.Help
	if key.Default != "" {
		usage += " (default " + key.Default + ")"
	}
	flag := flags.VarPF(value, key.Flag(), "", usage)
	if key.Type == config.Boolean {
		flag.NoOptDefVal = "true"
	}
}

// keyFlag is the flag of a key. What it says is read with the configuration.
type keyFlag struct {
	key   config.Key
	text  string
	given bool
}

func (k *keyFlag) Set(text string) error {
	k.text, k.given = text, true
	return nil
}

func (k *keyFlag) String() string { return k.text }

func (k *keyFlag) Type() string { return string(k.key.Type) }

// config loads the configuration as the flags and the environment have it.
func (f *siteFlags) config() (*config.Config, error) {
	o := config.Options{Path: f.path, Getenv: os.Getenv}
	for _, k := range f.keys {
		if k.given {
			o.Flags = append(o.Flags, config.Setting{Key: k.key.Name, Text: k.text, From: "--" + k.key.Flag()})
		}
	}
	c, err := config.Load(o)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// load loads the configuration and the accounts of the users that a command
// line selects, in order. Those who can't be worked on are among them, with
// their Problem; what they share with others of the user database is noted.
func (f *siteFlags) load(cmd *cobra.Command, args []string) (*config.Config, []account.Account, error) {
	c, err := f.config()
	if err != nil {
		return nil, nil, err
	}
	users, err := loadUsers(cmd.Context(), c)
	if err != nil {
		return nil, nil, err
	}
	names, err := f.names(cmd, c, users, args)
	if err != nil {
		return nil, nil, err
	}
	accounts, err := accountsOf(cmd.Context(), c, users, names)
	return c, accounts, err
}

// loadUsers reads the user database. One that is a file is configuration.
func loadUsers(ctx context.Context, c *config.Config) (*account.Users, error) {
	users, err := account.Load(ctx, c.Users)
	if err != nil && c.Users != account.Passwd {
		return nil, usageError{fmt.Errorf("users: %w", err)}
	}
	return users, err
}

// accountsOf fills in the templates for users and looks for collisions with
// everybody else.
func accountsOf(ctx context.Context, c *config.Config, users *account.Users, names []string) ([]account.Account, error) {
	picked, err := users.Pick(ctx, names)
	if err != nil {
		return nil, err
	}
	list := accounts(c.Places(), picked)
	account.Collide(list, accounts(c.Places(), users.All()))
	return list, nil
}

func accounts(places account.Places, users []account.User) []account.Account {
	list := make([]account.Account, len(users))
	for i, u := range users {
		list[i] = places.Account(u)
	}
	return list
}

// names are the users that a command line selects, in exactly one way.
func (f *siteFlags) names(cmd *cobra.Command, c *config.Config, users *account.Users, args []string) ([]string, error) {
	ways := 0
	for _, used := range []bool{len(args) > 0, f.usersFrom != "", f.all, f.wave != ""} {
		if used {
			ways++
		}
	}
	switch {
	case ways == 0:
		return nil, usageError{fmt.Errorf("%s: which users? Name them, or use --all, --users-from FILE or --wave NAME", cmd.CommandPath())}
	case ways > 1:
		return nil, usageError{fmt.Errorf("%s: names, --all, --users-from and --wave exclude each other", cmd.CommandPath())}
	case f.all:
		return users.Names(c.MinUID), nil
	case len(args) > 0:
		return args, nil
	}
	names, repeated, err := f.listed(cmd, c)
	if err != nil {
		return nil, usageError{err}
	}
	for _, r := range repeated {
		fmt.Fprintf(cmd.ErrOrStderr(), "line %d: %s is in line %d already\n", r.Line, quoted(r.Name), r.First)
	}
	return names, nil
}

// listed reads the list that --wave or --users-from names.
func (f *siteFlags) listed(cmd *cobra.Command, c *config.Config) ([]string, []account.Repeat, error) {
	if f.wave != "" {
		w, err := c.Wave(f.wave)
		if err != nil {
			return nil, nil, fmt.Errorf("--wave: %w", err)
		}
		return w.Names()
	}
	if f.usersFrom == "-" {
		return account.ReadNames(cmd.InOrStdin(), "standard input")
	}
	list, err := os.Open(f.usersFrom)
	if err != nil {
		return nil, nil, fmt.Errorf("--users-from: %w", err)
	}
	defer list.Close()
	return account.ReadNames(list, f.usersFrom)
}
