package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/internal/account"
	"mailferry/internal/config"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check or describe the configuration",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{fmt.Errorf("%s: check or describe?", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(configCheckCommand(), configDescribeCommand())
	return cmd
}

func configDescribeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "describe",
		Short: "Print every key of the configuration, as a file that changes nothing",
		Long: `describe prints every key of the configuration file with its type, its default,
what it does, its flag and its environment variable, as a file in which all is
commented out.
` + exitHelp,
		Example: `  mailferry config describe > /etc/mailferry/mailferry.toml`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON {
				return describeJSON(cmd.OutOrStdout())
			}
			return config.Describe(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines, the summary last")
	return cmd
}

// noArguments is the check of a command that takes flags only.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments; got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

type (
	jsonKey struct {
		MessageType string      `json:"message_type"` // "key"
		Key         string      `json:"key"`
		Type        config.Type `json:"type"`
		Default     string      `json:"default"`
		Help        string      `json:"help"`
		Flag        string      `json:"flag"`
		Environment string      `json:"environment"`
	}
	jsonKeys struct {
		MessageType string `json:"message_type"` // "summary"
		Keys        int    `json:"keys"`
	}
)

func describeJSON(w io.Writer) error {
	out := json.NewEncoder(w)
	for _, k := range config.Keys() {
		if err := out.Encode(jsonKey{"key", k.Name, k.Type, k.Default, k.Help, "--" + k.Flag(), k.Env()}); err != nil {
			return err
		}
	}
	return out.Encode(jsonKeys{"summary", len(config.Keys())})
}

func configCheckCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, and what it names on this host, without touching mail",
		Long: `check reads the configuration as the other commands would, with the same flags
and environment variables, and prints what is wrong with it, where each value
comes from that is not the default, and whom the user database knows. It looks
at the files and directories that the configuration names, except at mail and
homes: that is what plan does.

Users who could not be worked on are noted, and are no reason to fail.
` + exitHelp,
		Example: `  mailferry config check --config new.toml`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := checkSite(cmd.Context(), &f)
			if err != nil {
				return err
			}
			if f.json {
				err = r.json(cmd.OutOrStdout())
			} else {
				err = r.text(cmd.OutOrStdout())
			}
			if err == nil && len(r.wrong) > 0 {
				err = outcome(exitUsage)
			}
			return err
		},
	}
	f.add(cmd, otherKeys()...)
	return cmd
}

// otherKeys are the keys whose flags not every command has.
func otherKeys() (names []string) {
	for _, k := range config.Keys() {
		if k.Name != "state" {
			names = append(names, k.Name)
		}
	}
	return names
}

// siteReport is what config check found.
type siteReport struct {
	config *config.Config // nil if it could not be read
	wrong  []string
	notes  []string // about users and waves
	users  int      // in the user database
	mail   int      // of those, who may have mail
}

// checkSite fails only when it is interrupted.
func checkSite(ctx context.Context, f *siteFlags) (*siteReport, error) {
	r := &siteReport{}
	c, err := f.config()
	if err != nil {
		r.wrong = strings.Split(err.Error(), "\n")
		return r, nil
	}
	r.config = c
	for _, err := range c.Doubts() {
		r.wrong = append(r.wrong, err.Error())
	}
	users, err := loadUsers(ctx, c)
	if err == nil {
		err = r.survey(ctx, users)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		r.wrong = append(r.wrong, err.Error())
	}
	return r, nil
}

// survey looks at the users who may have mail, and at the waves.
func (r *siteReport) survey(ctx context.Context, users *account.Users) error {
	names := users.Names(r.config.MinUID)
	r.users, r.mail = len(users.All()), len(names)
	list, err := accountsOf(ctx, r.config, users, names)
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.Problem != nil {
			r.note("user %s: %v", quoted(a.Name), a.Problem)
		}
		r.noteCollisions(a)
	}
	for _, name := range slices.Sorted(maps.Keys(r.config.Waves)) {
		if err := r.wave(ctx, users, r.config.Waves[name]); err != nil {
			return fmt.Errorf("wave %s: %w", name, err)
		}
	}
	return nil
}

