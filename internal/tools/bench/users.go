package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
)

// crowd is a number of users with mailboxes of one size.
type crowd struct {
	title          string
	users          int
	messages, size int // of each mailbox
	handful        int // users that the slow peers convert
}

var crowds = []crowd{
	{"2 KiB, one message", 1000, 1, 2 << 10, 20},
	{"200 KiB, 20 messages", 200, 20, 10 << 10, 10},
	{"20 MiB, 1000 messages", 20, 1000, 20 << 10, 2},
}

// mover is a way to move users.
type mover struct {
	name    string
	handful bool // it takes so few users only
	run     func(context.Context, *site, *move) error
}

// move is what moving the users of a site took.
type move struct {
	usage
	users   int
	cutover time.Duration // from the first hold to the last flip of each chunk
	holds   holds
}

// holds are in seconds.
type holds struct {
	P50 float64 `json:"hold_p50_seconds"`
	P99 float64 `json:"hold_p99_seconds"`
	Max float64 `json:"hold_max_seconds"`
}

func (m move) perSecond() float64 { return float64(m.users) / m.wall.Seconds() }

func (l *lab) movers() []mover {
	list := []mover{}
	for _, jobs := range []string{"1", "8"} {
		list = append(list, mover{"mailferry migrate --cutover-jobs " + jobs, false, func(ctx context.Context, s *site, m *move) error {
			return l.migrate(ctx, s, m, jobs)
		}})
	}
	for _, jobs := range []string{"1", "8"} {
		list = append(list, mover{"the syncs and renames of the cutovers alone, jobs " + jobs, false, func(ctx context.Context, s *site, m *move) error {
			return l.bareCutover(ctx, s, m, jobs)
		}})
	}
	if l.peers {
		list = append(list, mover{"mb2md, a user at a time", true, mb2mdAll}, mover{"doveadm backup, a user at a time", true, doveadmAll})
	}
	return list
}

