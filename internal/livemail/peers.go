package livemail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Peer is a real delivery agent, run as the user with the rules of
// docs/migrating.md.
type Peer struct {
	name  string
	args  func(u *User, rules string) []string
	rules string // HOME, SPOOL, MAILDIR and SEMAPHORE stand for paths
}

// Procmail takes the gate by LOCKFILE.
var Procmail = Peer{
	name: "procmail",
	args: func(u *User, rules string) []string {
		return []string{"-t", "-f", "a@example.org", "-m", "HOME=" + u.Home, "LOGNAME=" + u.Name, rules}
	},
	rules: `SHELL=/bin/sh
LOCKSLEEP=1
LOCKTIMEOUT=60
MAILSTATE=unknown
LOCKFILE=HOME/.mailstate.lock
INCLUDERC=SEMAPHORE

:0
* ! LOCKFILE ?? .
{
  EXITCODE=75
  :0
  /dev/null
}

:0:
* MAILSTATE ?? ^^mbox^^
SPOOL

:0
* MAILSTATE ?? ^^maildir^^
MAILDIR/

EXITCODE=75
:0
/dev/null
`}

// Maildrop takes the gate by its dotlock statement.
var Maildrop = Peer{
	name: "maildrop",
	args: func(_ *User, rules string) []string { return []string{rules} },
	rules: `SHELL="/bin/sh"
LOCKSLEEP=1
MAILSTATE="unknown"
dotlock "HOME/.mailstate.lock" {
  include "SEMAPHORE"
  if ($MAILSTATE eq "mbox")
  {
    to "SPOOL"
  }
  if ($MAILSTATE eq "maildir")
  {
    to "MAILDIR"
  }
}
EXITCODE=75
exit
`}

// Name is that of the program.
func (p Peer) Name() string { return p.name }

// Serves reports whether the program delivers to a user.
func (p Peer) Serves(u *User) bool { return p.name != "maildrop" || u.known() }

// Deliver runs the program.
func (p Peer) Deliver(ctx context.Context, m *Message) (Result, error) {
	rules, err := p.write(m.User)
	if err != nil {
		return Deferred, err
	}
	u := m.User
	cmd := exec.Command(p.name, p.args(u, rules)...)
	cmd.Dir = u.Home
	cmd.Env = []string{"HOME=" + u.Home, "LOGNAME=" + u.Name, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}}
	return deliverBy(ctx, cmd, m)
}

// write makes the user's rules, once.
func (p Peer) write(u *User) (path string, err error) {
	path = filepath.Join(u.Home, ".rules-"+p.name)
	if _, err := os.Lstat(path); err == nil {
		return path, nil
	}
	rules := strings.NewReplacer("HOME", u.Home, "SPOOL", u.Spool, "MAILDIR", u.Maildir, "SEMAPHORE", u.Semaphore).Replace(p.rules)
	err = u.as(func() error {
		fresh := fmt.Sprintf("%s.%d", path, time.Now().UnixNano())
		if err := os.WriteFile(fresh, []byte(rules), 0o600); err != nil {
			return err
		}
		return os.Rename(fresh, path)
	})
	return path, err
}

// deliverBy runs an agent that reads the message and tells by its exit code. It
// is not killed when ctx ends: that would be a delivery in doubt.
func deliverBy(_ context.Context, cmd *exec.Cmd, m *Message) (Result, error) {
	var out bytes.Buffer
	cmd.Stdin = bytes.NewReader(m.Text())
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return Accepted, nil
	case errors.As(err, &exit) && exit.ExitCode() == 75:
		return Deferred, nil
	case errors.Is(err, exec.ErrNotFound):
		return Deferred, fmt.Errorf("%w: is its package installed?", err)
	}
	return Unknown, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, out.Bytes())
}

// LDA is Dovecot's local delivery agent. It looks up the mail's place first and
// locks later, with no gate: what it delivers behind a flip has to be swept up.
type LDA struct{ Server *Dovecot }

// Name is that of the program.
func (LDA) Name() string { return "dovecot-lda" }

// Deliver runs the program.
func (a LDA) Deliver(ctx context.Context, m *Message) (Result, error) {
	cmd := exec.Command(filepath.Join(a.Server.libexec, "dovecot-lda"), "-c", a.Server.conf, "-f", "a@example.org", "-d", m.User.Name)
	cmd.Dir = "/"
	return deliverBy(ctx, cmd, m)
}
