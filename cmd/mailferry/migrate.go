package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"mailferry/convert"
	"mailferry/internal/account"
	"mailferry/internal/config"
	"mailferry/internal/journal"
)

// runKeys are the keys that decide what a run does.
var runKeys = []string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror", "gate",
	"profile", "quoting", "eol", "correct-dates", "locks", "chunk", "jobs", "max-failures", "window", "pause-between",
	"bwlimit", "nice", "order", "free-floor"}

// cutoverKeys are those of runs that go as far as the flip.
var cutoverKeys = append([]string{"cutover-jobs", "hold-limit", "allow-quarantine"}, runKeys...)

func precopyCommand() *cobra.Command {
	return runCommand(convert.Precopy, runKeys, &cobra.Command{
		Use:   "precopy [USER]...",
		Short: "Fill or refresh the staging Maildirs of users, while they work",
		Long: `precopy makes for each user a staging Maildir beside the one to be, or brings
it up to date: what came since is written, what went is removed, what was flagged
is renamed. The mailboxes are only read; servers and users notice nothing. It
can be repeated as often as you like.
` + exitHelp,
		Example: `  mailferry precopy --all --nice --bwlimit 20M`,
	})
}

func migrateCommand() *cobra.Command {
	return runCommand(convert.Migrate, cutoverKeys, &cobra.Command{
		Use:   "migrate [USER]...",
		Short: "Move users from mbox to Maildir, chunk by chunk: the overnight run",
		Long: `migrate looks at each user, fills a staging Maildir while the mailboxes are in
use, makes it durable, reads it back, and moves him in a fraction of a second:
deliveries and logins are held, the mailboxes locked, the last changes taken
over and verified, the Maildir published, the semaphore flipped, the mboxes set
aside as NAME.mailferry-TIME. Whatever goes wrong before the flip leaves the
user on his mbox, as he was.

A user who fails a check is left alone, and named; the others go on. The run
can be stopped at any time, and be run again: it goes on where it was.

While the file STATE/pause is there, nothing new is begun; STATE/panic ends the
run. SIGUSR1 tells how far it is.
` + exitHelp,
		Example: `  mailferry migrate --all --window 01:00-05:30 --chunk 100
  mailferry migrate --wave pilots`,
	})
}

func cutoverCommand() *cobra.Command {
	return runCommand(convert.Cutover, cutoverKeys, &cobra.Command{
		Use:     "cutover [USER]...",
		Short:   "Move users whose staging Maildir has been filled by precopy",
		Long:    "cutover is the second half of migrate, for users who have been precopied. Others\nare skipped.\n" + exitHelp,
		Example: `  mailferry cutover alice bob`,
	})
}

// verbRecover is a run that only does what every run does first.
const verbRecover convert.Verb = "recover"

func recoverCommand() *cobra.Command {
	cmd := runCommand(verbRecover, []string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror", "gate", "locks"}, &cobra.Command{
		Use:   "recover",
		Short: "Finish or undo what a killed run has left",
		Long: `recover looks at all users of whom a killed run has left something, and resolves
it: a cutover that had not reached its flip is undone, one that had is finished.
Every run does so first; recover does nothing else. Holds that an admin has
set are left alone.
` + exitHelp,
		Args: cobra.NoArgs,
	})
	return cmd
}

func runCommand(verb convert.Verb, keys []string, cmd *cobra.Command) *cobra.Command {
	var f siteFlags
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return migrate(cmd, &f, verb, args) }
	f.add(cmd, keys...)
	if f.all = verb == verbRecover; !f.all {
		f.addUsers(cmd)
	}
	return cmd
}

