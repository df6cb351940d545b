package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// returns are the mailboxes of users who are brought back to mbox.
var returns = []waiting{
	{title: "1 MiB, mixed sizes", users: 100, bytes: 1 << 20},
	{title: "10 MiB, mixed sizes", users: 40, bytes: 10 << 20},
	{title: "100 MiB, mixed sizes", users: 10, bytes: 100 << 20},
	{title: "100 MiB, messages of 2 KiB", users: 4, bytes: 100 << 20, size: 2 << 10},
}

// since is what has come to a Maildir when its user is brought back.
type since struct {
	title string
	share int  // one message for so many; 0: none
	late  bool // one more comes behind the last look before the hold
}

var sinces = []since{{"nothing", 0, false}, {"1%", 100, false}, {"1%, and one just before the hold", 100, true}}

// back measures for how long the mail of a user waits who is brought back.
func (l *lab) back(ctx context.Context) error {
	fmt.Fprint(l.out, "\n## How long mail waits on the way back\n\nUsers are cut over, mail comes to their Maildirs, and they are brought back, one at a time, on a fresh image for each line. A mailbox that has changed when its hold begins is built anew in it.\n\n")
	fmt.Fprintln(l.out, "| mailbox | came since | users | hold ms: p50, p99, max |")
	fmt.Fprintln(l.out, "|---|---|---|---|")
	for _, w := range returns {
		w.users = scaled(w.users, l.share)
		for _, came := range sinces {
			took, err := l.backBatch(ctx, w, came)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", w.title, came.title, err)
			}
			slices.Sort(took)
			fmt.Fprintf(l.out, "| %s | %s | %d | %.1f, %.1f, %.1f |\n", w.title, came.title, w.users, median(took), percentile(took, 99), took[len(took)-1])
		}
	}
	return nil
}

// backBatch returns the hold of each user, in milliseconds.
func (l *lab) backBatch(ctx context.Context, w waiting, came since) ([]float64, error) {
	im, s, err := l.siteImage(ctx, w.load(w.users))
	if err != nil {
		return nil, err
	}
	defer im.close()
	var u usage
	if _, err := l.ferry(ctx, s, &u, "migrate", "--all"); err != nil {
		return nil, err
	}
	if came.share > 0 {
		if err := s.comes(came.share); err != nil {
			return nil, err
		}
	}
	if came.late {
		remove, err := s.oneMore()
		if err != nil {
			return nil, err
		}
		defer remove()
	}
	time.Sleep(1100 * time.Millisecond) // as passes have it
	out, err := l.ferry(ctx, s, &u, "rollback", "--all", "--json", "--cutover-jobs", "1")
	if err != nil {
		return nil, err
	}
	took, err := readHolds(out)
	if err == nil && len(took) != w.users {
		err = fmt.Errorf("%d users of %d were held", len(took), w.users)
	}
	return took, err
}

// comes delivers to each Maildir one new message for so many that it has.
func (s *site) comes(share int) error {
	for i, m := range s.mboxes {
		for n := range max(m.messages/share, 1) {
			path := filepath.Join(s.home(s.names[i]), "Maildir", "new", fmt.Sprintf("%d.M%dP1.bench", time.Now().Unix(), n))
			if err := os.WriteFile(path, fmt.Appendf(nil, "Return-Path: <b@example.org>\nSubject: %d\n\nIt came since.\n", n), 0o600); err != nil {
				return err
			}
			if err := os.Chown(path, m.uid, m.uid); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneMore makes a hook that delivers a message to each user who is about to be held.
// It is for root, below whose directories alone hooks are run.
func (s *site) oneMore() (remove func(), err error) {
	dir, err := os.MkdirTemp("/run", "mailferry-bench-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	hook := filepath.Join(dir, "before-hold")
	err = os.WriteFile(hook, []byte(`#!/bin/sh
file=$MAILFERRY_MAILDIR/new/$(date +%s).M0P2.bench
printf 'Return-Path: <b@example.org>\nSubject: late\n\nIt came last.\n' >"$file"
chown "$MAILFERRY_UID:$MAILFERRY_GID" "$file"
`), 0o755)
	if err == nil {
		err = s.configure("[hooks]\nbefore-hold = %q\n", hook)
	}
	if err != nil {
		remove()
	}
	return remove, err
}

// configure adds to the configuration.
func (s *site) configure(format string, args ...any) error {
	f, err := os.OpenFile(s.config(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, format, args...); err != nil {
		return err
	}
	return f.Close()
}