// users measures how many users a second are moved.
func (l *lab) users(ctx context.Context) error {
	fmt.Fprint(l.out, "\n## Users per second\n\nmigrate inspects, precopies, reads back, holds, locks, verifies again, flips and parks. mb2md and doveadm convert the INBOX only, of a few users, synced once in the end; for all users their time is multiplied.\n")
	for _, c := range crowds {
		c.users = scaled(c.users, l.share)
		if err := l.crowd(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
	}
	return nil
}

func (l *lab) crowd(ctx context.Context, c crowd) error {
	movers := l.movers()
	runs := make([][]move, len(movers))
	for round := range l.rounds {
		for k, mv := range movers {
			if mv.handful && round >= l.peerRounds {
				continue
			}
			m, err := l.moveOnce(ctx, c, mv)
			if err != nil {
				return fmt.Errorf("%s: %w", mv.name, err)
			}
			m.round = round
			runs[k] = append(runs[k], m)
			fmt.Fprintf(os.Stderr, "users of %s, round %d: %s: %.1f a second\n", c.title, round+1, mv.name, m.perSecond())
		}
	}
	l.writeCrowd(c, movers, runs)
	return nil
}

func (l *lab) moveOnce(ctx context.Context, c crowd, mv mover) (m move, err error) {
	of := load{users: c.users, mailbox: func(seed uint64) mailgen.Options { return mailgen.FixedOptions(seed, c.messages, c.size) }}
	if mv.handful {
		of.users = min(c.handful, c.users)
	}
	im, s, err := l.siteImage(ctx, of)
	if err != nil {
		return m, err
	}
	defer im.close()
	time.Sleep(1100 * time.Millisecond) // as passes have it
	m.users = of.users
	err = timed(im, &m.usage, func() error { return mv.run(ctx, s, &m) })
	return m, err
}

func (l *lab) migrate(ctx context.Context, s *site, m *move, jobs string) error {
	out, err := l.ferry(ctx, s, &m.usage, "migrate", "--all", "--json", "--cutover-jobs", jobs)
	if err != nil {
		return err
	}
	last := bytes.TrimSpace(out)
	last = last[bytes.LastIndexByte(last, '\n')+1:]
	if err := json.Unmarshal(last, &m.holds); err != nil {
		return fmt.Errorf("%.100q: %w", last, err)
	}
	m.cutover, err = cutoverTime(filepath.Join(s.dir, "state"))
	return err
}

// cutoverTime adds up the last run's chunks, of each the time from the first
// hold to the last flip.
func cutoverTime(state string) (total time.Duration, err error) {
	runs, err := journal.Runs(state)
	if err != nil || len(runs) == 0 {
		return 0, errors.Join(fmt.Errorf("no run in %s", state), err)
	}
	var first, last time.Time
	err = journal.Events(state, runs[len(runs)-1], func(e journal.Event) error {
		switch {
		case e.Phase == "hold" && first.IsZero():
			first = e.Time
		case e.Phase == "flip":
			last = e.Time
		case e.Phase == "chunk":
			total += last.Sub(first)
			first, last = time.Time{}, time.Time{}
		}
		return nil
	})
	return total, err
}

func (l *lab) bareCutover(ctx context.Context, s *site, m *move, jobs string) error {
	out, err := stepAs(ctx, 0, []string{l.self, bareCutoverArgument, jobs, s.dir}, nil, &m.usage)
	if err != nil {
		return err
	}
	var r bareReport
	if err := json.Unmarshal(out, &r); err != nil {
		return err
	}
	m.wall, m.cpu, m.cutover = r.Wall, r.CPU, r.Wall
	return nil
}

func mb2mdAll(ctx context.Context, s *site, m *move) error {
	for _, box := range s.mboxes {
		dst := filepath.Join(s.home(filepath.Base(box.path)), "Maildir")
		if _, err := stepAs(ctx, box.uid, []string{"mb2md", "-s", box.path, "-d", dst}, nil, &m.usage); err != nil {
			return err
		}
	}
	return syncSite(ctx, s, m)
}

// siteDovecot is dovecotConf for the users of a site, who may not make dotlocks
// in the spool.
const siteDovecot = `mail_location = mbox:~/mail:INBOX=%[1]s/tree/spool/%%u
mail_home = %[1]s/tree/home/%%u
base_dir = %[1]s/run
log_path = /dev/stderr
stats_writer_socket_path =
ssl = no
mbox_read_locks = fcntl
mbox_write_locks = fcntl
namespace inbox {
  inbox = yes
  separator = /
}
`

func doveadmAll(ctx context.Context, s *site, m *move) error {
	conf := filepath.Join(s.dir, "dovecot.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, siteDovecot, s.dir), 0o644); err != nil {
		return err
	}
	for _, box := range s.mboxes {
		name := filepath.Base(box.path)
		env := []string{"HOME=" + s.home(name), "USER=" + name}
		if _, err := stepAs(ctx, box.uid, []string{"doveadm", "-c", conf, "backup", "maildir:~/Maildir"}, env, &m.usage); err != nil {
			return err
		}
		n, err := countMessages(filepath.Join(s.home(name), "Maildir"))
		if err != nil {
			return err
		}
		if n != box.messages {
			return fmt.Errorf("doveadm brought %d messages of %d of %s", n, box.messages, name)
		}
	}
	return syncSite(ctx, s, m)
}

func syncSite(ctx context.Context, s *site, m *move) error {
	_, err := stepAs(ctx, 0, []string{"sync", "-f", s.dir}, nil, &m.usage)
	return err
}

func (l *lab) writeCrowd(c crowd, movers []mover, runs [][]move) {
	fmt.Fprintf(l.out, "\n%d users with mailboxes of %s:\n\n", c.users, c.title)
	fmt.Fprintln(l.out, "| contender | runs | users | users/s: median (min-max) | cutovers/s | CPU ms/user | written KiB/user | hold ms: p50, p99, max | s for all users |")
	fmt.Fprintln(l.out, "|---|---|---|---|---|---|---|---|---|")
	for k, mv := range movers {
		r := runs[k]
		if len(r) == 0 {
			continue
		}
		of := func(value func(move) float64) []float64 {
			values := make([]float64, len(r))
			for i, m := range r {
				values[i] = value(m)
			}
			return values
		}
		users := float64(r[0].users)
		cells := []string{mv.name, fmt.Sprint(len(r)), fmt.Sprint(r[0].users), spread(of(move.perSecond)), "-"}
		if r[0].cutover > 0 {
			cells[4] = fmt.Sprintf("%.1f", median(of(func(m move) float64 { return users / m.cutover.Seconds() })))
		}
		cells = append(cells,
			fmt.Sprintf("%.2f", median(of(func(m move) float64 { return m.cpu.Seconds() * 1e3 / users }))),
			fmt.Sprintf("%.1f", median(of(func(m move) float64 { return float64(m.disk) / 1024 / users }))),
			holdCell(of, r), fmt.Sprintf("%.1f", float64(c.users)/median(of(move.perSecond))))
		fmt.Fprintf(l.out, "| %s |\n", strings.Join(cells, " | "))
	}
}

func holdCell(of func(func(move) float64) []float64, r []move) string {
	if r[0].holds.Max == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f, %.1f, %.1f",
		1e3*median(of(func(m move) float64 { return m.holds.P50 })),
		1e3*median(of(func(m move) float64 { return m.holds.P99 })),
		1e3*slices.Max(of(func(m move) float64 { return m.holds.Max })))
}
