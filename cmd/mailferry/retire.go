package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailferry/convert"
)

func retireCommand() *cobra.Command {
	age := days(7 * 24 * time.Hour)
	var dry bool
	cmd := &cobra.Command{
		Use:   "retire [USER]...",
		Short: "Delete the parked mboxes of users whose soak is over",
		Long: `retire ends the soak: the mboxes that were parked at the flip, and what earlier
rollbacks have set aside, are deleted, if all of it is older than --older-than. It
is done for a user only after a fresh verify finds no difference, if nothing lies at
the old paths but empty files of his own (mail that came is swept first), and if no
program has a parked mbox open. Others are left alone, and named.

A rollback is still possible then, from the Maildir alone: From_ lines are
written down before.
` + exitHelp,
		Example: `  mailferry retire --all --dry-run
  mailferry retire --all --older-than 14d`,
	}
	flags := cmd.Flags()
	flags.Var(&age, "older-than", "age that what is deleted must have, as 7d, 36h or 0s")
	flags.BoolVar(&dry, "dry-run", false, "verify, and say what would be deleted and how much space it frees; delete nothing")
	return runCommandWith(convert.Retire, retireKeys, cmd, func(r *convert.Run) { r.OlderThan, r.DryRun = time.Duration(age), dry })
}

// retired adds up what a run has deleted, or in a dry run would have.
type retired struct {
	Users  int   `json:"users"`
	Things int   `json:"deleted"` // parked mboxes, and Maildirs that were set aside
	Bytes  int64 `json:"freed_bytes"`
	Dry    bool  `json:"dry_run,omitempty"`
}

func (r *retired) add(u convert.User) {
	if len(u.Retired) == 0 {
		return
	}
	r.Users++
	r.Things += len(u.Retired)
	r.Bytes += u.Freed
	r.Dry = u.Dry
}

// sums are nil if nothing was deleted.
func (r *retired) sums() *retired {
	if r.Users == 0 {
		return nil
	}
	return r
}

// text is the line of the sums; none if nothing was deleted.
func (r *retired) text() string {
	if r.Users == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s: %s\n", plural(r.Things, "mailbox"), plural(r.Users, "user"), freed(r.Bytes, r.Dry))
}

func freed(bytes int64, dry bool) string {
	if dry {
		return "would be deleted, which frees " + size(bytes)
	}
	return "deleted, which freed " + size(bytes)
}

// retiredText tells what was deleted of a user.
func retiredText(u convert.User) string {
	names := make([]string, len(u.Retired))
	for i, path := range u.Retired {
		names[i] = quoted(path)
	}
	return freed(u.Freed, u.Dry) + ": " + strings.Join(names, ", ")
}

// retireKeys are the keys that decide what a retirement does.
var retireKeys = []string{"users", "min-uid", "spool", "folders", "maildir", "layout", "semaphore", "mirror", "gate",
	"profile", "quoting", "eol", "correct-dates", "locks", "chunk", "jobs", "max-failures", "window", "pause-between", "nice"}

// days is a duration that may be given in days.
type days time.Duration

var errAge = errors.New("neither a number of days, as 7d, nor a duration, as 36h")

func (d *days) Set(text string) error {
	if number, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return errAge
		}
		*d = days(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	age, err := time.ParseDuration(text)
	if err != nil || age < 0 {
		return errAge
	}
	*d = days(age)
	return nil
}

func (d *days) String() string {
	const day = days(24 * time.Hour)
	if *d > 0 && *d%day == 0 {
		return fmt.Sprintf("%dd", *d/day)
	}
	return time.Duration(*d).String()
}

func (*days) Type() string { return "age" }
