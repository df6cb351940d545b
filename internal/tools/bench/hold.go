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
	users   int // of a cell, each of whom is cut over once
	batch   int // users on one image
	bytes   int64
	size    int       // of each message; 0: mixed, as of real mail
	growth  []float64 // share that is appended between precopy and cutover: the cells
	handful int       // users that the slow peers convert
}

var waitings = []waiting{
	{"1 MiB, mixed sizes", 500, 250, 1 << 20, 0, []float64{0, 0.01, 0.1}, 5},
	{"10 MiB, mixed sizes", 500, 125, 10 << 20, 0, []float64{0, 0.01, 0.1}, 2},
	{"100 MiB, mixed sizes", 500, 20, 100 << 20, 0, []float64{0, 0.01, 0.1}, 1},
	{"100 MiB, messages of 2 KiB", 10, 5, 100 << 20, 2 << 10, []float64{0, 0.01, 0.1}, 1},
	{"1 GiB, mixed sizes", 10, 2, 1 << 30, 0, []float64{0.01}, 0},
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
	fmt.Fprint(l.out, "\n## How long mail waits\n\nBetween precopy and cutover mail comes. The hold is from the semaphore's hold to its maildir; in it deliveries are deferred and sessions refused. One user is cut over at a time, each once, with mail of his own; a fresh image takes so many of them as a batch, and the cells of a mailbox have theirs in turn. doveadm backup and mb2md need the mailbox to stand still from their start to the sync at their end: all of that is downtime.\n\n")
	fmt.Fprintln(l.out, "| mailbox | appended | users | batches | hold ms: p50, p99, max | over 100 ms | doveadm backup ms | ours p99/this | mb2md ms | ours p99/this |")
	fmt.Fprintln(l.out, "|---|---|---|---|---|---|---|---|---|---|")
	for _, w := range waitings {
		w.users = scaled(w.users, l.share)
		w.batch, w.handful = min(w.batch, w.users), min(w.handful, w.users)
		if err := l.wait(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
	}
	return nil
}

func (l *lab) wait(ctx context.Context, w waiting) error {
	peers, err := l.peersDowntime(ctx, w)
	if err != nil {
		return err
	}
	cells := make([][]float64, len(w.growth))
	batches := 0
	for done := 0; done < w.users; done += w.batch {
		users := min(w.batch, w.users-done)
		batches++
		for i, share := range w.growth {
			start := time.Now()
			took, err := l.holdBatch(ctx, w, share, users, batches)
			if err != nil {
				return err
			}
			cells[i] = append(cells[i], took...)
			fmt.Fprintf(os.Stderr, "hold, %s, %.0f%% appended: %d of %d users, the last %d in %.0f s: median %.1f ms\n",
				w.title, share*100, done+users, w.users, users, time.Since(start).Seconds(), median(took))
		}
	}
	for i, share := range w.growth {
		l.writeHold(w, share, cells[i], batches, peers)
	}
	return nil
}

// peersDowntime is what a user waits with doveadm and mb2md, in milliseconds; 0
// if that was not measured.
func (l *lab) peersDowntime(ctx context.Context, w waiting) ([]float64, error) {
	peers := make([]float64, 2)
	for k, run := range []func(context.Context, *site, *move) error{doveadmAll, mb2mdAll} {
		if !l.peers || w.handful == 0 {
			continue
		}
		took := []float64{}
		for range l.peerRounds {
			ms, err := l.peerDowntime(ctx, w, run)
			if err != nil {
				return nil, err
			}
			took = append(took, ms)
		}
		peers[k] = median(took)
	}
	return peers, nil
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

// holdBatch cuts users over on one fresh image, and returns the hold of each in
// milliseconds. Users of another batch have other mail.
func (l *lab) holdBatch(ctx context.Context, w waiting, share float64, users, batch int) ([]float64, error) {
	other := *l
	other.seed += uint64(batch) << 8
	im, s, err := other.siteImage(ctx, w.load(users))
	if err != nil {
		return nil, err
	}
	defer im.close()
	time.Sleep(1100 * time.Millisecond) // as passes have it
	var u usage
	if _, err := l.ferry(ctx, s, &u, "precopy", "--all"); err != nil {
		return nil, err
	}
	if err := w.grow(s, share); err != nil {
		return nil, err
	}
	out, err := l.ferry(ctx, s, &u, "cutover", "--all", "--json", "--cutover-jobs", "1")
	if err != nil {
		return nil, err
	}
	took, err := readHolds(out)
	if err == nil && len(took) != users {
		err = fmt.Errorf("%d users of %d were held", len(took), users)
	}
	return took, err
}

// readHolds returns the hold of each user of a run, in milliseconds.
func readHolds(out []byte) (took []float64, err error) {
	for line := range bytes.Lines(out) {
		var user struct {
			MessageType string  `json:"message_type"`
			HoldSeconds float64 `json:"hold_seconds"`
		}
		if err := json.Unmarshal(line, &user); err != nil {
			return nil, fmt.Errorf("%.100q: %w", line, err)
		}
		if user.MessageType == "user" && user.HoldSeconds > 0 {
			took = append(took, user.HoldSeconds*1e3)
		}
	}
	return took, nil
}

func (l *lab) writeHold(w waiting, share float64, took []float64, batches int, peers []float64) {
	slices.Sort(took)
	p99, over := percentile(took, 99), 0
	for _, ms := range took {
		if ms > 100 {
			over++
		}
	}
	fmt.Fprintf(l.out, "| %s | %.0f%% | %d | %d | %.1f, %.1f, %.1f | %d |", w.title, share*100, len(took), batches,
		median(took), p99, took[len(took)-1], over)
	for _, ms := range peers {
		if ms == 0 {
			fmt.Fprint(l.out, " - | - |")
			continue
		}
		fmt.Fprintf(l.out, " %.0f | %.4f |", ms, p99/ms)
	}
	fmt.Fprintln(l.out)
}

// percentile is the value that so many of 100 do not exceed: the nearest rank.
func percentile(sorted []float64, of int) float64 {
	return sorted[max((len(sorted)*of+99)/100, 1)-1]
}
