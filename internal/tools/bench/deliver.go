package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// deliverer is a way to deliver one message, which is on standard input.
type deliverer struct {
	name    string
	user    string // each has a mailbox of his own
	durable string // of those that are not traced
	argv    []string
	call    func(dir string, message []byte) error // instead of a program
	mail    bool                                   // it delivers mail
}

const ownAgent = "mailferry-deliver"

// deliverers to an mbox or a Maildir. Those of the peers that are "plain" read
// no rules but where to deliver; the others those of docs/routing.
func (l *lab) deliverers(h *mailHost, maildir bool) ([]deliverer, error) {
	list := []deliverer{
		{name: ownAgent, mail: true, argv: []string{h.agent()}},
		{name: "procmail, with the gate", mail: true, argv: []string{"/usr/bin/procmail", "-t"}},
		{name: "procmail, plain", mail: true, argv: []string{"/usr/bin/procmail", "-t", "-p"}},
		{name: "maildrop, with the gate", mail: true, argv: []string{"/usr/bin/maildrop"}},
		{name: "maildrop, plain", mail: true, argv: []string{"/usr/bin/maildrop"}},
		{name: "a process that does nothing: /bin/true", durable: "-", argv: []string{"/bin/true"}},
		{name: "the write and the fsync alone, no process", durable: "yes", call: bareMbox},
	}
	if maildir {
		list[len(list)-1].call = bareMaildir
	}
	for i := range list {
		list[i].user = h.users[i]
	}
	if maildir {
		list[2].argv = append(list[2].argv, "DEFAULT="+h.home(h.users[2])+"/Maildir/")
	}
	rules := filepath.Join(h.home(h.users[4]), "rules")
	text := "to \"$DEFAULT\"\n"
	if maildir {
		text = "to \"$HOME/Maildir\"\n"
	}
	list[4].argv = append(list[4].argv, rules)
	err := errors.Join(os.WriteFile(rules, []byte(text), 0o600), os.Chown(rules, firstUID+4, firstUID+4),
		install("procmail.md", "/etc/procmailrc", "maildrop.md", "/etc/maildroprc"))
	return list, err
}

// deliver measures deliveries from start to exit.
func (l *lab) deliver(ctx context.Context) error {
	fmt.Fprintf(l.out, "\n## Deliveries: start to exit\n\nOne message of %d octets on standard input, %d deliveries of each, in turn, each as its recipient to his own mailbox, with the filesystem synced before each. Durable: what strace shows that the program syncs of the mailbox; an mbox that grows has its name already, a message in a Maildir needs its directory, too.\n", len(letter()), l.deliveries)
	for _, format := range []string{"mbox", "maildir"} {
		if err := l.deliverTo(ctx, format); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	return nil
}

// letter is a message of 10 KiB as Postfix hands it to a mailbox_command, with a
// From_ line.
func letter() []byte {
	var b bytes.Buffer
	b.WriteString("From bob@example.org  Thu Jan  1 00:00:00 2026\nFrom: Bob <bob@example.org>\nTo: alice@example.org\nSubject: a message of 10 KiB\nMessage-ID: <1@example.org>\nDate: Thu, 1 Jan 2026 00:00:00 +0000\n\n")
	for b.Len() < 10<<10-72 {
		b.WriteString("The quick brown fox jumps over the lazy dog, and so does the next line.\n")
	}
	return b.Bytes()
}

func (l *lab) deliverTo(ctx context.Context, format string) (err error) {
	var users []string
	for i := range 7 {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	h, err := l.newHost(format, users...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	list, err := l.deliverers(h, format == "maildir")
	if err != nil {
		return err
	}
	message, times, durable := letter(), make([][]float64, len(list)), make([]syncs, len(list))
	for i, d := range list {
		if !d.mail {
			continue
		}
		if durable[i], err = d.trace(h, message); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	const warmUp = 5
	for round := range l.deliveries + warmUp {
		for i, d := range list {
			took, err := d.once(ctx, i, h, message)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			if round >= warmUp {
				times[i] = append(times[i], took.Seconds()*1e3)
			}
		}
	}
	for _, d := range list {
		if n, err := h.delivered(d.user, format); d.mail && (err != nil || n != l.deliveries+warmUp+1) {
			return fmt.Errorf("%s: %d messages delivered, want %d; %v", d.name, n, l.deliveries+warmUp+1, err)
		}
	}
	l.writeDeliveries(format, list, times, durable)
	return nil
}

// once is one delivery, timed from before the fork to after the wait.
func (d deliverer) once(ctx context.Context, i int, h *mailHost, message []byte) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := h.settle(); err != nil {
		return 0, err
	}
	if d.call != nil {
		start := time.Now()
		err := d.call(h.home(d.user), message)
		return time.Since(start), err
	}
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	id := uint32(firstUID + i)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}, Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	err := d.run(cmd, h, message)
	return time.Since(start), err
}

// trace delivers once under strace(1), which keeps setuid and setgid with -u.
func (d deliverer) trace(h *mailHost, message []byte) (s syncs, err error) {
	log := filepath.Join(h.over, "trace")
	args := []string{"-f", "-y", "-qq", "-u", d.user, "-e", "trace=" + syncCalls, "-o", log}
	if err := d.run(exec.Command("strace", append(args, d.argv...)...), h, message); err != nil {
		return s, err
	}
	return readSyncs(log, h.mailDirs())
}

// run runs a command as Postfix runs a mailbox_command; the message is in a file
// and what the program says goes to one, so that no pipe is measured.
func (d deliverer) run(cmd *exec.Cmd, h *mailHost, message []byte) error {
	in, err := h.letterFile(message)
	if err != nil {
		return err
	}
	defer in.Close()
	said, err := os.OpenFile(filepath.Join(h.over, "said"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer said.Close()
	cmd.Stdin = in
	cmd.Dir = h.home(d.user)
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "TZ=UTC", "LANG=C", "SHELL=/bin/sh", "HOME=" + h.home(d.user), "USER=" + d.user, "LOGNAME=" + d.user,
		"SENDER=bob@example.org", "RECIPIENT=" + d.user + "@example.org", "DOMAIN=example.org", "LOCAL=" + d.user,
	}
	cmd.Stdout, cmd.Stderr = said, said
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, tail(said))
	}
	return err
}

// tail is the end of what a program has said.
func tail(f *os.File) []byte {
	text := make([]byte, 500)
	end, _ := f.Seek(0, io.SeekEnd)
	n, _ := f.ReadAt(text, max(end-int64(len(text)), 0))
	return bytes.TrimSpace(text[:n])
}

// letterFile opens the message.
func (h *mailHost) letterFile(message []byte) (*os.File, error) {
	path := filepath.Join(h.over, "letter")
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(path, message, 0o644); err != nil {
			return nil, err
		}
		f, err = os.Open(path)
	}
	return f, err
}

