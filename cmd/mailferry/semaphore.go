package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/account"
	"mailferry/internal/config"
	"mailferry/semaphore"
)

func semaphoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "semaphore",
		Short: "Look at the semaphore of one user, or change it by hand",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{fmt.Errorf("%s: get, set, hold or release?", cmd.CommandPath())}
		},
	}
	cmd.AddCommand(semaphoreGet(), semaphoreSet(), semaphoreHold(), semaphoreRelease())
	return cmd
}

func semaphoreGet() *cobra.Command {
	h := handVerb{words: 1}
	return h.command(&cobra.Command{
		Use:   "get USER",
		Short: "Show what the semaphore says, who set it, and whether the mirror says the same",
		Long: `get shows what the semaphore of a user says, who set it and when, until when the
hold of a run is to last, and whether the mirror in the home says the same. It changes
nothing. A semaphore that can't be read, or is not there, is exit code 1.
` + exitHelp,
	})
}

func semaphoreSet() *cobra.Command {
	h := handVerb{words: 2, do: func(site convert.Site, _ *config.Config, a account.Account, args []string) (string, error) {
		to := semaphore.Mbox
		if args[1] == semaphore.Maildir.String() {
			to = semaphore.Maildir
		}
		err := site.SetSemaphore(a, to)
		return setMeans(a, to), err
	}}
	return h.command(&cobra.Command{
		Use:   "set USER mbox|maildir",
		Short: "Say in an emergency where the mail of a user is",
		Long: `set writes the semaphore of a user and its mirror, whatever they said. It is for
emergencies: when the semaphores were lost, or when you have moved a user's mail
by hand.

It moves no mail. From that moment all that reads semaphores delivers to and
serves the format that you name. Mail that is in the other one is neither shown
nor lost; bring it over by hand, or set the semaphore back.
` + exitHelp,
		Example: `  mailferry semaphore set alice mbox`,
	})
}

// setMeans says what has been decided by set.
func setMeans(a account.Account, to semaphore.State) string {
	now, not := quoted(a.Spool)+" and his other mboxes", "in the Maildir "+quoted(a.Maildir)
	if to == semaphore.Maildir {
		now, not = "the Maildir "+quoted(a.Maildir), "in "+quoted(a.Spool)+" and his other mboxes"
	}
	return fmt.Sprintf("his mail is delivered to and read from %s from now on; nothing was moved, and mail that is %s is not seen", now, not)
}

func semaphoreHold() *cobra.Command {
	h := handVerb{words: 1, keys: []string{"hold-limit"}, do: func(site convert.Site, c *config.Config, a account.Account, _ []string) (string, error) {
		err := site.HoldSemaphore(a, c.HoldLimit)
		return "deliveries are deferred and logins wait", err
	}}
	return h.command(&cobra.Command{
		Use:   "hold USER",
		Short: "Defer a user's deliveries, and let his logins wait",
		Long: `hold makes the semaphore of a user say hold, from mbox or maildir: his deliveries
are deferred, his logins wait. The hold notes who made it, and when it was to end
(--hold-limit). It does not end by itself, and no run touches a hold that was made
by hand: release ends it.
` + exitHelp,
		Example: `  mailferry semaphore hold --hold-limit 10m alice`,
	})
}

func semaphoreRelease() *cobra.Command {
	h := handVerb{words: 1, do: func(site convert.Site, _ *config.Config, a account.Account, _ []string) (string, error) {
		_, err := site.ReleaseSemaphore(a)
		return "", err
	}}
	return h.command(&cobra.Command{
		Use:   "release USER",
		Short: "End a hold: the semaphore says again what it said before",
		Long: `release ends a hold. What the semaphore said before is seen from the mail: mbox
if there is no Maildir and nothing was ever moved, maildir if there is one, mboxes
are parked or the journal says that he was moved, and no mail is in live mboxes.
In all other cases the hold stays, and you are told why.

The hold of a run is not released while a run is at work: exit code 11.
` + exitHelp,
	})
}

