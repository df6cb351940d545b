//go:build linux && amd64

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/stepper"
)

// The recipients of the one message that the server is stopped at: some with an
// mbox that is there, one with none, one with a Maildir.
var receivers = []struct{ name, state, before string }{
	{"alice", "mbox", oneBefore},
	{"bob", "maildir", ""},
	{"carol", "mbox", ""},
}

// toAll is big enough for the server to keep a part of it in a file.
var toAll = "Subject: to all\n\n" + strings.Repeat("0123456789abcde\n", 300<<10/16)

// post is a scene with an LMTP server and several users.
type post struct {
	*scene
	socket string
	text   string // of the message
}

func newPost(t *testing.T, dir string) *post {
	t.Helper()
	p := &post{scene: &scene{t, dir}, text: toAll}
	p.must(build())
	short, err := os.MkdirTemp("", "post-") // a socket's path has 107 bytes at most
	p.must(err)
	t.Cleanup(func() { os.RemoveAll(short) })
	p.socket = filepath.Join(short, "s")
	return p
}

// furnish makes the users, as they are before a message comes.
func (p *post) furnish() {
	p.Helper()
	p.must(os.Mkdir(p.dir, 0o755))
	p.scene.furnish()
	p.must(os.Mkdir(p.path("state"), 0o700))
	var users strings.Builder
	for i, r := range receivers {
		id := uid + i
		for _, d := range []string{"", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
			d = p.path(filepath.Join("home", r.name, d))
			p.must(errors.Join(os.MkdirAll(d, 0o700), os.Chown(d, id, id)))
		}
		fmt.Fprintf(&users, "%s:%d:%d:%s\n", r.name, id, id, p.path("home/"+r.name))
		p.put(p.path("semaphores/"+r.name), "MAILSTATE="+r.state+"\n")
		if r.before != "" {
			p.must(os.WriteFile(p.path("spool/"+r.name), []byte(r.before), 0o600))
			p.must(os.Chown(p.path("spool/"+r.name), id, id))
		}
	}
	p.put(p.path("users"), users.String())
}

func (p *post) server() *exec.Cmd {
	return exec.Command(filepath.Join(builtDir, "mailferry-lmtp"), "--config", p.path("mailferry.toml"), "--lock-wait", "5s", "--lmtp", p.socket)
}

// hand hands the message over, as an MTA does, and returns what each recipient
// was answered before the connection broke. Then it ends the server.
func (p *post) hand(ctx context.Context, to []string) map[string]string {
	answers := map[string]string{}
	raw := p.dial(ctx)
	if raw == nil {
		return answers
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	peer, err := peerOf(raw)
	if err != nil {
		return answers
	}
	defer unix.Kill(peer, unix.SIGTERM)
	c := textproto.NewConn(raw)
	say := func(line string) {
		if err == nil {
			err = c.PrintfLine("%s", line)
		}
		if err == nil {
			_, _, err = c.ReadResponse(0)
		}
	}
	_, _, err = c.ReadResponse(220)
	say("LHLO x")
	say("MAIL FROM:<bob@example.org>")
	for _, name := range to {
		say("RCPT TO:<" + name + "@x>")
	}
	say("DATA")
	if err == nil {
		_, err = raw.Write([]byte(strings.ReplaceAll(p.text, "\n", "\r\n") + ".\r\n"))
	}
	for _, name := range to {
		if err == nil {
			var text string
			if text, err = c.ReadLine(); err == nil {
				answers[name] = text
			}
		}
	}
	return answers
}

// dial waits for the server until ctx ends.
func (p *post) dial(ctx context.Context) net.Conn {
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", p.socket); err == nil {
			return conn
		}
	}
	return nil
}

// peerOf is the process behind a socket.
func peerOf(c net.Conn) (pid int, err error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil || err != nil {
		return 0, errors.Join(cerr, err)
	}
	return int(cred.Pid), nil
}

// step runs a server that is stopped at a call while the message comes.
func (p *post) step(o stepper.Options, to []string) (*stepper.Result, map[string]string) {
	p.Helper()
	ctx, stop := context.WithTimeout(p.Context(), time.Minute)
	defer stop()
	handing, gone := context.WithCancel(ctx)
	answers := make(chan map[string]string, 1)
	os.Remove(p.socket) // of a server that is gone
	go func() { answers <- p.hand(handing, to) }()
	o.Below = p.dir
	r, err := stepper.Run(ctx, p.server(), o)
	time.AfterFunc(100*time.Millisecond, gone)
	got := <-answers
	p.must(err)
	return r, got
}

// copies counts how often a user has the message, and tells what else he has.
func (p *post) copies(name, before string) (n int, wrong string) {
	p.Helper()
	content, _ := os.ReadFile(p.path("spool/" + name))
	rest, ok := strings.CutPrefix(string(content), before)
	if !ok {
		wrong = "the mbox has lost what it held; "
	}
	want := "Return-Path: <bob@example.org>\nDelivered-To: " + name + "@x\n" + p.text
	n = strings.Count(rest, "\n"+want+"\n")
	if length := n * (len(want) + 1); n != strings.Count(rest, "From bob@example.org  ") || len(rest)-length != n*len("From bob@example.org  Sat Nov 21 18:00:00 2026\n") {
		wrong += fmt.Sprintf("the mbox has a part of a message: %d bytes, %d messages; ", len(rest), n)
	}
	for _, m := range p.inMaildir(p.path("home/" + name + "/Maildir")) {
		if m != want {
			wrong += "the Maildir has a part of a message; "
		}
		n++
	}
	return n, wrong
}

