// Command mailferry-lmtp is mailferry-deliver as an LMTP server, which spares a
// process for each message; `mailferry-deliver --lmtp SOCKET` runs it. See
// docs/routing/postfix-lmtp.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/config"
	"mailferry/internal/deliver"
	"mailferry/internal/lmtp"
)

func main() {
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err == nil {
		return
	}
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(help)
		if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return // no message waits
		}
		err = errors.New("--help delivers nothing")
	}
	fmt.Fprintf(os.Stderr, "mailferry-lmtp: %s\n", deliver.Complaint(err))
	os.Exit(deliver.ExitLater) // if an MTA has called it for a message, that stays in the queue
}

const usage = "usage: mailferry-deliver --lmtp SOCKET [--config FILE] [--wait 5s] [--lock-wait 15s] [--extension-folders] [--recipient-delimiter +]"

const help = usage + `

Serves LMTP at a socket: delivers each message to where its user's semaphore says.

  --config FILE             configuration
  --wait 5s                 how long a hold is waited for
  --lock-wait 15s           how long the gate is waited for, and then the mbox's locks
  --extension-folders       put mail for USER+NAME into the folder NAME, if there is one
  --recipient-delimiter +   the characters that begin an address extension, as Postfix has them
  --help, -h                print this
`

// maxWait is for how long a delivery may wait: Postfix does for 600 s
// (lmtp_data_done_timeout), then it tries again what may have been delivered.
const maxWait = 5 * time.Minute

// run serves until ctx ends.
func run(ctx context.Context, args []string, log io.Writer) error {
	flags := flag.NewFlagSet("mailferry-lmtp", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main tells of errors, and gives help
	socket := flags.String("lmtp", "", "")
	file := flags.String("config", "", "")
	wait := flags.Duration("wait", 5*time.Second, "")
	lockWait := flags.Duration("lock-wait", 15*time.Second, "")
	folders := flags.Bool("extension-folders", false, "")
	delimiters := flags.String("recipient-delimiter", "+", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *socket == "" {
		return errors.New(usage)
	}
	if *wait < 0 || *lockWait < 0 || *wait+2**lockWait > maxWait {
		return fmt.Errorf("--wait and twice --lock-wait are more than %s: the MTA would not wait for the answer", maxWait)
	}
	c, err := config.Load(config.Options{Path: *file})
	if err != nil {
		return err
	}
	l, err := listen(*socket)
	if err != nil {
		return err
	}
	unix.Umask(0o077)
	server := lmtp.Server{
		Agent: &deliver.Agent{
			Places: c.Places(), Users: deliver.Users{Spec: c.Users, MinUID: c.MinUID},
			Locks: c.Locks, Profile: c.Profile, Layout: c.Layout,
			HoldWait: *wait, LockWait: *lockWait, Folders: *folders,
		},
		Delimiters: *delimiters, Dir: c.State, Log: log,
	}
	return server.Serve(ctx, l)
}

// listen makes the socket, for everybody who gets through its directory, and
// removes one that nobody answers any more. A lock is held meanwhile: of two
// servers that start at once, one would remove the other's socket.
func listen(path string) (net.Listener, error) {
	unlock, err := lock(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another server answers there", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := removeSocket(path); err != nil {
			return nil, err
		}
	}
	unix.Umask(0o111)
	return net.Listen("unix", path)
}

// lock makes a file that nobody else can open, and so lock, and locks it. unlock
// removes it: Postfix complains of files in its queue that are not its own.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockOwn(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() {
		_ = os.Remove(path) // while it is locked, see lockOwn; one that stays is locked again
		f.Close()
	}, nil
}

// lockOwn locks a file that still has a name when it is locked: whoever comes later
// finds it, or comes when all is done.
func lockOwn(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another server starts there: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode != unix.S_IFREG|0o600 || int(st.Uid) != os.Geteuid():
		return errors.New("is no lock of this server: remove it")
	case st.Nlink == 0:
		return errors.New("another server has started there")
	}
	return nil
}

// removeSocket removes nothing else than a socket.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() != os.ModeSocket {
		err = fmt.Errorf("%s is no socket", path)
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}
