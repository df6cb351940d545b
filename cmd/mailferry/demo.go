package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/internal/mailgen"
)

// demoSeed makes every demo the same.
const demoSeed = 1876

func demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Make up a small mail server in a temporary folder and migrate it before your eyes",
		Long: `demo makes up a mail server of 200 users in a temporary folder, some of them with
every kind of trouble that real ones have, and migrates it: enrollment, plan, a
run in chunks of 50, audit, status. Users of a server own their files, so this is
for root; for others it makes up one home, and converts it. Nothing outside the
folder is touched. Long lists are shown in part.
` + exitHelp,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := os.MkdirTemp("", "mailferry-demo-")
			if err != nil {
				return err
			}
			if !keep {
				defer os.RemoveAll(dir)
			}
			if os.Geteuid() == 0 {
				return demoSite(cmd, dir, demoOptions)
			}
			return demoHome(cmd, dir)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the temporary folder behind to look at")
	return cmd
}

// demoHome shows how one user converts his mail by hand.
func demoHome(cmd *cobra.Command, dir string) error {
	out := cmd.OutOrStdout()
	folders, err := mailgen.Tree(dir, demoSeed)
	if err != nil {
		return err
	}
	messages := 0
	for _, f := range folders {
		messages += len(f.Messages)
	}
	fmt.Fprintf(out, "A mail server has files of many users, which only root can make: as root, this\nmakes one up and migrates it. As you are not root, here is one home.\n\n")
	fmt.Fprintf(out, "A made-up home in %s: a spool, %d folders, %d messages, and what lies between them in real homes.\n", dir, len(folders)-1, messages)

	flags := []string{"--profile", "dovecot", "--layout", "fs", "--inbox", filepath.Join(dir, "INBOX"), filepath.Join(dir, "mail"), filepath.Join(dir, "Maildir")}
	for _, verb := range []string{"convert", "verify"} {
		if err := show(cmd, out, dir, append([]string{verb}, flags...)); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "\nEvery message is in the Maildir, byte for byte as Dovecot showed it, with its flags,\nkeywords, date, UID and POP3 UIDL. The mboxes were only read.\n")
	return nil
}

// show runs a command line and prints it first. Skipped files and users are
// part of the show; everything else but success ends it.
func show(cmd *cobra.Command, out io.Writer, dir string, args []string) error {
	fmt.Fprintf(out, "\n$ mailferry %s\n", strings.ReplaceAll(strings.Join(args, " "), dir+"/", ""))
	if code := run(cmd.Context(), args, out, cmd.ErrOrStderr()); code != exitDone && code != exitSkipped {
		return outcome(code)
	}
	return nil
}
