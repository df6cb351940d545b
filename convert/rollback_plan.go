package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// backPlan says of what an mbox is put together, and so what has to be found in
// it afterwards.
type backPlan struct {
	due  []due
	same bool // as the parked mbox, to the byte
	left int  // messages of the parked mbox that are gone

	validity, next uint32
	seen           census           // of the folder's messages
	listed         []string         // keywords of the mailbox, in order
	sets           [][]string       // of keywords that messages have
	index          map[string]int32 // of sets, by joinKeywords
}

// due is a message of the mbox to be.
type due struct {
	uid     uint32
	set     int32 // of keywords
	date    int64 // seconds since 1970; noDate if nothing tells
	size    int64
	digest  [16]byte // the first half of it
	flags   mbox.Flags
	how     how
	altered bool // it can't be read back to the byte
}

// how a message gets into the mbox.
type how uint8

const (
	copied  how = iota // from the parked mbox, as it is
	changed            // from there, with other flags, keywords or UID
	written            // from the Maildir
)

// baseReader walks the messages of a parked mbox.
type baseReader struct {
	*input
	entry  *mbox.Entry // nil at the end
	state  mbox.State
	pseudo func(*mbox.Scanner, *mbox.Entry, mbox.State) error // for what is no message; may be nil

	size  int64 // bytes that were converted; what is behind them was swept, as new mail
	left  int   // messages of those that were passed over
	swept int   // of the others
}

func readBase(src source, o mbox.Options, check func() error, pseudo func(*mbox.Scanner, *mbox.Entry, mbox.State) error) (*baseReader, error) {
	o.Digest = true
	f, err := src.open()
	if err != nil {
		return nil, failed(src, err)
	}
	in, err := scanBy(f, watched{f, check}, o)
	if err != nil {
		return nil, failed(src, err)
	}
	r := &baseReader{input: in, pseudo: pseudo}
	if err := r.advance(); err != nil {
		return nil, errors.Join(failed(src, err), in.Close())
	}
	return r, nil
}

// advance goes to the next message.
func (r *baseReader) advance() error {
	for {
		e, err := r.Next()
		if err == io.EOF {
			r.entry = nil
			return nil
		}
		if err != nil {
			return err
		}
		if r.state = r.State(e); !r.state.Pseudo {
			r.entry = e
			return nil
		}
		if r.pseudo != nil {
			if err := r.pseudo(r.Scanner, e, r.state); err != nil {
				return err
			}
		}
	}
}

// to goes to the message of a UID, or behind its place.
func (r *baseReader) to(uid uint32) (err error) {
	for r.entry != nil && r.state.UID < uid && err == nil {
		err = r.pass()
	}
	return err
}

// pass passes a message over.
func (r *baseReader) pass() error {
	if r.entry.Offset < r.size {
		r.left++
	} else {
		r.swept++
	}
	return r.advance()
}

// compare holds the folder against the parked mbox, and plans the new one.
func (b *backBox) compare(ctx context.Context, f *backFolder) (*backPlan, error) {
	p := &backPlan{validity: f.header.UIDValidity, next: f.nextUID(), index: map[string]int32{}}
	check := within(ctx, b.show)
	base, err := b.openBase(check, nil)
	if err != nil {
		return nil, err
	}
	if base != nil {
		defer base.Close()
	}
	p.due = make([]due, 0, f.messages())
	seen := newCounting()
	err = f.each(func(l backMessage) error {
		if err := errors.Join(check(), seen.add(f, l)); err != nil {
			return err
		}
		d, err := b.decide(f, p, l, base, check)
		p.due = append(p.due, d)
		return errors.Join(err, b.paced(ctx, d.size))
	})
	if err != nil {
		return nil, err
	}
	p.seen = seen.census()
	for base != nil && base.entry != nil {
		if err := base.pass(); err != nil {
			return nil, failed(*b.base, err)
		}
	}
	return p, b.complete(f, p, base)
}

// openBase begins to read the parked mbox, with a check of whether to go on; nil if
// there is none.
func (b *backBox) openBase(check func() error, pseudo func(*mbox.Scanner, *mbox.Entry, mbox.State) error) (*baseReader, error) {
	if b.base == nil {
		return nil, nil
	}
	r, err := readBase(*b.base, b.Scan, check, pseudo)
	if err != nil {
		return nil, err
	}
	r.size = b.base.size
	if p := b.parked(b.base.path); p != nil {
		r.size = p.Size
	}
	return r, nil
}

