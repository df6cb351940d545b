package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mailferry/internal/postfixtest"
)

// doctor runs mailferry doctor in the ground.
func (g *host) doctor() (code int, said string) {
	g.Helper()
	out, err := g.command("/usr/local/bin/mailferry", "doctor").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	g.must(err)
	return 0, string(out)
}

// configure has the files of recipes, of a Dovecot with logins, and of the
// sweep's timer, as an admin makes them; nothing is started.
func (g *host) configure(recipes ...string) {
	g.Helper()
	g.write("/etc/postfix/main.cf", mainCf)
	g.write("/etc/postfix/master.cf", postfixtest.Master)
	g.write("/etc/dovecot/dovecot.conf", dovecotConf)
	g.run("sh", "-c", "rm -f /etc/dovecot/conf.d/* /etc/procmailrc /etc/maildroprc")
	g.write("/etc/dovecot/conf.d/99-logins.conf", "protocols = $protocols imap pop3\n")
	for _, name := range recipes {
		g.apply(recipe(g.T, name))
	}
	for _, socket := range []string{"mailferry", "dovecot-lmtp"} {
		g.write("/var/spool/postfix/private/"+socket, "")
	}
	g.run("mkdir", "-p", "/etc/systemd/system/timers.target.wants")
	g.run("ln", "-sf", "../mailferry-sweep.timer", "/etc/systemd/system/timers.target.wants/")
}

func TestDoctorIsContentWithEachRecipe(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	for _, c := range []struct{ recipe, says string }{
		{"postfix.md", "Postfix: fine: gate: mailbox_command = /usr/local/bin/mailferry-deliver"},
		{"postfix-lmtp.md", "Postfix: fine: gate: mailbox_transport = lmtp:unix:private/mailferry"},
		{"procmail.md", "procmail: fine: rules: /etc/procmailrc"},
		{"maildrop.md", "maildrop: fine: rules: /etc/maildroprc"},
		{"dovecot-lmtp.md", "Postfix: note: window: mailbox_transport = lmtp:unix:private/dovecot-lmtp"},
		{"dovecot-lda.md", "Postfix: note: window: mailbox_command = exec"},
	} {
		if c.recipe == "dovecot-lda.md" {
			g.must(os.Chmod(g.root("/var/mail"), 0o777|os.ModeSticky))
		}
		g.configure("dovecot.md", c.recipe)
		code, said := g.doctor()
		if code != 0 || !strings.Contains(said, c.says) || !strings.Contains(said, "\nthis host: 0 to do, 0 unknown") || strings.Contains(said, "docs/routing") {
			t.Errorf("%s: exit code %d, without %q:\n%s", c.recipe, code, c.says, said)
		}
	}
}

func TestDoctorAtAnEximHost(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.configure("dovecot.md")
	startExim(g)
	g.run("cp", "/usr/sbin/dovecot", "/usr/local/bin/")
	g.run("mount", "--bind", "/usr/local/bin", "/usr/sbin") // nothing of Postfix is left then
	const fine = "Exim: fine: gate: router local_user, transport mailferry, /usr/local/bin/mailferry-deliver"
	if code, said := g.doctor(); code != 0 || !strings.Contains(said, fine) || !strings.Contains(said, "Exim 4.9") {
		t.Errorf("exit code %d, without %q:\n%s", code, fine, said)
	}
	g.write("/etc/exim4/conf.d/transport/30_mailferry", "mailferry:\n  driver = appendfile\n  file = /var/mail/$local_part_data\n")
	const open = "Exim: do: no-semaphore: router local_user, transport mailferry: "
	if code, said := g.doctor(); code != 4 || !strings.Contains(said, open) || !strings.Contains(said, "\n    temp_errors = *\n") && !strings.Contains(said, "\n      temp_errors = *\n") {
		t.Errorf("exit code %d, without %q and the snippet:\n%s", code, open, said)
	}
}

func TestDoctorAtASendmailHost(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.configure("dovecot.md")
	startSendmail(g)
	g.run("cp", "/usr/sbin/dovecot", "/usr/local/bin/")
	g.run("mount", "--bind", "/usr/local/bin", "/usr/sbin") // nothing of Postfix is left then
	const fine = "sendmail: fine: gate: Mlocal, /usr/local/bin/mailferry-deliver -a $h -d $u: "
	if code, said := g.doctor(); code != 0 || !strings.Contains(said, fine) {
		t.Errorf("exit code %d, without %q:\n%s", code, fine, said)
	}
}

func TestDoctorAtDebiansDefaults(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.configure()
	g.write("/etc/postfix/main.cf", mainCf+"mailbox_command = procmail -a \"$EXTENSION\"\n")
	before := g.run("find", "/etc", "/var/lib/mailferry", "/var/mail", "/home", "-newermt", "@0", "-printf", "%p %T@ %C@\n")
	code, said := g.doctor()
	if code != 4 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"Postfix: do: shell: ", "Postfix: do: bounces: ", "procmail: do: rules-missing: ", "Dovecot: do: userdb: ", "Dovecot: do: passdb: ", "locks: do: lock-order: ",
		"\ndocs/routing/procmail.md, /etc/procmailrc:\n\n    DROPPRIVS=yes\n", "\ndocs/routing/procmail.md, /etc/postfix/main.cf:\n\n    mailbox_command = /usr/bin/procmail -t\n",
		"\ndocs/routing/dovecot.md, /etc/dovecot/mailferry.lua:\n\n    local semaphores = \"/var/lib/mailferry/semaphores/\"\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("without %q:\n%s", want, said)
		}
	}
	if after := g.run("find", "/etc", "/var/lib/mailferry", "/var/mail", "/home", "-newermt", "@0", "-printf", "%p %T@ %C@\n"); after != before {
		t.Error("something was touched")
	}
	if out, err := g.command("/usr/local/bin/mailferry", "doctor", "--json").Output(); err == nil || !strings.HasSuffix(string(out), "}\n") || !strings.Contains(string(out), `"message_type":"snippet"`) || !strings.Contains(string(out), `{"message_type":"summary","do":`) {
		t.Errorf("%v: %s", err, out)
	}
}
