package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync/atomic"

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

// aroundKeys are what is done beside the moving of files, when a hold begins and ends.
var aroundKeys = []string{"doveadm", "postqueue", "hooks.before-hold", "hooks.drain", "hooks.after-flip", "hooks.after-abort"}

// cutoverKeys are those of runs that go as far as the flip.
var cutoverKeys = slices.Concat([]string{"cutover-jobs", "hold-limit", "drain-limit", "max-rounds", "retries", "grace", "allow-quarantine"}, aroundKeys, runKeys)

// recoverKeys are what finishing and undoing what was left goes by.
var recoverKeys = append([]string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror", "gate", "locks"}, aroundKeys...)

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

Who was busy, in use or held for too long is tried again at the end (--retries).

While the file STATE/pause is there, nothing new is begun; with
STATE/postpone-cutover, precopies go on; STATE/panic ends the run. mailferry ctl
speaks to the run, SIGUSR1 makes it tell how far it is.
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
	cmd := runCommand(verbRecover, recoverKeys, &cobra.Command{
		Use:   "recover",
		Short: "Finish or undo what a killed run has left",
		Long: `recover looks at all users of whom a killed run has left something, and resolves
it: a cutover or rollback that had not reached its flip is undone, one that had
is finished, and so is a sweep of late mail. Every run does so first; recover
does nothing else. Holds that an admin has set are left alone, and those of a run
on another host until their deadline.

When nobody is held any more, it does what is done behind each hold, as the
configuration has it: doveadm, postqueue, and the hooks after-flip and
after-abort. What fails there is told, and counts for nothing: when the machine
starts, Dovecot and Postfix may not run yet.

Who can't be resolved is named, with the reason and what to do about it, and the
exit code is 3. Nothing of his is lost: if he is held, his mail waits; if he is
not, it goes to where the semaphore says. Do that, and run recover again.
mailferry status shows who is held; mailferry semaphore release, or set, ends a
hold by hand.
` + exitHelp,
		Example: `  mailferry recover
  mailferry recover --json`,
		Args: cobra.NoArgs,
	})
	return cmd
}

func runCommand(verb convert.Verb, keys []string, cmd *cobra.Command) *cobra.Command {
	return runCommandWith(verb, keys, cmd, func(*convert.Run) {})
}

// runCommandWith is runCommand for a verb that has options of its own.
func runCommandWith(verb convert.Verb, keys []string, cmd *cobra.Command, options func(*convert.Run)) *cobra.Command {
	var f siteFlags
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return migrate(cmd, &f, verb, args, options) }
	f.add(cmd, keys...)
	if f.all = verb == verbRecover; !f.all {
		f.addUsers(cmd)
	}
	return cmd
}

