package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/journal"
)

// semaphoreKeys are the keys that say whose semaphores lie where.
var semaphoreKeys = []string{"users", "min-uid", "semaphore", "mirror"}

func enrollCommand() *cobra.Command {
	var f siteFlags
	cmd := &cobra.Command{
		Use:   "enroll [USER]...",
		Short: "Write the semaphore of users who have none",
		Long: `enroll writes a semaphore that says mbox for users who have none: the authority,
in a directory of root's that is made if it is missing, and the mirror in the
home. Who has a semaphore keeps it; his mirror is put right if it differs. No
mail is touched.

Who was moved, as his soak record says, and has lost his semaphore gets one that
says maildir, if his mail agrees with that; else he is named and gets none.

Delivery agents and servers that read semaphores wait where there is none. So
enroll all users before they are pointed at the semaphores, and each new one
when he is made.

Users whose uid is below min-uid, or whose home is missing or not theirs, are
skipped and listed.
` + exitHelp,
		Example: `  mailferry enroll --all
  mailferry enroll alice bob`,
		RunE: func(cmd *cobra.Command, args []string) error { return enroll(cmd, &f, args) },
	}
	f.add(cmd, semaphoreKeys...)
	f.addUsers(cmd)
	return cmd
}

func enroll(cmd *cobra.Command, f *siteFlags, args []string) error {
	c, accounts, err := f.load(cmd, args)
	if err != nil {
		return err
	}
	shown := newProgress(cmd.ErrOrStderr(), "enroll")
	shown.run(len(accounts), 0)
	list, err := siteOf(c).Enroll(cmd.Context(), accounts, shown.userDone)
	shown.finish()
	if list == nil && err != nil {
		return err
	}
	n := countEnrolled(list)
	write := printEnrolled
	if f.json {
		write = printEnrolledJSON
	}
	if err := errors.Join(err, write(cmd.OutOrStdout(), list, n)); err != nil {
		return err
	}
	if n.Skipped+n.Failed > 0 {
		return outcome(exitSkipped)
	}
	return nil
}

// enrolled counts users. Each is in one count, and in Users, but for Mirrors.
type enrolled struct {
	Users     int `json:"users"`
	Enrolled  int `json:"enrolled"`
	Already   int `json:"already"`
	Skipped   int `json:"skipped"`
	Failed    int `json:"failed"`
	Untouched int `json:"untouched"`
	Mirrors   int `json:"mirrors"` // that were written
}

func countEnrolled(list []convert.Enrollment) (n enrolled) {
	n.Users = len(list)
	for _, e := range list {
		if e.Mirrored {
			n.Mirrors++
		}
		switch e.Outcome {
		case convert.Enrolled:
			n.Enrolled++
		case convert.Already:
			n.Already++
		case journal.Skipped:
			n.Skipped++
		case journal.Failed:
			n.Failed++
		default:
			n.Untouched++
		}
	}
	return n
}

// printEnrolled names those of whom there is more to say than that they are
// enrolled.
func printEnrolled(w io.Writer, list []convert.Enrollment, n enrolled) error {
	b := &strings.Builder{}
	for _, e := range list {
		switch {
		case len(e.Findings) > 0:
			for _, found := range e.Findings {
				printFinding(b, e.User, found)
			}
		case e.Reason != "":
			b.WriteString(printable(fmt.Sprintf("%s: %s: %s", e.User, e.Outcome, e.Reason)) + "\n")
		case e.Moved:
			b.WriteString(printable(e.User+": had lost his semaphore; it says maildir again: his record says that he was moved, and his mail agrees") + "\n")
		case e.Mirrored && e.Outcome == convert.Already:
			b.WriteString(printable(e.User+": the mirror differed, and is put right") + "\n")
		}
	}
	fmt.Fprintf(b, "%s: %d enrolled, %d enrolled already, %d skipped, %d failed", plural(n.Users, "user"), n.Enrolled, n.Already, n.Skipped, n.Failed)
	if n.Untouched > 0 {
		fmt.Fprintf(b, ", %d untouched", n.Untouched)
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// The JSON lines of enroll; see output.go.
type (
	jsonEnrollment struct {
		MessageType string `json:"message_type"` // "user"
		convert.Enrollment
	}
	jsonEnrolled struct {
		MessageType string `json:"message_type"` // "summary"
		enrolled
	}
)

func printEnrolledJSON(w io.Writer, list []convert.Enrollment, n enrolled) error {
	lines := make([]any, 0, len(list)+1)
	for _, e := range list {
		lines = append(lines, jsonEnrollment{"user", e})
	}
	return printLines(w, append(lines, jsonEnrolled{"summary", n}))
}

// printLines prints JSON lines, all at once.
func printLines(w io.Writer, lines []any) error {
	b := &strings.Builder{}
	out := json.NewEncoder(b)
	for _, line := range lines {
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
