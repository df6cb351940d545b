package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	trafficUsers = 100
	bursts       = 5 // to each user
	burst        = 5 // messages
)

const trafficConfig = `users = "file:/etc/mailferry/users"
doveadm = "/usr/bin/doveadm"
postqueue = "/usr/sbin/postqueue"
chunk = 10
grace = "0s"
`

// traffic is a mail server whose users are moved there and back while mail comes.
type traffic struct {
	postfix
	address string
	users   []string
}

// Postfix takes thousands of messages while their users are migrated and rolled
// back. Then each of them is where Dovecot shows it to its user, once.
func TestMailThatComesWhileUsersAreMoved(t *testing.T) {
	for name, agent := range map[string]string{"as command": "postfix.md", "by LMTP": "postfix-lmtp.md"} {
		t.Run(name, func(t *testing.T) {
			w := newTraffic(t, agent)
			moves := w.moveWhile(w.pour)
			w.drained()
			w.settleHalf()
			w.audit()
			t.Logf("%d runs, %d deferrals", moves, strings.Count(w.log(), "status=deferred"))
			if strings.Contains(w.log(), "status=bounced") {
				t.Error("mail has bounced")
			}
		})
	}
}

func newTraffic(t *testing.T, agent string) *traffic {
	t.Helper()
	g := newHost(t)
	w := &traffic{address: freeAddress(g)}
	var list strings.Builder
	for i := range trafficUsers {
		name := fmt.Sprintf("user%02d", i)
		w.users = append(w.users, name)
		fmt.Fprintf(&list, "%s:%d:%d:/home/%s\n", name, 21000+i, 21000+i, name)
	}
	g.add(21000, w.users...)
	g.write("/etc/mailferry/users", list.String())
	g.write("/etc/mailferry/mailferry.toml", trafficConfig)
	files := recipe(t, agent)
	w.postfix = startPostfix(g, files)
	g.write("/etc/postfix/master.cf", masterCf+w.address+" inet n - n - - smtpd\n")
	g.run("postfix", "reload")
	if agent == "postfix-lmtp.md" {
		g.startLMTP(files, w)
	}
	startDovecot(g, recipe(t, "dovecot.md"))
	w.mailferry(0, "enroll", "--all")
	return w
}

// mailferry runs it in the ground. Code 3 says that somebody was busy.
func (w *traffic) mailferry(code int, args ...string) {
	w.Helper()
	out, err := w.command(append([]string{"/usr/local/bin/mailferry"}, args...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != code) {
		w.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// pour sends all mail.
func (w *traffic) pour() {
	var work sync.WaitGroup
	var next atomic.Int64
	for range 4 {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < bursts*trafficUsers; i = int(next.Add(1)) - 1 {
				user := w.users[i%trafficUsers]
				cmd := w.command("smtp-source", "-s", "1", "-m", fmt.Sprint(burst), "-f", "x@example.org", "-S", fmt.Sprintf("burst %d", i), "-t", user+"@test.invalid", "inet:"+w.address)
				if out, err := cmd.CombinedOutput(); err != nil {
					w.Errorf("smtp-source: %v: %s", err, out)
				}
			}
		})
	}
	work.Wait()
}

// moveWhile moves all users there and back until work has ended, twice at least.
func (w *traffic) moveWhile(work func()) (moves int) {
	ended := make(chan struct{})
	go func() { defer close(ended); work() }()
	for verbs := []string{"migrate", "rollback"}; ; moves++ {
		select {
		case <-ended:
			if moves > 1 {
				return moves
			}
		default:
		}
		w.mailferry(3, verbs[moves%2], "--all")
	}
}

// drained waits until nothing is in the queue.
func (w *traffic) drained() {
	w.Helper()
	for range 60 {
		if w.queued() == 0 {
			return
		}
		w.flush()
		time.Sleep(time.Second)
	}
	w.Fatalf("the queue is never empty: %s", w.run("postqueue", "-p"))
}

// settleHalf brings half of the users to Maildir, and the others to mbox.
func (w *traffic) settleHalf() {
	w.Helper()
	var there, back []string
	for i, user := range w.users {
		moved := w.read("/var/lib/mailferry/semaphores/"+user) == "MAILSTATE=maildir\n"
		switch {
		case i%2 == 1 && !moved:
			there = append(there, user)
		case i%2 == 0 && moved:
			back = append(back, user)
		}
	}
	if len(there) > 0 {
		w.mailferry(0, append([]string{"migrate"}, there...)...)
	}
	if len(back) > 0 {
		w.mailferry(0, append([]string{"rollback"}, back...)...)
	}
}

var messageID = regexp.MustCompile(`hdr.subject: (.*)\nhdr.message-id: (.*)`)

// audit compares what Dovecot shows with what was sent.
func (w *traffic) audit() {
	for i, user := range w.users {
		seen, perBurst := map[string]bool{}, map[string]int{}
		for _, m := range messageID.FindAllStringSubmatch(w.run("doveadm", "-f", "pager", "fetch", "-u", user, "hdr.subject hdr.message-id", "mailbox", "INBOX"), -1) {
			if seen[m[0]] {
				w.Errorf("%s has %q twice", user, m[0])
			}
			seen[m[0]] = true
			perBurst[m[1]]++
		}
		want := map[string]int{}
		for k := range bursts {
			want[fmt.Sprintf("burst %d", k*trafficUsers+i)] = burst
		}
		if !maps.Equal(perBurst, want) {
			w.Errorf("%s has %v, want %v", user, perBurst, slices.Sorted(maps.Keys(want)))
		}
		if i%2 == 1 {
			if info, err := os.Stat(w.root("/var/mail/" + user)); err == nil {
				w.Errorf("%s: an mbox of %d bytes is at the old place", user, info.Size())
			}
		}
	}
}
