package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/internal/doctor"
)

func doctorCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what delivers and serves mail here, and what makes it follow the semaphore",
		Long: `doctor asks Postfix, Exim and Dovecot for their configurations, and looks at those
of sendmail, procmail and maildrop, at the spool, the locks, the semaphores and
mailferry-deliver. It tells what closes the race between a delivery and a flip, what
leaves it open, which locks don't exclude each other, and what could not be found
out, and prints the parts of docs/routing that this host has still to get.

It changes nothing, asks no server that runs, and reads nothing in a home.

Exit codes: 0 all is fine; 1 failed; 2 usage or configuration; 3 something could
not be found out; 4 something is to be done; 130 interrupted.`,
		Example: `  mailferry doctor`,
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, args []string) error { return examineHost(cmd, &f) },
	}
	f.add(cmd, "spool", "folders", "maildir", "layout", "semaphore", "gate", "locks", "grace", "doveadm")
	return cmd
}

func examineHost(cmd *cobra.Command, f *siteFlags) error {
	c, err := f.config()
	if err != nil {
		return err
	}
	r, err := doctor.Examine(cmd.Context(), c)
	if err != nil {
		return err
	}
	if f.json {
		err = doctorJSON(cmd.OutOrStdout(), r)
	} else {
		err = doctorText(cmd.OutOrStdout(), r)
	}
	if code := doctorCode(r); err == nil && code != exitDone {
		return outcome(code)
	}
	return err
}

func doctorCode(r *doctor.Report) int {
	switch {
	case r.Count(doctor.Do) > 0:
		return exitMismatch
	case r.Count(doctor.Unknown) > 0:
		return exitSkipped
	}
	return exitDone
}

// doctorText prints a report for people: snippets as they are, to be copied.
func doctorText(w io.Writer, r *doctor.Report) error {
	b := &strings.Builder{}
	line := func(format string, args ...any) { b.WriteString(printable(fmt.Sprintf(format, args...)) + "\n") }
	for _, p := range r.Programs {
		line("%s: %s", strings.TrimSpace(p.Name+" "+p.Version), p.Path)
	}
	for _, f := range r.Findings {
		line("%s: %s: %s: %s", f.About, f.Severity, f.Code, f.Text)
		if f.Advice != "" {
			line("  %s", f.Advice)
		}
	}
	for _, s := range r.Snippets {
		line("")
		line("docs/routing/%s, %s:", s.Recipe, s.File)
		line("")
		for text := range strings.Lines(s.Text) {
			line("%s", strings.TrimRight("    "+strings.TrimSuffix(text, "\n"), " "))
		}
	}
	if len(r.Snippets) > 0 {
		line("")
	}
	line("this host: %d to do, %d unknown, %s, %d fine", r.Count(doctor.Do), r.Count(doctor.Unknown), plural(r.Count(doctor.Note), "note"), r.Count(doctor.Fine))
	_, err := io.WriteString(w, b.String())
	return err
}

type (
	jsonProgram struct {
		MessageType string `json:"message_type"` // "program"
		doctor.Program
	}
	jsonDoctorFinding struct {
		MessageType string `json:"message_type"` // "finding"
		doctor.Finding
	}
	jsonSnippet struct {
		MessageType string `json:"message_type"` // "snippet": what a file should have, and has not yet
		Recipe      string `json:"recipe"`
		File        string `json:"file"`
		Text        string `json:"text"`
	}
	jsonDoctor struct {
		MessageType string `json:"message_type"` // "summary"
		Do          int    `json:"do"`
		Unknown     int    `json:"unknown"`
		Notes       int    `json:"notes"`
		Fine        int    `json:"fine"`
	}
)

// doctorJSON prints a report for programs.
func doctorJSON(w io.Writer, r *doctor.Report) error {
	var lines []any
	for _, p := range r.Programs {
		lines = append(lines, jsonProgram{"program", p})
	}
	for _, f := range r.Findings {
		lines = append(lines, jsonDoctorFinding{"finding", f})
	}
	for _, s := range r.Snippets {
		lines = append(lines, jsonSnippet{"snippet", "docs/routing/" + s.Recipe, s.File, s.Text})
	}
	return printLines(w, append(lines, jsonDoctor{"summary", r.Count(doctor.Do), r.Count(doctor.Unknown), r.Count(doctor.Note), r.Count(doctor.Fine)}))
}
