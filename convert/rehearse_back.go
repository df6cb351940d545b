package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"mailferry/internal/journal"
	"mailferry/mbox"
)

// back builds each mailbox anew of the Maildir, and compares it with the live one.
func (r *rehearsal) back(ctx context.Context) error {
	r.record.Exact, r.record.Alone.Exact = true, true
	for _, m := range r.round.Mailboxes {
		i := slices.IndexFunc(r.found.sources, func(s source) bool { return s.path == m.Path })
		if err := r.mailbox(ctx, r.found.sources[i], m); err != nil {
			return err
		}
	}
	r.record.Scratch += r.most
	return nil
}

// mailbox takes one mailbox back, both ways. What of it was not in the page cache
// is not left there.
func (r *rehearsal) mailbox(ctx context.Context, src source, m MailboxRound) (err error) {
	var live *os.File
	if err := asUser(r.account, func() (err error) { live, err = src.open(); return err }); err != nil {
		return failed(src, err)
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	leaveAtime(live)
	keep := (&round{}).cacheOf(live)
	defer keep.restore()
	lines, err := r.fromLines(ctx, src, m)
	if err != nil {
		return err
	}
	defer lines.Close()
	return asUser(r.account, func() error {
		r.pace.beNice()
		if err := r.withBase(ctx, src, m, live); err != nil {
			return err
		}
		return r.withoutBase(ctx, src, m, live, lines)
	})
}

// fromLines writes down what a Maildir does not hold, as a retirement does. The
// time that it takes to read INBOX is that of a hold in which it is read whole.
func (r *rehearsal) fromLines(ctx context.Context, src source, m MailboxRound) (*journal.FromLines, error) {
	list, err := journal.NewFromLines(r.scratch.State, r.account.Name, m.Name)
	if err != nil {
		return nil, err
	}
	took := 0.0
	err = asUser(r.account, func() error {
		r.pace.beNice()
		return r.timed(&took, func() error { return r.read(ctx, src, list) })
	})
	if err != nil {
		return nil, errors.Join(err, list.Discard())
	}
	if err := list.Commit(); err != nil {
		return nil, err
	}
	if len(src.parts) == 0 {
		r.record.Inbox, r.record.Reading = m.stat.Size, took
	}
	return journal.OpenFromLines(r.scratch.State, r.account.Name, m.Name)
}

func (r *rehearsal) read(ctx context.Context, src source, list *journal.FromLinesWriter) error {
	o := r.Scan
	o.Digest = true
	in, err := open(src, o)
	if err != nil {
		return failed(src, err)
	}
	defer in.Close()
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return failed(src, err)
		}
		if state := in.State(e); !state.Pseudo {
			err = list.Add(journal.FromLine{UID: state.UID, From: string(e.From.Raw)})
		}
		if err := errors.Join(err, r.pause(ctx, e.Next()-e.Offset)); err != nil {
			return err
		}
	}
}

// pause keeps to the bandwidth.
func (r *rehearsal) pause(ctx context.Context, bytes int64) error {
	if r.pace.Throttle == nil {
		return ctx.Err()
	}
	return r.pace.Throttle(ctx, bytes)
}

// withBase is the way back as long as the mbox is parked. The mailbox must come
// back byte for byte.
func (r *rehearsal) withBase(ctx context.Context, src source, m MailboxRound, live *os.File) error {
	return r.building(func(out *os.File) error {
		b := r.box(m, out)
		b.base = &src
		if err := r.timed(&r.record.Back, func() error { return r.build(ctx, b) }); err != nil {
			return err
		}
		at, text, err := r.difference(ctx, live, out)
		if text != "" {
			return &Differs{src.path, at, text}
		}
		return err
	})
}

// withoutBase is the way back when the mbox was retired. What differs is counted.
func (r *rehearsal) withoutBase(ctx context.Context, src source, m MailboxRound, live *os.File, lines *journal.FromLines) error {
	return r.building(func(out *os.File) error {
		b := r.box(m, out)
		b.lines = lines
		if err := r.build(ctx, b); err != nil {
			return err
		}
		_, text, err := r.difference(ctx, live, out)
		if err != nil || text == "" {
			return err
		}
		r.record.Alone.Exact = false
		return r.weigh(ctx, src, out)
	})
}

