package convert

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"mailferry/internal/message"
	"mailferry/mbox"
)

// build makes the mbox anew from what the folder is now: read, compare, write,
// sync, verify. If the folder was changed meanwhile, the error is a *Busy.
func (b *backBox) build(ctx context.Context) (err error) {
	b.built, b.end = false, nil
	f, before, err := b.openFolder(ctx)
	if err != nil {
		return err
	}
	defer f.close()
	p, err := b.compare(ctx, f)
	if err != nil {
		return err
	}
	if err := b.write(ctx, f, p); err != nil {
		return err
	}
	if err := b.out.Sync(); err != nil {
		return err
	}
	end, err := b.verify(ctx, p)
	if err != nil {
		return err
	}
	if err := b.finish(ctx, f, before); err != nil {
		return err
	}
	b.end = end
	b.tell(f, p)
	return nil
}

// finish ends the work at an mbox, if the folder is still what it was before.
func (b *backBox) finish(ctx context.Context, f *backFolder, before sight) error {
	after, err := f.look(ctx)
	if err != nil {
		return err
	}
	info, err := b.out.Stat()
	if err != nil {
		return err
	}
	if after != before {
		return &Busy{f.dir.Path()}
	}
	b.seen, b.made, b.built = after, statOf(info), true
	return nil
}

// openFolder opens the folder and takes a sight before anything of it is read.
func (b *backBox) openFolder(ctx context.Context) (*backFolder, sight, error) {
	d, err := openLive(b.root, b.rel)
	if err != nil {
		return nil, sight{}, err
	}
	before, err := d.look(ctx)
	if err = errors.Join(err, d.close()); err != nil {
		return nil, before, err
	}
	f, err := openBack(ctx, b.root, b.rel)
	return f, before, err
}

// current reports whether the folder and the mbox are what build left.
func (b *backBox) current(ctx context.Context) (bool, error) {
	if !b.built {
		return false, nil
	}
	d, err := openLive(b.root, b.rel)
	if err != nil {
		return false, err
	}
	now, err := d.look(ctx)
	if err = errors.Join(err, d.close()); err != nil {
		return false, err
	}
	info, err := b.out.Stat()
	return err == nil && now == b.seen && statOf(info).same(b.made), err
}

// same leaves out the ctime, which permissions and names change.
func (s stat) same(other stat) bool {
	s.Ctime, other.Ctime = 0, 0
	return s == other
}

// unreadable is an error about a file: one that is gone was renamed by a session.
func (f *backFolder) unreadable(l backMessage, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Busy{f.dir.Path()}
	case isIrregular(err), errors.Is(err, fs.ErrPermission):
		return oddMaildir(f.dir.Path(), "has %q, which can't be read: %v", l.name, err)
	}
	return err
}

// write writes the mbox.
func (b *backBox) write(ctx context.Context, f *backFolder, p *backPlan) error {
	if err := b.out.Truncate(0); err != nil {
		return err
	}
	if _, err := b.out.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if p.same {
		return b.copyWhole(ctx)
	}
	if b.lines != nil {
		if err := b.lines.Rewind(); err != nil {
			return err
		}
	}
	w := &backWriter{backBox: b, folder: f, plan: p, check: within(ctx, b.show)}
	w.out = mbox.NewWriter(b.out, mbox.WriterOptions{
		Profile: b.Scan.Profile, Zone: b.Scan.Zone, UIDValidity: p.validity, NextUID: p.next, Keywords: p.listed,
	})
	var err error
	if w.base, err = b.openBase(w.check, w.pseudo); err != nil {
		return err
	}
	if w.base != nil {
		defer w.base.Close()
	}
	if err := f.each(func(l backMessage) error { return errors.Join(w.check(), w.message(l)) }); err != nil {
		return err
	}
	if w.at != len(p.due) {
		return &Busy{f.dir.Path()}
	}
	if err := w.out.Close(); err != nil {
		return err
	}
	w.settle()
	return nil
}

// copyStep is how much of an mbox is copied before it is asked whether to go on.
const copyStep = 1 << 20

