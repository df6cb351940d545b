package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailferry/internal/config"
)

const environmentHelp = `
Every flag has an environment variable: that of --hold-limit is
MAILFERRY_HOLD_LIMIT. One that is empty counts as unset.
`

// selection are the flags that select users. Who selects them on the command
// line means those alone.
var selection = []string{"users-from", "all", "wave"}

// fromEnvironment sets the flags that are not on the command line and whose
// environment variable is set: that of --hold-limit is MAILFERRY_HOLD_LIMIT.
// An empty variable counts as unset. Flags of configuration keys are left to
// the configuration, where the file counts less than the variable.
func fromEnvironment(cmd *cobra.Command, args []string) error {
	skip := map[string]bool{"help": true}
	if selected(cmd, args) {
		for _, name := range selection {
			skip[name] = true
		}
	}
	var problems []error
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		name := config.EnvName(flag.Name)
		text := os.Getenv(name)
		if _, isKey := flag.Value.(*keyFlag); isKey || flag.Changed || skip[flag.Name] || text == "" {
			return
		}
		if err := flag.Value.Set(text); err != nil {
			problems = append(problems, fmt.Errorf("%s: %q: %w", name, text, err))
		}
	})
	if err := errors.Join(problems...); err != nil {
		return usageError{err}
	}
	return nil
}

// selected reports whether a command line says for whom it is.
func selected(cmd *cobra.Command, args []string) bool {
	for _, name := range selection {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return len(args) > 0
}
