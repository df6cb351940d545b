package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/mbox"
)

// work runs a verb, shows how far it is, and prints its report.
func work(cmd *cobra.Command, verb string, do func(context.Context, convert.Options) (*convert.Report, error), o convert.Options, asJSON bool) error {
	p := newProgress(cmd.ErrOrStderr(), verb)
	o.Total, o.Progress = p.total, p.add
	report, err := do(cmd.Context(), o)
	p.finish()
	if err != nil && asJSON {
		err = errors.Join(err, json.NewEncoder(cmd.OutOrStdout()).Encode(jsonError{"error", err.Error()}))
	}
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), report)
	} else {
		err = printText(cmd.OutOrStdout(), report, verb == "convert")
	}
	if err != nil {
		return fmt.Errorf("%s is done, but its report could not be written: %w", verb, err)
	}
	switch {
	case len(report.Differences) > 0:
		return outcome(exitMismatch)
	case len(report.Skips) > 0:
		return outcome(exitSkipped)
	}
	return nil
}

// speed is in MB/s.
func speed(r *convert.Report) float64 { return float64(r.Bytes) / 1e6 / max(r.Took.Seconds(), 1e-6) }

// printText prints a report for people, with or without what was found in
// each mailbox.
func printText(w io.Writer, r *convert.Report, mailboxes bool) error {
	b := &strings.Builder{}
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	for _, m := range r.Mailboxes {
		if !mailboxes {
			break
		}
		line("%s: %s, %s", quoted(m.Name), plural(m.Messages, "message"), size(m.Bytes))
		if m.Careful != m.Messages && m.Oddities.Of(mbox.ProfileDiffers).Count > 0 {
			line("  the careful reading counts %s", plural(m.Careful, "message"))
		}
		for kind, p := range m.Oddities.All {
			line("  %s", oddText(kind, "", p))
		}
		for _, k := range m.Left {
			line("  keyword without a letter: doveadm flags add -u USER %s mailbox %s uid %s", shellWord(k.Keyword), shellWord(m.Name), k.UIDs)
		}
	}
	for _, s := range r.Skips {
		line("skipped: %s: %s", quoted(s.Path), s.Reason)
	}
	for _, d := range r.Differences {
		line("differs: %s", d)
	}
	differences := ""
	if len(r.Differences) > 0 {
		differences = ", " + plural(len(r.Differences), "difference")
	}
	line("%s, %s, %s, %d quarantined, %d skipped, %s%s; %.2f s, %.0f MB/s", plural(len(r.Mailboxes), "mailbox"),
		plural(r.Messages, "message"), size(r.Bytes), r.Quarantined, len(r.Skips), plural(r.Oddities(), "oddity"),
		differences, r.Took.Seconds(), speed(r))
	_, err := io.WriteString(w, b.String())
	return err
}

// The JSON lines of a report; see output.go.
type (
	jsonOddity struct {
		Code string `json:"code"`
		Text string `json:"text"`
		mbox.Places
	}
	jsonMailbox struct {
		MessageType string                `json:"message_type"` // "mailbox"
		Mailbox     string                `json:"mailbox"`
		Path        string                `json:"path"`
		Messages    int                   `json:"messages"`
		Careful     int                   `json:"careful_messages"`
		Bytes       int64                 `json:"bytes"`
		Oddities    []jsonOddity          `json:"oddities"`
		Keywords    []convert.LeftKeyword `json:"keywords_without_letter,omitempty"`
	}
	jsonSkip struct {
		MessageType string `json:"message_type"` // "skipped"
		convert.Skip
	}
	jsonDifference struct {
		MessageType string `json:"message_type"` // "difference"
		convert.Difference
	}
	jsonSummary struct {
		MessageType string  `json:"message_type"` // "summary"
		Mailboxes   int     `json:"mailboxes"`
		Messages    int     `json:"messages"`
		Bytes       int64   `json:"bytes"`
		Quarantined int     `json:"quarantined"`
		Skipped     int     `json:"skipped"`
		Oddities    int     `json:"oddities"`
		Differences int     `json:"differences"`
		Seconds     float64 `json:"seconds"`
		Rate        float64 `json:"megabytes_per_second"`
	}
)

// printJSON prints a report for programs.
func printJSON(w io.Writer, r *convert.Report) error {
	lines := make([]any, 0, len(r.Mailboxes)+1)
	for _, m := range r.Mailboxes {
		odd := []jsonOddity{}
		for kind, p := range m.Oddities.All {
			odd = append(odd, jsonOddity{kind.String(), kind.Explain(), p})
		}
		lines = append(lines, jsonMailbox{"mailbox", m.Name, m.Path, m.Messages, m.Careful, m.Bytes, odd, m.Left})
	}
	for _, s := range r.Skips {
		lines = append(lines, jsonSkip{"skipped", s})
	}
	for _, d := range r.Differences {
		lines = append(lines, jsonDifference{"difference", d})
	}
	lines = append(lines, jsonSummary{"summary", len(r.Mailboxes), r.Messages, r.Bytes, r.Quarantined,
		len(r.Skips), r.Oddities(), len(r.Differences), r.Took.Seconds(), speed(r)})
	out := json.NewEncoder(w)
	for _, line := range lines {
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
