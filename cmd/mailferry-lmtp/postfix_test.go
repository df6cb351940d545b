package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/postfixtest"
)

const siteToml = `state = "%[1]s/state"
users = "file:%[1]s/users"
spool = "%[1]s/spool/{user}"
semaphore = "%[1]s/semaphores/{user}"
`

// postfix is a Postfix whose mail comes to our server, which has the user alice,
// on a Maildir.
type postfix struct {
	*testing.T
	dir string
}

func startPostfix(t *testing.T, options ...string) *postfix {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: Postfix can't be started by others")
	}
	dir, args := site(t)
	p := &postfix{t, dir}
	unix.Umask(0o022) // servers of other tests have changed it
	p.must(os.Chmod(dir, 0o755))
	const uid = 20001
	for _, name := range []string{"conf", "queue", "data", "state", "spool", "semaphores", "alice", "alice/Maildir", "alice/Maildir/cur", "alice/Maildir/new", "alice/Maildir/tmp"} {
		p.must(os.Mkdir(p.path(name), 0o755))
		if strings.HasPrefix(name, "alice") {
			p.must(os.Chown(p.path(name), uid, uid))
		}
	}
	for name, text := range map[string]string{
		"conf/main.cf": postfixtest.Main(
			"queue_directory = "+dir+"/queue", "data_directory = "+dir+"/data", "maillog_file = "+dir+"/data/log",
			"recipient_delimiter = -", "alias_maps =", "mailbox_transport = lmtp:unix:"+dir+"/socket", "lmtp_line_length_limit = 0"),
		"conf/master.cf": postfixtest.Master, "mailferry.toml": fmt.Sprintf(siteToml, dir),
		"users": fmt.Sprintf("alice:%d:%d:%s/alice\n", uid, uid, dir), "semaphores/alice": "MAILSTATE=maildir\n",
	} {
		p.must(os.WriteFile(p.path(name), []byte(text), 0o644))
	}
	p.serve(append(args, options...))
	p.run("chown", "postfix", p.path("data"))
	p.run("postfix", "-c", p.path("conf"), "start")
	t.Cleanup(func() { p.run("postfix", "-c", p.path("conf"), "stop") })
	return p
}

// serve runs the server in a process of its own.
func (p *postfix) serve(args []string) {
	p.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "MAILFERRY_LMTP_TEST=1")
	cmd.Stderr = p.Output()
	p.must(cmd.Start())
	p.Cleanup(func() { p.must(errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait())) })
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", p.path("socket")); err == nil {
			conn.Close()
			return
		}
	}
	p.Fatal("the server does not start")
}

func (p *postfix) path(name string) string { return filepath.Join(p.dir, name) }

func (p *postfix) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *postfix) run(name string, args ...string) {
	p.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		p.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func (p *postfix) send(to, text string) {
	p.Helper()
	cmd := exec.Command("sendmail", "-C", p.path("conf"), "-f", "", "--", to)
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
}

// until waits for a line of the log in which these words stand.
func (p *postfix) until(words ...string) {
	p.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		log, err := os.ReadFile(p.path("data/log"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			p.Fatal(err)
		}
		for line := range strings.Lines(string(log)) {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				return
			}
		}
		if time.Since(start) > time.Minute {
			p.Fatalf("no %q in\n%s", words, log)
		}
	}
}

func TestExtensionsAsPostfixHasThemArrive(t *testing.T) {
	p := startPostfix(t, "--recipient-delimiter", "-")
	p.send("alice-list@test.invalid", "Subject: 1\n\n.dot\n")
	p.until("to=<alice-list@test.invalid>", "status=sent")
	p.send("bob-list@test.invalid", "Subject: 2\n\n")
	p.until("to=<bob-list@test.invalid>", "status=bounced", "550 5.1.1")
	files, err := filepath.Glob(p.path("alice/Maildir/new/*"))
	p.must(err)
	if len(files) != 1 {
		t.Fatalf("%q", files)
	}
	text, err := os.ReadFile(files[0])
	p.must(err)
	if _, body, _ := strings.Cut(string(text), "\n\n"); body != ".dot\n" || !strings.Contains(string(text), "Delivered-To: alice-list@test.invalid\n") {
		t.Errorf("%q", body)
	}
}

func TestExtensionsThatTheServerWasNotToldOfAreDeferred(t *testing.T) {
	p := startPostfix(t)
	p.send("alice-list@test.invalid", "Subject: 1\n\n")
	p.until("to=<alice-list@test.invalid>", "status=deferred", `perhaps an extension of "alice", but --recipient-delimiter is "+"`)
}
