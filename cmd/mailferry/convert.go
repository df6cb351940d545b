package main

import (
	"github.com/spf13/cobra"

	"mailferry/convert"
)

func convertCommand() *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use:   "convert SRC DST",
		Short: "Convert a mailbox file or a folder tree to a new Maildir",
		Long: `convert makes a new Maildir, DST, of SRC: a mailbox file becomes its INBOX, a
folder tree its folders. SRC is only read. DST must not exist, or be an empty
directory, and appears all at once, when every message is on disk; after an
error or Ctrl-C it is as it was.

Files of the tree that are no mailboxes, may not be read, or have names that
DST can't hold, are skipped and listed.
` + exitHelp,
		Example: `  mailferry convert ~/mbox ~/Maildir
  mailferry convert --profile dovecot --inbox /var/mail/alice ~/mail ~/Maildir`,
		Args: sourceAndDest,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(args)
			if err != nil {
				return err
			}
			return work(cmd, "convert", convert.Convert, o, f.json)
		},
	}
	f.add(cmd)
	return cmd
}
