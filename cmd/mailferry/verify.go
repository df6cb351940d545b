package main

import (
	"github.com/spf13/cobra"

	"mailferry/convert"
)

func verifyCommand() *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use:   "verify SRC DST",
		Short: "Compare a Maildir with the mailboxes that it was made of",
		Long: `verify compares the Maildir DST with SRC, message by message: bytes, sizes in
the file names, flags, keywords, dates, UIDs, UIDLs, order, folders,
subscriptions. Give it the flags that convert was given. It changes nothing.
` + exitHelp,
		Example: `  mailferry verify ~/mbox ~/Maildir`,
		Args:    sourceAndDest,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(args)
			if err != nil {
				return err
			}
			return work(cmd, "verify", convert.Verify, o, f.json)
		},
	}
	f.add(cmd)
	return cmd
}