// migrate carries a run out, from the configuration to the exit code.
func migrate(cmd *cobra.Command, f *siteFlags, verb convert.Verb, args []string, options func(*convert.Run)) (err error) {
	c, users, accounts, err := f.loadRun(cmd, args)
	if err != nil {
		return err
	}
	log, err := journal.Begin(c.State, string(verb))
	if err != nil {
		return whoMayRun(err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()

	w := newWatch(cmd, verb, f.json)
	w.panicFile = siteOf(c).PanicFile()
	in := convert.NewInspector(siteOf(c), users.All())
	in.FreeFloor = c.FreeFloor
	r, bandwidth := newRun(c, verb)
	r.Inspector, r.Journal, r.Watch, r.Find = in, log, w, finder(cmd.Context(), c, users)
	around := newAround(c, log.ID(), w.Note)
	if around.isNeeded() {
		r.Around = around
	}
	options(r)
	do, deaf := r.Do, func() {}
	if verb == verbRecover {
		do = r.DoRecover
	} else {
		deaf = listen(&operator{run: r, config: c, bandwidth: bandwidth}, w)
	}
	summary, fault := do(cmd.Context(), accounts)
	around.wait()
	deaf() // while we hold the lock: the next run has a socket of that name
	summary.ExitCode = exitOfRun(r, summary, fault)
	fault = errors.Join(fault, log.Finish(*summary))
	if err := w.end(log.ID(), summary); err != nil {
		fault = errors.Join(fault, fmt.Errorf("the run is over, but its report could not be written: %w", err))
	}
	if fault != nil {
		return fault
	}
	if summary.ExitCode != exitDone {
		return outcome(summary.ExitCode)
	}
	return nil
}

// whoMayRun says why a run was denied its state directory.
func whoMayRun(err error) error {
	if uid := os.Geteuid(); uid != 0 && errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run it as root, or as the owner of the state directory: this is uid %d", err, uid)
	}
	return err
}

// loadRun loads what a run works on: the configuration, the user database, and the
// accounts that the command line selects.
func (f *siteFlags) loadRun(cmd *cobra.Command, args []string) (*config.Config, *account.Users, []account.Account, error) {
	c, err := f.config()
	if err != nil {
		return nil, nil, nil, err
	}
	if doubts := c.Doubts(); len(doubts) > 0 { // who can write the configuration has root's powers in a run
		return nil, nil, nil, usageError{errors.Join(doubts...)}
	}
	users, err := loadUsers(cmd.Context(), c)
	if err != nil {
		return nil, nil, nil, err
	}
	names, err := f.names(cmd, c, users, args)
	if err != nil {
		return nil, nil, nil, err
	}
	accounts, err := accountsOf(cmd.Context(), c, users, names)
	return c, users, accounts, err
}

// newRun is a run as the configuration has it, and what limits its bandwidth.
func newRun(c *config.Config, verb convert.Verb) (*convert.Run, *bandwidth) {
	limit := newBandwidth(c.Bandwidth)
	r := &convert.Run{
		Site: siteOf(c), Verb: verb, Chunk: c.Chunk, MaxRounds: c.MaxRounds, Grace: c.Grace,
		Pace:      convert.Pace{Nice: c.Nice, Throttle: limit.wait},
		FreeFloor: c.FreeFloor, AllowQuarantine: c.AllowQuarantine,
	}
	adjust(r, c)
	r.Open = c.Window.Open
	switch c.Order {
	case config.Size:
		r.BySize = cmp.Compare[int64]
	case config.SizeDesc:
		r.BySize = func(a, b int64) int { return cmp.Compare(b, a) }
	}
	return r, limit
}

// adjust sets what an operator may change while the run works.
func adjust(r *convert.Run, c *config.Config) {
	r.Jobs, r.CutoverJobs, r.MaxFailures, r.Retries = c.Jobs, c.CutoverJobs, c.MaxFailures, c.Retries
	r.HoldLimit, r.DrainLimit, r.Pause = c.HoldLimit, c.DrainLimit, c.PauseBetween
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

// bandwidth is a rate, in bytes a second, that may be changed while it is kept.
type bandwidth struct {
	limiter atomic.Pointer[rate.Limiter] // nil: no limit
}

func newBandwidth(bytes int64) *bandwidth {
	b := &bandwidth{}
	b.set(bytes)
	return b
}

// set makes it another rate; 0 for no limit.
func (b *bandwidth) set(bytes int64) {
	if bytes == 0 {
		b.limiter.Store(nil)
		return
	}
	b.limiter.Store(rate.NewLimiter(rate.Limit(bytes), int(max(bytes/4, 64<<10)))) // bursts of a quarter of a second
}

// wait waits for as long as so many bytes take.
func (b *bandwidth) wait(ctx context.Context, bytes int64) error {
	for bytes > 0 {
		limit := b.limiter.Load()
		if limit == nil {
			break
		}
		n := min(bytes, int64(limit.Burst()))
		if err := limit.WaitN(ctx, int(n)); err != nil {
			return err
		}
		bytes -= n
	}
	return ctx.Err()
}

// exitOfRun is the exit code of a run, with what it found beside its users' outcomes.
func exitOfRun(r *convert.Run, s *journal.Summary, fault error) int {
	switch code := runCode(s, fault); {
	case code != exitDone && code != exitSkipped:
		return code
	case r.Differing > 0:
		return exitMismatch
	case r.Unresolved > 0:
		return exitSkipped
	default:
		return code
	}
}

// runCode is the exit code of what became of the users.
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