// handVerb is a verb about the semaphore of one user.
type handVerb struct {
	siteFlags
	words int      // of the command line: the user, and for set the state
	keys  []string // beside semaphoreKeys and placeKeys
	do    func(convert.Site, *config.Config, account.Account, []string) (means string, err error)
}

// placeKeys are the keys that say where mail lies.
var placeKeys = []string{"spool", "folders", "maildir"}

func (h *handVerb) command(cmd *cobra.Command) *cobra.Command {
	cmd.Args = h.check
	cmd.RunE = h.run
	h.add(cmd, append(append(h.keys, semaphoreKeys...), placeKeys...)...)
	return cmd
}

// check looks at the arguments: a user, and for set a state.
func (h *handVerb) check(cmd *cobra.Command, args []string) error {
	if len(args) != h.words {
		return usageError{fmt.Errorf("usage: %s %s", cmd.Parent().CommandPath(), cmd.Use)}
	}
	if h.words == 2 && args[1] != semaphore.Mbox.String() && args[1] != semaphore.Maildir.String() {
		return usageError{fmt.Errorf("%s: %s: choose one of mbox, maildir", cmd.CommandPath(), quoted(args[1]))}
	}
	return nil
}

// run does what the verb does, and shows what the semaphore says then.
func (h *handVerb) run(cmd *cobra.Command, args []string) error {
	c, accounts, err := h.load(cmd, args[:1])
	if err != nil {
		return err
	}
	a, site := accounts[0], siteOf(c)
	means := ""
	if h.do != nil {
		if means, err = h.do(site, c, a, args); err != nil {
			return h.failed(cmd, a, err)
		}
	}
	r := site.ReadSemaphore(a)
	write := printReading
	if h.json {
		write = printReadingJSON
	}
	if err := write(cmd.OutOrStdout(), r, means); err != nil {
		return err
	}
	if r.NotEnrolled() || r.Problem != "" {
		return outcome(exitFailed)
	}
	return nil
}

// failed tells of a change that was not made, or not wholly.
func (h *handVerb) failed(cmd *cobra.Command, a account.Account, err error) error {
	err = fmt.Errorf("%s: %w", quoted(a.Name), err)
	if h.json {
		err = errors.Join(err, printLines(cmd.OutOrStdout(), []any{jsonError{"error", err.Error()}}))
	}
	if errors.Is(err, semaphore.ErrBusy) || errors.Is(err, semaphore.ErrEpoch) {
		fmt.Fprintf(cmd.ErrOrStderr(), "mailferry: %s\n", told(exitBusy, err))
		return outcome(exitBusy)
	}
	return err
}

func printReading(w io.Writer, r convert.Reading, means string) error {
	b := &strings.Builder{}
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	text := stateText(r.Standing)
	if r.State != "" && r.State != "hold" {
		text += ", " + setBy(r.Standing)
	}
	if r.Epoch > 0 {
		text += fmt.Sprintf(", epoch %d", r.Epoch)
	}
	line("%s: %s", quoted(r.User), text)
	switch m := r.Mirror; {
	case m.Problem != "":
		line("  the mirror can't be read: %s", m.Problem)
	case m.Differs:
		line("  the mirror differs: %s says %s", quoted(m.Path), m.State)
	case m.State != "":
		line("  the mirror %s says the same", quoted(m.Path))
	}
	if means != "" {
		line("  %s", means)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The JSON lines of semaphore; see output.go.
type (
	jsonReading struct {
		MessageType string `json:"message_type"` // "semaphore"
		convert.Reading
		Means string `json:"means,omitempty"` // what a change means for the user's mail
	}
	jsonReadingSummary struct {
		MessageType string `json:"message_type"` // "summary"
		Users       int    `json:"users"`
	}
)

func printReadingJSON(w io.Writer, r convert.Reading, means string) error {
	return printLines(w, []any{jsonReading{"semaphore", r, means}, jsonReadingSummary{"summary", 1}})
}
