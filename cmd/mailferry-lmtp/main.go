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
	"path/filepath"
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
	if !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "mailferry-lmtp: %s\n", deliver.Complaint(err))
	}
	os.Exit(deliver.ExitLater) // if an MTA has called it for a message, that stays in the queue
}

// maxWait is for how long a delivery may wait: Postfix does for 600 s
// (lmtp_data_done_timeout), then it tries again what may have been delivered.
const maxWait = 5 * time.Minute

// run serves until ctx ends.
func run(ctx context.Context, args []string, log io.Writer) error {
	flags := flag.NewFlagSet("mailferry-lmtp", flag.ContinueOnError)
	flags.SetOutput(log)
	socket := flags.String("lmtp", "", "`PATH` of the socket")
	file := flags.String("config", "", "configuration `FILE` (default "+config.DefaultPath+")")
	wait := flags.Duration("wait", 5*time.Second, "how long a hold is waited for")
	lockWait := flags.Duration("lock-wait", 15*time.Second, "how long the gate is waited for, and then the mbox's locks")
	folders := flags.Bool("extension-folders", false, "put mail for USER+NAME into the folder NAME, if there is one")
	delimiters := flags.String("recipient-delimiter", "+", "`CHARACTERS` that begin an address extension: Postfix's recipient_delimiter")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *socket == "" {
		return errors.New("usage: mailferry-deliver --lmtp SOCKET [--config FILE] [--wait 5s] [--lock-wait 15s] [--extension-folders] [--recipient-delimiter +]")
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
			Locks: c.Locks, Layout: c.Layout,
			HoldWait: *wait, LockWait: *lockWait, Folders: *folders,
		},
		Delimiters: *delimiters, Dir: c.State, Log: log,
	}
	return server.Serve(ctx, l)
}

// listen makes the socket, for everybody who gets through its directory, and
// removes one that nobody answers any more. The directory is locked meanwhile:
// of two servers that start at once, one would remove the other's socket.
func listen(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s: another server starts there: %w", dir.Name(), err)
	}
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
