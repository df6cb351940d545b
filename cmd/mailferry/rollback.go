package main

import (
	"github.com/spf13/cobra"

	"mailferry/convert"
)

func rollbackCommand() *cobra.Command {
	return runCommand(convert.Rollback, cutoverKeys, &cobra.Command{
		Use:   "rollback [USER]...",
		Short: "Bring users back from Maildir to mbox, with all that came since",
		Long: `rollback makes of a user's Maildir mboxes again while he works, and takes him
back to them in a fraction of a second: deliveries and logins are held, what
changed meanwhile is taken over, the mboxes get their old names, the semaphore
is flipped, and the Maildir is set aside as NAME.mailferry-TIME. Whatever goes
wrong before the flip leaves him on his Maildir, as he was.

The mboxes that were parked when he was moved are the base: messages that are
gone are left out, flags and keywords brought up to date, mail that came since is
appended, and UIDs go on. Who did nothing gets his mboxes back to the byte. The
parked ones are kept until they are retired; without them the mboxes are made of
the Maildir alone. Folders that were made since go into the first directory of
folders; those that were deleted stay so.

A user to whose old path mail has come since is left alone, and named: run
mailferry sweep for him first.
` + exitHelp,
		Example: `  mailferry rollback alice bob
  mailferry rollback --wave pilots`,
	})
}
