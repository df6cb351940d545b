package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// scanFlags are the flags that convert and verify share: how SRC is read, and
// how DST is laid out.
type scanFlags struct {
	profile, quoting, eol, layout, inbox string
	correctDates, json                   bool
	jobs                                 int
}

func (f *scanFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.profile, "profile", "careful", "read mboxes as this server does: "+strings.Join(mbox.ProfileNames(), ", "))
	flags.StringVar(&f.quoting, "quoting", "keep", "quoted From_ lines in bodies: keep as the server showed them, or undo mboxo or mboxrd")
	flags.StringVar(&f.eol, "eol", "auto", "CRs in bodies: auto (a file whose From_ line ends in CRLF becomes LF), keep, lf")
	flags.StringVar(&f.layout, "layout", "maildir++", "folders of the Maildir: maildir++, fs, or listescape (maildir++ with dots spelled as Dovecot's listescape plugin does)")
	flags.StringVar(&f.inbox, "inbox", "", "mbox `FILE` that is the INBOX of the folder tree SRC")
	flags.BoolVar(&f.correctDates, "correct-dates", false, "take From_ dates as they were meant, not as the profile's server misreads them")
	flags.IntVar(&f.jobs, "jobs", runtime.NumCPU(), "mailboxes at a time")
	flags.BoolVar(&f.json, "json", false, "print JSON lines, the summary last")
}

// options turns flags and arguments into the options of a conversion, or a
// usageError.
func (f *scanFlags) options(args []string) (o convert.Options, err error) {
	o = convert.Options{Source: args[0], Dest: args[1], Inbox: f.inbox, Jobs: f.jobs}
	o.Scan.CorrectDates = f.correctDates
	if o.Scan.Profile, err = mbox.ProfileByName(f.profile); err != nil {
		return o, usageError{fmt.Errorf("--profile: %w", err)}
	}
	if o.Scan.Quoting, err = choose("--quoting", f.quoting, []string{"keep", "mboxo", "mboxrd"}, message.Keep, message.MboxO, message.MboxRD); err != nil {
		return o, err
	}
	if o.Scan.EOL, err = choose("--eol", f.eol, []string{"auto", "keep", "lf"}, mbox.EOLAuto, mbox.EOLKeep, mbox.EOLLF); err != nil {
		return o, err
	}
	if o.Folders, err = maildir.ParseFolders(f.layout); err != nil {
		return o, usageError{fmt.Errorf("--layout %w", err)}
	}
	if f.jobs < 1 {
		err = usageError{fmt.Errorf("--jobs %d: at least 1", f.jobs)}
	}
	return o, err
}

// choose maps a flag's word to its value.
func choose[T any](flag, word string, words []string, values ...T) (T, error) {
	for i, w := range words {
		if w == word {
			return values[i], nil
		}
	}
	var none T
	return none, usageError{fmt.Errorf("%s %q: choose one of %s", flag, word, strings.Join(words, ", "))}
}

// sourceAndDest is the check of the two arguments.
func sourceAndDest(cmd *cobra.Command, args []string) error {
	if len(args) != 2 {
		return usageError{fmt.Errorf("%s needs two arguments, SRC and DST; got %d", cmd.CommandPath(), len(args))}
	}
	if args[0] == "" || args[1] == "" {
		return usageError{fmt.Errorf("%s: SRC and DST must not be empty", cmd.CommandPath())}
	}
	return nil
}
