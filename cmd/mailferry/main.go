// Command mailferry moves mail from mbox to Maildir.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mailferry/convert"
	"mailferry/internal/journal"
)

// Exit codes; they stand in every --help.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitSkipped     = 3
	exitMismatch    = 4
	exitBusy        = 5
	exitWindow      = 10
	exitLocked      = 11
	exitInterrupted = 130
)

const exitHelp = `
Exit codes: 0 all done; 1 failed; 2 usage or configuration; 3 finished, but
something was skipped, failed or quarantined; 4 verification found differences;
5 busy, try again; 10 the window is over, work remains; 11 another run is at
work; 130 interrupted.`

func main() {
	syscall.Umask(0o077)
	signal.Ignore(syscall.SIGPIPE) // who closes our output ends no run, least of all in a hold
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal kills
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes a command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "mailferry",
		Short:         "Moves mail from mbox to Maildir, exactly",
		Long:          "mailferry moves mail from mbox to Maildir: no message lost, doubled or altered.\n" + environmentHelp + exitHelp,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentPreRunE = fromEnvironment
	root.AddCommand(convertCommand(), verifyCommand(), demoCommand(), planCommand(), precopyCommand(), migrateCommand(), cutoverCommand(), recoverCommand(), configCommand(), enrollCommand(), semaphoreCommand(), statusCommand(), rollbackCommand(), retireCommand(), rehearseCommand(), sweepCommand(), ctlCommand(), doctorCommand())
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	var outcome outcome
	if err != nil && !errors.As(err, &outcome) {
		fmt.Fprintf(stderr, "mailferry: %s\n", told(code, err))
	}
	return code
}

// version is that of the module that this program was built from.
func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// told is an error as one line.
func told(code int, err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if code == exitInterrupted {
		text = "interrupted: " + text
	}
	return printable(text)
}

// usageError is a command line that can't be carried out.
type usageError struct{ error }

// outcome is a result that is no failure but not everything either; what it
// is has been printed.
type outcome int

func (o outcome) Error() string { return fmt.Sprintf("exit code %d", int(o)) }

func exitCode(ctx context.Context, err error) int {
	var (
		o     outcome
		usage usageError
		busy  *convert.Busy
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &o):
		return int(o)
	case errors.As(err, &usage), errors.Is(err, convert.ErrTwoInboxes):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, journal.ErrLocked):
		return exitLocked
	case errors.As(err, &busy):
		return exitBusy
	case isCobraUsage(err):
		return exitUsage
	}
	return exitFailed
}

// isCobraUsage knows the one usage error that cobra gives no hook for.
func isCobraUsage(err error) bool {
	return len(err.Error()) > 15 && err.Error()[:15] == "unknown command"
}