// part is what a write has left that the kill stopped in the middle, as no mbox
// is safe from (package deliver): the beginning of the message. What comes next
// begins a line behind it.
func (p *post) part(name, before string) string {
	content, _ := os.ReadFile(p.path("spool/" + name))
	rest := strings.TrimPrefix(string(content), before)
	want := "Return-Path: <bob@example.org>\nDelivered-To: " + name + "@x\n" + p.text
	const head = len("From bob@example.org  Sat Nov 21 18:00:00 2026\n")
	if rest == "" || len(rest) > head+len(want) || !strings.HasPrefix(want, rest[min(head, len(rest)):]) {
		return ""
	}
	return strings.TrimSuffix(rest, "\n") + "\n"
}

// A message to three, and a server that is killed at any of its calls: who was
// answered has it once, and who was not gets it when the MTA comes again, for
// the second time only if it was on the disk already. Nothing that is left
// behind stands in the way.
func TestAnLMTPServerKilledAtAnyCall(t *testing.T) {
	p := newPost(t, filepath.Join(ground(t), "site"))
	var all []string
	for _, r := range receivers {
		all = append(all, r.name)
	}
	points, twice, torn := 0, 0, 0
	for at := 1; ; at++ {
		p.furnish()
		r, answers := p.step(stepper.Options{At: at, Do: stepper.Kill}, all)
		if !r.Reached {
			if at < 20 || len(answers) != len(all) {
				t.Fatalf("%d calls, %q", at, answers)
			}
			break
		}
		points++
		var again []string
		onDisk, before := map[string]int{}, map[string]string{}
		for _, u := range receivers {
			before[u.name] = u.before
			if part := p.part(u.name, u.before); part != "" && answers[u.name] == "" {
				before[u.name] += part
				again = append(again, u.name)
				torn++
				continue
			}
			n, wrong := p.copies(u.name, u.before)
			told := strings.HasPrefix(answers[u.name], "250 2.0.0")
			if wrong != "" || n > 1 || told && n != 1 || !told && answers[u.name] != "" {
				t.Errorf("killed at %d, %s: %s was told %q and has it %d times; %s", at, r.Calls[at-1], u.name, answers[u.name], n, wrong)
			}
			onDisk[u.name] = n
			if !told {
				again = append(again, u.name)
			}
		}
		if len(again) > 0 {
			_, answers = p.step(stepper.Options{}, again)
		}
		for _, u := range receivers {
			want := 1
			if slices.Contains(again, u.name) {
				want += onDisk[u.name]
				twice += onDisk[u.name]
			}
			if n, wrong := p.copies(u.name, before[u.name]); n != want || wrong != "" {
				t.Errorf("killed at %d, %s: in the end %s has it %d times, want %d; %s%q", at, r.Calls[at-1], u.name, n, want, wrong, answers)
			}
		}
		p.must(os.RemoveAll(p.dir))
	}
	t.Logf("killed at %d calls: 3 recipients each, %d deliveries twice, %d behind a part", points, twice, torn)
}

// With a fault at any call each recipient's answer is true of himself: 250 if
// and only if he has the message, and 4xx otherwise.
func TestAnLMTPServerWithAFaultAtAnyCall(t *testing.T) {
	p := newPost(t, filepath.Join(ground(t), "site"))
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EDQUOT} {
		points, refused := 0, 0
		for at := 1; ; at++ {
			p.furnish()
			r, answers := p.step(stepper.Options{At: at, Do: stepper.Fail(errno)}, []string{"alice", "bob", "carol"})
			reached := r.Reached
			for _, u := range receivers {
				n, wrong := p.copies(u.name, u.before)
				answer := answers[u.name]
				if wrong != "" || n != map[bool]int{true: 1}[strings.HasPrefix(answer, "250 ")] || n == 0 && !strings.HasPrefix(answer, "45") {
					call := "no call"
					if reached {
						call = r.Calls[at-1].String()
					}
					t.Errorf("%v at %d, %s: %s was told %q and has it %d times; %s", errno, at, call, u.name, answer, n, wrong)
				}
				refused += 1 - min(n, 1)
			}
			p.must(os.RemoveAll(p.dir))
			if !reached {
				break
			}
			points++
		}
		t.Logf("%v at %d calls: %d recipients were told to come again", errno, points, refused)
	}
}

func TestTheLMTPServerKeepsNoBigMessageInMemory(t *testing.T) {
	p := newPost(t, filepath.Join(t.TempDir(), "site"))
	p.must(os.Chmod(filepath.Dir(filepath.Dir(p.dir)), 0o755))
	p.must(os.Chmod(filepath.Dir(p.dir), 0o755))
	p.furnish()
	p.text = big(50) + "From me\n"
	cmd := p.server()
	p.must(cmd.Start())
	peak := make(chan int)
	go func() { peak <- peakKiB(cmd.Process.Pid) }()
	answers := p.hand(t.Context(), []string{"alice", "bob", "carol"})
	p.must(cmd.Wait())
	if kib := <-peak; kib == 0 || kib > 48<<10 {
		t.Errorf("%d KiB of memory", kib)
	}
	want := p.text
	for _, u := range receivers {
		if p.text = want; u.state == "mbox" {
			p.text = strings.Replace(want, "\nFrom", "\n>From", 1)
		}
		if n, wrong := p.copies(u.name, u.before); n != 1 || wrong != "" || !strings.HasPrefix(answers[u.name], "250 ") {
			t.Errorf("%s was told %q and has it %d times; %s", u.name, answers[u.name], n, wrong)
		}
	}
}
