//go:build linux && amd64

package stepper

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// tracer steps through one program.
type tracer struct {
	Options
	pid     int
	threads map[int]bool // that have begun
	result  Result
}

// A stop at a system call is one of seccomp(2), not of PTRACE_SYSCALL: that
// stops twice at every call there is, and a Go program is ten times slower by it.
const options = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL

// run follows the program from the stop at its execve to its end. Whatever goes
// wrong, all of it is dead and reaped then.
func (t *tracer) run() error {
	err := t.begin()
	for {
		if err != nil {
			unix.Kill(t.pid, unix.SIGKILL)
		}
		var status unix.WaitStatus
		tid, werr := unix.Wait4(-t.pid, &status, unix.WALL, nil) // its process group
		switch {
		case errors.Is(werr, unix.EINTR):
			continue
		case werr != nil:
			return errors.Join(err, fmt.Errorf("wait: %w", werr))
		case status.Stopped():
			if serr := t.stopped(tid, status); err == nil && !gone(serr) {
				err = serr
			}
		case tid == t.pid: // the last of its threads
			t.result.Exit = syscall.WaitStatus(status)
			return err
		default:
			delete(t.threads, tid)
		}
	}
}

// gone reports whether an error says of a thread that it was killed meanwhile.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) }

func (t *tracer) begin() error {
	if err := t.trap(); err != nil {
		return fmt.Errorf("the program at its start: %w", err)
	}
	if err := unix.PtraceSetOptions(t.pid, options); err != nil {
		return fmt.Errorf("ptrace options: %w", err)
	}
	t.threads[t.pid] = true
	if err := t.install(filter()); err != nil {
		return fmt.Errorf("seccomp filter: %w", err)
	}
	return unix.PtraceCont(t.pid, 0)
}

// trap waits for the stop of a program that has only one thread.
func (t *tracer) trap() error {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(t.pid, &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && (!status.Stopped() || status.StopSignal() != unix.SIGTRAP) {
			err = fmt.Errorf("no trap, but status %#x", uint32(status))
		}
		return err
	}
}

// stopped deals with a stop of a thread, and lets it go on.
func (t *tracer) stopped(tid int, status unix.WaitStatus) error {
	signal := 0
	switch {
	case !t.threads[tid]: // a thread begins with a SIGSTOP that nobody sent
		t.threads[tid] = true
	case status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		if err := t.step(tid); err != nil {
			return err
		}
	case status.TrapCause() <= 0:
		signal = int(status.StopSignal())
	}
	return unix.PtraceCont(tid, signal)
}

// step is at a system call that may be one that counts.
func (t *tracer) step(tid int) error {
	var r registers
	if err := r.get(tid); err != nil {
		return err
	}
	c, kind, err := t.call(tid, &r)
	if err != nil || kind == nil {
		return err
	}
	if t.Watch != nil {
		t.Watch(c)
	}
	if !t.add(c) {
		return nil
	}
	switch t.Do.kind {
	case short:
		r.setArg(kind.length, r.arg(kind.length)/2)
		return r.set(tid)
	case fail:
		r.skip(-int64(t.Do.errno))
		return r.set(tid)
	case lie:
		r.skip(c.Size)
		return r.set(tid)
	}
	r.skip(-int64(unix.EINTR))
	return errors.Join(r.set(tid), unix.Kill(t.pid, unix.SIGKILL))
}

// call describes a call of a thread; how is nil if it does not count.
func (t *tracer) call(tid int, r *registers) (c Call, how *calling, err error) {
	how = mutating[r.number()]
	if how == nil {
		return c, nil, nil
	}
	if yes, err := how.changes(tid, r); err != nil || !yes {
		return c, nil, err
	}
	c.Name = how.name
	counts := false
	for _, where := range how.places {
		path, err := where.path(tid, r)
		if err != nil {
			return c, nil, fmt.Errorf("%s: %w", how.name, err)
		}
		path, below := t.relative(path)
		counts = counts || below
		c.Paths = append(c.Paths, path)
	}
	if !counts {
		return c, nil, nil
	}
	if how.length >= 0 {
		c.Size = int64(r.arg(how.length))
	}
	return c, how, nil
}

// add counts a call, and reports whether something is to be done to it.
func (t *tracer) add(c Call) bool {
	t.result.Calls = append(t.result.Calls, c)
	fits := t.Do.kind != short || c.Size > 1
	if t.result.Reached {
		return t.Also != nil && t.Also(c) && fits
	}
	t.result.Reached = len(t.result.Calls) == t.At && fits
	return t.result.Reached
}
