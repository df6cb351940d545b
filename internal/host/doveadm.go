package host

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Limits of time: for a question to a running Dovecot, and for one that reads
// and writes all mail of a user.
const (
	askLimit    = 30 * time.Second
	settleLimit = 30 * time.Minute
)

// noUser is how doveadm ends if a command finds nothing to work on
// (EX_NOHOST; doveadm-kick(1)).
const noUser = 68

// Doveadm is Dovecot's admin command, of version 2.3. Users are named as
// Dovecot names them. Every error is a *Failed, or that of a name which
// doveadm would take for a pattern.
type Doveadm struct {
	Path   string // of the program
	Config string // of Dovecot's configuration file; "" for the default
}

func (d Doveadm) command(limit time.Duration, args ...string) program {
	if d.Config != "" {
		args = append([]string{"-c", d.Config}, args...)
	}
	return program{path: d.Path, args: args, limit: limit}
}

// checkName refuses a name that doveadm takes for something else: an option, a
// pattern of names (doveadm(1), -u), two words of a line.
func checkName(user string) error {
	odd := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '?' || r == '\\' }
	if user == "" || user[0] == '-' || strings.ContainsFunc(user, odd) {
		return fmt.Errorf("doveadm can't be told %q as the name of a user", user)
	}
	return nil
}

// Kick ends the user's sessions. That he has none is no error. The processes
// may live some moments longer: Who tells.
func (d Doveadm) Kick(ctx context.Context, user string) error {
	if err := checkName(user); err != nil {
		return err
	}
	err := d.command(askLimit, "kick", user).run(ctx)
	if exited(err, noUser) {
		return nil
	}
	return err
}

// Who tells how many sessions the user has.
func (d Doveadm) Who(ctx context.Context, user string) (n int, err error) {
	if err := checkName(user); err != nil {
		return 0, err
	}
	who := d.command(askLimit, "-f", "tab", "who", "-1")
	heading := true
	who.each = func(line []byte) error {
		name, _, _ := strings.Cut(string(line), "\t")
		if !heading && strings.EqualFold(name, user) {
			n++
		}
		heading = false
		return nil
	}
	err = who.run(ctx)
	return n, err
}

// AuthFlush makes Dovecot forget what it has cached of the user's lookups, so
// that the next login asks the databases. That there is no cache is no error.
func (d Doveadm) AuthFlush(ctx context.Context, user string) error {
	if err := checkName(user); err != nil {
		return err
	}
	flush := d.command(askLimit, "auth", "cache", "flush", user)
	flush.complaint = "Error: " // at which it exits with 0 (2.3.19)
	return flush.run(ctx)
}

// Settle makes Dovecot write into the user's mboxes what it keeps in its index
// alone: UIDVALIDITY and UIDs of messages that were only looked at, and flags
// and keywords that were set (mbox_lazy_writes) in sessions that still run or
// crashed. Nothing changes that clients see, and sessions go on.
//
// It is doveadm-force-resync(1) of all mailboxes, which for an mbox is a full
// reading with all changes written (dovecot mbox-sync.c, MBOX_SYNC_REWRITE):
// Dovecot locks each mbox meanwhile. An empty mbox stays empty, its UIDVALIDITY
// in the index; see SettleEmpty. An mbox that Dovecot may not write stays as
// it is.
//
// A *Failed with Exit 65 comes with mailboxes that Dovecot can't open, such as
// files that are no mboxes (Said names them); the others are settled.
func (d Doveadm) Settle(ctx context.Context, user string) error {
	if err := checkName(user); err != nil {
		return err
	}
	var err error
	for range settleTries {
		err = d.command(settleLimit, "force-resync", "-u", user, "*").run(ctx)
		var failed *Failed
		if !errors.As(err, &failed) || failed.Exit != tempfail {
			break
		}
	}
	return err
}

// Dovecot gives up a mailbox, with EX_TEMPFAIL, when its index speaks of another
// mbox than there is ("X-IMAPbase uid-last unexpectedly lost"), as after a
// rollback, and reads it anew the next time.
const (
	settleTries = 3
	tempfail    = 75
)

// SettleEmpty makes Dovecot write UIDVALIDITY and UIDNEXT of the user's empty
// mailboxes into their mboxes. For that it makes a message there, "FOLDER
// INTERNAL DATA", as it does itself when all messages of an mbox are expunged.
// Dovecot's clients don't see that message, but programs that read the mbox do.
//
// It is "doveadm mailbox update --min-next-uid" with the UIDNEXT that the
// mailbox has. Errors are joined; the other mailboxes are settled.
func (d Doveadm) SettleEmpty(ctx context.Context, user string) error {
	if err := checkName(user); err != nil {
		return err
	}
	empty := map[string]string{}
	status := d.command(settleLimit, "-f", "tab", "mailbox", "status", "-u", user, "messages uidnext", "*")
	status.each = func(line []byte) error {
		if f := strings.Split(string(line), "\t"); len(f) == 3 && f[1] == "0" {
			empty[f[0]] = f[2]
		}
		return nil
	}
	problems := []error{status.run(ctx)}
	for mailbox, next := range empty {
		problems = append(problems, d.command(settleLimit, "mailbox", "update", "-u", user, "--min-next-uid", next, "--", mailbox).run(ctx))
	}
	return errors.Join(problems...)
}
