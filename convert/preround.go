package convert

import (
	"context"
	"errors"
	"slices"

	"mailferry/internal/safefs"
)

// usualRounds is how many deltas there are before the hold, at most, if nobody
// says otherwise.
const usualRounds = 3

// littleLeft is how much may be left to be read under the locks, beside the hash
// of what was read before: about what one delivery brings, in bytes.
const littleLeft = 256 << 10

// preRounds brings staging up to date before the hold, durably and proved, until
// what remains for the round under the locks is little. It is not an error if
// more remains: a mailbox that never rests only takes a longer hold.
func (c *cutover) preRounds(ctx context.Context) error {
	if c.recall == nil {
		c.recall = newRecall()
	}
	most := c.rounds
	if most == 0 {
		most = usualRounds
	}
	for n := range most {
		more := false
		err := asUser(c.account, func() (err error) {
			c.pace.beNice()
			more, err = c.preRound(ctx, n)
			return err
		})
		var busy *Busy
		if errors.As(err, &busy) && n+1 < most {
			continue // it shrank while it was read
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// preRound is one of them, unless there is nothing that is worth it.
func (c *cutover) preRound(ctx context.Context, n int) (more bool, err error) {
	found, err := findAccount(c.account)
	if err != nil {
		return false, err
	}
	defer found.close()
	left, err := c.left(found)
	if err != nil || left == 0 || n > 0 && left <= littleLeft {
		return false, err
	}
	sync, err := c.parent.Again()
	if err != nil {
		return false, err
	}
	defer sync.Close()
	clear(c.recall.seen)
	r := c.round(c.pace)
	r.quarantine = nil // it has them already, and a new one is the end of this cutover
	r.patient, r.tracked = true, true
	report, err := c.delta(ctx, r, found, sync)
	if err != nil {
		return false, err
	}
	if _, err := r.verify(ctx); err != nil {
		return false, err
	}
	c.early.add(report.Changes)
	return true, c.syncStates(r)
}

// delta brings staging up to date, and makes it durable.
func (c *cutover) delta(ctx context.Context, r *round, found *tree, sync *safefs.Dir) (*Round, error) {
	report, err := r.run(ctx, found)
	if err != nil {
		return nil, err
	}
	if err := c.noneMore(report); err != nil {
		return nil, err
	}
	return report, c.makeDurable(r, report, sync)
}

// left estimates how much the next round would have to read as mail, in bytes;
// 0 is nothing at all.
func (c *cutover) left(found *tree) (bytes int64, err error) {
	gone := len(c.recall.seen)
	for _, src := range found.sources {
		if slices.ContainsFunc(c.skips, func(s Skip) bool { return s.Path == src.path }) {
			continue
		}
		if _, known := c.recall.seen[src.path]; known {
			gone--
		}
		n, err := c.leftOf(src)
		if err != nil && !isSkippable(err) { // the round will tell
			return 0, err
		}
		bytes += n
	}
	return bytes + int64(gone), nil
}

func (c *cutover) leftOf(src source) (bytes int64, err error) {
	f, err := src.open()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	now, last, m := statOf(info), c.recall.seen[src.path], c.recall.marks[src.path]
	switch {
	case now == last.stat && (last.settled || m != nil):
		return 0, nil
	case m != nil && m.id == idOf(info) && m.scan.Fits(now.Size):
		return now.Size - m.size + 1, nil
	}
	return now.Size + 1, nil
}
