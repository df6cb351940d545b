package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/postfixtest"
)

var mainCf = postfixtest.Main("maillog_file = /var/lib/postfix/log", "recipient_delimiter = +", "alias_maps =")

// route is an MTA on a ground.
type route interface {
	send(id, to string)
	flush()
	queued() int
	log() string
}

type postfix struct{ *host }

// startPostfix starts it with a recipe.
func startPostfix(g *host, files map[string]string) postfix {
	g.Helper()
	g.write("/etc/postfix/main.cf", mainCf)
	g.write("/etc/postfix/master.cf", postfixtest.Master)
	g.apply(files)
	g.run("chown", "-R", "postfix", "/var/lib/postfix")
	g.run("postfix", "start")
	g.stop = append([]func(){func() { g.run("postfix", "stop") }}, g.stop...)
	return postfix{g}
}

func (p postfix) send(id, to string) {
	p.Helper()
	cmd := p.command("sendmail", "-f", "x@example.org", "--", to)
	cmd.Stdin = strings.NewReader("Subject: " + id + "\n\nFrom the test\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
}

func (p postfix) flush()      { p.run("postqueue", "-f") }
func (p postfix) queued() int { return strings.Count(p.run("postqueue", "-j"), `"queue_id"`) }
func (p postfix) log() string { return p.read("/var/lib/postfix/log") + p.read("/run/dovecot.log") }

var subject = regexp.MustCompile(`(?m)^Subject: (.*)$`)

// has compares the mail of a user.
func (g *host) has(user string, inMbox, inMaildir []string) (problem string) {
	g.Helper()
	ids := func(text string) (list []string) {
		for _, m := range subject.FindAllStringSubmatch(text, -1) {
			list = append(list, m[1])
		}
		slices.Sort(list)
		return list
	}
	if got := ids(g.read("/var/mail/" + user)); !slices.Equal(got, inMbox) {
		problem += fmt.Sprintf("the mbox of %s has %q, want %q; ", user, got, inMbox)
	}
	var files string
	for _, dir := range []string{"new", "cur"} {
		path := "/home/" + user + "/Maildir/" + dir + "/"
		entries, err := os.ReadDir(g.root(path))
		g.must(err)
		for _, e := range entries {
			files += g.read(path + e.Name())
		}
	}
	if got := ids(files); !slices.Equal(got, inMaildir) {
		problem += fmt.Sprintf("the Maildir of %s has %q, want %q", user, got, inMaildir)
	}
	return problem
}

// try is what every recipe has to do: mail follows the semaphore, waits while
// that says hold or nothing that is known, and comes once.
func (g *host) try(r route) {
	g.Helper()
	wait := func(what string, queued int, inMbox, inMaildir []string, bobs []string) {
		g.Helper()
		state := func() (s string) {
			if n := r.queued(); n != queued {
				s = fmt.Sprintf("%d in the queue, want %d; ", n, queued)
			}
			return s + g.has("alice", inMbox, inMaildir) + g.has("bob", bobs, nil)
		}
		g.until(what, func() bool { return state() == "" }, func() string { return state() + "\n" + r.log() })
	}
	r.send("one", "alice")
	wait("mbox goes to the mbox", 0, []string{"one"}, nil, nil)

	g.say("alice", "hold")
	g.say("bob", "neither")
	r.send("two", "alice")
	r.send("b-one", "bob")
	wait("hold and nonsense wait", 2, []string{"one"}, nil, nil)
	g.must(os.Remove(g.root("/var/lib/mailferry/semaphores/bob")))
	g.deferred(r, 2)
	r.flush()
	g.deferred(r, 4)
	wait("a missing semaphore waits", 2, []string{"one"}, nil, nil)

	g.must(os.Rename(g.root("/var/mail/alice"), g.root("/var/mail/alice.mailferry-1")))
	g.say("alice", "maildir")
	g.say("bob", "mbox")
	r.flush()
	r.send("three", "alice")
	wait("what waited goes to the Maildir", 0, nil, []string{"three", "two"}, []string{"b-one"})

	g.must(os.Rename(g.root("/var/mail/alice.mailferry-1"), g.root("/var/mail/alice")))
	g.say("alice", "mbox")
	r.send("four", "alice")
	wait("after a rollback the mbox has it again", 0, []string{"four", "one"}, []string{"three", "two"}, []string{"b-one"})
}

// deferred waits until that many deliveries were put off.
func (g *host) deferred(r route, times int) {
	g.Helper()
	g.until(fmt.Sprintf("%d deferrals", times), func() bool {
		return strings.Count(r.log(), "status=deferred")+strings.Count(r.log(), " == ") >= times
	}, r.log)
}

func TestPostfixWithTheAgentAsMailboxCommand(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.try(startPostfix(g, recipe(t, "postfix.md")))
}

func TestPostfixWithTheAgentAsMailboxTransport(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	files := recipe(t, "postfix-lmtp.md")
	p := startPostfix(g, files)
	g.startLMTP(files, p)
	g.try(p)
	p.send("five", "Alice+list")
	g.until("an address with extension", func() bool { return g.has("alice", []string{"five", "four", "one"}, []string{"three", "two"}) == "" }, p.log)
}

// startLMTP does what systemd would do with the recipe's unit.
func (g *host) startLMTP(files map[string]string, r route) {
	g.Helper()
	unit := files["/etc/systemd/system/mailferry-lmtp.service"]
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindStringSubmatch(unit)
	if start == nil {
		g.Fatalf("no ExecStart in %q", unit)
	}
	g.start(strings.Fields(start[1])...)
	g.answers(g.dir+"/queue/private/mailferry", r)
}

func TestAnAgentThatIsKilledIsDeferred(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"directly": "/usr/local/bin/dies", "by exec": `exec /usr/local/bin/dies -d "$USER"`} {
		g := newHost(t)
		g.write("/usr/local/bin/dies", "#!/bin/sh\nkill -9 $$\n")
		g.must(os.Chmod(g.root("/usr/local/bin/dies"), 0o755))
		p := startPostfix(g, map[string]string{"/etc/postfix/main.cf": "mailbox_command = " + command + "\n"})
		p.send("one", "alice")
		g.deferred(p, 1)
		if n := p.queued(); n != 1 {
			t.Errorf("%s: %d in the queue\n%s", name, n, p.log())
		}
	}
}

func TestPostfixWithProcmail(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.try(startPostfix(g, recipe(t, "procmail.md")))
}

func TestPostfixWithMaildrop(t *testing.T) {
	t.Parallel()
	g := newHost(t)
	g.try(startPostfix(g, recipe(t, "maildrop.md")))
}
