package main

import (
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

func startExim(g *host) exim {
	g.Helper()
	dir := g.TempDir()
	for _, args := range [][]string{
		{"apt-get", "-q", "download", "exim4-daemon-light"},
		{"sh", "-c", "dpkg -x *.deb ."},
		{"cp", "-p", "usr/sbin/exim4", filepath.Join(g.dir, "bin")},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			g.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	g.write("/etc/passwd", g.read("/etc/passwd")+"Debian-exim:x:20100:20100::/var/lib/exim4:/bin/false\n")
	g.write("/etc/group", g.read("/etc/group")+"Debian-exim:x:20100:\n")
	g.write("/etc/exim4/exim4.conf", eximConf)
	g.apply(recipe(g.T, "exim.md"))
	g.run("install", "-d", "-o", "Debian-exim", "/var/lib/exim4", "/var/lib/exim4/spool")
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
