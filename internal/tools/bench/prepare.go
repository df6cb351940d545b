package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"mailferry/internal/mailgen"
)

// benchCase is a mailbox to convert.
type benchCase struct {
	name, title string
	options     mailgen.Options
}

// conversions are the cases that convert one mailbox.
func conversions(c config) []benchCase {
	return []benchCase{
		{"small", fmt.Sprintf("%d messages of %d octets", c.messages, c.size), mailgen.FixedOptions(c.seed, c.messages, c.size)},
		{"mixed", fmt.Sprintf("%d MiB of realistic sizes", c.bytes>>20), mailgen.RealisticOptions(c.seed, c.bytes)},
	}
}

// bench is a case made ready: all files that a run reads.
type bench struct {
	config
	benchCase
	self     string // this program, where the contenders' user can run it
	scratch  string
	mbox     string
	tar      string
	list     string
	messages int
	bytes    int64 // of all messages
}

// installSelf copies this program and mailferry to where any user can run them.
func installSelf(scratch string, c *config) (self string, err error) {
	self = filepath.Join(scratch, "bench")
	if err := copyFile(self, "/proc/self/exe", 0o755); err != nil {
		return "", err
	}
	if c.mailferry != "" {
		installed := filepath.Join(scratch, "mailferry")
		if err := copyFile(installed, c.mailferry, 0o755); err != nil {
			return "", err
		}
		c.mailferry = installed
	}
	return self, nil
}

func copyFile(to, from string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// prepare makes the mbox, the finished Maildir that every contender is to
// arrive at, and from it the tar file and the list of the bare loop.
func prepare(ctx context.Context, c config, cs benchCase, scratch, self string) (_ *bench, err error) {
	b := &bench{
		config: c, benchCase: cs, self: self, scratch: scratch,
		mbox: filepath.Join(scratch, "mbox"), tar: filepath.Join(scratch, "maildir.tar"), list: filepath.Join(scratch, "list"),
	}
	defer func() {
		if err != nil {
			b.remove()
		}
	}()
	standIn, err := b.makeMbox()
	if err != nil {
		return nil, err
	}
	finished := filepath.Join(scratch, "Maildir")
	defer os.RemoveAll(finished)
	argv := []string{c.mailferry, "convert", b.mbox, finished}
	if c.mailferry == "" {
		if err := writeList(b.list, standIn); err != nil {
			return nil, err
		}
		argv = []string{self, bareArgument, b.list, finished}
	}
	if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("making the finished Maildir: %w: %s", err, out)
	}
	return b, b.describe(ctx, finished)
}

// describe makes the tar file and the list of the finished Maildir.
func (b *bench) describe(ctx context.Context, finished string) error {
	list, err := listMaildir(finished)
	if err != nil {
		return err
	}
	b.messages = len(list)
	for _, e := range list {
		b.bytes += int64(e.size)
	}
	if err := writeList(b.list, list); err != nil {
		return err
	}
	// By name: the order in which a conversion creates the files.
	out, err := exec.CommandContext(ctx, "tar", "--sort=name", "--owner=:"+fmt.Sprint(b.uid), "-C", finished, "-cf", b.tar, ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	return nil
}

// makeMbox writes the mbox and lists the Maildir that would be a conversion's
// result, for the time when there is no mailferry to ask.
func (b *bench) makeMbox() (standIn []entry, err error) {
	f, err := os.Create(b.mbox)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o := b.options
	o.Each = func(m mailgen.Message) {
		n := len(standIn)
		standIn = append(standIn, entry{
			name:  fmt.Sprintf("%d.M%06dP1Q%d.host,S=%d,W=%d:2,S", m.Time, n%1e6, n, m.Content.Size, m.Content.Size+m.Content.Size/60),
			size:  int(m.Content.Size),
			mtime: m.Time,
		})
	}
	if _, err := mailgen.Generate(f, o); err != nil {
		return nil, err
	}
	return standIn, f.Close()
}

// warm reads the inputs once, so that every run finds them in memory.
func (b *bench) warm() error {
	for _, path := range []string{b.mbox, b.tar, b.list} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) remove() {
	for _, path := range []string{b.mbox, b.tar, b.list} {
		os.Remove(path) // what was not made is not there
	}
}

// imageSize leaves a quarter of room above the blocks and inodes that the files
// need, and 512 MiB for journal, directories and what the peers add.
func (b *bench) imageSize() (size, inodes int64) {
	n := int64(b.messages)
	return (b.bytes+n*(4096+512))*5/4 + 512<<20, n*5/4 + 4096
}
