package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The server is killed again and again while Postfix hands it messages to
// several recipients each: all come, and twice only where Postfix could not know.
func TestPostfixWithAnLMTPServerThatIsKilled(t *testing.T) {
	t.Parallel()
	const messages = 60
	g := newHost(t)
	g.say("bob", "maildir")
	p := startPostfix(g, map[string]string{"/etc/postfix/main.cf": "local_transport = lmtp:unix:private/mailferry\nlocal_recipient_maps =\n"})
	var sending sync.WaitGroup
	for k := range 3 {
		sending.Go(func() {
			for i := k; i < messages; i += 3 {
				cmd := p.command(append([]string{"sendmail", "-f", "x@example.org", "--"}, people...)...)
				cmd.Stdin = strings.NewReader("Subject: one of many\n\n" + countedBody(i))
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			}
		})
	}
	sent := make(chan struct{})
	go func() { sending.Wait(); close(sent) }()
	kills, done := 0, false // the first 20 come soon, then it may finish
	for ; !done || p.queued() > 0; kills++ {
		select {
		case <-sent:
			done = true
		default:
		}
		server := p.serve()
		p.flush()
		if kills < 20 {
			time.Sleep(rand.N(500 * time.Millisecond))
		} else {
			time.Sleep(3 * time.Second)
		}
		g.must(server.Process.Kill())
		_ = server.Wait() // it was killed
		if kills > 100 {
			t.Fatalf("the queue is never empty:\n%s", p.run("postqueue", "-p"))
		}
	}
	unknown := strings.Count(p.log(), "message may be sent more than once")
	twice, torn := 0, 0
	for _, user := range people {
		mail := "\n" + g.read("/var/mail/"+user)
		files, err := filepath.Glob(g.root("/home/" + user + "/Maildir/new/*"))
		g.must(err)
		for _, name := range files {
			content, err := os.ReadFile(name)
			g.must(err)
			mail += string(content)
		}
		for i := range messages {
			begun, whole := strings.Count(mail, fmt.Sprintf("\nbegin %d.\n", i)), strings.Count(mail, countedBody(i))
			torn += begun - whole
			if whole == 0 || begun != whole && user == "bob" { // no mbox is safe from a kill in the middle of write(2)
				t.Errorf("%s has message %d %d times, %d of them whole", user, i, begun, whole)
			}
			twice += whole - 1
		}
	}
	if twice+torn > unknown || strings.Contains(p.log(), "status=bounced") {
		t.Errorf("%d came twice, Postfix did not know of %d", twice, unknown)
	}
	if unknown == 0 && twice == 0 && !strings.Contains(p.log(), "lost connection") {
		t.Errorf("%d kills hit nothing: that proves nothing", kills)
	}
	t.Logf("%d messages to %d each, %d kills: %d deliveries of which Postfix did not know, %d of them there twice, %d behind a part", messages, len(people), kills, unknown, twice, torn)
}

// countedBody is a text of which a part is known as a part.
func countedBody(i int) string {
	return fmt.Sprintf("begin %d.\n%send %d.\n", i, strings.Repeat("text\n", i*500), i)
}

// serve starts a server that can be killed.
func (p postfix) serve() *exec.Cmd {
	p.Helper()
	cmd := p.command("/usr/local/bin/mailferry-deliver", "--lmtp", "/var/spool/postfix/private/mailferry")
	cmd.Stderr = os.Stderr
	p.must(cmd.Start())
	p.answers(p.dir+"/queue/private/mailferry", p)
	return cmd
}
