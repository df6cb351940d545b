package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/config"
)

// planKeys are the keys that decide what a plan says.
var planKeys = []string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror",
	"profile", "quoting", "eol", "correct-dates", "locks", "free-floor", "jobs"}

func planCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "plan [USER]...",
		Short: "Look at accounts, and say what moving them would take; change nothing",
		Long: `plan looks at the accounts of users as a run would, reads all their mailboxes,
and prints for each user and in total: mailboxes, messages, bytes, inodes that a
second copy needs, how long the precopy and the hold will take at the rate of
this machine, and whatever stands in the way. Nothing is changed. The rate is that
of earlier rehearsals, if there were any; else it is measured on made-up mail.

Findings that say refuse keep a user from being moved, until what they name is
put right; docs/findings.md lists them all.
` + exitHelp,
		Example: `  mailferry plan --all
  mailferry plan --json alice bob | jq .findings`,
		RunE: func(cmd *cobra.Command, args []string) error { return plan(cmd, &f, args) },
	}
	f.add(cmd, planKeys...)
	f.addUsers(cmd)
	return cmd
}

func plan(cmd *cobra.Command, f *siteFlags, args []string) error {
	p, err := makePlan(cmd, f, args)
	if err != nil {
		return err
	}
	write := printPlan
	if f.json {
		write = printPlanJSON
	}
	if err := write(cmd.OutOrStdout(), p); err != nil {
		return fmt.Errorf("the plan could not be written: %w", err)
	}
	if p.Total.Refused > 0 {
		return outcome(exitSkipped)
	}
	return nil
}

func makePlan(cmd *cobra.Command, f *siteFlags, args []string) (*convert.Plan, error) {
	c, err := f.config()
	if err != nil {
		return nil, err
	}
	users, err := loadUsers(cmd.Context(), c)
	if err != nil {
		return nil, err
	}
	names, err := f.names(cmd, c, users, args)
	if err != nil {
		return nil, err
	}
	accounts, err := accountsOf(cmd.Context(), c, users, names)
	if err != nil {
		return nil, err
	}
	in := convert.NewInspector(siteOf(c), users.All())
	in.FreeFloor = c.FreeFloor
	shown := newProgress(cmd.ErrOrStderr(), "plan")
	shown.run(len(accounts), 0)
	defer shown.finish()
	return in.Plan(cmd.Context(), accounts, convert.PlanOptions{
		Jobs: c.Jobs, Done: func(*convert.AccountPlan) { shown.userDone() },
	})
}

// siteOf is what the configuration says of all accounts.
func siteOf(c *config.Config) convert.Site {
	return convert.Site{Scan: c.Scan(), Folders: c.Layout, Locks: c.Locks, State: c.State, MinUID: c.MinUID}
}

// printPlan prints a plan for people: a line for each user, then what was
// found, then what it comes to.
func printPlan(w io.Writer, p *convert.Plan) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "user\tmailboxes\tmessages\tsize\tinodes\ttime\thold\tfindings")
	for i := range p.Accounts {
		a := &p.Accounts[i]
		fmt.Fprintf(t, "%s\t%s\t%s\n", printable(a.User), planned(a), foundCodes(a.Findings))
	}
	total := p.Total
	fmt.Fprintf(t, "total\t%d\t%d\t%s\t%d\t%s\t%s\t%s refused, %d migrated\n", total.Mailboxes, total.Messages, size(total.Bytes), total.NeedInodes,
		span(total.Precopy), span(total.Hold), plural(total.Refused, "user"), total.Migrated)
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range p.Accounts {
		for _, f := range p.Accounts[i].Findings {
			printFinding(&b, p.Accounts[i].User, f)
		}
	}
	for _, line := range oddPlanned(p) {
		b.WriteString(printable(line) + "\n")
	}
	printOutlook(&b, p)
	_, err := io.WriteString(w, b.String())
	return err
}

