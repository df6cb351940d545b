package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// A killed run may not have told the host how a hold ended. What it left tells of
// most holds; of those of which nothing is left, the journal does, in which the last
// step of the user is still that a hold begins.

// The steps of a move that the journal tells of on the way.
const (
	stepHold = "hold" // is about to begin
	stepFlip = "flip" // is done, and the host was told
)

// wasHeld reports whether a dead run has held the user, by what it has left: a hold,
// or the record of a move whose hold came to its end.
func (r *recovery) wasHeld(state semaphore.State, meta semaphore.Meta) bool {
	if state == semaphore.Hold || state == semaphore.Maildir && r.record.Name != "" {
		return true
	}
	way, err := journal.ReadRollback(r.State, r.account.Name)
	return err == nil && meta.Run == way.Run && meta.Before() == semaphore.Maildir
}

// lastSteps are the last steps of those users who were being moved when a run was
// killed.
func (r *Run) lastSteps() map[string]string {
	steps := map[string]string{}
	if r.Around == nil {
		return steps
	}
	last, err := journal.Latest(r.State)
	if err != nil {
		r.Watch.Note(fmt.Sprintf("whom a killed run was moving: %v", err))
	}
	for name, e := range last {
		if e.Phase == stepHold || e.Phase == stepFlip {
			steps[name] = e.Phase
		}
	}
	return steps
}

// told tells the host, if it may not know, how the hold of a user ended whom a dead
// run had held. The host may have been told already, which hooks bear. What fails
// there is only noted: mail goes to where the semaphore says, and when the machine
// starts, nothing may run yet that could be told.
func (r *Run) told(ctx context.Context, a account.Account, done Recovered, last string) Recovered {
	if r.Around == nil || last == stepFlip || last != stepHold && !done.Held {
		return done
	}
	ended, err := r.tellEnd(context.WithoutCancel(ctx), a)
	if ended && done.Did == "" {
		done.Did = "a run was killed when his hold had ended"
		if err == nil {
			done.Did += ": what is to be done then was done again"
		}
	}
	if err != nil {
		r.Watch.Note(fmt.Sprintf("%s: what is to be done when a hold has ended was not: %v", a.Name, err))
	}
	return done
}

// tellEnd tells the host of a hold that has ended, by what the semaphore says.
func (r *Run) tellEnd(ctx context.Context, a account.Account) (ended bool, err error) {
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		return false, err
	}
	state, err := sem.Get()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	meta, err := sem.Meta()
	if err != nil {
		return false, err
	}
	switch state {
	case semaphore.Hold:
		return false, nil
	case meta.Before():
		return true, r.Around.AfterAbort(ctx, a, state)
	}
	return true, r.Around.AfterFlip(ctx, a, state)
}
