package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/account"
	"mailferry/internal/journal"
)

// verbSweep is the verb of a run that only sweeps.
const verbSweep = "sweep"

func sweepCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "sweep [USER]...",
		Short: "Take mail that came to the old place after a flip to where it belongs",
		Long: `sweep looks at the old place of users who have been moved: the parked mboxes, and
the paths that they had. Mail that a delivery agent has put there since the flip
is delivered to the Maildir as new mail, each message once. A file that was new
at an old path is then parked as well, as NAME.mailferry-TIME-lateN. A mailbox that
was made since becomes a folder. What a program has open is left for the next sweep.

Of users whom a rollback has brought back, mail that came to their Maildir behind that
flip is appended to the mbox, each message once; its file is kept in the tmp of its
folder.

What is not as it was left, or not certain to be late mail, is told and not touched:
exit code 4; docs/migrating.md says what to look for then. A run sweeps the
users that it moves, for their grace (--grace); sweep is for what comes later, by
hand or by a timer. While a run is at work and there is something to take, it
ends with exit code 11.
` + exitHelp,
		Example: `  mailferry sweep --all`,
		RunE:    func(cmd *cobra.Command, args []string) error { return sweepUsers(cmd, &f, args) },
	}
	f.add(cmd, "users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror", "gate",
		"profile", "quoting", "eol", "correct-dates", "locks")
	f.addUsers(cmd)
	return cmd
}

func sweepUsers(cmd *cobra.Command, f *siteFlags, args []string) error {
	c, accounts, err := f.load(cmd, args)
	if err != nil {
		return err
	}
	if doubts := c.Doubts(); len(doubts) > 0 {
		return usageError{errors.Join(doubts...)}
	}
	r := &sweepReport{out: cmd.OutOrStdout(), json: f.json, total: sweepTotal{Users: len(accounts)}}
	site := siteOf(c)
	due := r.due(site, accounts)
	if len(due) > 0 { // else no run is begun: a timer may ask each minute
		if err := r.sweep(cmd, site, due); err != nil {
			return err
		}
	}
	return r.end()
}

// sweepReport prints what a sweep finds, user by user.
type sweepReport struct {
	out    io.Writer
	json   bool
	total  sweepTotal
	failed error // of out
}

// sweepTotal is what a sweep comes to.
type sweepTotal struct {
	Users       int   `json:"users"`
	Swept       int   `json:"swept"`    // users to whom mail had come
	Messages    int   `json:"messages"` // that were taken
	Bytes       int64 `json:"bytes"`
	Differences int   `json:"differences"`
	Failed      int   `json:"failed"`
}

// due picks the users of whom there is something to find.
func (r *sweepReport) due(site convert.Site, accounts []account.Account) (due []account.Account) {
	for _, a := range accounts {
		switch is, err := site.SweepDue(a); {
		case err != nil:
			r.fail(a, err)
		case is:
			due = append(due, a)
		}
	}
	return due
}

// sweep sweeps users, as a run.
func (r *sweepReport) sweep(cmd *cobra.Command, site convert.Site, due []account.Account) (err error) {
	log, err := journal.Begin(site.State, verbSweep)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	sum := journal.Summary{Verb: verbSweep, Started: time.Now().UTC(), End: convert.EndDone}
	sum.Users.Total = len(due)
	for _, a := range due {
		if cmd.Context().Err() != nil {
			sum.Users.Untouched++
			continue
		}
		e := journal.Event{User: a.Name, Phase: verbSweep, Outcome: journal.Done}
		s, err := site.Sweep(cmd.Context(), a, convert.SweepOptions{Run: log.ID(), Alone: true})
		if s != nil {
			r.user(s)
			e.Messages = s.Messages()
		}
		if err != nil {
			e.Outcome, e.Reason = journal.Failed, err.Error()
			sum.Users.Failed++
			r.fail(a, err)
		} else {
			sum.Users.Done++
		}
		if err := log.Log(e); err != nil {
			return err
		}
	}
	sum.Ended, sum.Bytes = time.Now().UTC(), r.total.Bytes
	sum.Messages.In, sum.Messages.Converted = r.total.Messages, r.total.Messages
	if err := cmd.Context().Err(); err != nil {
		sum.End = convert.EndSignal
		return errors.Join(err, log.Finish(sum))
	}
	sum.ExitCode = r.code()
	return log.Finish(sum)
}

// The JSON lines of a sweep; see output.go.
type (
	jsonSwept struct {
		MessageType string `json:"message_type"` // "user"
		*convert.Swept
	}
	jsonUnswept struct {
		MessageType string `json:"message_type"` // "unswept"
		User        string `json:"user"`
		Error       string `json:"error"`
	}
	jsonSweepTotal struct {
		MessageType string `json:"message_type"` // "summary"
		sweepTotal
	}
)

// user enters what was found of a user.
func (r *sweepReport) user(s *convert.Swept) {
	if len(s.Taken) > 0 {
		r.total.Swept++
	}
	r.total.Messages += s.Messages()
	for _, t := range s.Taken {
		r.total.Bytes += t.Bytes
	}
	r.total.Differences += len(s.Differences)
	if r.json {
		r.note(printLines(r.out, []any{jsonSwept{"user", s}}))
		return
	}
	for _, line := range s.Lines() {
		_, err := io.WriteString(r.out, printable(line)+"\n")
		r.note(err)
	}
}

func (r *sweepReport) fail(a account.Account, err error) {
	r.total.Failed++
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if r.json {
		r.note(printLines(r.out, []any{jsonUnswept{"unswept", a.Name, text}}))
		return
	}
	_, werr := io.WriteString(r.out, printable(fmt.Sprintf("%s: could not be swept: %s", quoted(a.Name), text))+"\n")
	r.note(werr)
}

func (r *sweepReport) note(err error) {
	if r.failed == nil {
		r.failed = err
	}
}

func (r *sweepReport) code() int {
	switch {
	case r.total.Differences > 0:
		return exitMismatch
	case r.total.Failed > 0:
		return exitSkipped
	}
	return exitDone
}

// end prints the total, and makes the exit code of it.
func (r *sweepReport) end() error {
	t := r.total
	if r.json {
		r.note(printLines(r.out, []any{jsonSweepTotal{"summary", t}}))
	} else {
		_, err := fmt.Fprintf(r.out, "%s: mail had come to %d of them, %s; %s, %d failed\n",
			plural(t.Users, "user"), t.Swept, plural(t.Messages, "message"), plural(t.Differences, "difference"), t.Failed)
		r.note(err)
	}
	if r.failed != nil {
		return fmt.Errorf("the sweep is done, but its report could not be written: %w", r.failed)
	}
	if code := r.code(); code != exitDone {
		return outcome(code)
	}
	return nil
}
