package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailferry/internal/postfixtest"
)

const (
	trafficUsers = 100
	burst        = 6   // messages that come together to a user
	bursts       = 250 // at most, during each run
)

// runs is how often all users are moved, there and back; MAILFERRY_TEST_RUNS sets it.
var runs = func() int {
	if n, err := strconv.Atoi(os.Getenv("MAILFERRY_TEST_RUNS")); err == nil && n > 0 {
		return n
	}
	return 2
}()

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

	lock     sync.Mutex
	accepted []int // messages of each user that Postfix has taken
}

// Postfix takes thousands of messages while their users are migrated and rolled
// back. Then each of them is where Dovecot shows it to its user, once.
func TestMailThatComesWhileUsersAreMoved(t *testing.T) {
	for name, agent := range map[string]string{"as command": "postfix.md", "by LMTP": "postfix-lmtp.md"} {
		t.Run(name, func(t *testing.T) {
			w := newTraffic(t, agent)
			during := w.move()
			w.drained()
			w.settleHalf()
			w.audit()
			total := 0
			for _, n := range w.accepted {
				total += n
			}
			t.Logf("%d messages; accepted while all users were moved, in each run: %d; %d deferrals", total, during, strings.Count(w.log(), "status=deferred"))
			if slices.Contains(during, 0) {
				t.Error("nothing came during a move: that proves nothing")
			}
			if strings.Contains(w.log(), "status=bounced") {
				t.Error("mail has bounced")
			}
		})
	}
}

func newTraffic(t *testing.T, agent string) *traffic {
	t.Helper()
	g := newHost(t)
	w := &traffic{address: freeAddress(g), accepted: make([]int, trafficUsers)}
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
	if agent == "postfix.md" { // holds are not waited for here, so that mail is deferred and comes again
		files["/etc/postfix/main.cf"] = strings.Replace(files["/etc/postfix/main.cf"], "mailferry-deliver\n", "mailferry-deliver --wait 0s\n", 1)
	}
	w.postfix = startPostfix(g, files)
	g.write("/etc/postfix/master.cf", postfixtest.Master+w.address+" inet n - n - - smtpd\n")
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

// pour sends mail until the run has ended, most of it to those who are just being
// moved to a state, or are next, and returns how many messages were taken.
func (w *traffic) pour(ended chan struct{}, to string) (accepted int) {
	var work sync.WaitGroup
	var next, total atomic.Int64
	for range 3 {
		work.Go(func() {
			for next.Add(1) <= bursts {
				i := (w.at(to) + rand.N(trafficUsers/8)) % trafficUsers
				total.Add(int64(w.sendBurst(i)))
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	work.Wait()
	return int(total.Load())
}

// at is how many users are in a state.
func (w *traffic) at(state string) (n int) {
	for _, user := range w.users {
		if line, _ := os.ReadFile(w.root("/var/lib/mailferry/semaphores/" + user)); string(line) == "MAILSTATE="+state+"\n" {
			n++
		}
	}
	return n
}

// sendBurst sends some messages to a user at once, and returns how many.
func (w *traffic) sendBurst(i int) int {
	cmd := w.command("smtp-source", "-s", "1", "-m", fmt.Sprint(burst), "-f", "x@example.org",
		"-S", "to "+w.users[i], "-t", w.users[i]+"@test.invalid", "inet:"+w.address)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Errorf("smtp-source: %v: %s", err, out)
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	w.accepted[i] += burst
	return burst
}

// move moves all users there and back while mail comes, and returns how much
// came during each run.
func (w *traffic) move() (during []int) {
	for k := range runs {
		verb, to := "migrate", "maildir"
		if k%2 == 1 {
			verb, to = "rollback", "mbox"
		}
		ended, poured := make(chan struct{}), make(chan int)
		go func() { poured <- w.pour(ended, to) }()
		w.mailferry(3, verb, "--all")
		close(ended)
		during = append(during, <-poured)
	}
	return during
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
		seen := map[string]bool{}
		for _, m := range messageID.FindAllStringSubmatch(w.run("doveadm", "-f", "pager", "fetch", "-u", user, "hdr.subject hdr.message-id", "mailbox", "INBOX"), -1) {
			if seen[m[2]] {
				w.Errorf("%s has %q twice", user, m[0])
			}
			if m[1] != "to "+user {
				w.Errorf("%s has %q", user, m[0])
			}
			seen[m[2]] = true
		}
		if len(seen) != w.accepted[i] {
			w.Errorf("%s has %d messages, want %d", user, len(seen), w.accepted[i])
		}
		if i%2 == 1 {
			if info, err := os.Stat(w.root("/var/mail/" + user)); err == nil {
				w.Errorf("%s: an mbox of %d bytes is at the old place", user, info.Size())
			}
		}
	}
}
