package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"mailferry/internal/mailgen"
)

// waiting is a mailbox whose user waits while he is cut over.
type waiting struct {
	title   string
	users   int
	bytes   int64
	size    int       // of each message; 0: mixed, as of real mail
	growth  []float64 // share that is appended between precopy and cutover
	handful int       // users that the slow peers convert
}

var waitings = []waiting{
	{"1 MiB, mixed sizes", 50, 1 << 20, 0, []float64{0, 0.01, 0.1}, 5},
	{"10 MiB, mixed sizes", 20, 10 << 20, 0, []float64{0, 0.01, 0.1}, 2},
	{"100 MiB, mixed sizes", 5, 100 << 20, 0, []float64{0, 0.01, 0.1}, 1},
	{"100 MiB, messages of 2 KiB", 3, 100 << 20, 2 << 10, []float64{0, 0.01, 0.1}, 1},
	{"1 GiB, mixed sizes", 1, 1 << 30, 0, []float64{0.01}, 0},
}

func (w waiting) load(users int) load {
	return load{users: users, mailbox: func(seed uint64) mailgen.Options {
		o := mailgen.Options{Seed: seed, Bytes: w.bytes, Dialects: []mailgen.Dialect{mailgen.Mboxrd}}
		if w.size > 0 {
			o.Size = func(*rand.Rand) int { return w.size }
		} else { // without the giants, so that mailboxes are alike
			o.Size = func(r *rand.Rand) int { return min(mailgen.MailSize(r)*2/3+mailgen.MinSize, 1<<20) }
		}
		return o
	}}
}

// grow appends so much of a mailbox to it, at least one message.
func (w waiting) grow(s *site, share float64) error {
	if share == 0 {
		return nil
	}
	return s.write(0, func(m *mbox) mailgen.Options {
		o := m.options
		o.Seed, o.Bytes, o.Messages = o.Seed^1<<56, max(int64(float64(w.bytes)*share), 1), 0
		return o
	})
}

// hold measures for how long the mail of a user waits.
func (l *lab) hold(ctx context.Context) error {
	fmt.Fprint(l.out, "\n## How long mail waits\n\nBetween precopy and cutover mail comes. The hold is from the semaphore's hold to its maildir; in it deliveries are deferred and sessions refused. One user is cut over at a time. doveadm backup and mb2md need the mailbox to stand still from their start to the sync at their end: all of that is downtime.\n\n")
	fmt.Fprintln(l.out, "| mailbox | appended | users | runs | hold ms: p50, p99, max (medians of the runs) | p99 of the worst run | doveadm backup ms | ours p99/this | mb2md ms | ours p99/this |")
	fmt.Fprintln(l.out, "|---|---|---|---|---|---|---|---|---|---|")
	for _, w := range waitings {
		w.users = scaled(w.users, l.share)
		if err := l.wait(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
	}
	return nil
}

func (l *lab) wait(ctx context.Context, w waiting) error {
	peers := make([]float64, 2)
	for k, run := range []func(context.Context, *site, *move) error{doveadmAll, mb2mdAll} {
		if !l.peers || w.handful == 0 {
			continue
		}
		took := []float64{}
		for range l.peerRounds {
			ms, err := l.peerDowntime(ctx, w, run)
			if err != nil {
				return err
			}
			took = append(took, ms)
		}
		peers[k] = median(took)
	}
	for _, share := range w.growth {
		runs := make([]holds, l.rounds)
		for i := range runs {
			var err error
			if runs[i], err = l.holdOnce(ctx, w, share); err != nil {
				return err
			}
			fmt.Fprintf(os.Stderr, "hold, %s, %.0f%% appended, round %d: %.1f, %.1f, %.1f ms\n", w.title, share*100, i+1, runs[i].P50*1e3, runs[i].P99*1e3, runs[i].Max*1e3)
		}
		l.writeHold(w, share, runs, peers)
	}
	return nil
}

// peerDowntime is in milliseconds a user.
func (l *lab) peerDowntime(ctx context.Context, w waiting, run func(context.Context, *site, *move) error) (float64, error) {
	users := min(w.handful, w.users)
	im, s, err := l.siteImage(ctx, w.load(users))
	if err != nil {
		return 0, err
	}
	defer im.close()
	var m move
	err = timed(im, &m.usage, func() error { return run(ctx, s, &m) })
	return m.wallSeconds() * 1e3 / float64(users), err
}

// holdOnce cuts all users over on one fresh image.
func (l *lab) holdOnce(ctx context.Context, w waiting, share float64) (h holds, err error) {
	im, s, err := l.siteImage(ctx, w.load(w.users))
	if err != nil {
		return h, err
	}
	defer im.close()
	time.Sleep(1100 * time.Millisecond) // as passes have it
	var u usage
	if _, err := l.ferry(ctx, s, &u, "precopy", "--all"); err != nil {
		return h, err
	}
	if err := w.grow(s, share); err != nil {
		return h, err
	}
	out, err := l.ferry(ctx, s, &u, "cutover", "--all", "--json", "--cutover-jobs", "1")
	if err != nil {
		return h, err
	}
	last := bytes.TrimSpace(out)
	last = last[bytes.LastIndexByte(last, '\n')+1:]
	if err := json.Unmarshal(last, &h); err != nil {
		return h, fmt.Errorf("%.100q: %w", last, err)
	}
	return h, nil
}

func (l *lab) writeHold(w waiting, share float64, runs []holds, peers []float64) {
	of := func(value func(holds) float64) []float64 {
		values := make([]float64, len(runs))
		for i, h := range runs {
			values[i] = 1e3 * value(h)
		}
		return values
	}
	p99 := of(func(h holds) float64 { return h.P99 })
	fmt.Fprintf(l.out, "| %s | %.0f%% | %d | %d | %.1f, %.1f, %.1f | %.1f |", w.title, share*100, w.users, len(runs),
		median(of(func(h holds) float64 { return h.P50 })), median(p99), median(of(func(h holds) float64 { return h.Max })), slices.Max(p99))
	for _, ms := range peers {
		if ms == 0 {
			fmt.Fprint(l.out, " - | - |")
			continue
		}
		fmt.Fprintf(l.out, " %.0f | %.4f |", ms, median(p99)/ms)
	}
	fmt.Fprintln(l.out)
}