// delivered counts the messages of a user.
func (h *mailHost) delivered(user, format string) (int, error) {
	if format == "maildir" {
		return countMessages(filepath.Join(h.home(user), "Maildir"))
	}
	text, err := os.ReadFile(filepath.Join("/var/mail", user))
	return bytes.Count(append([]byte{'\n'}, text...), []byte("\nFrom ")), err
}

// bareMbox is the least that an append to an mbox takes.
func bareMbox(dir string, message []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, "mbox"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(message)
	return errors.Join(err, f.Sync(), f.Close())
}

// bareMaildir is the least that a message in a Maildir takes.
func bareMaildir(dir string, message []byte) error {
	name := fmt.Sprint(time.Now().UnixNano())
	f, err := os.OpenFile(filepath.Join(dir, "Maildir/tmp", name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(message)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(f.Name(), filepath.Join(dir, "Maildir/new", name))); err != nil {
		return err
	}
	to, err := os.Open(filepath.Join(dir, "Maildir/new"))
	if err != nil {
		return err
	}
	return errors.Join(to.Sync(), to.Close())
}

func (l *lab) writeDeliveries(format string, list []deliverer, times [][]float64, durable []syncs) {
	maildir := format == "maildir"
	fmt.Fprintf(l.out, "\nTo %s:\n\n", format)
	fmt.Fprintln(l.out, "| delivered by | synced | ms: p50 (p10-p90) | min ms | p50: ours/this | min: ours/this |\n|---|---|---|---|---|---|")
	best, fastest := "", 0.0
	for i, d := range list {
		s := slices.Sorted(slices.Values(times[i]))
		at := func(share float64) float64 { return s[int(share*float64(len(s)-1))] }
		cell := d.durable
		if d.mail {
			cell = durable[i].String()
			if d.name != ownAgent && durable[i].durable(maildir) && (best == "" || at(0.5) < fastest) {
				best, fastest = d.name, at(0.5)
			}
		}
		fmt.Fprintf(l.out, "| %s | %s | %.2f (%.2f-%.2f) | %.2f | %.2f | %.2f |\n", d.name, cell, at(0.5), at(0.1), at(0.9), s[0],
			median(times[0])/median(times[i]), slices.Min(times[0])/s[0])
	}
	if best == "" {
		fmt.Fprintf(l.out, "\nNo other delivers durably.\n")
		return
	}
	fmt.Fprintf(l.out, "\nThe fastest other that is durable: %s; ours takes %.2f times its median.\n", best, median(times[0])/fastest)
}