// migrate carries a run out, from the configuration to the exit code.
func migrate(cmd *cobra.Command, f *siteFlags, verb convert.Verb, args []string) (err error) {
	c, err := f.config()
	if err != nil {
		return err
	}
	if doubts := c.Doubts(); len(doubts) > 0 { // who can write the configuration has root's powers in a run
		return usageError{errors.Join(doubts...)}
	}
	users, err := loadUsers(cmd.Context(), c)
	if err != nil {
		return err
	}
	names, err := f.names(cmd, c, users, args)
	if err != nil {
		return err
	}
	accounts, err := accountsOf(cmd.Context(), c, users, names)
	if err != nil {
		return err
	}
	log, err := journal.Begin(c.State, string(verb))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()

	w := newWatch(cmd, verb, f.json)
	in := convert.NewInspector(siteOf(c), users.All())
	in.FreeFloor = c.FreeFloor
	r := newRun(c, verb)
	r.Inspector, r.Journal, r.Watch, r.Find = in, log, w, finder(cmd.Context(), c, users)
	do := r.Do
	if verb == verbRecover {
		do = r.DoRecover
	}
	summary, fault := do(cmd.Context(), accounts)
	code := runCode(summary, fault)
	if code == exitDone && r.Unresolved > 0 {
		code = exitSkipped
	}
	summary.ExitCode = code
	fault = errors.Join(fault, log.Finish(*summary))
	if err := w.end(log.ID(), summary); err != nil {
		fault = errors.Join(fault, fmt.Errorf("the run is over, but its report could not be written: %w", err))
	}
	if fault != nil {
		return fault
	}
	if code != exitDone {
		return outcome(code)
	}
	return nil
}

// newRun is a run as the configuration has it.
func newRun(c *config.Config, verb convert.Verb) *convert.Run {
	r := &convert.Run{
		Site: siteOf(c), Verb: verb, Chunk: c.Chunk, Jobs: c.Jobs, CutoverJobs: c.CutoverJobs,
		Pace: convert.Pace{Nice: c.Nice, Throttle: throttle(c.Bandwidth)}, HoldLimit: c.HoldLimit, Pause: c.PauseBetween,
		MaxFailures: c.MaxFailures, FreeFloor: c.FreeFloor, AllowQuarantine: c.AllowQuarantine,
	}
	r.Open = c.Window.Open
	switch c.Order {
	case config.Size:
		r.BySize = cmp.Compare[int64]
	case config.SizeDesc:
		r.BySize = func(a, b int64) int { return cmp.Compare(b, a) }
	}
	return r
}

// finder looks up users whom the command line did not name.
func finder(ctx context.Context, c *config.Config, users *account.Users) func(string) (account.Account, bool) {
	return func(name string) (account.Account, bool) {
		list, err := accountsOf(ctx, c, users, []string{name})
		return first(list), err == nil && len(list) == 1 && list[0].Problem == nil
	}
}

func first(list []account.Account) (a account.Account) {
	if len(list) > 0 {
		a = list[0]
	}
	return a
}

// throttle waits for as long as bytes take at a rate of so many a second; nil
// for no limit.
func throttle(bandwidth int64) func(context.Context, int64) error {
	if bandwidth == 0 {
		return nil
	}
	burst := int(max(bandwidth/4, 64<<10)) // a quarter of a second
	limit := rate.NewLimiter(rate.Limit(bandwidth), burst)
	return func(ctx context.Context, bytes int64) error {
		for bytes > 0 {
			n := min(bytes, int64(burst))
			if err := limit.WaitN(ctx, int(n)); err != nil {
				return err
			}
			bytes -= n
		}
		return nil
	}
}

// runCode is the exit code of a run.
func runCode(s *journal.Summary, fault error) int {
	switch {
	case fault != nil:
		return exitFailed
	case s.End == convert.EndSignal:
		return exitInterrupted
	case s.End == convert.EndWindow:
		return exitWindow
	case s.End != convert.EndDone:
		return exitFailed
	case s.Users.Skipped > 0 || s.Users.Failed > 0 || s.Messages.Quarantined > 0:
		return exitSkipped
	}
	return exitDone
}