// decide reads a message, and looks for it in the parked mbox.
func (b *backBox) decide(f *backFolder, p *backPlan, l backMessage, base *baseReader, check func() error) (d due, err error) {
	got, err := b.reader.readWatched(f.in(l.state), l.name, nil, check)
	if err != nil {
		return d, fmt.Errorf("%s: %w", l.name, f.unreadable(l, err))
	}
	d = due{uid: l.uid, date: got.date, size: got.size, digest: half(got.digest), flags: mboxFlags(l), how: written}
	names := f.names(l.flags)
	if base == nil {
		d.set = p.set(names)
		return d, nil
	}
	if err := base.to(l.uid); err != nil {
		return d, failed(*b.base, err)
	}
	if base.entry == nil || base.state.UID != l.uid {
		d.set = p.set(names)
		return d, nil
	}
	if e := base.entry; e.Digest == got.digest && (e.Date.IsZero() || e.Date.Unix() == got.date) {
		d.become(f, p, l, base, names)
		return d, base.advance()
	}
	d.set = p.set(names)
	return d, base.pass()
}

// paced tells of a message that was read, and waits as the run is told to: not in
// the hold.
func (w *wayBack) paced(ctx context.Context, bytes int64) error {
	if w.held {
		return nil
	}
	if w.pace.Progress != nil {
		w.pace.Progress(bytes)
	}
	if w.pace.Throttle != nil {
		return w.pace.Throttle(ctx, bytes)
	}
	return nil
}

// become makes a message one of the parked mbox: as it is there, if flags and
// keywords are those that it was converted with.
func (d *due) become(f *backFolder, p *backPlan, l backMessage, base *baseReader, names []string) {
	d.how = changed
	if base.entry.Date.IsZero() {
		d.date = noDate
	}
	s := base.state
	if systemFlags(s.Flags) == l.flags&^(keywordLetters|maildir.Passed) && f.keywords.wantKeywords(s) == joinKeywords(slices.Clone(names)) {
		d.how, d.flags = copied, s.Flags
		d.set = p.set(s.Keywords)
		return
	}
	for _, name := range s.Keywords { // what the Maildir could not hold is as it was
		if maildir.CheckKeyword(name) != nil || f.keywords.keywords.Len() == maildir.MaxKeywords && !f.keywords.hasLetter(name) {
			names = append(names, name)
		}
	}
	d.set = p.set(names)
}

// set returns the number of a set of keywords.
func (p *backPlan) set(names []string) int32 {
	key := joinKeywords(slices.Clone(names))
	n, known := p.index[key]
	if !known {
		n = int32(len(p.sets))
		p.index[key] = n
		p.sets = append(p.sets, slices.Clone(names))
	}
	return n
}

// mboxFlags are the flags of a message of the Maildir. \Recent is what no
// session has seen: it lies in new.
func mboxFlags(l backMessage) (flags mbox.Flags) {
	for _, p := range flagPairs {
		if l.flags&p.to != 0 {
			flags |= p.from
		}
	}
	if l.state&inNew == 0 {
		flags |= mbox.Old
	}
	return flags
}

// complete settles what concerns the mailbox as a whole.
func (b *backBox) complete(f *backFolder, p *backPlan, base *baseReader) error {
	if base != nil {
		p.listed = slices.Clone(base.Keywords())
	}
	for _, set := range p.sets {
		p.list(set)
	}
	for i := range maildir.MaxKeywords {
		if name := f.keywords.keywords.Name(i); name != "" && !strings.ContainsFunc(name, isBlank) {
			p.list([]string{name})
		}
	}
	if base == nil {
		return nil
	}
	p.left = base.left
	served, err := f.served()
	untouched := base.UIDValidity() == 0 && !served // nobody has seen the UIDs that the conversion gave
	known := base.UIDValidity() == p.validity
	if known {
		p.next = max(p.next, base.NextUID())
	}
	p.same = p.left+base.swept == 0 && (known || untouched) && p.next == base.NextUID() &&
		!slices.ContainsFunc(p.due, func(d due) bool { return d.how != copied })
	return err
}

// list adds keywords to those of the mailbox.
func (p *backPlan) list(names []string) {
	for _, name := range names {
		if !slices.ContainsFunc(p.listed, func(n string) bool { return strings.EqualFold(n, name) }) {
			p.listed = append(p.listed, name)
		}
	}
}

// half is what is kept of a digest.
func half(d message.Digest) [16]byte { return [16]byte(d[:16]) }