// copyWhole copies the parked mbox.
func (b *backBox) copyWhole(ctx context.Context) error {
	from, err := b.base.open()
	if err != nil {
		return err
	}
	defer from.Close()
	leaveAtime(from)
	check := within(ctx, b.show)
	for err == nil {
		if err = check(); err == nil {
			_, err = io.CopyN(b.out, from, copyStep)
		}
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// backWriter writes the messages of one mbox.
type backWriter struct {
	*backBox
	folder *backFolder
	plan   *backPlan
	check  func() error // of whether to go on
	base   *baseReader
	out    *mbox.Writer
	at     int           // in plan.due
	last   *mbox.Written // of the message before; final when the next is written

	appends bool // to what is there: the server numbers it
}

func (w *backWriter) message(l backMessage) error {
	if w.at == len(w.plan.due) || w.plan.due[w.at].uid != l.uid {
		return &Busy{w.folder.dir.Path()}
	}
	d := &w.plan.due[w.at]
	state := mbox.State{UID: d.uid, Flags: d.flags, Keywords: w.plan.sets[d.set]}
	if w.plan.validity == 0 || w.appends { // without one no server believes a UID, or lists keywords
		state.UID, state.Keywords = 0, nil
	}
	var done *mbox.Written
	var err error
	if d.how == written {
		done, err = w.fromMaildir(l, d, state)
	} else {
		done, err = w.fromBase(l, d, state)
	}
	if err != nil {
		if over := w.check(); over != nil { // of which the other may be a consequence
			err = over
		}
		return fmt.Errorf("%s: %w", l.name, err)
	}
	w.settle()
	w.last = done
	w.at++
	return nil
}

// fromBase copies a message of the parked mbox.
func (w *backWriter) fromBase(l backMessage, d *due, state mbox.State) (*mbox.Written, error) {
	if err := w.base.to(d.uid); err != nil {
		return nil, err
	}
	if e := w.base.entry; e == nil || w.base.state.UID != d.uid || half(e.Digest) != d.digest {
		return nil, &Busy{w.base.File.Name()}
	}
	now := &state
	if d.how == copied && w.plan.validity == 0 {
		now = nil
	}
	done, err := w.out.Copy(w.base.Scanner, w.base.entry, now)
	if errors.Is(err, mbox.ErrMMDF) {
		return w.fromMaildir(l, d, state)
	}
	return done, err
}

// pseudo copies the message that holds the state of the mailbox and is none.
func (w *backWriter) pseudo(s *mbox.Scanner, e *mbox.Entry, state mbox.State) error {
	_, err := w.out.Copy(s, e, &state)
	return err
}

// settle notes of the message before whether it can be read back as it is.
func (w *backWriter) settle() {
	if w.last != nil && !w.last.Exact() {
		w.plan.due[w.at-1].altered = true
	}
	w.last = nil
}

// fromMaildir writes a message that the parked mbox does not have.
func (w *backWriter) fromMaildir(l backMessage, d *due, state mbox.State) (*mbox.Written, error) {
	f, err := w.folder.in(l.state).OpenRegular(l.name)
	if err != nil {
		return nil, w.folder.unreadable(l, err)
	}
	defer f.Close()
	m := mbox.Outgoing{Sender: returnPath(f), Date: time.Unix(d.date, 0), State: &state, Content: watched{f, w.check}, Size: d.size}
	if w.lines != nil {
		line, err := w.lines.Find(d.uid)
		if err != nil {
			return nil, err
		}
		m.From = w.believed(line, d)
	}
	return w.out.WriteMessage(m)
}

// believed is a From_ line of the side-car, if its date is that of the message:
// the side-car belongs to the mbox that was retired, and UIDs may have been
// given anew since.
func (w *backWriter) believed(line string, d *due) mbox.FromLine {
	from := mbox.FromLine{Raw: []byte(line)}
	zone := w.Scan.Zone
	if zone == nil {
		zone = time.Local
	}
	served := w.Scan.Profile.Date
	if w.Scan.CorrectDates {
		served = mbox.FromLine.Date
	}
	if date, ok := served(from, zone); ok && date.Unix() == d.date {
		return from
	}
	return mbox.FromLine{}
}

// maxReturnPath is how much of a message is searched for its Return-Path: it
// stands at the very top, if there is one.
const maxReturnPath = 4096

// returnPath is the envelope sender, as the delivery agent wrote it down (RFC
// 5321 4.4); "" if it did not, or for bounces.
func returnPath(r io.ReaderAt) string {
	in := bufio.NewReader(io.NewSectionReader(r, 0, maxReturnPath))
	for {
		line, err := in.ReadString('\n')
		if err != nil || message.IsBlankLine([]byte(line)) {
			return ""
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(strings.TrimSpace(name), "Return-Path") {
			value = strings.TrimSpace(value)
			return strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
		}
	}
}

// tell fills in the report.
func (b *backBox) tell(f *backFolder, p *backPlan) {
	b.report.Messages, b.report.Bytes, b.report.Changes = len(p.due), 0, Changes{Removed: p.left}
	b.altered, b.copied = 0, 0
	for _, d := range p.due {
		b.report.Bytes += d.size
		switch d.how {
		case copied:
			b.copied++
		case changed:
			b.report.Reflagged++
		case written:
			b.report.Written++
			b.report.WrittenBytes += d.size
		}
		if d.altered {
			b.altered++
		}
	}
	b.verbatim = p.same
}
