package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/journal"
)

// watch shows a run: its progress on standard error, its results on standard
// output, as lines of JSON as they come, or for people in the end.
type watch struct {
	*progress
	out   io.Writer
	json  bool
	start time.Time

	panicFile string // what ends the run

	mu      sync.Mutex
	lines   []string // about users
	odd     oddList
	holds   []time.Duration
	already int
	stages  rehearsed
	retired retired
	failed  error // of out
}

func newWatch(cmd *cobra.Command, verb convert.Verb, asJSON bool) *watch {
	return &watch{progress: newProgress(cmd.ErrOrStderr(), string(verb)), out: cmd.OutOrStdout(), json: asJSON, start: time.Now()}
}

func (w *watch) Begin(users int, bytes int64) { w.run(users, bytes) }
func (w *watch) Progress(bytes int64)         { w.add(bytes) }
func (w *watch) Wait(reason string)           { w.waiting(reason) }
func (w *watch) Note(text string)             { w.say("%s", text) }

// jsonUser is the line of a user.
type jsonUser struct {
	MessageType string `json:"message_type"` // "user"
	convert.User
	HoldSeconds float64 `json:"hold_seconds,omitempty"`
}

// User enters what became of a user.
func (w *watch) User(u convert.User) {
	w.userDone()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stages.add(u)
	w.retired.add(u)
	if u.Already {
		w.already++
	} else if u.Hold > 0 {
		w.holds = append(w.holds, u.Hold)
	}
	if w.json {
		w.note(json.NewEncoder(w.out).Encode(jsonUser{"user", u, u.Hold.Seconds()}))
		return
	}
	w.lines = append(w.lines, userLines(u)...)
	w.odd.round(u.Name, u.Round)
}

func (w *watch) note(err error) {
	if w.failed == nil {
		w.failed = err
	}
}

// userLines are what an admin reads of a user in the morning; nothing, if all
// is well.
func userLines(u convert.User) (lines []string) {
	line := func(format string, args ...any) { lines = append(lines, u.Name+": "+fmt.Sprintf(format, args...)) }
	told := ""
	switch {
	case u.Outcome != journal.Done:
		line("%s: %s: %s", u.Outcome, u.Reason, u.Text)
		told = u.Reason
	case u.Text != "":
		line("%s", u.Text)
	case u.Rehearsal != nil:
		line("%s", rehearsalText(u))
	}
	if len(u.Retired) > 0 {
		line("%s", retiredText(u))
	}
	if u.Round != nil {
		for _, m := range u.Round.Mailboxes {
			for _, k := range m.Left {
				line("keyword without a letter: doveadm flags add -u %s %s mailbox %s uid %s", shellWord(u.Name), shellWord(k.Keyword), shellWord(m.Name), k.UIDs)
			}
		}
	}
	for _, f := range u.Findings {
		if f.Severity == convert.Info || u.Already {
			continue
		}
		if f.Code == told {
			told = "" // once
			continue
		}
		where := ""
		if f.Path != "" {
			where = quoted(f.Path) + " "
		}
		line("%s: %s: %s%s; %s", f.Severity, f.Code, where, f.Text, f.Advice)
	}
	return lines
}

// jsonRun is the last line of a run.
type jsonRun struct {
	MessageType string `json:"message_type"` // "summary"
	journal.Summary
	Already int     `json:"migrated_before"`
	Seconds float64 `json:"seconds"`
	HoldP50 float64 `json:"hold_p50_seconds"`
	HoldP99 float64 `json:"hold_p99_seconds"`
	HoldMax float64 `json:"hold_max_seconds"`

	Rehearsed *rehearsed `json:"rehearsed,omitempty"`
	Retired   *retired   `json:"retired,omitempty"`
}

// why is the end of a run for people, who are to do something about that one.
func (w *watch) why(end string) string {
	if end == convert.EndPanic {
		return fmt.Sprintf("%s %s, remove it before the next run", end, printable(quoted(w.panicFile)))
	}
	return end
}

// end shows the result of the run.
func (w *watch) end(run string, s *journal.Summary) error {
	w.finish()
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Run = run
	slices.Sort(w.holds)
	if w.json {
		w.note(json.NewEncoder(w.out).Encode(jsonRun{"summary", *s, w.already, time.Since(w.start).Seconds(),
			w.hold(50).Seconds(), w.hold(99).Seconds(), w.hold(100).Seconds(), w.stages.sums(), w.retired.sums()}))
		return w.failed
	}
	var b strings.Builder
	for _, line := range append(w.lines, w.odd.text()...) {
		fmt.Fprintln(&b, printable(line))
	}
	if w.verb == string(verbRecover) {
		_, err := fmt.Fprintf(w.out, "%s; run %s\n", s.End, run)
		return err
	}
	fmt.Fprintf(&b, "%s: %d done (%d before), %d skipped, %d failed, %d untouched\n", plural(s.Users.Total, "user"),
		s.Users.Done, w.already, s.Users.Skipped, s.Users.Failed, s.Users.Untouched)
	if w.verb != string(convert.Retire) {
		fmt.Fprintf(&b, "%s in: %d converted, %d quarantined; %s\n", plural(s.Messages.In, "message"), s.Messages.Converted, s.Messages.Quarantined, size(s.Bytes))
	}
	b.WriteString(w.stages.text())
	b.WriteString(w.retired.text())
	if len(w.holds) > 0 {
		fmt.Fprintf(&b, "held for %s (median), %s (99%%), %s (most)\n", ms(w.hold(50)), ms(w.hold(99)), ms(w.hold(100)))
	}
	fmt.Fprintf(&b, "%s: %s in %s; run %s\n", w.why(s.End), plural(s.Chunks, "chunk"), time.Since(w.start).Round(10*time.Millisecond), run)
	_, err := io.WriteString(w.out, b.String())
	w.note(err)
	return w.failed
}

// hold is a percentile of the holds, which are sorted.
func (w *watch) hold(percent int) time.Duration {
	if len(w.holds) == 0 {
		return 0
	}
	return w.holds[(len(w.holds)-1)*percent/100]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
