package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"mailferry/internal/postfixtest"
)

const postfixLog = "/var/lib/postfix/log"

// route is a way from Postfix to the mailboxes.
type route struct {
	name     string
	settings string   // of main.cf
	maildir  string   // settings for a Maildir, where nothing else tells of it
	recipes  []string // install
	lmtp     bool     // the agent's server takes part
}

func routes(agent string) []route {
	return []route{
		{name: "mailferry-deliver as mailbox_command", settings: "mailbox_command = " + agent + "\n"},
		{name: "mailferry-deliver as LMTP server", settings: "mailbox_transport = lmtp:unix:private/mailferry\nlmtp_line_length_limit = 0\n", lmtp: true},
		{name: "procmail, with the gate", settings: "mailbox_command = /usr/bin/procmail -t\n", recipes: []string{"procmail.md", "/etc/procmailrc"}},
		{name: "maildrop, with the gate", settings: "mailbox_command = /usr/bin/maildrop\n", recipes: []string{"maildrop.md", "/etc/maildroprc"}},
		{name: "Postfix's local(8) itself", maildir: "home_mailbox = Maildir/\n"},
	}
}

const (
	receivers    = 10 // users who get mail, each from one connection
	ownRoutes    = 2  // the first of routes
	throughLimit = 5 * time.Minute
)

// postfix measures how much mail comes through Postfix with each agent.
func (l *lab) postfix(ctx context.Context) error {
	mails := max(l.mails/receivers, 1) * receivers
	fmt.Fprintf(l.out, "\n## Messages per second through Postfix\n\n%d messages of 10 KiB come by SMTP on %d connections, for a user each, from the first connection to the last delivery; queue and mail lie on one fresh image. Synced: what strace shows of one delivery.\n", mails, receivers)
	for _, format := range []string{"mbox", "maildir"} {
		all := routes("")
		rates, durable := make([][]float64, len(all)), make([]syncs, len(all))
		for round := range l.rounds {
			for i, r := range all {
				rate, s, err := l.through(ctx, format, i, mails)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", r.name, format, err)
				}
				rates[i], durable[i] = append(rates[i], rate), s
				fmt.Fprintf(os.Stderr, "postfix, %s, round %d: %s: %.1f messages/s\n", format, round+1, r.name, rate)
			}
		}
		fmt.Fprintf(l.out, "\nTo %s:\n\n| delivered by | runs | synced | messages/s: median (min-max) | this/%s | this/%s |\n|---|---|---|---|---|---|\n", format, all[0].name, all[1].name)
		for i, r := range all {
			fmt.Fprintf(l.out, "| %s | %d | %s | %s |", r.name, len(rates[i]), durable[i], spread(rates[i]))
			for own := range ownRoutes {
				fmt.Fprintf(l.out, " %.2f |", median(rates[i])/median(rates[own]))
			}
			fmt.Fprintln(l.out)
		}
	}
	return nil
}

