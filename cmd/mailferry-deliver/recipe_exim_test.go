package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// eximConf is what the recipe is read into.
const eximConf = `exim_path = /usr/local/bin/exim4
spool_directory = /var/lib/exim4/spool
log_file_path = /var/lib/exim4/%slog
primary_hostname = test.invalid
domainlist local_domains = test.invalid
keep_environment =
never_users = root
begin routers
local_user:
  driver = accept
  domains = +local_domains
  check_local_user
  transport = mailferry
begin transports
.include /etc/exim4/conf.d/transport/30_mailferry
begin retry
* * F,1h,1m
`

// exim is the real one, from Debian's package: it can't be installed where
// Postfix is.
type exim struct{ *host }

// unpacked has the files of Debian's packages, which are not installed.
func unpacked(g *host, packages ...string) (dir string) {
	g.Helper()
	dir = g.TempDir()
	for _, args := range [][]string{
		append([]string{"apt-get", "-q", "download"}, packages...),
		{"sh", "-c", "for p in *.deb; do dpkg -x $p .; done"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			g.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	return dir
}

func startExim(g *host) exim {
	g.Helper()
	eximUser(g)
	g.must(exec.Command("cp", "-p", unpacked(g, "exim4-daemon-light")+"/usr/sbin/exim4", filepath.Join(g.dir, "bin")).Run())
	g.write("/etc/exim4/exim4.conf", eximConf)
	g.apply(recipe(g.T, "exim.md"))
	return exim{g}
}

func eximUser(g *host) {
	g.Helper()
	g.write("/etc/passwd", g.read("/etc/passwd")+"Debian-exim:x:20100:20100::/var/lib/exim4:/bin/false\n")
	g.write("/etc/group", g.read("/etc/group")+"Debian-exim:x:20100:\n")
	g.run("install", "-d", "-o", "Debian-exim", "/var/lib/exim4", "/var/lib/exim4/spool")
}

// What an admin sets in Debian's configuration, and what this host needs to be one.
const (
	debconf = `dc_eximconfig_configtype='internet'
dc_other_hostnames='test.invalid'
dc_local_interfaces='127.0.0.1'
dc_localdelivery='mailferry'
`
	eximMain = `SPOOLDIR = /var/lib/exim4/spool
MAIN_HARDCODE_PRIMARY_HOSTNAME = test.invalid
log_file_path = /var/lib/exim4/%slog
`
)

// startDebianExim makes the configuration as Debian does: of all parts in
// conf.d, or of the template that is made of them.
func startDebianExim(g *host, split bool) exim {
	g.Helper()
	eximUser(g)
	dir := unpacked(g, "exim4-daemon-light", "exim4-config")
	g.over("/usr/sbin")
	g.must(exec.Command("cp", "-p", dir+"/usr/sbin/exim4", dir+"/usr/sbin/update-exim4.conf",
		dir+"/usr/sbin/update-exim4.conf.template", g.root("/usr/sbin")).Run())
	g.must(exec.Command("cp", "-a", dir+"/etc/exim4", g.root("/etc/exim4")).Run())
	g.must(os.Symlink("/usr/sbin/exim4", filepath.Join(g.dir, "bin", "exim4")))
	g.write("/etc/mailname", "test.invalid\n")
	g.write("/etc/exim4/update-exim4.conf.conf", fmt.Sprintf("%sdc_use_split_config='%t'\n", debconf, split))
	g.write("/etc/exim4/conf.d/main/000_test", eximMain)
	g.apply(recipe(g.T, "exim.md"))
	if !split {
		g.run("update-exim4.conf.template", "-r")
	}
	g.run("update-exim4.conf", "-v")
	return exim{g}
}

func (e exim) exim(input string, args ...string) string {
	e.Helper()
	cmd := e.command(append([]string{"/usr/local/bin/exim4"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		e.Fatalf("%q: %v\n%s\n%s", args, err, out, e.log())
	}
	return string(out)
}

func (e exim) send(id, to string) {
	e.Helper()
	e.exim("Subject: "+id+"\n\nFrom the test\n", "-odf", "-f", "x@example.org", to)
}

func (e exim) flush() { e.exim("", "-qff") }
func (e exim) log() string {
	return e.read("/var/lib/exim4/mainlog") + e.read("/var/lib/exim4/paniclog")
}

func (e exim) queued() int {
	e.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(e.exim("", "-bpc")))
	e.must(err)
	return n
}

func TestEximWithTheAgentInAPipe(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.try(startExim(g))
}

func TestDebiansEximWithTheAgentInAPipe(t *testing.T) {
	t.Parallel()
	for name, split := range map[string]bool{"split": true, "one file": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newHost(t)
			e := startDebianExim(g, split)
			g.try(e)
			if n := strings.Count(e.log(), "=> alice <alice@test.invalid> R=local_user T=mailferry"); n != 4 {
				t.Errorf("%d deliveries by the agent, want 4:\n%s", n, e.log())
			}
		})
	}
}

// What becomes of the agent is no bounce, whatever it is: when it works again
// the message comes.
func TestAnAgentThatDiesUnderEximIsDeferred(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(agent string) error{
		"killed":         func(agent string) error { return os.WriteFile(agent, []byte("#!/bin/sh\nkill -9 $$\n"), 0o755) },
		"not executable": func(agent string) error { return os.Chmod(agent, 0o644) },
		"missing":        os.Remove,
	} {
		g := newHost(t)
		e := startExim(g)
		agent := filepath.Join(g.dir, "bin", "mailferry-deliver")
		g.must(os.Rename(agent, agent+".good"))
		g.must(exec.Command("cp", "-p", agent+".good", agent).Run())
		g.must(broken(agent))
		e.send("one", "alice")
		if n := e.queued(); n != 1 {
			t.Errorf("%s: %d in the queue\n%s", name, n, e.log())
		}
		g.must(os.Rename(agent+".good", agent))
		e.flush()
		g.until("it comes", func() bool { return g.has("alice", []string{"one"}, nil) == "" && e.queued() == 0 }, e.log)
	}
}