// noteCollisions has one note for each other user.
func (r *siteReport) noteCollisions(a account.Account) {
	with := map[string][]string{}
	for _, c := range a.Collisions {
		with[c.Users[1]] = append(with[c.Users[1]], c.What[0]+" "+quoted(c.Path))
	}
	for _, other := range slices.Sorted(maps.Keys(with)) {
		r.note("user %s: collides with %s: %s", quoted(a.Name), quoted(other), strings.Join(with[other], ", "))
	}
}

// wave notes who of a wave is unknown or in it twice.
func (r *siteReport) wave(ctx context.Context, users *account.Users, w config.Wave) error {
	names, repeated, err := w.Names()
	if err != nil {
		return err
	}
	for _, again := range repeated {
		r.note("wave %s: user %s is in it twice", w.Name, quoted(again.Name))
	}
	picked, err := users.Pick(ctx, names)
	if err != nil {
		return err
	}
	for _, u := range picked {
		if errors.Is(u.Problem, account.ErrUnknown) {
			r.note("wave %s: user %s: %v", w.Name, quoted(u.Name), u.Problem)
		}
	}
	return nil
}

func (r *siteReport) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// maxNotes is how many notes are printed for people: a template that fits
// nobody would have one for everybody.
const maxNotes = 20

// text prints the report for people.
func (r *siteReport) text(w io.Writer) error {
	b := &strings.Builder{}
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	if r.config != nil {
		for _, s := range r.config.Settings() {
			line("%s = %s (%s)", s.Key, quoted(s.Text), s.From)
		}
		line("%s: %s, %d of them with uid %d or more", r.config.Users, plural(r.users, "user"), r.mail, r.config.MinUID)
	}
	for _, n := range r.notes[:min(len(r.notes), maxNotes)] {
		line("note: %s", n)
	}
	if more := len(r.notes) - maxNotes; more > 0 {
		line("note: %d more, see --json", more)
	}
	for _, p := range r.wrong {
		line("wrong: %s", p)
	}
	line("%s: %d wrong, %s", r.file(), len(r.wrong), plural(len(r.notes), "note"))
	_, err := io.WriteString(w, b.String())
	return err
}

// file names the configuration file.
func (r *siteReport) file() string {
	switch {
	case r.config == nil:
		return "configuration"
	case r.config.Path == "":
		return "no configuration file, the defaults"
	}
	return r.config.Path
}

type (
	jsonSetting struct {
		MessageType string `json:"message_type"` // "setting": a value that is not the default
		Key         string `json:"key"`
		Value       string `json:"value"`
		From        string `json:"from"`
	}
	jsonText struct {
		MessageType string `json:"message_type"` // "wrong" or "note"
		Text        string `json:"text"`
	}
	jsonSite struct {
		MessageType string `json:"message_type"` // "summary"
		File        string `json:"file"`         // "" for none
		Users       int    `json:"users"`
		MailUsers   int    `json:"users_from_min_uid"`
		Waves       int    `json:"waves"`
		Notes       int    `json:"notes"`
		Wrong       int    `json:"wrong"`
	}
)

// json prints the report for programs.
func (r *siteReport) json(w io.Writer) error {
	var lines []any
	summary := jsonSite{MessageType: "summary", Users: r.users, MailUsers: r.mail, Notes: len(r.notes), Wrong: len(r.wrong)}
	if r.config != nil {
		for _, s := range r.config.Settings() {
			lines = append(lines, jsonSetting{"setting", s.Key, s.Text, s.From})
		}
		summary.File, summary.Waves = r.config.Path, len(r.config.Waves)
	}
	for _, n := range r.notes {
		lines = append(lines, jsonText{"note", n})
	}
	for _, p := range r.wrong {
		lines = append(lines, jsonText{"wrong", p})
	}
	out := json.NewEncoder(w)
	for _, line := range append(lines, summary) {
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
