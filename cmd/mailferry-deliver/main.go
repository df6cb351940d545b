// Command mailferry-deliver delivers one message, on standard input, to where
// its user's semaphore says. MTAs call it; see docs/routing.
//
// It exits with 0 when the message is on the disk, with 67 when the user is
// proved absent, and with 75 in every other case: then the MTA keeps the message.
// Only where limits of memory or processes keep the Go runtime from starting, it
// exits with 2 before any of this is run, and MTAs bounce: see
// docs/routing/postfix.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"mailferry/internal/config"
	"mailferry/internal/deliver"
)

func main() {
	settle()
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stdin, os.Stdout, os.Stderr))
}

// settle keeps this process small, and from ending in a way that an MTA misunderstands.
func settle() {
	// Nothing here works beside something else, and each processor brings threads.
	runtime.GOMAXPROCS(1)
	// A crash of the runtime itself ends by a signal, after which Postfix defers;
	// by itself it would exit with 2, and the message bounce. One before main does.
	debug.SetTraceback("crash")
	// Nobody may listen to what we say, and Postfix limits the size of files
	// (mailbox_size_limit): both shall be errors and not deaths.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGXFSZ)
	unix.Umask(0o077)
}

// run delivers and tells the exit code.
func run(args []string, env environment, in *os.File, out, log io.Writer) (code int) {
	code = deliver.ExitLater
	defer func() {
		if p := recover(); p != nil {
			complain(log, fmt.Errorf("bug: %v\n%s", p, debug.Stack()))
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	defer stop()
	err := command(ctx, args, env, in, out)
	if err != nil {
		complain(log, err)
	}
	return deliver.ExitCode(err)
}

func command(ctx context.Context, args []string, env environment, in *os.File, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	switch {
	case o.help:
		return tell(in, out, help, "--help")
	case o.version:
		return tell(in, out, "mailferry-deliver "+version()+"\n", "--version")
	}
	group, err := leaveGroup()
	if err != nil {
		return err
	}
	if o.lmtp != "" {
		return becomeServer(args)
	}
	if group != 0 && o.config != "" {
		return errors.New("--config is refused: this program has the group of the spool, whoever calls it")
	}
	c, err := config.Load(config.Options{Path: o.config})
	if err != nil {
		return err
	}
	e, err := o.envelope(env)
	if err != nil {
		return err
	}
	a := deliver.Agent{
		Places: c.Places(), Users: deliver.Users{Spec: c.Users, MinUID: c.MinUID},
		Locks: c.Locks, Profile: c.Profile, Layout: c.Layout,
		HoldWait: o.wait, LockWait: o.lockWait,
		Folders: o.extensionFolders, SpoolGroup: group,
	}
	return a.Deliver(ctx, e, &input{ctx, in})
}

// tell prints what an option asks for, which is no success where a message may
// wait: it would be lost.
func tell(in *os.File, out io.Writer, text, option string) error {
	fmt.Fprint(out, text)
	if info, err := in.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 {
		return errors.New(option + " delivers nothing")
	}
	return nil
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok {
		return b.Main.Version
	}
	return "(devel)"
}

// leaveGroup gives up the group that a setgid program was started with, which
// is kept as the saved one, and returns it; 0 for none. It takes no user from
// the file's mode.
func leaveGroup() (group int, err error) {
	if os.Getuid() != os.Geteuid() {
		return 0, errors.New("this program must not be setuid")
	}
	own, group := os.Getgid(), os.Getegid()
	if own == group || os.Getuid() == 0 {
		return 0, nil
	}
	return group, unix.Setresgid(-1, own, group) // of all threads
}
