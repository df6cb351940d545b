package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// dovecotConf is what a recipe is read into. Mail goes astray if the recipe does
// not tell where it belongs.
const dovecotConf = `log_path = /run/dovecot.log
protocols =
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
mail_location = maildir:~/astray
mail_access_groups = mail
postmaster_address = postmaster@example.org
!include_try conf.d/*.conf
`

// startDovecot starts it with its files of some recipes.
func startDovecot(g *host, recipes ...map[string]string) {
	g.Helper()
	g.write("/etc/dovecot/dovecot.conf", dovecotConf)
	g.write("/run/dovecot.log", "")
	g.must(os.Chmod(g.root("/run/dovecot.log"), 0o666)) // for dovecot-lda
	g.run("sh", "-c", "rm -f /etc/dovecot/conf.d/*")
	for _, files := range recipes {
		for path, text := range files {
			if strings.HasPrefix(path, "/etc/dovecot/") {
				g.write(path, strings.Replace(text, "driver = pam", "driver = static\n  args = password=secret", 1))
			}
		}
	}
	g.start("dovecot", "-F")
}

func TestPostfixWithDovecotLMTP(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	p := startPostfix(g, recipe(t, "dovecot-lmtp.md"))
	startDovecot(g, recipe(t, "dovecot.md"), recipe(t, "dovecot-lmtp.md"))
	g.answers(g.dir+"/queue/private/dovecot-lmtp", p)
	g.try(p)
}

func TestPostfixWithDovecotLDA(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.must(os.Chmod(g.root("/var/mail"), 0o777|os.ModeSticky))
	p := startPostfix(g, recipe(t, "dovecot-lda.md"))
	startDovecot(g, recipe(t, "dovecot.md"), recipe(t, "dovecot-lda.md"))
	g.answers(g.root("/run/dovecot/auth-userdb"), p)
	g.try(p)
}

func TestLoginsFollowTheSemaphore(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	imap, pop3 := freeAddress(g), freeAddress(g)
	ports := map[string]string{"/etc/dovecot/conf.d/99-ports.conf": fmt.Sprintf(accessConf, port(imap), port(pop3))}
	startDovecot(g, recipe(t, "dovecot.md"), ports)
	g.write("/var/mail/alice", "From x@example.org  Sat Nov 21 18:00:00 2026\nSubject: in the mbox\n\nx\n\n")
	g.must(os.Chown(g.root("/var/mail/alice"), uid, uid))
	g.must(os.WriteFile(g.root("/home/alice/Maildir/new/1.a"), []byte("Subject: in the Maildir\n\nx\n"), 0o644))
	log := func() string { return g.read("/run/dovecot.log") }
	g.until("it serves", func() bool {
		conn, err := net.Dial("tcp", pop3)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, log)
	for _, s := range []struct{ state, password, imap, pop3 string }{
		{"mbox", "secret", "Subject: in the mbox", "Subject: in the mbox"},
		{"hold", "secret", imapHeld, pop3Held},
		{"hold", "wrong", imapHeld, pop3Held},
		{"neither", "secret", imapHeld, pop3Held},
		{"maildir", "secret", "Subject: in the Maildir", "Subject: in the Maildir"},
		{"maildir", "wrong", "NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]"},
		{"mbox", "wrong", "NO [AUTHENTICATIONFAILED]", "-ERR [AUTH]"},
	} {
		g.say("alice", s.state)
		if got := g.talk(imap, "a LOGIN alice "+s.password, "b SELECT INBOX", "c FETCH 1 BODY.PEEK[HEADER]", "d LOGOUT"); !strings.Contains(got, s.imap) {
			t.Errorf("IMAP, %s, %s: %q, want %q\n%s", s.state, s.password, got, s.imap, log())
		}
		if got := g.talk(pop3, "USER alice", "PASS "+s.password, "RETR 1", "QUIT"); !strings.Contains(got, s.pop3) {
			t.Errorf("POP3, %s, %s: %q, want %q\n%s", s.state, s.password, got, s.pop3, log())
		}
	}
	g.heldIsAnswered(imap, pop3)
}

// What the client of a held user is told: to come again, and nothing of his
// password (RFC 5530 3, RFC 3206 4).
const (
	imapHeld = "a NO [UNAVAILABLE] Temporary authentication failure."
	pop3Held = "-ERR [SYS/TEMP] Temporary authentication failure."
)

// heldIsAnswered has many clients of a held user at a time: all get an answer,
// and nobody else waits for it.
func (g *host) heldIsAnswered(imap, pop3 string) {
	g.Helper()
	g.say("alice", "hold")
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			if got := g.talk(imap, "a LOGIN alice secret", "d LOGOUT"); !strings.Contains(got, "\r\n"+imapHeld) || strings.Contains(got, "a OK") {
				g.Errorf("IMAP in a hold: %q", got)
			}
			if got := g.talk(pop3, "USER alice", "PASS secret", "QUIT"); !strings.Contains(got, "\r\n"+pop3Held) {
				g.Errorf("POP3 in a hold: %q", got)
			}
		})
	}
	clients.Wait()
	start := time.Now()
	if got := g.talk(pop3, "USER bob", "PASS secret", "STAT", "QUIT"); !strings.Contains(got, "+OK 0 0") {
		g.Errorf("somebody else in a hold: %q", got)
	}
	if took := time.Since(start); took > 6*time.Second { // with a penalty it would be 8 s and more
		g.Errorf("somebody else waited for %s", took)
	}
	g.say("alice", "maildir")
	if got := g.talk(imap, "a LOGIN alice secret", "d LOGOUT"); !strings.Contains(got, "\r\na OK ") {
		g.Errorf("after a hold: %q", got)
	}
}

const accessConf = `protocols = $protocols imap pop3
disable_plaintext_auth = no
service imap-login {
  chroot =
  inet_listener imap {
    port = %s
  }
}
service pop3-login {
  chroot =
  inet_listener pop3 {
    port = %s
  }
}
`

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// talk says all its lines and returns what was answered.
func (g *host) talk(address string, lines ...string) string {
	g.Helper()
	conn, err := net.Dial("tcp", address)
	g.must(err)
	defer conn.Close()
	g.must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n")
	g.must(err)
	answer, _ := io.ReadAll(conn) // a reset at the end is no matter
	return string(answer)
}

// answers waits for a server on a socket.
func (g *host) answers(socket string, r route) {
	g.Helper()
	g.until("a server at "+socket, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, r.log)
}