// oddPlanned are the lines about what is odd in mailboxes that would be moved.
func oddPlanned(p *convert.Plan) []string {
	var list oddList
	for i := range p.Accounts {
		if a := &p.Accounts[i]; !stays(a) {
			list.add(a.User, func(yield func(string, convert.Odd) bool) {
				for _, m := range a.Mailboxes {
					if !yield(m.Path, m.Oddities) {
						return
					}
				}
			})
		}
	}
	return list.text()
}

// stays reports whether a run would leave the account where it is.
func stays(a *convert.AccountPlan) bool { return a.Refused || a.Has("migrated") }

// planned are the columns of numbers. What can't be moved has none.
func planned(a *convert.AccountPlan) string {
	if stays(a) {
		return strings.TrimSuffix(strings.Repeat("-\t", 6), "\t")
	}
	return fmt.Sprintf("%d\t%d\t%s\t%d\t%s\t%s", len(a.Mailboxes), a.Messages, size(a.Bytes), a.NeedInodes, span(a.Precopy), span(a.Hold))
}

// foundCodes lists each code once; the gravest stand first.
func foundCodes(findings []convert.Finding) string {
	var list []string
	seen := map[string]bool{}
	for _, f := range findings {
		if !seen[f.Code] {
			seen[f.Code] = true
			list = append(list, f.Code)
		}
	}
	return strings.Join(list, " ")
}

func printFinding(b *strings.Builder, user string, f convert.Finding) {
	path := ""
	if f.Path != "" {
		path = quoted(f.Path) + ": "
	}
	b.WriteString(printable(fmt.Sprintf("%s: %s: %s: %s%s", user, f.Severity, f.Code, path, f.Text)) + "\n")
	if f.Severity != convert.Info {
		b.WriteString(printable("  "+f.Advice) + "\n")
	}
}

// printOutlook prints what concerns all users together.
func printOutlook(b *strings.Builder, p *convert.Plan) {
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	for _, v := range p.Volumes {
		verdict := "enough"
		if !v.Enough {
			verdict = "NOT ENOUGH for all of them"
		}
		line("filesystem of %s: %s, %s needed of %s free, %s of %d: %s", quoted(v.Path), plural(v.Users, "user"),
			size(v.NeedBytes), size(v.FreeBytes), plural(int(v.NeedInodes), "inode"), v.FreeInodes, verdict)
	}
	t := p.Total
	line("%s: %d to move, %d refused, %d migrated; %s, %s, %s, %s, %d for quarantine", plural(t.Users, "user"), t.Ready, t.Refused, t.Migrated,
		plural(t.Mailboxes, "mailbox"), plural(t.Messages, "message"), size(t.Bytes), plural(t.Oddities, "oddity"), t.Quarantine)
	if p.Rate.Problem != "" {
		line("no times: the rate could not be measured: %s", p.Rate.Problem)
		return
	}
	source := "as measured in " + quoted(p.Rate.Where)
	if p.Rate.Rehearsed > 0 {
		source = "by the rehearsals of " + plural(p.Rate.Rehearsed, "user")
	}
	line("precopy about %s, longest hold about %s, %s", span(t.Precopy), span(t.Hold), source)
}

// span is a length of time as people read it.
func span(s convert.Seconds) string {
	switch {
	case s < 1:
		return fmt.Sprintf("%.0f ms", float64(s)*1000)
	case s < 60:
		return fmt.Sprintf("%.1f s", float64(s))
	}
	return (time.Duration(float64(s)) * time.Second).String()
}

// The JSON lines of a plan; see output.go.
type (
	jsonAccount struct {
		MessageType string `json:"message_type"` // "account"
		*convert.AccountPlan
	}
	jsonPlanSummary struct {
		MessageType string `json:"message_type"` // "summary"
		convert.PlanTotal
		Rate    convert.Rate     `json:"rate"`
		Volumes []convert.Volume `json:"volumes"`
	}
)

// printPlanJSON prints a plan for programs.
func printPlanJSON(w io.Writer, p *convert.Plan) error {
	out := json.NewEncoder(w)
	for i := range p.Accounts {
		if err := out.Encode(jsonAccount{"account", &p.Accounts[i]}); err != nil {
			return err
		}
	}
	return out.Encode(jsonPlanSummary{"summary", p.Total, p.Rate, p.Volumes})
}
