// Package host deals with what there is around the mail on this host: the
// admin's hooks, Dovecot's sessions and index, Postfix's queue.
//
// Each of them is a program, run without a shell, with an environment of its
// own making, /dev/null for standard input, / for a working directory and a
// limit of time, after which it and all of its process group are killed. None
// may be called inside of safefs.AsUser.
package host

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// searchPath is the PATH of the programs.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// linger is how long the output of a program is waited for after its end: a
// process that it left in the background may keep it open.
const linger = 100 * time.Millisecond

// Failed is the error of a program that did not start or did not succeed.
type Failed struct {
	Call string // the program and its arguments
	Exit int    // its exit code; -1 if it did not end by itself
	Said string // the last 4 KiB, or less, of what it said
	Err  error  // *exec.ExitError, context.DeadlineExceeded, ...
}

// Error tells all of it; what the program said is quoted.
func (f *Failed) Error() string {
	text := fmt.Sprintf("%s: %v", f.Call, f.Err)
	if f.Said != "" {
		text += fmt.Sprintf(": %q", f.Said)
	}
	return text
}

// Unwrap returns Err.
func (f *Failed) Unwrap() error { return f.Err }

// program is a call of a program.
type program struct {
	path  string
	args  []string
	env   []string // besides PATH and LANG
	limit time.Duration
	// each takes a line of standard output, without its end; after its first
	// error it gets no more. nil: standard output is what the program says.
	each func(line []byte) error
	// both has each take standard error, too.
	both bool
	// complaint is what the program says when it fails and exits with 0, if it
	// does so.
	complaint string
}

var errComplained = errors.New("exit status 0, with a complaint")

// run runs the program. The error is that of each, or else a *Failed.
func (p program) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.limit, fmt.Errorf("not done after %v: %w", p.limit, context.DeadlineExceeded))
	defer cancel()
	said := &tail{}
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + searchPath, "LANG=C"}, p.env...)
	cmd.Stdout, cmd.Stderr = said, said
	out := &lines{each: p.each}
	if p.each != nil {
		cmd.Stdout = out
	}
	if p.both {
		cmd.Stderr = out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = linger
	err := cmd.Run()
	if out.err != nil {
		return fmt.Errorf("%s: %w", p.call(), out.err)
	}
	f := &Failed{Call: p.call(), Exit: -1, Said: said.String(), Err: err}
	switch succeeded := err == nil || errors.Is(err, exec.ErrWaitDelay); {
	case succeeded && p.complaint != "" && strings.Contains(f.Said, p.complaint):
		f.Exit, f.Err = 0, errComplained
	case succeeded:
		return nil
	case ctx.Err() != nil:
		f.Err = context.Cause(ctx)
	case cmd.ProcessState != nil:
		f.Exit = cmd.ProcessState.ExitCode()
	}
	return f
}

// call is the call as errors tell it.
func (p program) call() string {
	words := []string{p.path}
	for _, a := range p.args {
		words = append(words, fmt.Sprintf("%q", a))
	}
	return strings.Join(words, " ")
}

// exited reports whether err is that of a program that ended with code.
func exited(err error, code int) bool {
	var f *Failed
	return errors.As(err, &f) && f.Exit == code
}

// tailSize is how much of what a program says is kept.
const tailSize = 4096

// tail keeps the end of what is written to it.
type tail struct{ last []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return strings.TrimSpace(string(t.last)) }
