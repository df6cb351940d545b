// Package dovecottest runs the real Dovecot 2.3 on a mail location and records all that a client can see,
// so that a test can state that the dump of an mbox equals the dump of the Maildir made from it.
//
//	dovecottest.Own(t, dir)
//	want := dovecottest.DumpIMAP(t, dovecottest.Location{Mail: "mbox:" + dir + "/mail:INBOX=" + dir + "/inbox"})
//	got := dovecottest.DumpIMAP(t, dovecottest.Location{Mail: "maildir:" + dir + "/Maildir"})
//	for _, d := range dovecottest.Diff(got, want) {
//		t.Error(d)
//	}
//
// Each session is one imap or pop3 process on a pipe: no daemon, no port, no login, no file of the system
// configuration, some 12 ms per start. (Not by "doveadm exec": that drops the settings imap_* and pop3_*.)
// Tests that run as root hand the mail to UID first ([Own]), because Dovecot hangs there as root;
// tests that run as anybody else serve the mail as themselves.
//
// An mbox whose X-UIDs Dovecot has to correct costs up to a second: Dovecot then rewrites it twice at the
// same size, and waits in between for another mtime.
//
// A missing Dovecot, or another version, fails the test.
package dovecottest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// UID and GID are the identity of Dovecot when the test runs as root: nobody and nogroup.
const (
	UID = 65534
	GID = 65534
)

// silence is how long a server may take for its next line before it is killed and the test fails.
// Dovecot's own wait for an mbox lock is longer (5 min): a test that holds a lock sets mbox_lock_timeout in Extra.
const silence = 60 * time.Second

// Location is what Dovecot serves, and how.
type Location struct {
	// Mail is the value of mail_location: "mbox:/x/mail:INBOX=/x/inbox", "maildir:/x/Maildir:LAYOUT=fs".
	Mail string
	// TZ is the zone of the serving process, in which Dovecot reads From_ dates; "" is UTC.
	TZ string
	// ListEscape loads the listescape plugin, which keeps dots in the folder names of a Maildir++.
	ListEscape bool
	// UIDLFormat is pop3_uidl_format; "" is Dovecot's default, %08Xu%08Xv.
	UIDLFormat string
	// Extra is appended to the configuration.
	Extra string
}

// config returns the configuration file; dir is a directory that Dovecot may write.
// The separator is "/" for both formats: folder names change for clients otherwise.
func (loc Location) config(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "base_dir = %s\nstate_dir = %s\nmail_home = %s\n", dir, dir, dir)
	fmt.Fprintf(&b, "mail_location = %s\n", loc.Mail)
	b.WriteString("namespace inbox {\n  inbox = yes\n  separator = /\n}\n")
	// Nobody listens on the statistics socket, and the attempt takes half of the time of a start.
	b.WriteString("stats_writer_socket_path =\nlog_path = /dev/stderr\nssl = no\nfirst_valid_uid = 1\n")
	// The tests look at what is shown, not at what survives a power cut.
	b.WriteString("mail_fsync = never\n")
	// To look at a message by POP3 must not set its \Seen.
	b.WriteString("pop3_no_flag_updates = yes\n")
	if loc.ListEscape {
		b.WriteString("mail_plugins = listescape\n")
	}
	if loc.UIDLFormat != "" {
		fmt.Fprintf(&b, "pop3_uidl_format = %s\n", loc.UIDLFormat)
	}
	return b.String() + loc.Extra + "\n"
}

// Own gives the tree at path to the identity that Dovecot runs under and makes it reachable:
// directories above it that lie below [os.TempDir], as those of t.TempDir do, become searchable.
// For an mbox pass the directory around it, in which Dovecot makes its dotlock.
// Unless the test runs as root, the tree is reachable as it is and nothing is done.
func Own(tb testing.TB, path string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		return
	}
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if err := searchable(dir); err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
	}
	err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(name, UID, GID)
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// searchable lets everybody pass dir, if dir is a temporary directory.
func searchable(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o001 != 0 {
		return nil
	}
	if rel, err := filepath.Rel(os.TempDir(), dir); err != nil || !filepath.IsLocal(rel) || rel == "." {
		return fmt.Errorf("uid %d can't pass %s (mode %v)", UID, dir, fi.Mode().Perm())
	}
	return os.Chmod(dir, fi.Mode()|0o011)
}

// Doveadm runs doveadm on the location and returns its standard output.
// It runs without user lookup, so args must not contain -u. A failure of the command fails the test.
func Doveadm(tb testing.TB, loc Location, args ...string) string {
	tb.Helper()
	if _, err := libexec(); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	out, err := command(ctx, tb, loc, "doveadm", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		tb.Fatalf("doveadm %q: %v", args, err)
	}
	return string(out)
}

// command prepares program with a configuration for loc, under an identity that is not root's.
func command(ctx context.Context, tb testing.TB, loc Location, program string, args ...string) *exec.Cmd {
	tb.Helper()
	dir := tb.TempDir()
	conf := filepath.Join(dir, "dovecot.conf")
	if err := os.WriteFile(conf, []byte(loc.config(dir)), 0o600); err != nil {
		tb.Fatal(err)
	}
	Own(tb, dir)
	zone := loc.TZ
	if zone == "" {
		zone = "UTC"
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", conf}, args...)...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=" + zone, "USER=user", "HOME=" + dir}
	cmd.WaitDelay = time.Second
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: UID, Gid: GID}}
	}
	return cmd
}

// libexec returns the directory of the imap and pop3 programs of a Dovecot whose configuration we can write.
var libexec = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	// doveconf is in every PATH, dovecot itself is not.
	out, err := exec.CommandContext(ctx, "doveconf", "-c", os.DevNull, "-a").Output()
	if err != nil {
		return "", fmt.Errorf("the tests need Dovecot 2.3 with IMAP and POP3: %w", err)
	}
	// The first line is "# 2.3.19.1 (9b53102964): /dev/null".
	version, settings, _ := strings.Cut(string(out), "\n")
	if !strings.HasPrefix(version, "# 2.3.") {
		return "", fmt.Errorf("the tests need Dovecot 2.3, this is %q", version)
	}
	for line := range strings.Lines(settings) {
		if dir, ok := strings.CutPrefix(line, "libexec_dir = "); ok {
			return strings.TrimSpace(dir), nil
		}
	}
	return "", errors.New("doveconf shows no libexec_dir")
})
