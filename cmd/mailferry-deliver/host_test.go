package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// host is a host of its own, as far as files go: a mount namespace in which
// /etc, /home, /run, /usr/local/bin, /var/lib, /var/mail and Postfix's queue are
// private. So the recipes of docs/routing are tried as they are written there.
type host struct {
	*testing.T
	pid  int
	dir  string // on both sides
	stop []func()
}

const mounts = `set -e
cd "$0"
mount -t tmpfs none over
mkdir over/etc over/lib over/w1 over/w2
mount -t overlay overlay -o lowerdir=/etc,upperdir="$0/over/etc",workdir="$0/over/w1" /etc
mount -t overlay overlay -o lowerdir=/var/lib,upperdir="$0/over/lib",workdir="$0/over/w2" /var/lib
mount --bind home /home
mount --bind mail /var/mail
mount --bind bin /usr/local/bin
mount --bind queue /var/spool/postfix
mount -t tmpfs -o mode=0755 none /run
echo ready
exec sleep 86400
`

// people are the users of a ground, who have a home, an empty Maildir, and the
// semaphore mbox.
var people = []string{"alice", "bob", "carol"}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: MTAs can't be started by others")
	}
	dir, err := os.MkdirTemp("", "ground-") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	g := &host{T: t, dir: dir}
	t.Cleanup(func() {
		for _, stop := range g.stop {
			stop()
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	g.must(os.Chmod(dir, 0o755))
	for _, name := range []string{"home", "mail", "bin", "queue", "over"} {
		g.must(os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	g.must(errors.Join(os.Chown(filepath.Join(dir, "mail"), 0, mailGID), os.Chmod(filepath.Join(dir, "mail"), 0o775|os.ModeSetgid)))
	g.must(build())
	for _, name := range []string{"mailferry", "mailferry-deliver", "mailferry-lmtp"} {
		g.must(exec.Command("cp", filepath.Join(builtDir, name), filepath.Join(dir, "bin")).Run())
	}
	agent := filepath.Join(dir, "bin", "mailferry-deliver")
	g.must(errors.Join(os.Chown(agent, 0, mailGID), os.Chmod(agent, 0o755|os.ModeSetgid)))
	g.mount()
	g.settle()
	return g
}

// builtDir has this package's programs, and those beside it, once build was called.
var builtDir string

var build = sync.OnceValue(func() (err error) {
	if builtDir, err = os.MkdirTemp("", "built-"); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-o", builtDir+"/", ".", "../mailferry-lmtp", "../mailferry")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// mount starts the process that keeps the namespace. What others unmount is
// unmounted there, too.
func (g *host) mount() {
	g.Helper()
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "sh", "-c", mounts, g.dir)
	out, err := cmd.StdoutPipe()
	g.must(err)
	var log bytes.Buffer
	cmd.Stderr = &log
	g.must(cmd.Start())
	g.pid = cmd.Process.Pid
	g.stop = append(g.stop, func() { cmd.Process.Kill(); cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		g.Fatalf("no namespace: %s", log.String())
	}
}

// over makes one more directory private, with what is in it.
func (g *host) over(path string) {
	g.Helper()
	const script = `mkdir "$0" && cd "$0" && mkdir upper work && mount -t overlay overlay -o lowerdir="$1",upperdir="$0/upper",workdir="$0/work" "$1"`
	g.run("sh", "-c", script, filepath.Join(g.dir, "over", strings.ReplaceAll(path, "/", "_")), path)
}

// settle makes the users.
func (g *host) settle() {
	g.Helper()
	g.must(os.MkdirAll(g.root("/var/lib/mailferry/semaphores"), 0o755))
	g.add(uid, people...)
	for i, name := range people {
		for _, d := range []string{"", "/cur", "/new", "/tmp"} {
			d = g.root("/home/" + name + "/Maildir" + d)
			g.must(errors.Join(os.Mkdir(d, 0o700), os.Chown(d, uid+i, uid+i)))
		}
		g.say(name, "mbox")
	}
}

// add makes users with a home.
func (g *host) add(first int, names ...string) {
	g.Helper()
	passwd, group := g.read("/etc/passwd"), g.read("/etc/group")
	for i, name := range names {
		id := first + i
		passwd += fmt.Sprintf("%s:x:%d:%d::/home/%s:/bin/sh\n", name, id, id, name)
		group += fmt.Sprintf("%s:x:%d:\n", name, id)
		home := g.root("/home/" + name)
		g.must(errors.Join(os.Mkdir(home, 0o700), os.Chown(home, id, id)))
	}
	g.write("/etc/passwd", passwd)
	g.write("/etc/group", group)
}

func (g *host) must(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// root is a file of the ground, seen from here.
func (g *host) root(path string) string { return fmt.Sprintf("/proc/%d/root%s", g.pid, path) }

func (g *host) read(path string) string {
	g.Helper()
	content, err := os.ReadFile(g.root(path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.Fatal(err)
	}
	return string(content)
}

// write makes a file as an admin does, for everybody to read.
func (g *host) write(path, text string) {
	g.Helper()
	g.must(os.MkdirAll(g.root(filepath.Dir(path)), 0o755))
	g.must(os.WriteFile(g.root(path), []byte(text), 0o644))
}

// say sets a semaphore.
func (g *host) say(user, state string) {
	g.Helper()
	path := "/var/lib/mailferry/semaphores/"
	g.write(path+".new", "MAILSTATE="+state+"\n")
	g.must(os.Rename(g.root(path+".new"), g.root(path+user)))
}

// command is one that runs in the ground.
func (g *host) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", g.pid), "--wd=/"}, args...)...)
}

func (g *host) run(args ...string) string {
	g.Helper()
	out, err := g.command(args...).CombinedOutput()
	if err != nil {
		g.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// start runs a server until the test ends.
func (g *host) start(args ...string) {
	g.Helper()
	cmd := g.command(args...)
	cmd.Stderr = os.Stderr
	g.must(cmd.Start())
	g.stop = append([]func(){func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }}, g.stop...)
}

// until waits, and shows what there is if it does so in vain.
func (g *host) until(what string, is func() bool, show func() string) {
	g.Helper()
	for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(50 * time.Millisecond) {
		if is() {
			return
		}
	}
	g.Fatalf("never: %s\n%s", what, show())
}

// recipe returns the files of a document in docs/routing: blocks whose
// introduction ends in a path and a colon.
func recipe(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/routing/" + name)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, m := range snippet.FindAllStringSubmatch(string(text), -1) {
		files[m[1]] += strings.TrimLeft(strings.ReplaceAll("\n"+m[2], "\n    ", "\n"), "\n")
	}
	if len(files) == 0 {
		t.Fatalf("%s has no files", name)
	}
	return files
}

var snippet = regexp.MustCompile("(?m)`(/[^`]+)`:\n\n((?:(?:    .*)?\n)+)")

// apply writes a recipe's files; what Postfix has already is kept.
func (g *host) apply(files map[string]string) {
	g.Helper()
	for path, text := range files {
		if strings.HasPrefix(path, "/etc/postfix/") {
			text = g.read(path) + text
		}
		g.write(path, text)
	}
}

func freeAddress(g *host) string {
	g.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	g.must(err)
	defer l.Close()
	return l.Addr().String()
}
