package convert

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"mailferry/mbox"
)

// An mbox that was built need not be built anew where mail has come and nothing else was
// changed: the new messages are appended, as a delivery agent does. That is what changes a
// mailbox most between the last look before a hold and the hold.

// backEnd is how to go on with an mbox that was built.
type backEnd struct {
	plan *backPlan // due are the messages behind the mark
	mark mbox.Mark
}

// census tells whether messages, in their order, are those that were counted before.
type census struct {
	count int
	sum   uint64 // with a key that this process alone has
}

// counting makes a census.
type counting struct {
	count int
	hash  maphash.Hash
}

func newCounting() *counting {
	c := &counting{}
	c.hash.SetSeed(hashKey)
	return c
}

// add counts a message, by all that is known of it without reading its file: one that was
// put in the place of another is another message.
func (c *counting) add(f *backFolder, l backMessage) error {
	info, err := f.in(l.state).LstatRegular(l.name)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, f.unreadable(l, err))
	}
	s := statOf(info)
	maphash.WriteComparable(&c.hash, [...]int64{
		int64(l.uid), int64(keyOf(uniqueOf(l.name))), int64(l.flags), int64(l.state & inNew), int64(s.Ino), s.Size, s.Mtime,
	})
	c.count++
	return nil
}

func (c *counting) census() census { return census{c.count, c.hash.Sum64()} }

// renew makes the mbox what the folder is now, with as little work as that takes.
func (b *backBox) renew(ctx context.Context) error {
	done, err := b.extend(ctx)
	if err == nil && !done {
		err = b.build(ctx)
	}
	return err
}

// extend appends what came since the mbox was built: read, write, sync, verify. It has not
// done so where more than that was changed, or where the server would not read what it
// has to then; the mbox is to be built anew.
func (b *backBox) extend(ctx context.Context) (done bool, err error) {
	e := b.end
	info, err := b.out.Stat()
	if err != nil || !b.built || e == nil || !statOf(info).same(b.made) {
		return false, err
	}
	f, before, err := b.openFolder(ctx)
	if err != nil {
		return false, err
	}
	defer f.close()
	came, now, err := e.newcomers(f, within(ctx, b.show))
	if err != nil || now.count == 0 || before.keywords != b.seen.keywords || before.served != b.seen.served || f.header.UIDValidity != e.plan.validity {
		return false, err
	}
	b.built, b.end = false, nil
	p, err := b.plan(ctx, f, e, came)
	if err != nil {
		return false, err
	}
	p.seen = now
	if len(came) > 0 {
		if err := b.append(ctx, f, p, came, info.Size()); err != nil {
			return false, err
		}
	}
	end, err := b.verifyEnd(ctx, p, e)
	var unequal *Unequal
	if errors.As(err, &unequal) || err == nil && end == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := b.finish(ctx, f, before); err != nil {
		return false, err
	}
	b.end = end
	b.tellMore(p.due[len(p.due)-len(came):])
	return true, nil
}

// newcomers are the messages behind those that were seen, and the census of all; a zero
// one if not all of those are as they were, or if a server would give another UID to one
// that is appended, or if that had keywords.
func (e *backEnd) newcomers(f *backFolder, check func() error) (came []backMessage, now census, err error) {
	all, same := newCounting(), e.plan.seen.count == 0
	err = f.each(func(l backMessage) error {
		if all.count >= e.plan.seen.count {
			came = append(came, l)
			same = same && l.uid == e.plan.next+uint32(len(came)-1) && l.flags&keywordLetters == 0
		}
		err := errors.Join(check(), all.add(f, l))
		if all.count == e.plan.seen.count {
			same = all.census() == e.plan.seen
		}
		return err
	})
	if !same || f.nextUID() > e.plan.next+uint32(len(came)) {
		return nil, census{}, err
	}
	return came, all.census(), err
}

// plan is that of the mbox's end, with what came.
func (b *backBox) plan(ctx context.Context, f *backFolder, e *backEnd, came []backMessage) (*backPlan, error) {
	p := *e.plan
	p.due = slices.Clip(p.due)
	p.next += uint32(len(came))
	check := within(ctx, b.show)
	for _, l := range came {
		d, err := b.decide(f, &p, l, nil, check)
		if err != nil {
			return nil, err
		}
		p.due = append(p.due, d)
		if err := b.paced(ctx, d.size); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// append writes what came behind the end of the mbox, durably.
func (b *backBox) append(ctx context.Context, f *backFolder, p *backPlan, came []backMessage, size int64) error {
	lfs, err := b.Scan.Profile.MissingLFs(b.out, size)
	if err != nil {
		return err
	}
	if _, err := b.out.Seek(size, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.WriteString(b.out, strings.Repeat("\n", lfs)); err != nil {
		return err
	}
	w := &backWriter{backBox: b, folder: f, plan: p, check: within(ctx, b.show), at: len(p.due) - len(came), appends: true}
	w.out = mbox.NewWriter(b.out, mbox.WriterOptions{Profile: b.Scan.Profile, Zone: b.Scan.Zone})
	for _, l := range came {
		if err := errors.Join(w.check(), w.message(l)); err != nil {
			return err
		}
	}
	if err := w.out.Close(); err != nil {
		return err
	}
	w.settle()
	return b.out.Sync()
}

// tellMore adds what was appended to the report.
func (b *backBox) tellMore(came []due) {
	for _, d := range came {
		b.report.Messages++
		b.report.Bytes += d.size
		b.report.Written++
		b.report.WrittenBytes += d.size
		if d.altered {
			b.altered++
		}
		b.verbatim = false
	}
}
