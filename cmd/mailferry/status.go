package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/journal"
)

func statusCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "status [USER]...",
		Short: "Show the state of each user, and what the last run did for him",
		Long: `status shows what the semaphore of each user says, what the last run that came
to him did, and the totals. Of a hold it says who made it, whether it is past
its deadline, and if no run is at work any more, that recover ends it. Without
users it shows all. It changes nothing.
` + exitHelp,
		Example: `  mailferry status
  mailferry status --json | jq -r 'select(.expired or .abandoned).user'`,
		RunE: func(cmd *cobra.Command, args []string) error { return status(cmd, &f, args) },
	}
	f.add(cmd, "users", "min-uid", "semaphore")
	f.addUsers(cmd)
	return cmd
}

func status(cmd *cobra.Command, f *siteFlags, args []string) error {
	if len(args) == 0 && f.usersFrom == "" && f.wave == "" {
		f.all = true
	}
	c, accounts, err := f.load(cmd, args)
	if err != nil {
		return err
	}
	report, unread := siteOf(c).Status(accounts)
	write := printStatus
	if f.json {
		write = printStatusJSON
	}
	if err := write(cmd.OutOrStdout(), report); err != nil {
		return err
	}
	if unread != nil {
		return fmt.Errorf("the states are true, but the journal could not be read: %w", unread)
	}
	for _, u := range report.Users {
		if u.Problem != "" {
			return outcome(exitSkipped)
		}
	}
	return nil
}

// printStatus prints a line for each user, and the totals.
func printStatus(w io.Writer, r *convert.StatusReport) error {
	b := &strings.Builder{}
	for _, u := range r.Users {
		b.WriteString(printable(fmt.Sprintf("%s: %s%s", quoted(u.User), stateText(u.Standing), lastText(u.Last))) + "\n")
	}
	if a := r.Active; a != nil {
		b.WriteString(printable(fmt.Sprintf("at work: %s, run %s, pid %d on %s, since %s", a.Verb, a.Run, a.PID, a.Host, stamp(a.Since))) + "\n")
	}
	t := r.Total
	fmt.Fprintf(b, "%s: %d mbox, %d hold%s, %d maildir, %d not enrolled, %d unknown\n", plural(t.Users, "user"),
		t.Mbox, t.Hold, ofHeld(t), t.Maildir, t.NotEnrolled, t.Unknown)
	fmt.Fprintf(b, "last time: %d done, %d skipped, %d failed, %d untouched\n", t.Done, t.Skipped, t.Failed, t.Untouched)
	_, err := io.WriteString(w, b.String())
	return err
}

func ofHeld(t convert.StatusTotal) string {
	var list []string
	if t.Expired > 0 {
		list = append(list, fmt.Sprintf("%d expired", t.Expired))
	}
	if t.Unreadable > 0 {
		list = append(list, fmt.Sprintf("%d unreadable", t.Unreadable))
	}
	if list == nil {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// stateText is a user's state as people read it.
func stateText(s convert.Standing) string {
	text := s.State
	switch {
	case s.NotEnrolled():
		text = "not enrolled"
	case s.Problem != "" && s.State == "":
		text = s.Problem
	case s.Problem != "":
		text += ": " + s.Problem
	case s.ByHand():
		text += fmt.Sprintf(", held by hand since %s, pid %d on %s; mailferry semaphore release %s ends it", stamp(s.Time), s.PID, s.Host, quoted(s.User))
	case s.State == "hold" && s.Expired && s.Deadline.IsZero():
		text += ", without a deadline, " + setBy(s)
	case s.State == "hold" && s.Expired:
		text += fmt.Sprintf(", expired at %s, %s", stamp(s.Deadline), setBy(s))
	case s.State == "hold":
		text += fmt.Sprintf(" until %s, %s", stamp(s.Deadline), setBy(s))
	}
	if s.Abandoned {
		text += "; no run is at work, and mailferry recover brings him back"
	}
	if s.Announced != "" {
		text += fmt.Sprintf(" (it was to become %s, which did not happen)", s.Announced)
	}
	return text
}

// setBy tells who made the last change.
func setBy(s convert.Standing) string {
	if s.Epoch == 0 {
		return "set by nobody knows whom"
	}
	who := "by hand"
	if s.Run != "" {
		who = "by run " + s.Run
	}
	return fmt.Sprintf("set %s, pid %d on %s, at %s", who, s.PID, s.Host, stamp(s.Time))
}

// lastText tells what the last run did.
func lastText(e *journal.Event) string {
	if e == nil {
		return ""
	}
	text := fmt.Sprintf("; last: %s %s at %s", e.Phase, e.Outcome, stamp(e.Time))
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// The JSON lines of status; see output.go.
type (
	jsonStatus struct {
		MessageType string `json:"message_type"` // "user"
		convert.Status
	}
	jsonStatusTotal struct {
		MessageType string `json:"message_type"` // "summary"
		convert.StatusTotal
		Active *journal.Holder `json:"active,omitempty"` // the run at work
	}
)

func printStatusJSON(w io.Writer, r *convert.StatusReport) error {
	lines := make([]any, 0, len(r.Users)+1)
	for _, u := range r.Users {
		lines = append(lines, jsonStatus{"user", u})
	}
	return printLines(w, append(lines, jsonStatusTotal{"summary", r.Total, r.Active}))
}
