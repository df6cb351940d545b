package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// forward lets each user call the agent from his .forward: one as he may, the
// others by a shell, which has to give way.
func (g *host) forward() {
	g.Helper()
	for i, name := range people {
		line := `"|exec /usr/local/bin/mailferry-deliver -d ` + name + ` -a \"$EXTENSION\""`
		if i == 0 {
			line = `"|/usr/local/bin/mailferry-deliver"`
		}
		path := g.root("/home/" + name + "/.forward")
		g.must(errors.Join(os.WriteFile(path, []byte(line+"\n"), 0o600), os.Chown(path, uid+i, uid+i)))
	}
}

// There is no other way to the mailbox than the .forward.
func TestPostfixWithTheAgentInForwardFiles(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.forward()
	p := startPostfix(g, map[string]string{"/etc/postfix/main.cf": "mailbox_transport = error:5.1.1 no .forward was read\n"})
	g.try(p)
	text := g.read("/var/mail/alice")
	if strings.Count(text, "From x@example.org  ") != 2 || strings.Count(text, "\nReturn-Path: <x@example.org>\n") != 2 ||
		strings.Count(text, "\nDelivered-To: alice@test.invalid\n") != 2 || strings.Count(text, "\n>From the test\n") != 2 {
		t.Errorf("the mbox is %q", text)
	}
	if strings.Contains(p.log(), "status=bounced") {
		t.Errorf("mail has bounced:\n%s", p.log())
	}
}

func TestDebiansEximWithTheAgentInForwardFiles(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	e := startDebianExim(g, true)
	for i, name := range people { // Exim runs no shell for it
		path := g.root("/home/" + name + "/.forward")
		g.must(errors.Join(os.WriteFile(path, []byte("|/usr/local/bin/mailferry-deliver\n"), 0o600), os.Chown(path, uid+i, uid+i)))
	}
	g.try(e)
	if text := g.read("/var/mail/alice"); strings.Count(text, "From x@example.org  ") != 2 || strings.Count(text, "\nReturn-Path: <x@example.org>\n") != 2 {
		t.Errorf("the sender is lost: %q", text)
	}
	if n := strings.Count(e.log(), " T=address_pipe"); n < 4 {
		t.Errorf("%d deliveries by .forward files:\n%s", n, e.log())
	}
}

// A spool of root's, mode 0755, in which a user can make neither an mbox nor a
// dotlock: called as the recipient, the agent has mail deferred, also where the
// mbox is there, since others would not see a lock. Called as root it is the same:
// whoever drops to the user can do no more than he.
func TestASpoolThatIsClosedToItsUsersDefersMail(t *testing.T) {
	for _, as := range []string{"the recipient", "root"} {
		for _, exists := range []bool{false, true} {
			t.Run(fmt.Sprintf("as %s, mbox %t", as, exists), func(t *testing.T) {
				s := newScene(t)
				s.must(errors.Join(os.Chown(s.spool(), 0, 0), os.Chmod(s.spool(), 0o755)))
				if exists {
					s.own(s.inbox(), oneMessage)
				}
				cmd := s.command(hello)
				if as != "root" {
					s.asRecipient(cmd)
				}
				if code, log := s.run(cmd); code != 75 || !strings.Contains(log, "permission denied") || strings.Count(log, "\n") != 1 {
					t.Errorf("exit code %d: %s", code, log)
				}
				if content, err := os.ReadFile(s.inbox()); exists && string(content) != oneMessage || !exists && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the mbox is %q, %v", content, err)
				}
				s.clean()

				// Without dotlocks, as a site may have it, there is nothing to make but a missing mbox.
				s.put(s.path("mailferry.toml"), s.config()+"locks = [\"fcntl\"]\n")
				cmd = s.command(hello)
				if as != "root" {
					s.asRecipient(cmd)
				}
				want := map[bool]int{true: 0, false: 75}[exists]
				s.wantsRun(want, cmd)
				s.say("maildir")
				cmd = s.command(hello)
				if as != "root" {
					s.asRecipient(cmd)
				}
				s.wantsRun(0, cmd)
				s.same("Maildir", s.inMaildir(s.home("Maildir")), stored)
				s.clean()
			})
		}
	}
}

const oneMessage = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none\n\n"

// asRecipient runs a command as the user; the program is copied to where he gets at it.
func (s *scene) asRecipient(cmd *exec.Cmd) {
	s.Helper()
	program, err := os.Executable()
	s.must(err)
	path := s.path("mailferry-deliver")
	if _, err := os.Stat(path); err != nil {
		s.must(exec.Command("cp", program, path).Run())
		s.must(os.Chmod(path, 0o755))
	}
	cmd.Path = path
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}
