package main

import (
	"context"
	"encoding/json"
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
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(cmd.OutOrStdout(), report)
	} else {
		err = printText(cmd.OutOrStdout(), report, verb == "convert")
	}
	if err != nil {
		return err
	}
	switch {
	case len(report.Differences) > 0:
		return outcome(exitMismatch)
	case len(report.Skips) > 0:
		return outcome(exitSkipped)
	}
	return nil
}

// rate is in MB/s.
func rate(r *convert.Report) float64 { return float64(r.Bytes) / 1e6 / max(r.Took.Seconds(), 1e-6) }

// printText prints a report for people, with or without what was found in
// each mailbox.
func printText(w io.Writer, r *convert.Report, mailboxes bool) error {
	b := &strings.Builder{}
	for _, m := range r.Mailboxes {
		if !mailboxes {
			break
		}
		fmt.Fprintf(b, "%s: %s, %s\n", quoted(m.Name), plural(m.Messages, "message"), size(m.Bytes))
		if m.Careful != m.Messages && m.Oddities.Of(mbox.ProfileDiffers).Count > 0 {
			fmt.Fprintf(b, "  the careful reading counts %s\n", plural(m.Careful, "message"))
		}
		for kind, p := range m.Oddities.All {
			fmt.Fprintf(b, "  odd: %s: %s (%d, at %s)\n", kind, kind.Explain(), p.Count, offsets(p))
		}
		for _, k := range m.Left {
			fmt.Fprintf(b, "  keyword without a letter: doveadm flags add -u USER %s mailbox %s uid %s\n", quoted(k.Keyword), quoted(m.Name), k.UIDs)
		}
	}
	for _, s := range r.Skips {
		fmt.Fprintf(b, "skipped: %s: %s\n", quoted(s.Path), s.Reason)
	}
	for _, d := range r.Differences {
		fmt.Fprintf(b, "differs: %s\n", d)
	}
	fmt.Fprintf(b, "%s, %s, %s, %d quarantined, %d skipped, %s", plural(len(r.Mailboxes), "mailbox"),
		plural(r.Messages, "message"), size(r.Bytes), r.Quarantined, len(r.Skips), plural(r.Oddities(), "oddity"))
	if len(r.Differences) > 0 {
		fmt.Fprintf(b, ", %s", plural(len(r.Differences), "difference"))
	}
	fmt.Fprintf(b, "; %.2f s, %.0f MB/s\n", r.Took.Seconds(), rate(r))
	_, err := io.WriteString(w, b.String())
	return err
}

// quoted guards a terminal against what stands in names: others chose them.
func quoted(s string) string {
	q := fmt.Sprintf("%q", s)
	if q == `"`+s+`"` && !strings.ContainsAny(s, " '$`*?;&|<>()") {
		return s
	}
	return q
}

func offsets(p mbox.Places) string {
	list := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(p.Offsets)), ", "), "[]")
	if p.Count > len(p.Offsets) {
		list += ", ..."
	}
	return list
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "x"):
		noun += "es"
	case strings.HasSuffix(noun, "y"):
		noun = strings.TrimSuffix(noun, "y") + "ies"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func size(n int64) string {
	switch {
	case n < 1e3:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

// The JSON lines. Every one has a message_type; fields are only ever added.
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
		len(r.Skips), r.Oddities(), len(r.Differences), r.Took.Seconds(), rate(r)})
	out := json.NewEncoder(w)
	for _, line := range lines {
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
