package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailferry/convert"
	"mailferry/internal/account"
	"mailferry/internal/config"
)

// verifyFlags are those of both forms of verify.
type verifyFlags struct {
	scanFlags
	site siteFlags
}

func verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify SRC DST | verify [USER]...",
		Short: "Compare a Maildir with the mailboxes that it was made of, or audit users",
		Long: `verify SRC DST compares the Maildir DST with SRC, message by message: bytes,
sizes in the file names, flags, keywords, dates, UIDs, UIDLs, order, folders,
subscriptions. Give it the flags that convert was given.

verify USER..., --all, --users-from or --wave audits users who have been moved:
every message of their parked mboxes must be in the Maildir as it is now, or
have been deleted or moved by its user; mail that came, was deleted, moved or
flagged since is counted. Users who are not on Maildir are counted, too.

Neither changes anything. Two arguments are SRC and DST if SRC is there.
` + exitHelp,
		Example: `  mailferry verify ~/mbox ~/Maildir
  mailferry verify --all`,
		RunE: func(cmd *cobra.Command, args []string) error {
			pair, err := f.isPair(cmd, args)
			if err != nil {
				return err
			}
			if !pair {
				return audit(cmd, &f, args)
			}
			o, err := f.options(args)
			if err != nil {
				return err
			}
			return work(cmd, "verify", convert.Verify, o, f.json)
		},
	}
	f.scanFlags.add(cmd)
	f.site.addUsers(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.site.path, "config", "", "configuration `FILE` for users (default "+config.DefaultPath+", if it is there)")
	for _, name := range []string{"state", "users", "min-uid", "spool", "folders", "maildir", "semaphore", "mirror"} {
		f.site.addKey(flags, name)
	}
	return cmd
}

// isPair tells which of the two forms a command line has.
func (f *verifyFlags) isPair(cmd *cobra.Command, args []string) (bool, error) {
	if f.site.all || f.site.usersFrom != "" || f.site.wave != "" {
		return false, nil
	}
	if len(args) != 2 {
		if len(args) == 1 && !strings.Contains(args[0], "/") {
			return false, nil
		}
		if len(args) > 2 {
			return false, nil
		}
		return true, sourceAndDest(cmd, args)
	}
	_, err := os.Lstat(args[0])
	if strings.Contains(args[0]+args[1], "/") || args[0] == "" || args[1] == "" || !errors.Is(err, fs.ErrNotExist) {
		return true, sourceAndDest(cmd, args)
	}
	return false, nil
}

// audit is verify for users.
func audit(cmd *cobra.Command, f *verifyFlags, args []string) error {
	f.scanKeys(cmd.Flags())
	c, accounts, err := f.site.load(cmd, args)
	if err != nil {
		return err
	}
	shown := newProgress(cmd.ErrOrStderr(), "verify")
	shown.run(len(accounts), 0)
	defer shown.finish()
	a := &auditor{json: f.json, out: cmd.OutOrStdout()}
	convert.AuditAll(cmd.Context(), siteOf(c), accounts, f.jobs, func(account account.Account, r *convert.AuditReport, err error) {
		shown.userDone()
		a.user(account, r, err)
	})
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	return a.end()
}

// scanKeys makes keys of the configuration of the flags that both forms have.
func (f *verifyFlags) scanKeys(flags *pflag.FlagSet) {
	for _, name := range []string{"profile", "quoting", "eol", "layout", "correct-dates"} {
		if flag := flags.Lookup(name); flag.Changed {
			key, _ := config.KeyByName(name)
			f.site.keys = append(f.site.keys, &keyFlag{key: key, text: flag.Value.String(), given: true})
		}
	}
}
