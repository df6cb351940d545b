package host

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
)

// dovecot is a running Dovecot with users anybody, who share a password and
// whose mail lies in mboxes below home.
type dovecot struct {
	*testing.T
	Doveadm
	dir, home string
	address   string // of its IMAP
}

// mailOf is where the mail of a user lies.
func (d *dovecot) mailOf(user string) dovecottest.Location {
	dir := filepath.Join(d.home, user)
	return dovecottest.Location{Mail: "mbox:" + dir + "/mail:INBOX=" + dir + "/inbox"}
}

// tool finds a program that may be in a directory for root's programs.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(path); err == nil {
			return path
		}
	}
	t.Fatalf("the tests need %s", name)
	return ""
}

// freePort is a port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// shortDir is a temporary directory whose path leaves room for the names of
// sockets, and that everybody may pass.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_cache_size = 1M
first_valid_uid = 1
mail_fsync = never
mail_location = mbox:~/mail:INBOX=~/inbox
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[2]s/%%u
}
service imap-login {
  inet_listener imap {
    port = %[5]d
  }
  inet_listener imaps {
    port = 0
  }
}
`

// unprivileged is what lets a Dovecot run that was not started by root.
const unprivileged = `
default_internal_user = %[1]s
default_internal_group = %[2]s
default_login_user = %[1]s
service anvil {
  chroot =
}
service imap-login {
  chroot =
}
service stats {
  chroot =
}
`

// startDovecot runs Dovecot until the test ends.
func startDovecot(t *testing.T) *dovecot {
	t.Helper()
	dir := shortDir(t)
	d := &dovecot{T: t, dir: dir, home: filepath.Join(dir, "home")}
	d.Doveadm = Doveadm{Path: tool(t, "doveadm"), Config: filepath.Join(dir, "dovecot.conf")}
	uid, gid, port := dovecottest.UID, dovecottest.GID, freePort(t)
	if os.Geteuid() != 0 {
		uid, gid = os.Geteuid(), os.Getegid()
	}
	conf := fmt.Sprintf(dovecotConf, dir, d.home, uid, gid, port)
	if os.Geteuid() != 0 {
		conf += fmt.Sprintf(unprivileged, output(t, "id", "-un"), output(t, "id", "-gn"))
	}
	if err := os.WriteFile(d.Config, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.home, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool(t, "dovecot"), "-F", "-c", d.Config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	d.address = fmt.Sprintf("127.0.0.1:%d", port)
	d.until("it answers", func() bool {
		c, err := net.Dial("tcp", d.address)
		if err != nil {
			return false
		}
		defer c.Close()
		greeting, err := bufio.NewReader(c).ReadString('\n')
		return err == nil && strings.HasPrefix(greeting, "* OK")
	})
	return d
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// until waits for a condition.
func (d *dovecot) until(what string, is func() bool) {
	d.Helper()
	for range 500 {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	d.Fatalf("never: %s\n%s", what, log)
}

// account makes a user's mailboxes; "inbox" is the INBOX, others are below
// "mail/".
func (d *dovecot) account(user string, files map[string]string) {
	d.Helper()
	dir := filepath.Join(d.home, user)
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o755); err != nil {
		d.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			d.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			d.Fatal(err)
		}
	}
	dovecottest.Own(d.T, dir)
}

func (d *dovecot) read(user, name string) string {
	d.Helper()
	data, err := os.ReadFile(filepath.Join(d.home, user, name))
	if err != nil {
		d.Fatal(err)
	}
	return string(data)
}

// client is a session by way of the network.
type client struct {
	*testing.T
	net.Conn
	*bufio.Reader
}

// login opens a session, and the INBOX.
func (d *dovecot) login(user string) *client {
	d.Helper()
	conn, err := net.Dial("tcp", d.address)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close() })
	c := &client{d.T, conn, bufio.NewReader(conn)}
	c.ask("LOGIN " + user + " secret")
	c.ask("SELECT INBOX")
	return c
}

// ask sends a command that has to succeed.
func (c *client) ask(command string) {
	c.Helper()
	if _, err := fmt.Fprintf(c.Conn, "a %s\r\n", command); err != nil {
		c.Fatal(err)
	}
	for {
		line, err := c.ReadString('\n')
		if err != nil {
			c.Fatal(err)
		}
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a OK") {
				c.Fatal(line)
			}
			return
		}
	}
}