// building makes a file for an mbox, and removes it when work is done with it.
func (r *rehearsal) building(work func(out *os.File) error) (err error) {
	const name = "mbox"
	dir := r.scratch.Work
	f, err := dir.Create(name, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	out, err := dir.OpenUpdate(name)
	if err != nil {
		return err
	}
	err = work(out)
	if info, serr := out.Stat(); serr == nil {
		r.most = max(r.most, blocksOf(info.Sys()))
	}
	return errors.Join(err, out.Close(), dir.Unlink(name))
}

// box is a mailbox on its way back, into out.
func (r *rehearsal) box(m MailboxRound, out *os.File) *backBox {
	pace := r.pace
	pace.Progress = nil // the bytes were counted on the way there
	way := &wayBack{cutover: &cutover{stage: &stage{Site: r.Site, account: r.account}, pace: pace}, root: r.root, reader: newReader()}
	b := &backBox{wayBack: way, rel: m.dir, live: m.Path, out: out}
	b.report.Name, b.report.Path = m.Name, m.Path
	return b
}

// difference compares two files byte for byte; the text is "" if they are equal.
func (r *rehearsal) difference(ctx context.Context, live, built *os.File) (at int64, text string, err error) {
	info, err := live.Stat()
	if err != nil {
		return 0, "", err
	}
	now, err := built.Stat()
	if err != nil {
		return 0, "", err
	}
	a, b := make([]byte, 1<<16), make([]byte, 1<<16)
	for at < min(info.Size(), now.Size()) {
		n := int(min(int64(len(a)), min(info.Size(), now.Size())-at))
		if err := errors.Join(readAt(live, a[:n], at), readAt(built, b[:n], at), r.pause(ctx, int64(n))); err != nil {
			return 0, "", err
		}
		if i := unlike(a[:n], b[:n]); i < n {
			return at + int64(i), fmt.Sprintf("it has %q in place of %q", b[i:min(i+16, n)], a[i:min(i+16, n)]), nil
		}
		at += int64(n)
	}
	if info.Size() != now.Size() {
		return at, fmt.Sprintf("one of them ends: it has %d bytes in place of %d", now.Size(), info.Size()), nil
	}
	return 0, "", nil
}

func readAt(f *os.File, b []byte, at int64) error {
	_, err := f.ReadAt(b, at)
	if err == io.EOF {
		err = &Busy{f.Name()}
	}
	return err
}

// unlike is where two slices of equal length differ first; their length if nowhere.
func unlike(a, b []byte) int {
	if bytes.Equal(a, b) {
		return len(a)
	}
	i := 0
	for a[i] == b[i] {
		i++
	}
	return i
}

// walked is an mbox of which the messages are compared.
type walked struct {
	file  *os.File
	scan  *mbox.Scanner
	track *mbox.Tracker
	entry *mbox.Entry // nil at the end
	state mbox.State
}

func (w *walked) next() error {
	for {
		e, err := w.scan.Next()
		if err == io.EOF {
			w.entry = nil
			return nil
		}
		if err != nil {
			return err
		}
		if w.state = w.track.State(e); !w.state.Pseudo {
			w.entry = e
			return nil
		}
	}
}

// bytes are those of the message in the file, From_ line and all.
func (w *walked) bytes() io.Reader {
	return io.NewSectionReader(w.file, w.entry.Offset, w.entry.Next()-w.entry.Offset)
}

// weigh counts the messages that a mailbox has otherwise when it was built of the
// Maildir alone.
func (r *rehearsal) weigh(ctx context.Context, src source, out *os.File) error {
	o := r.Scan
	o.Digest = true
	in, err := open(src, o)
	if err != nil {
		return failed(src, err)
	}
	defer in.Close()
	info, err := out.Stat()
	if err != nil {
		return err
	}
	s, err := mbox.NewScanner(out, info.Size(), o)
	if err != nil {
		return err
	}
	defer s.Close()
	was, now := &walked{file: in.File, scan: in.Scanner, track: in.Tracker}, &walked{file: out, scan: s, track: mbox.NewTracker(s)}
	tally := &r.record.Alone
	for {
		if err := errors.Join(was.next(), now.next(), ctx.Err()); err != nil {
			return err
		}
		if was.entry == nil || now.entry == nil {
			break
		}
		if !alike(was, now) {
			tally.Misread++
		}
		same, err := sameBytes(was.bytes(), now.bytes())
		if err != nil {
			return err
		}
		if !same {
			tally.Altered++
		}
		if err := r.pause(ctx, was.entry.Next()-was.entry.Offset); err != nil {
			return err
		}
	}
	for _, w := range []*walked{was, now} {
		for ; w.entry != nil && err == nil; err = w.next() {
			tally.Misread++
			tally.Altered++
		}
	}
	return err
}

// alike reports whether a server reads two messages as one and the same. That
// nobody has seen one of them yet no Maildir holds.
func alike(a, b *walked) bool {
	words := func(s mbox.State) string { return joinKeywords(slices.Clone(s.Keywords)) }
	return a.entry.Digest == b.entry.Digest && a.entry.Date.Equal(b.entry.Date) &&
		a.state.Flags&^mbox.Old == b.state.Flags&^mbox.Old && words(a.state) == words(b.state) && a.state.UID == b.state.UID
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 1<<14), make([]byte, 1<<14)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			if errA == io.ErrUnexpectedEOF || errA == io.EOF {
				return true, nil
			}
			return false, errors.Join(errA, errB)
		}
	}
}
