package config

import (
	"runtime"
	"strings"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// keys is the one place where a key stands.
var keys = []Key{
	{"spool", Template, "/var/mail/{user}",
		"mbox that is a user's INBOX",
		template(func(c *Config) *string { return &c.Spool }, "{user}", "{home}", "{uid}")},
	{"folders", List, "{home}/mail",
		"directories that hold a user's other mboxes; those that he has not are passed over",
		setFolders},
	{"maildir", Template, "{home}/Maildir",
		"Maildir that a user's mail goes into",
		template(func(c *Config) *string { return &c.Maildir }, "{user}", "{home}", "{uid}")},
	{"layout", Text, "maildir++",
		"folders of the Maildir: maildir++, fs, or listescape (maildir++ with dots spelled as Dovecot's listescape plugin does)",
		func(c *Config, text string) (err error) {
			c.Layout, err = maildir.ParseFolders(text)
			return err
		}},
	{"semaphore", Template, "/var/lib/mailferry/semaphores/{user}",
		"file that says which format a user has now: the authority, in a directory of root's",
		setSemaphore},
	{"mirror", Template, "{home}/.mailstate",
		"copy of the semaphore for rules that run as the user; empty for none",
		optional(template(func(c *Config) *string { return &c.Mirror }, "{user}", "{home}", "{uid}"), func(c *Config) *string { return &c.Mirror })},
	{"gate", Template, "{home}/.mailstate.lock",
		"dotlock that delivery agents hold from reading the semaphore until the message is on disk",
		template(func(c *Config) *string { return &c.Gate }, "{user}", "{home}", "{uid}")},
	{"users", Text, account.Passwd,
		"user database: passwd (what getent passwd says), or file:PATH with lines user:uid:gid:home",
		func(c *Config, text string) error {
			c.Users = text
			return account.CheckSpec(text)
		}},
	{"min-uid", Integer, "1000",
		"users with a lower uid are left alone; uid 0 always is",
		integer(func(c *Config) *int { return &c.MinUID }, 1)},
	{"locks", List, "dotlock,fcntl",
		"locks that are taken on an mbox: dotlock, fcntl, flock; all that the site's programs take",
		setLocks},
	{"profile", Text, "dovecot",
		"read mboxes as this server does: " + strings.Join(mbox.ProfileNames(), ", "),
		func(c *Config, text string) (err error) {
			c.Profile, err = mbox.ProfileByName(text)
			return err
		}},
	{"quoting", Text, "keep",
		"quoted From_ lines in bodies: keep as the server showed them, or undo mboxo or mboxrd",
		word(func(c *Config) *message.Quoting { return &c.Quoting },
			[]string{"keep", "mboxo", "mboxrd"}, message.Keep, message.MboxO, message.MboxRD)},
	{"eol", Text, "auto",
		"CRs in bodies: auto (a file whose From_ line ends in CRLF becomes LF), keep, lf",
		word(func(c *Config) *mbox.EOL { return &c.EOL },
			[]string{"auto", "keep", "lf"}, mbox.EOLAuto, mbox.EOLKeep, mbox.EOLLF)},
	{"correct-dates", Boolean, "false",
		"take From_ dates as they were meant, not as the profile's server misreads them",
		boolean(func(c *Config) *bool { return &c.CorrectDates })},
	{"state", Path, "/var/lib/mailferry",
		"state directory: runs with their journals, the run lock, what was staged",
		path(func(c *Config) *string { return &c.State })},
	{"chunk", Integer, "100",
		"users who are precopied together and then cut over",
		integer(func(c *Config) *int { return &c.Chunk }, 1)},
	{"jobs", Integer, "0",
		"users precopied at a time; 0 for one a processor",
		func(c *Config, text string) error {
			err := integer(func(c *Config) *int { return &c.Jobs }, 0)(c, text)
			if c.Jobs == 0 {
				c.Jobs = runtime.NumCPU()
			}
			return err
		}},
	{"cutover-jobs", Integer, "1",
		"users cut over at a time",
		integer(func(c *Config) *int { return &c.CutoverJobs }, 1)},
	{"max-failures", Integer, "0",
		"a run ends early when more users than this have failed (those refused before the work do not count); 0 for never",
		integer(func(c *Config) *int { return &c.MaxFailures }, 0)},
	{"window", Hours, "",
		"hours in which chunks are begun, local time, over midnight if the end is the earlier one; empty for always",
		func(c *Config, text string) (err error) {
			c.Window, err = ParseWindow(text)
			return err
		}},
	{"pause-between", Duration, "0s",
		"pause between chunks",
		duration(func(c *Config) *time.Duration { return &c.PauseBetween }, 0)},
	{"hold-limit", Duration, "30s",
		"longest time that a user's mail may be held; if his move takes longer, it is undone",
		duration(func(c *Config) *time.Duration { return &c.HoldLimit }, time.Second)},
	{"drain-limit", Duration, "10s",
		"longest time that a move waits, in a hold, for sessions and programs that have a mailbox open; then it is undone",
		duration(func(c *Config) *time.Duration { return &c.DrainLimit }, 0)},
	{"max-rounds", Integer, "3",
		"times that a mailbox is brought up to date just before its hold, at most, so that little remains for the hold",
		integer(func(c *Config) *int { return &c.MaxRounds }, 1)},
	{"retries", Integer, "3",
		"times that a user whose move failed for a passing reason (busy, in-use, hold-limit) is tried again at the end of the run",
		integer(func(c *Config) *int { return &c.Retries }, 0)},
	{"grace", Duration, "10s",
		"time that a run stays behind its last flip, to take the mail that comes to a user's old place all the same",
		duration(func(c *Config) *time.Duration { return &c.Grace }, 0)},
	{"doveadm", Path, "",
		"doveadm, by which Dovecot ends the sessions of a user in his hold, and looks his mail up anew behind it; empty for none",
		program(func(c *Config) *string { return &c.Doveadm })},
	{"postqueue", Path, "",
		"Postfix's postqueue, by which mail that was deferred in a user's hold is delivered at once when that has ended; empty for none",
		program(func(c *Config) *string { return &c.Postqueue })},
	{"bwlimit", Bytes, "0",
		"bytes a second that a precopy reads and writes at most; 0 for no limit",
		size(func(c *Config) *int64 { return &c.Bandwidth })},
	{"nice", Boolean, "false",
		"work at the lowest priority for processor and disk (ioprio idle), except in a hold",
		boolean(func(c *Config) *bool { return &c.Nice })},
	{"order", Text, string(Listed),
		"order of the users: listed (as they were named), size (least mail first), size-desc",
		word(func(c *Config) *Order { return &c.Order },
			[]string{string(Listed), string(Size), string(SizeDesc)}, Listed, Size, SizeDesc)},
	{"free-floor", Bytes, "1G",
		"free space that is left alone on every filesystem; a user for whom less would be left is refused",
		size(func(c *Config) *int64 { return &c.FreeFloor })},
	{"allow-quarantine", Boolean, "false",
		"cut over users of whom a message had to be quarantined",
		boolean(func(c *Config) *bool { return &c.AllowQuarantine })},
	{"hooks.before-hold", Path, "",
		"executable that runs before a user is held; if it fails, that user is left alone",
		hook(func(h *Hooks) *string { return &h.BeforeHold })},
	{"hooks.drain", Path, "",
		"executable that ends a user's sessions during the hold; if it fails, his move is undone",
		hook(func(h *Hooks) *string { return &h.Drain })},
	{"hooks.after-flip", Path, "",
		"executable that runs after a user was moved: the semaphore says maildir, or mbox after a rollback",
		hook(func(h *Hooks) *string { return &h.AfterFlip })},
	{"hooks.after-abort", Path, "",
		"executable that runs after the move of a user was undone",
		hook(func(h *Hooks) *string { return &h.AfterAbort })},
}
