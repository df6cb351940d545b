package livemail

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Dovecot is a server with a configuration of its own, on the loopback address.
// At each login it reads the semaphore: hold fails in the passdb, as a temporary
// failure, and mbox and maildir are locations that the userdb answers. It takes
// the locks of an mbox in the order in which procmail and maildrop do: Dovecot's
// default is the other, with which they wait for each other for two minutes.
type Dovecot struct {
	IMAP, POP3 string // addresses

	site    *Site
	conf    string
	libexec string
	cmd     *exec.Cmd
	log     string
}

// password is everybody's.
const password = "secret"

// StartDovecot starts the server; it is stopped when the test ends.
func StartDovecot(tb testing.TB, s *Site) *Dovecot {
	tb.Helper()
	d := &Dovecot{site: s, conf: filepath.Join(s.Dir, "run", "dovecot.conf"), log: filepath.Join(s.Dir, "run", "log")}
	var err error
	if d.libexec, err = libexec(); err != nil {
		tb.Fatalf("the test needs Dovecot 2.3 with IMAP and POP3: %v", err)
	}
	d.IMAP, d.POP3 = freeAddress(tb), freeAddress(tb)
	for name, content := range map[string]string{d.conf: d.config(), d.script(): s.lua()} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	program, err := exec.LookPath("dovecot")
	if err != nil {
		program = "/usr/sbin/dovecot" // which is not in every PATH
	}
	d.cmd = exec.Command(program, "-F", "-c", d.conf)
	d.cmd.Dir = "/"
	if err := d.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { d.stop(tb) })
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", d.IMAP)
		if err == nil {
			conn.Close()
			return d
		}
		if time.Since(start) > 10*time.Second {
			tb.Fatalf("Dovecot does not come up: %v\n%s", err, d.Log())
		}
	}
}

func (d *Dovecot) script() string { return filepath.Join(d.site.Dir, "run", "route.lua") }

func (d *Dovecot) stop(tb testing.TB) {
	tb.Helper()
	d.cmd.Process.Signal(os.Interrupt)
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		tb.Error("Dovecot did not stop")
		d.cmd.Process.Kill()
		<-ended
	}
}

// Doveadm runs doveadm on the server.
func (d *Dovecot) Doveadm(args ...string) (string, error) {
	out, err := exec.Command("doveadm", append([]string{"-c", d.conf}, args...)...).CombinedOutput()
	return string(out), err
}

// Config is the path of the server's configuration, for doveadm.
func (d *Dovecot) Config() string { return d.conf }

// Log returns what the server has logged.
func (d *Dovecot) Log() string {
	content, _ := os.ReadFile(d.log)
	return string(content)
}

// Errors are the lines of the log that a server in order does not write.
func (d *Dovecot) Errors() (list []string) {
	for line := range strings.Lines(d.Log()) {
		if strings.Contains(line, "Error: ") || strings.Contains(line, "Panic: ") || strings.Contains(line, "Fatal: ") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

func (d *Dovecot) config() string {
	run := filepath.Join(d.site.Dir, "run")
	port := func(address string) string { return address[strings.LastIndex(address, ":")+1:] }
	return strings.NewReplacer("RUN", run, "SCRIPT", d.script(), "LOG", d.log, "IMAPPORT", port(d.IMAP), "POP3PORT", port(d.POP3)).Replace(`
base_dir = RUN/base
state_dir = RUN/base
log_path = LOG
protocols = imap pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
first_valid_uid = 1
mail_fsync = never
mail_max_userip_connections = 0
postmaster_address = postmaster@example.org
pop3_no_flag_updates = yes
lda_mailbox_autocreate = yes
mail_plugins = listescape
mbox_write_locks = dotlock fcntl
namespace inbox {
  inbox = yes
  separator = /
}
passdb {
  driver = lua
  args = file=SCRIPT blocking=yes
}
userdb {
  driver = lua
  args = file=SCRIPT blocking=yes
}
service imap-login {
  service_count = 0
  process_min_avail = 1
  chroot =
  inet_listener imap {
    port = IMAPPORT
  }
}
service pop3-login {
  service_count = 0
  process_min_avail = 1
  chroot =
  inet_listener pop3 {
    port = POP3PORT
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`)
}

// lua routes: the content of a semaphore is compared with fixed strings, and
// all else is hold.
func (s *Site) lua() string {
	var users strings.Builder
	for _, u := range s.Users {
		fmt.Fprintf(&users, "  [%q] = {uid = %d, gid = %d, home = %q, spool = %q},\n", u.Name, u.UID, u.GID, u.Home, u.Spool)
	}
	return fmt.Sprintf(`local users = {
%s}

local function state(user)
  local f = io.open(%q .. user, "r")
  if not f then return "hold" end
  local line = f:read(64)
  f:close()
  if line == "MAILSTATE=mbox\n" then return "mbox" end
  if line == "MAILSTATE=maildir\n" then return "maildir" end
  return "hold"
end

function auth_passdb_lookup(req)
  if not users[req.user] then
    return dovecot.auth.PASSDB_RESULT_USER_UNKNOWN, "unknown"
  end
  if state(req.user) == "hold" then
    return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, "is being moved"
  end
  return dovecot.auth.PASSDB_RESULT_OK, {password = %q}
end

function auth_userdb_lookup(req)
  local u = users[req.user]
  if not u then
    return dovecot.auth.USERDB_RESULT_USER_UNKNOWN, "unknown"
  end
  local now, mail = state(req.user), nil
  if now == "hold" then
    return dovecot.auth.USERDB_RESULT_INTERNAL_FAILURE, "is being moved"
  elseif now == "mbox" then
    mail = "mbox:" .. u.home .. "/mail:INBOX=" .. u.spool
  else
    mail = "maildir:" .. u.home .. "/Maildir"
  end
  return dovecot.auth.USERDB_RESULT_OK, {uid = u.uid, gid = u.gid, home = u.home, mail = mail}
end
`, users.String(), filepath.Dir(s.Users[0].Semaphore)+"/", password)
}

// libexec is the directory of Dovecot's programs.
func libexec() (string, error) {
	out, err := exec.Command("doveconf", "-c", os.DevNull, "-a").Output()
	if err != nil {
		return "", err
	}
	if !bytes.HasPrefix(out, []byte("# 2.3.")) {
		return "", fmt.Errorf("this is %q", out[:min(len(out), 20)])
	}
	for line := range strings.Lines(string(out)) {
		if dir, ok := strings.CutPrefix(line, "libexec_dir = "); ok {
			return strings.TrimSpace(dir), nil
		}
	}
	return "", errors.New("doveconf shows no libexec_dir")
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
