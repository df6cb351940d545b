//go:build linux && amd64

// Package stepper runs a program and stops it at the N-th of its system calls
// that change files, so that a test can try every moment at which it may be
// killed, and every call that may fail. Only tests use it.
//
// The program runs under ptrace(2), all of its threads on one counter: calls
// are numbered in the order in which the kernel was asked, whichever thread
// did. Calls count if they change what is below a directory, or make it
// durable; opening a file for writing does, reading and locking don't. So a
// test takes one number after the other:
//
//	for n := 1; ; n++ {
//		r, err := stepper.Run(ctx, prepare(), stepper.Options{Below: dir, At: n, Do: stepper.Kill})
//		if err != nil || !r.Reached {
//			break
//		}
//		examine(dir, r.Calls[n-1])
//	}
//
// Programs that it starts are not stopped, and their calls not counted.
package stepper

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say which call to stop at, and what becomes of it.
type Options struct {
	Below string // directory: calls that change nothing below it don't count
	At    int    // number of the call, from 1; 0: calls are only counted
	Do    Action

	// Also picks later calls to which the same is done, as a disk that is full
	// stays full; nil: none.
	Also func(Call) bool

	// Watch is told of each call that counts before anything is done to it.
	// The thread waits meanwhile, so that others can get at the files at this
	// very moment; nil: nobody is told.
	Watch func(Call)
}

// Action is what is done to a call.
type Action struct {
	kind  kind
	errno unix.Errno
}

type kind int

const (
	kill kind = iota
	fail
	short
	lie
)

var (
	// Kill kills the program by SIGKILL. The call is not executed.
	Kill = Action{kind: kill}
	// Short lets a call that writes write half of what it was asked to, and
	// say so. What can't be halved is not reached.
	Short = Action{kind: short}
	// Lie says that all went well. The call is not executed: what a program is
	// that forgot it, so that a test can prove that it would notice.
	Lie = Action{kind: lie}
)

// Fail lets a call fail. It is not executed.
func Fail(errno unix.Errno) Action { return Action{fail, errno} }

func (a Action) String() string {
	switch a.kind {
	case fail:
		return unix.ErrnoName(a.errno)
	case short:
		return "short write"
	case lie:
		return "lie"
	}
	return "kill"
}

// Call is a system call that changes files.
type Call struct {
	Name  string   // of the system call
	Paths []string // what it changes, relative to Options.Below if it is there
	Size  int64    // bytes that it is to write, or vectors of bytes; 0 where it writes none
}

func (c Call) String() string {
	s := c.Name + " " + strings.Join(c.Paths, " -> ")
	if c.Size > 0 {
		s += fmt.Sprintf(" (%d)", c.Size)
	}
	return s
}

// Result tells how far a program came.
type Result struct {
	Calls   []Call             // that count, in order
	Reached bool               // Options.At was, and done
	Exit    syscall.WaitStatus // of the program
}

// Run starts cmd, steps through it, and returns when it has ended. Only root can.
// When ctx ends the program is killed, and the error is that of ctx; how the
// program ends is no error.
func Run(ctx context.Context, cmd *exec.Cmd, o Options) (*Result, error) {
	below, err := filepath.EvalSymlinks(o.Below) // as the kernel spells it
	if err != nil {
		return nil, err
	}
	if o.Below, err = filepath.Abs(below); err != nil {
		return nil, err
	}
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	attr := syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		attr = *cmd.SysProcAttr
	}
	attr.Ptrace, attr.Setpgid = true, true // a group, so as to wait for no other children of ours
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { unix.Kill(cmd.Process.Pid, unix.SIGKILL) })
	t := &tracer{Options: o, pid: cmd.Process.Pid, threads: map[int]bool{}}
	err = t.run()
	stop()
	cmd.Wait() // for its output; the tracer has had the exit status
	if err == nil {
		err = ctx.Err()
	}
	return &t.result, err
}

// relative spells a path as Call does, and reports whether it is below.
func (t *tracer) relative(path string) (string, bool) {
	if path == t.Below {
		return ".", true
	}
	if rel, ok := strings.CutPrefix(path, strings.TrimSuffix(t.Below, "/")+"/"); ok {
		return rel, true
	}
	return path, false
}
