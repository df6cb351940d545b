package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mailferry/internal/account"
	"mailferry/internal/config"
	"mailferry/internal/host"
	"mailferry/semaphore"
)

// around does what the configuration asks for around a user's hold: hooks,
// Dovecot's sessions and caches, Postfix's queue.
type around struct {
	hooks   host.Hooks
	dovecot host.Doveadm // Path "": none
	postfix host.Postqueue
	run     string
	note    func(string)

	mu      sync.Mutex
	due     []string // users whose deferred mail is to be delivered now
	flushes sync.WaitGroup
}

func newAround(c *config.Config, run string, note func(string)) *around {
	return &around{
		hooks: host.Hooks(c.Hooks), dovecot: host.Doveadm{Path: c.Doveadm}, postfix: host.Postqueue{Path: c.Postqueue},
		run: run, note: note,
	}
}

// isNeeded reports whether the configuration asks for anything.
func (a *around) isNeeded() bool {
	return a.hooks != host.Hooks{} || a.dovecot.Path != "" || a.postfix.Path != ""
}

func (a *around) hook(ctx context.Context, moment host.Moment, u account.Account) error {
	sem, err := semaphore.For(u.Semaphore)
	if err != nil {
		return err
	}
	state, err := sem.Get()
	if err != nil {
		return err
	}
	return a.hooks.Run(ctx, moment, host.Subject{
		User: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Spool: u.Spool, Maildir: u.Maildir, Run: a.run, State: state.String(),
	})
}

// unopened is the exit code of doveadm about mailboxes that it can't open: files
// among the folders that are no mboxes.
const unopened = 65

// BeforeHold makes Dovecot write to the mboxes what it knows alone.
func (a *around) BeforeHold(ctx context.Context, u account.Account) error {
	if err := a.settle(ctx, u); err != nil {
		return fmt.Errorf("having Dovecot write what it holds back; without that, a client might see other UIDs or flags: %w", err)
	}
	return a.hook(ctx, host.BeforeHold, u)
}

func (a *around) settle(ctx context.Context, u account.Account) error {
	if a.dovecot.Path == "" {
		return nil
	}
	err := a.dovecot.Settle(ctx, u.Name)
	var failed *host.Failed
	if errors.As(err, &failed) && failed.Exit == unopened {
		return nil
	}
	return err
}

// Drain ends his sessions, and has the next login ask anew where his mail is.
func (a *around) Drain(ctx context.Context, u account.Account) error {
	if a.dovecot.Path != "" {
		both, ctx := errgroup.WithContext(ctx) // he waits meanwhile
		both.Go(func() error { return a.dovecot.AuthFlush(ctx, u.Name) })
		both.Go(func() error { return a.dovecot.Kick(ctx, u.Name) })
		if err := both.Wait(); err != nil {
			return fmt.Errorf("ending his Dovecot sessions: %w", err)
		}
	}
	return a.hook(ctx, host.Drain, u)
}

// AfterFlip is told when all is done for him. Back on mbox, Dovecot's index is of
// another file: it is made anew before a session finds that out.
func (a *around) AfterFlip(ctx context.Context, u account.Account, to semaphore.State) error {
	err := a.forget(ctx, u)
	if to == semaphore.Mbox {
		err = errors.Join(err, a.settle(ctx, u))
	}
	return errors.Join(err, a.hook(ctx, host.AfterFlip, u))
}

// AfterAbort is told when he is back where he was.
func (a *around) AfterAbort(ctx context.Context, u account.Account, _ semaphore.State) error {
	return errors.Join(a.forget(ctx, u), a.hook(ctx, host.AfterAbort, u))
}

// forget ends what the hold has left: an answer in Dovecot's cache, mail in
// Postfix's deferred queue.
func (a *around) forget(ctx context.Context, u account.Account) (err error) {
	if a.dovecot.Path != "" {
		err = a.dovecot.AuthFlush(ctx, u.Name)
	}
	if a.postfix.Path != "" {
		a.flush(u.Name)
	}
	return err
}

// gather is how long users are gathered whose mail is to be delivered: each look
// at the queue lists all of it.
const gather = time.Second

// flush has a user's deferred mail delivered soon.
func (a *around) flush(user string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.due = append(a.due, user); len(a.due) > 1 {
		return // one is under way
	}
	a.flushes.Go(func() {
		time.Sleep(gather)
		a.mu.Lock()
		users := a.due
		a.due = nil
		a.mu.Unlock()
		if _, err := a.postfix.Flush(context.Background(), users...); err != nil {
			a.note(fmt.Sprintf("mail that was deferred in a hold waits for Postfix's next run of the queue: %v", err))
		}
	})
}

// wait waits for the last mail.
func (a *around) wait() { a.flushes.Wait() }
