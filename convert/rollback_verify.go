package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"mailferry/internal/message"
	"mailferry/mbox"
)

// Unequal says that an mbox that was written does not read as the Maildir that
// it was made of. It is thrown away.
type Unequal struct {
	Path string
	UID  uint32 // of the message; 0 for what concerns the mailbox
	Text string
}

func (e *Unequal) Error() string {
	if e.UID == 0 {
		return fmt.Sprintf("%q, as it was written for the way back, %s", e.Path, e.Text)
	}
	return fmt.Sprintf("%q, as it was written for the way back: UID %d %s", e.Path, e.UID, e.Text)
}

// verify reads the mbox as the server will that is to serve it, and demands each
// message of the plan: its bytes, date, flags, keywords and UID, and nothing
// else.
//
// The end tells how to go on; nil: not at all.
func (b *backBox) verify(ctx context.Context, p *backPlan) (*backEnd, error) {
	v, err := b.check(p)
	if err != nil {
		return nil, err
	}
	if err := v.run(ctx, b.Scan, v.whole); err != nil {
		return nil, err
	}
	if len(v.again) == 0 {
		return v.reached(), nil
	}
	// What was taken from the Maildir stands there as it is. A scan that
	// unquotes, or drops CRs, reads it otherwise; the server does not.
	raw := b.Scan
	raw.Quoting, raw.EOL = message.Keep, mbox.EOLKeep
	return nil, v.run(ctx, raw, v.raw)
}

// verifyEnd does the same with what is behind the mark of an end. What is before it reads
// as it did. It is nil where that does not hold, or not all can be told of a part.
func (b *backBox) verifyEnd(ctx context.Context, p *backPlan, e *backEnd) (*backEnd, error) {
	v, err := b.check(p)
	if err != nil || !e.mark.Fits(v.size) {
		return nil, err
	}
	v.from, v.mark = &e.mark, &e.mark
	if err := v.run(ctx, b.Scan, v.whole); err != nil || len(v.again) > 0 {
		return nil, err
	}
	return v.reached(), nil
}

func (b *backBox) check(p *backPlan) (*backCheck, error) {
	info, err := b.out.Stat()
	if err != nil {
		return nil, err
	}
	return &backCheck{backBox: b, plan: p, size: info.Size(), numbered: p.validity != 0 && b.keeps(message.XIMAPbase) && b.keeps(message.XUID)}, nil
}

func (b *backBox) keeps(f message.Field) bool { return b.Scan.Profile.Hides(f) }

// backCheck is the work of verify.
type backCheck struct {
	*backBox
	plan     *backPlan
	size     int64
	numbered bool  // the mbox can say UIDs and keywords
	again    []int // messages of which the bytes are to be looked at once more

	from   *mbox.Mark // where to begin; nil: at the start
	mark   *mbox.Mark // the last that there is
	marked int        // messages of the plan before it
}

// reached is how to go on behind what was read.
func (v *backCheck) reached() *backEnd {
	if v.mark == nil {
		return nil
	}
	p := *v.plan
	p.due = slices.Clone(p.due[v.marked:])
	return &backEnd{&p, *v.mark}
}

func (v *backCheck) wrong(uid uint32, format string, args ...any) error {
	return &Unequal{v.live, uid, fmt.Sprintf(format, args...)}
}

// run scans the mbox, and has each message checked.
func (v *backCheck) run(ctx context.Context, o mbox.Options, check func(*mbox.Entry, mbox.State, int) error) error {
	o.Digest = true
	going := within(ctx, v.show)
	s, track, err := v.open(going, o)
	if err != nil {
		return err
	}
	defer s.Close()
	at := 0
	for {
		e, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		state := track.State(e)
		if state.Pseudo {
			continue
		}
		if at == len(v.plan.due) {
			return v.wrong(0, "has more messages than the %d that there are", len(v.plan.due))
		}
		if err := errors.Join(going(), check(e, state, at)); err != nil {
			return err
		}
		at++
		if m, ok := s.Mark(track); ok {
			v.mark, v.marked = &m, at
		}
	}
	if at < len(v.plan.due) {
		return v.wrong(v.plan.due[at].uid, "is missing: %d messages of %d", at, len(v.plan.due))
	}
	return v.mailbox(track)
}

// open begins to read, where it is to begin.
func (v *backCheck) open(going func() error, o mbox.Options) (*mbox.Scanner, *mbox.Tracker, error) {
	in := watched{v.out, going}
	if v.from != nil {
		return mbox.Resume(in, v.size, o, v.from)
	}
	s, err := mbox.NewScanner(in, v.size, o)
	if err != nil {
		return nil, nil, err
	}
	return s, mbox.NewTracker(s), nil
}

// mailbox checks what concerns the mailbox as a whole.
func (v *backCheck) mailbox(track *mbox.Tracker) error {
	p := v.plan
	if !v.numbered || p.same {
		return nil // as it was before the flip
	}
	switch {
	case track.UIDValidity() != p.validity:
		return v.wrong(0, "has UIDVALIDITY %d, not %d", track.UIDValidity(), p.validity)
	case track.NextUID() != p.next:
		return v.wrong(0, "has next UID %d, not %d", track.NextUID(), p.next)
	}
	return nil
}

// whole checks a message.
func (v *backCheck) whole(e *mbox.Entry, s mbox.State, at int) error {
	d := &v.plan.due[at]
	if !d.altered && half(e.Digest) != d.digest {
		if d.how != written {
			return v.wrong(d.uid, "has other bytes")
		}
		v.again = append(v.again, at)
	}
	const dates = math.MaxUint32 // what servers and filesystems hold
	if d.date >= 0 && d.date <= dates && (e.Date.IsZero() || e.Date.Unix() != d.date) {
		return v.wrong(d.uid, "has the date %v, not %d seconds since 1970", e.Date, d.date)
	}
	if v.numbered && s.UID != d.uid {
		return v.wrong(d.uid, "is read as UID %d", s.UID)
	}
	return v.state(d, s)
}

// state checks flags and keywords, as far as the server keeps them in an mbox.
func (v *backCheck) state(d *due, s mbox.State) error {
	var kept mbox.Flags
	if v.keeps(message.Status) {
		kept |= mbox.Seen | mbox.Old
	}
	if v.keeps(message.XStatus) {
		kept |= mbox.Answered | mbox.Flagged | mbox.Draft | mbox.Deleted
	}
	if s.Flags&kept != d.flags&kept {
		return v.wrong(d.uid, "has the flags %06b, not %06b", s.Flags, d.flags)
	}
	want, got := joinKeywords(slices.Clone(v.plan.sets[d.set])), joinKeywords(slices.Clone(s.Keywords))
	if (v.numbered || v.plan.same) && v.keeps(message.XKeywords) && want != got {
		return v.wrong(d.uid, "has the keywords %q, not %q", got, want)
	}
	return nil
}

// raw looks at the bytes alone.
func (v *backCheck) raw(e *mbox.Entry, _ mbox.State, at int) error {
	d := &v.plan.due[at]
	if _, look := slices.BinarySearch(v.again, at); look && half(e.Digest) != d.digest {
		return v.wrong(d.uid, "has other bytes")
	}
	return nil
}