// through sends mail through a fresh Postfix with a route.
func (l *lab) through(ctx context.Context, format string, which, mails int) (rate float64, s syncs, err error) {
	var users []string
	for i := range receivers {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	h, err := l.newHost(format, users...)
	if err != nil {
		return 0, s, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r := routes(h.agent())[which]
	if format == "maildir" {
		r.settings += r.maildir
	}
	if err := install(r.recipes...); err != nil {
		return 0, s, err
	}
	p, err := h.startPostfix(ctx, r)
	if err != nil {
		return 0, s, err
	}
	defer p.stop()
	if s, err = p.traceOne(ctx); err != nil {
		return 0, s, err
	}
	start := time.Now()
	if err := p.pour(ctx, mails/receivers); err != nil {
		return 0, s, err
	}
	if err := p.await(ctx, mails+1); err != nil {
		return 0, s, err
	}
	rate = float64(mails) / time.Since(start).Seconds()
	total := 0
	for _, user := range users {
		n, err := h.delivered(user, format)
		if err != nil {
			return 0, s, err
		}
		total += n
	}
	if total != mails+1 {
		return 0, s, fmt.Errorf("%d messages are in the mailboxes, want %d", total, mails+1)
	}
	return rate, s, nil
}

// running is a Postfix at work.
type running struct {
	*mailHost
	address string
	cmds    []*exec.Cmd // to end, the last one first
}

func (h *mailHost) startPostfix(ctx context.Context, r route) (*running, error) {
	p := &running{mailHost: h}
	if err := p.start(ctx, r); err != nil {
		err = fmt.Errorf("postfix: %w: %s", err, p.said())
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *running) start(ctx context.Context, r route) (err error) {
	if p.address, err = freeAddress(); err != nil {
		return err
	}
	for path, text := range map[string]string{
		"/etc/postfix/main.cf": postfixtest.Main("maillog_file = "+postfixLog, "queue_directory = "+p.path("queue"), "recipient_delimiter = +", "alias_maps =",
			"in_flow_delay = 0") + r.settings, // no sender is slowed down: what is measured is how fast all of it comes through
		"/etc/postfix/master.cf": p.address + " inet n - n - - smtpd\n" + postfixtest.Master,
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Mkdir(p.path("queue"), 0o755); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "postfix", "check").CombinedOutput(); err != nil { // it makes the queue
		return fmt.Errorf("check: %w: %s", err, out)
	}
	daemons, err := exec.CommandContext(ctx, "postconf", "-h", "daemon_directory").Output()
	if err != nil {
		return err
	}
	// Not by postfix(1), from which it would part: so it ends with us.
	if err := p.begin(filepath.Join(strings.TrimSpace(string(daemons)), "master")); err != nil {
		return err
	}
	if err := until(ctx, func() (bool, error) { return answers("tcp", p.address), nil }); err != nil || !r.lmtp {
		return err
	}
	socket := p.path("queue/private/mailferry")
	if err := p.begin(p.agent(), "--lmtp", socket); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) { return answers("unix", socket), nil })
}

// begin starts a program that ends with this one.
func (p *running) begin(argv ...string) error {
	log, err := os.OpenFile(filepath.Join(p.over, "said"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmds = append(p.cmds, cmd)
	return nil
}

func (p *running) stop() {
	for i := len(p.cmds) - 1; i >= 0; i-- {
		cmd := p.cmds[i]
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		late := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // SIGTERM is no success
		late.Stop()
	}
	p.cmds = nil
}

// said is the end of what Postfix and the agents have said.
func (p *running) said() string {
	text, _ := os.ReadFile(filepath.Join(p.over, "said"))
	log, _ := os.ReadFile(postfixLog)
	text = append(text, log...)
	return string(text[max(0, len(text)-1000):])
}

// pour sends so many messages to each user at once.
func (p *running) pour(ctx context.Context, each int) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, user := range p.users {
		group.Go(func() error { return p.send(ctx, user, each) })
	}
	return group.Wait()
}

func (p *running) send(ctx context.Context, user string, n int) error {
	out, err := exec.CommandContext(ctx, "smtp-source", "-d", "-s", "1", "-m", strconv.Itoa(n), "-l", strconv.Itoa(10<<10),
		"-f", "bob@example.org", "-t", user+"@test.invalid", "inet:"+p.address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("smtp-source: %w: %s", err, out)
	}
	return nil
}

// await returns when so many messages were delivered since Postfix started.
func (p *running) await(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, throughLimit)
	defer cancel()
	var sent, read int
	err := until(ctx, func() (bool, error) {
		text, err := os.ReadFile(postfixLog)
		if err != nil {
			return false, err
		}
		end := bytes.LastIndexByte(text, '\n') + 1
		sent += bytes.Count(text[read:end], []byte("status=sent"))
		if strings.Contains(string(text[read:end]), "status=deferred") || strings.Contains(string(text[read:end]), "status=bounced") {
			return false, errors.New("not everything was delivered")
		}
		read = end
		return sent >= n, nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d messages: %w: %s", sent, n, err, p.said())
	}
	return nil
}

// traceOne delivers one message under strace.
func (p *running) traceOne(ctx context.Context) (s syncs, err error) {
	master, err := os.ReadFile(p.path("queue/pid/master.pid"))
	if err != nil {
		return s, err
	}
	pids := []string{strings.TrimSpace(string(master))}
	for _, cmd := range p.cmds[1:] {
		pids = append(pids, strconv.Itoa(cmd.Process.Pid))
	}
	log := filepath.Join(p.over, "trace")
	args := []string{"-f", "-y", "-e", "trace=" + syncCalls, "-o", log, "-p", strings.Join(pids, ",")}
	if err := p.begin(append([]string{"strace"}, args...)...); err != nil {
		return s, err
	}
	tracer := p.cmds[len(p.cmds)-1]
	attached := fmt.Sprintf("/proc/%s/status", pids[len(pids)-1])
	err = until(ctx, func() (bool, error) {
		status, err := os.ReadFile(attached)
		return bytes.Contains(status, fmt.Appendf(nil, "TracerPid:\t%d\n", tracer.Process.Pid)), err
	})
	if err == nil {
		err = errors.Join(p.send(ctx, p.users[0], 1), p.await(ctx, 1))
	}
	_ = tracer.Process.Signal(syscall.SIGINT) // it lets go of all
	_ = tracer.Wait()
	p.cmds = p.cmds[:len(p.cmds)-1]
	if err != nil {
		return s, err
	}
	return readSyncs(log, p.mailDirs())
}

// until asks every few milliseconds.
func until(ctx context.Context, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, throughLimit)
	defer cancel()
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func answers(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
