package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// Agent delivers messages on one site. It may be used by several goroutines.
type Agent struct {
	Places account.Places
	Users  Users

	Locks   mbox.LockOptions // which kinds
	Profile mbox.Profile     // the server that reads the mboxes
	Layout  maildir.Folders  // where Folders finds a folder of the Maildir

	HoldWait time.Duration // how long a hold is waited for
	LockWait time.Duration // how long the gate is waited for, and then the locks; the MTA's limit must be longer

	// Folders puts mail with an address extension into the folder of that name,
	// if there is one; folders are never made.
	Folders bool

	// SpoolGroup is the saved gid of a process that runs as its user, with
	// which it may make dotlocks in a group-writable spool; 0 for none.
	SpoolGroup int
}

// Envelope is what the MTA says of a message.
type Envelope struct {
	User      string
	Sender    string // address; "" is the null sender of bounces, if HasSender
	HasSender bool
	Censored  bool   // Sender is as Postfix puts it into the environment (local(8)): with "_" for what a shell could misread
	Recipient string // address, for Delivered-To; "" for none
	Extension string // what stands behind the user's name in the address, without separator
}

var (
	// ErrNoUser says that the user database is known to be without the user:
	// nothing else may make a message bounce.
	ErrNoUser = errors.New("there is no such user")

	// ErrUnproved says that the user was not found, where a source of users may
	// be out of reach.
	ErrUnproved = errors.New("not found")

	// ErrHeld says that the user's mail is being moved.
	ErrHeld = errors.New("mail is held while the mailbox is being moved")

	// ErrEmpty says that there was no message.
	ErrEmpty = errors.New("there is no message to deliver")
)

// The exit codes of a delivery agent (sysexits.h). Every other one makes some
// MTA bounce: such as the 2 of a Go runtime that can't start.
const (
	ExitDelivered = 0
	ExitNoUser    = 67
	ExitLater     = 75
)

// ExitCode is what the MTA is to be told of an error of Deliver.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return ExitDelivered
	case errors.Is(err, ErrNoUser):
		return ExitNoUser
	}
	return ExitLater
}

// Deliver puts a message where the user's semaphore says. When it returns nil,
// the message is on the disk; after an error, whatever it is, nothing of it is
// left, as far as the disk still obeys. Its end is that of r.
func (a *Agent) Deliver(ctx context.Context, e Envelope, r io.Reader) error {
	user, err := a.Users.Find(ctx, e.User)
	if err != nil {
		return fmt.Errorf("user %q: %w", e.User, err)
	}
	d := &delivery{Agent: a, account: a.Places.Account(user), envelope: e}
	id := safefs.Identity{UID: user.UID, GID: user.GID, Groups: user.Groups, Spool: spoolGroup(d.account)}
	if err := safefs.AsUser(id, func() error { return d.run(ctx, r) }); err != nil {
		return fmt.Errorf("user %q: %w", e.User, err)
	}
	return nil
}

// delivery is one message on its way.
type delivery struct {
	*Agent
	account  account.Account
	envelope Envelope
	home     *safefs.Dir // where the gate is
	gate     *semaphore.Gate
	taken    time.Time // when the gate was
}

// run runs as the user.
func (d *delivery) run(ctx context.Context, r io.Reader) (err error) {
	if d.home, err = safefs.OpenFor(filepath.Dir(d.account.Gate), d.account.UID); err != nil {
		return err
	}
	defer d.home.Close()
	m, err := collect(ctx, r, d.envelope, d.home)
	if err != nil {
		return err
	}
	defer m.close()
	state, err := d.enter(ctx)
	if err != nil {
		return err
	}
	defer d.leave()
	if state == semaphore.Mbox {
		return d.toMbox(ctx, m)
	}
	return d.toMaildir(ctx, m)
}

// enter takes the gate and reads the semaphore behind it. While that says hold,
// the gate is left to who moves the mail.
func (d *delivery) enter(ctx context.Context) (semaphore.State, error) {
	sem, err := semaphore.For(d.account.Semaphore)
	if err != nil {
		return semaphore.Hold, err
	}
	patience, stop := context.WithTimeout(ctx, max(d.HoldWait, 0))
	defer stop()
	for {
		if err := d.await(patience, sem); err != nil {
			return semaphore.Hold, err
		}
		d.gate, err = semaphore.TakeGate(ctx, d.home.Fd(), filepath.Base(d.account.Gate), semaphore.GateOptions{Timeout: d.LockWait})
		if err != nil {
			return semaphore.Hold, err
		}
		d.taken = time.Now()
		state, err := sem.Get()
		if err == nil && state != semaphore.Hold {
			return state, nil
		}
		d.leave()
		if err != nil {
			return semaphore.Hold, err
		}
	}
}

// await returns when the semaphore says where mail goes. A semaphore that is
// not there, or makes no sense, is not waited for: an admin has to see to it.
func (d *delivery) await(ctx context.Context, sem *semaphore.Semaphore) error {
	state, err := sem.Get()
	if err != nil {
		return err
	}
	if state != semaphore.Hold {
		return nil
	}
	if _, err = sem.Wait(ctx, func(s semaphore.State) bool { return s != semaphore.Hold }); err != nil {
		return fmt.Errorf("%w: %w", ErrHeld, err)
	}
	return nil
}

// leave gives the gate back. It is no error if that fails: the message is where
// it is, and a gate that is left behind is taken over (semaphore.TakeGate).
func (d *delivery) leave() { _ = d.gate.Release() }

// still is the last call before a mailbox changes: the gate is ours, nobody
// wants us to stop.
func (d *delivery) still(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if time.Since(d.taken) < semaphore.RefreshEvery {
		return d.gate.Check()
	}
	d.taken = time.Now()
	return d.gate.Refresh()
}
