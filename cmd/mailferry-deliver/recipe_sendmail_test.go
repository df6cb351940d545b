package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sendmailMc is what the recipe is read into. DNS and aliases are none of this
// test's, nor is the load of the machine.
const sendmailMc = `OSTYPE(linux)
define(` + "`confDOMAIN_NAME', `test.invalid'" + `)
define(` + "`QUEUE_DIR', `/var/lib/sendmail/queue'" + `)
define(` + "`STATUS_FILE', `/var/lib/sendmail/status'" + `)
define(` + "`confPID_FILE', `/var/lib/sendmail/pid'" + `)
define(` + "`HELP_FILE', `/dev/null'" + `)
define(` + "`confQUEUE_LA', `1000'" + `)
undefine(` + "`ALIAS_FILE'" + `)
FEATURE(nocanonify)
%sMAILER(local)
MAILER(smtp)
Cwtest.invalid
`

// sendmail is the real one, from Debian's package: it can't be installed where
// Postfix is. It tells what it does on its output; its log is syslog's.
type sendmail struct {
	*host
	said *strings.Builder
}

func startSendmail(g *host) sendmail {
	g.Helper()
	dir := unpacked(g, "sendmail-bin", "sendmail-cf", "liblockfile1", "m4")
	bin := filepath.Join(g.dir, "bin")
	g.must(exec.Command("cp", "-L", dir+"/usr/libexec/sendmail/sendmail", bin+"/sendmail8").Run())
	g.must(exec.Command("sh", "-c", `cp "$0"/usr/lib/*/liblockfile.so.1* "$1"`, dir, bin).Run())
	cf := dir + "/usr/share/sendmail/cf/"
	m4 := exec.Command(dir+"/usr/bin/m4", "-D_CF_DIR_="+cf, cf+"m4/cf.m4", "-")
	m4.Stdin = strings.NewReader(fmt.Sprintf(sendmailMc, recipe(g.T, "sendmail.md")["/etc/mail/sendmail.mc"]))
	text, err := m4.Output()
	g.must(err)
	g.write("/etc/mail/sendmail.cf", string(text))
	g.write("/etc/mail/switch", "hosts files\n")
	name, err := os.Hostname()
	g.must(err)
	g.write("/etc/hosts", "127.0.0.1 test.invalid "+name+"\n") // without a domain sendmail waits a minute for one
	g.run("install", "-d", "-m", "0700", "/var/lib/sendmail", "/var/lib/sendmail/queue")
	return sendmail{g, &strings.Builder{}}
}

func (m sendmail) sendmail(input string, args ...string) string {
	m.Helper()
	cmd := m.command(append([]string{"env", "LD_LIBRARY_PATH=/usr/local/bin", "/usr/local/bin/sendmail8", "-C/etc/mail/sendmail.cf"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	m.said.Write(out)
	if err != nil && cmd.ProcessState.ExitCode() != 75 { // it has queued it
		m.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (m sendmail) send(id, to string) {
	m.Helper()
	m.sendmail("Subject: "+id+"\n\nFrom the test\n", "-v", "-odi", "-f", "x@example.org", to)
}

func (m sendmail) flush() { m.sendmail("", "-v", "-q") }

// log has the word for a deferral that the logs of others have.
func (m sendmail) log() string {
	return strings.ReplaceAll(m.said.String(), "... Deferred", " status=deferred")
}

func (m sendmail) queued() int {
	m.Helper()
	files, err := filepath.Glob(m.root("/var/lib/sendmail/queue/[q]f*"))
	m.must(err)
	return len(files)
}

func TestSendmailWithTheAgentAsMlocal(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	m := startSendmail(g)
	g.try(m)
	if text := g.read("/var/mail/alice"); !strings.Contains(text, "\nReturn-Path: <x@example.org>\n") || !strings.HasPrefix(text, "From x@example.org  ") {
		t.Errorf("the sender is lost: %q", text)
	}
	m.send("plus", "alice+list")
	g.until("an address with extension", func() bool { return g.has("alice", []string{"four", "one", "plus"}, []string{"three", "two"}) == "" }, m.log)

	agent := filepath.Join(g.dir, "bin", "mailferry-deliver")
	g.must(os.Remove(agent))
	g.must(os.WriteFile(agent, []byte("#!/bin/sh\nkill -9 $$\n"), 0o755))
	m.send("killed", "alice")
	if n := m.queued(); n != 1 {
		t.Errorf("an agent is killed: %d in the queue\n%s", n, m.log())
	}
}
