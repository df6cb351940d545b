package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/mailgen"
)

// copier is a way to keep a second copy of a site's mail, pass by pass.
type copier struct {
	name string
	run  func(context.Context, *site, *usage) (copied, error)
}

// copied is what a pass says of itself.
type copied struct {
	Messages int   // written
	Bytes    int64 // of those
}

// passes over a site. The first finds mboxes that were written more than a
// second ago, as an mbox must be to be passed over unread by the second.
var passes = []struct {
	name   string
	before func(*site) error
}{
	{"first pass", func(*site) error { time.Sleep(1100 * time.Millisecond); return nil }},
	{"nothing changed", func(*site) error { return nil }},
	{"1% appended to every mailbox", func(s *site) error { return s.deliver(0) }},
}

const oursPrecopy = "mailferry precopy"

func (l *lab) copiers() []copier {
	return []copier{
		{oursPrecopy, func(ctx context.Context, s *site, u *usage) (c copied, err error) {
			out, err := l.ferry(ctx, s, u, "precopy", "--all", "--json")
			if err == nil {
				c, err = readCopied(out)
			}
			return c, err
		}},
		{"rsync -a, sync -f", rsync("-a")},
		{"rsync -a --append, sync -f", rsync("-a", "--append")},
	}
}

// rsync copies spool and homes, durable in the end as a precopy is.
func rsync(flags ...string) func(context.Context, *site, *usage) (copied, error) {
	return func(ctx context.Context, s *site, u *usage) (c copied, err error) {
		to := filepath.Join(s.dir, "copy")
		argv := append(append([]string{"rsync"}, flags...), filepath.Join(s.dir, "tree")+"/", to)
		if _, err := stepAs(ctx, 0, argv, nil, u); err != nil {
			return c, err
		}
		_, err = stepAs(ctx, 0, []string{"sync", "-f", to}, nil, u)
		return c, err
	}
}

// readCopied adds up what a run says of its users.
func readCopied(out []byte) (c copied, err error) {
	for line := range bytes.Lines(out) {
		var user struct {
			MessageType string `json:"message_type"`
			Round       struct {
				Written      int   `json:"written"`
				WrittenBytes int64 `json:"written_bytes"`
			} `json:"round"`
		}
		if err := json.Unmarshal(line, &user); err != nil {
			return c, fmt.Errorf("%.100q: %w", line, err)
		}
		if user.MessageType == "user" {
			c.Messages += user.Round.Written
			c.Bytes += user.Round.WrittenBytes
		}
	}
	return c, nil
}

// precopyLoad is mail of 200 messages a mailbox, so that 1% of it is a number,
// of half the sizes of real mail and without its giants, so that mailboxes are alike.
func precopyLoad(share float64) load {
	return load{
		users: scaled(60, share), folders: []string{"Sent", "Archive", "lists"},
		mailbox: func(seed uint64) mailgen.Options {
			return mailgen.Options{
				Seed: seed, Messages: 200, Dialects: []mailgen.Dialect{mailgen.Mboxrd},
				Size: func(r *rand.Rand) int { return min(mailgen.MailSize(r)/2+mailgen.MinSize, 64<<10) },
			}
		},
	}
}

func scaled(users int, share float64) int { return max(int(float64(users)*share), 1) }

// precopy measures all passes of all copiers.
func (l *lab) precopy(ctx context.Context) error {
	of := precopyLoad(l.share)
	copiers := l.copiers()
	runs := make([][][]usage, len(passes)) // by pass and copier
	told := make([]copied, len(passes))
	for p := range passes {
		runs[p] = make([][]usage, len(copiers))
	}
	var last *site
	for round := range l.rounds {
		for k, c := range copiers {
			s, err := l.copyOnce(ctx, of, func(p int, u usage, what copied) {
				u.round = round
				runs[p][k] = append(runs[p][k], u)
				if k == 0 {
					told[p] = what
				}
				fmt.Fprintf(os.Stderr, "precopy, round %d: %s: %s: %.2f s wall, %.2f s CPU, %.1f MiB\n",
					round+1, c.name, passes[p].name, u.wall.Seconds(), u.cpu.Seconds(), u.diskMiB())
			}, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			last = s
		}
	}
	fmt.Fprintf(l.out, "\n## Precopy beside rsync\n\n%d users, %d mboxes, %d messages, %.1f MiB once 1%% was appended. rsync copies the mboxes, precopy makes Maildirs of them and reads all of it back. Written: by the device, directories, inodes and journal included.\n",
		of.users, len(last.mboxes), last.messages, float64(last.bytes)/(1<<20))
	for p := range passes {
		writePass(l.out, p, copiers, runs[p], told[p])
	}
	return nil
}

// copyOnce makes all passes of a copier on one fresh image.
func (l *lab) copyOnce(ctx context.Context, of load, tell func(pass int, u usage, what copied), c copier) (_ *site, err error) {
	im, s, err := l.siteImage(ctx, of)
	if err != nil {
		return nil, err
	}
	defer im.close()
	for p, pass := range passes {
		if err := pass.before(s); err != nil {
			return nil, err
		}
		var u usage
		var what copied
		if err := timed(im, &u, func() (err error) { what, err = c.run(ctx, s, &u); return err }); err != nil {
			return nil, err
		}
		tell(p, u, what)
	}
	return s, nil
}

func writePass(w io.Writer, pass int, copiers []copier, runs [][]usage, told copied) {
	fmt.Fprintf(w, "\n%s; precopy wrote %d messages, %.1f MiB:\n\n", passes[pass].name, told.Messages, float64(told.Bytes)/(1<<20))
	fmt.Fprintln(w, "| contender | runs | wall s: median (min-max) | CPU s: median (min-max) | peak RSS MiB | written MiB: median | wall: ours/this | CPU: ours/this | written: ours/this |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for k, c := range copiers {
		r := runs[k]
		fmt.Fprintf(w, "| %s | %d | %s | %s | %.1f | %.1f | %s | %s | %s |\n", c.name, len(r),
			spread(column(r, usage.wallSeconds)), spread(column(r, usage.cpuSeconds)), slices.Max(column(r, usage.rssMiB)), median(column(r, usage.diskMiB)),
			ratio(runs[0], r, usage.wallSeconds), ratio(runs[0], r, usage.cpuSeconds), ratio(runs[0], r, usage.diskMiB))
	}
}
