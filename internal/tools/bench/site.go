package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mailferry/internal/mailgen"
)

// load is the mail of a site's users.
type load struct {
	users   int
	folders []string                          // below mail/, beside INBOX
	mailbox func(seed uint64) mailgen.Options // of each mailbox
}

// site is a mail server on an image:
//
//	DIR/tree/spool/USER        INBOX
//	DIR/tree/home/USER/mail/   folders
//	DIR/semaphores/            the authority
//	DIR/state/                 journal, records of staging
//	DIR/passwd, mailferry.toml
type site struct {
	load
	dir      string
	names    []string // of the users
	mboxes   []mbox
	messages int
	bytes    int64 // of the mboxes
}

// mbox is a mailbox of a site.
type mbox struct {
	path     string
	uid      int
	options  mailgen.Options
	messages int
}

const (
	firstUID = 20000
	mailGID  = 8 // of group mail in Debian's base-passwd; the number alone matters
)

// newSite makes a mail server up in a directory that users can get through.
// The same seed makes the same mail.
func newSite(dir string, seed uint64, l load) (*site, error) {
	s := &site{load: l, dir: dir}
	if err := s.ground(); err != nil {
		return nil, err
	}
	for i := range l.users {
		if err := s.user(i, seed); err != nil {
			return nil, err
		}
	}
	return s, s.write(os.O_EXCL, func(m *mbox) mailgen.Options { return m.options })
}

// ground makes what all users share.
func (s *site) ground() error {
	if err := unix.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	for _, d := range []struct {
		name string
		mode uint32
		gid  int
	}{{"tree", 0o755, 0}, {"tree/spool", 0o2775, mailGID}, {"tree/home", 0o755, 0}, {"semaphores", 0o755, 0}, {"state", 0o700, 0}} {
		if err := mkdirFor(filepath.Join(s.dir, d.name), 0, d.gid, d.mode); err != nil {
			return err
		}
	}
	return os.WriteFile(s.config(), fmt.Appendf(nil, siteConfig, s.dir), 0o644)
}

const siteConfig = `users = "file:%[1]s/passwd"
spool = "%[1]s/tree/spool/{user}"
folders = ["{home}/mail"]
maildir = "{home}/Maildir"
semaphore = "%[1]s/semaphores/{user}"
mirror = "{home}/.mailstate"
gate = "{home}/.mailstate.lock"
state = "%[1]s/state"
profile = "dovecot"
free-floor = "1M"
grace = "0s"
`

func (s *site) config() string { return filepath.Join(s.dir, "mailferry.toml") }

func (s *site) home(name string) string { return filepath.Join(s.dir, "tree/home", name) }

// user makes a home and says what mailboxes are to be in it.
func (s *site) user(i int, seed uint64) error {
	name, uid := fmt.Sprintf("user%04d", i), firstUID+i
	s.names = append(s.names, name)
	mail := filepath.Join(s.home(name), "mail")
	for _, dir := range []string{s.home(name), mail} {
		if err := mkdirFor(dir, uid, uid, 0o700); err != nil {
			return err
		}
	}
	paths := []string{filepath.Join(s.dir, "tree/spool", name)}
	for _, folder := range s.folders {
		paths = append(paths, filepath.Join(mail, folder))
	}
	for k, path := range paths {
		s.mboxes = append(s.mboxes, mbox{path: path, uid: uid, options: s.mailbox(seed<<32 | uint64(i)<<8 | uint64(k))})
	}
	passwd, err := os.OpenFile(filepath.Join(s.dir, "passwd"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer passwd.Close()
	_, err = fmt.Fprintf(passwd, "%s:%d:%d:%s\n", name, uid, uid, s.home(name))
	return err
}

// mkdirFor makes a directory of exactly that mode.
func mkdirFor(dir string, uid, gid int, mode uint32) error {
	if err := unix.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if err := unix.Chown(dir, uid, gid); err != nil {
		return err
	}
	return unix.Chmod(dir, mode)
}

// write appends to every mailbox what options say.
func (s *site) write(flags int, options func(*mbox) mailgen.Options) error {
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	sums := make([]mailgen.Summary, len(s.mboxes))
	for i := range s.mboxes {
		group.Go(func() (err error) {
			m := &s.mboxes[i]
			sums[i], err = m.write(flags, options(m))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, sum := range sums {
		s.mboxes[i].messages += sum.Messages
		s.messages += sum.Messages
		s.bytes += sum.Bytes
	}
	return nil
}

func (m *mbox) write(flags int, o mailgen.Options) (sum mailgen.Summary, err error) {
	f, err := os.OpenFile(m.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|flags, 0o600)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	if sum, err = mailgen.Generate(f, o); err != nil {
		return sum, err
	}
	if err := f.Chown(m.uid, m.uid); err != nil {
		return sum, err
	}
	return sum, f.Close()
}

// deliver appends to each mailbox one new message for every hundred, others in
// each round.
func (s *site) deliver(round int) error {
	return s.write(0, func(m *mbox) mailgen.Options {
		o := m.options
		o.Seed, o.Messages, o.Bytes = o.Seed^uint64(round+1)<<56, max(m.messages/100, 1), 0
		return o
	})
}

// imageSize has room for the mboxes, their Maildirs or copies, and the rest of
// the site, of so many octets and messages in all.
func (l load) imageSize(bytes, messages int64) (size, inodes int64) {
	users := int64(l.users)
	return bytes*3 + messages*(4096+1024) + users*(64<<10) + 1<<30, messages*5/4 + users*64 + 65536
}

// size makes the mail up once more, into nothing, to count it.
func (l load) size(seed uint64) (bytes, messages int64, err error) {
	sum, err := mailgen.Generate(io.Discard, l.mailbox(seed))
	n := int64(l.users) * int64(1+len(l.folders))
	return sum.Bytes * n, int64(sum.Messages) * n, err
}

// siteImage makes a fresh image with a site on it, whose users are enrolled.
func (l *lab) siteImage(ctx context.Context, of load) (*image, *site, error) {
	bytes, messages, err := of.size(l.seed << 32)
	if err != nil {
		return nil, nil, err
	}
	size, inodes := of.imageSize(bytes*11/10, messages) // mailboxes of another seed may be larger
	im, err := newImage(l.scratch, size, inodes, 0)
	if err != nil {
		return nil, nil, err
	}
	s, err := newSite(im.dir, l.seed, of)
	if err == nil {
		_, err = l.ferry(ctx, s, new(usage), "enroll", "--all")
	}
	if err != nil {
		im.close()
		return nil, nil, err
	}
	return im, s, nil
}

// ferry runs a verb at a site as root and returns what it printed.
func (l *lab) ferry(ctx context.Context, s *site, u *usage, verb string, args ...string) ([]byte, error) {
	argv := append([]string{l.mailferry, verb, "--config", s.config()}, args...)
	return stepAs(ctx, 0, argv, nil, u)
}

// timed runs the work between two settled states of the disk, and counts what
// the device wrote.
func timed(im *image, u *usage, work func() error) error {
	unix.Sync()
	before, err := im.written()
	if err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	unix.Sync() // beyond the clock: what nobody waits for counts as written, too
	after, err := im.written()
	u.disk = after - before
	return err
}
