package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/control"
	"mailferry/internal/journal"
)

func ctlCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ctl",
		Short: "Steer the run that is at work: look, pause, postpone, go on, end it",
		Long: `ctl speaks to the run that is at work, by STATE/control. pause, postpone, resume
and panic make and remove the files STATE/pause, STATE/postpone-cutover and
STATE/panic, and do so without a run, too: the next one obeys them. All else
without a run is exit code 1.
` + exitHelp,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{fmt.Errorf("%s: status, pause, resume, postpone, cutover, set or panic?", cmd.CommandPath())}
		},
	}
	for _, c := range []*cobra.Command{
		{Use: "status", Short: "Show how far the run is, who is at work, and what waits, why and since when"},
		{Use: "pause", Short: "Begin no chunk and no cutover until resume"},
		{Use: "postpone", Short: "Begin no cutover until resume; precopies go on"},
		{Use: "resume", Short: "End pause and postpone"},
		{Use: "panic", Short: "End the run: what is at work is finished, nothing new begun"},
		{Use: "cutover USER", Short: "Take a user next, and cut him over though cutovers are postponed", Args: cobra.ExactArgs(1)},
		{Use: "set KEY=VALUE", Short: "Change a key of the run, from the next user on: " + strings.Join(adjustable, ", "),
			Args: cobra.ExactArgs(1), Example: "  mailferry ctl set bwlimit=10M"},
	} {
		cmd.AddCommand(ctlVerb(c))
	}
	return cmd
}

// ctlVerb completes a command of ctl.
func ctlVerb(cmd *cobra.Command) *cobra.Command {
	var f siteFlags
	f.add(cmd)
	args := cmd.Args
	if args == nil {
		args = cobra.NoArgs
	}
	cmd.Args = func(cmd *cobra.Command, list []string) error {
		if args(cmd, list) != nil {
			return usageError{fmt.Errorf("%s: use it as: mailferry ctl %s", cmd.CommandPath(), cmd.Use)}
		}
		return nil
	}
	cmd.Long = cmd.Short + ".\n" + exitHelp
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return ctl(cmd, &f, args) }
	return cmd
}

// jsonControl is the answer to all commands but status.
type jsonControl struct {
	MessageType string          `json:"message_type"` // "control"
	Command     control.Command `json:"command"`
	Run         bool            `json:"run"` // whether one is at work and heard it
	Text        string          `json:"text"`
}

// jsonRunStatus is the answer to status.
type jsonRunStatus struct {
	MessageType string `json:"message_type"` // "run_status"
	convert.RunStatus
}

func ctl(cmd *cobra.Command, f *siteFlags, args []string) error {
	c, err := f.config()
	if err != nil {
		return err
	}
	request := control.Request{Command: control.Command(cmd.Name())}
	switch request.Command {
	case control.Cutover:
		request.User = args[0]
	case control.Set:
		if request.Key, request.Value, err = control.ParseSetting(args[0]); err != nil {
			return usageError{err}
		}
	}
	if err := request.Check(); err != nil {
		return usageError{err}
	}
	answer, err := control.Ask(c.State, request)
	heard := err == nil
	if errors.Is(err, control.ErrNoRun) {
		answer.Text, err = alone(siteOf(c), request.Command)
	}
	switch {
	case err != nil:
		return err
	case answer.Error != "":
		return errors.New(answer.Error)
	case request.Command == control.Status:
		return showRun(cmd.OutOrStdout(), answer.Status, f.json)
	case f.json:
		return json.NewEncoder(cmd.OutOrStdout()).Encode(jsonControl{"control", request.Command, heard, answer.Text})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), printable(answer.Text))
	return err
}

// alone is what a command does where no run listens.
func alone(site convert.Site, command control.Command) (string, error) {
	nobody, err := journal.Active(site.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	why := "no run is at work"
	if nobody != nil {
		why = fmt.Sprintf("%s is at work, since %s: pid %d; it takes no orders", nobody.Verb, nobody.Since.Local().Format(time.DateTime), nobody.PID)
	}
	switch command {
	case control.Status, control.Cutover, control.Set:
		return "", fmt.Errorf("%s (%s)", why, site.State)
	}
	text, err := flag(site, command)
	return why + "; for the next one: " + text, err
}

// showRun prints how far a run is.
func showRun(w io.Writer, status []byte, asJSON bool) error {
	var s convert.RunStatus
	if err := json.Unmarshal(status, &s); err != nil {
		return fmt.Errorf("the run's answer: %w", err)
	}
	if asJSON {
		return json.NewEncoder(w).Encode(jsonRunStatus{"run_status", s})
	}
	var b strings.Builder
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	line("run %s: %s since %s, chunk %d", s.Run, s.Verb, clock(s.Started), s.Chunk)
	line("%s: %d done, %d skipped, %d failed, %d left", plural(s.Users.Total, "user"), s.Users.Done, s.Users.Skipped, s.Users.Failed, s.Left)
	if s.Wait != nil {
		line("waiting since %s: %s", clock(s.Wait.Since), s.Wait.What)
	}
	for _, u := range s.Working {
		line("%s: at work since %s: %s", u.User, clock(u.Since), u.What)
	}
	for _, u := range s.Waiting {
		line("%s: waits since %s: %s", u.User, clock(u.Since), u.What)
	}
	if s.More > 0 {
		line("and %d more wait", s.More)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// clock is a time of day, with the date if that is another.
func clock(t time.Time) string {
	if t = t.Local(); t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
