package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// What a killed sweep of late mail has left is told by the file of the message, and
// by the mbox, which is locked for that:
//
//	record     file          mbox, from the recorded offset on         then
//	begun      any           -                                         nothing was done
//	any        in tmp        -                                         all was done
//	appending  in new, cur   the recorded bytes, whatever follows      put away
//	appending  in new, cur   ends there, not written to since          nothing was done
//	any        in new, cur   ends with the first of the bytes          they are cut off
//	cutting    in new, cur   ends there                                nothing was done
//	any        gone          the bytes, or nothing as above            its owner removed it
//
// Anything else, another mbox, a shorter one, one that a client has rewritten, is in
// doubt: the message may be in it, under other header fields, or may have been there
// and be deleted. That is told, and nothing is touched.

// backDoubt says why it can't be told whether a message is in an mbox.
type backDoubt struct{ path, text string }

func (d *backDoubt) Error() string { return fmt.Sprintf("%q %s", d.path, d.text) }

func (b *bringing) doubt(format string, args ...any) error {
	return &backDoubt{b.taken.Path, fmt.Sprintf("was being taken into %q at offset %d, and %s: whether it is there can't be told. Look: if it is, move the file into the directory tmp beside its own; if it is not, remove the record of the user in %q; then run mailferry sweep",
		b.record.Live, b.record.From, fmt.Sprintf(format, args...), filepath.Join(b.State, "sweepback"))}
}

// recoverBack finishes or undoes what a killed sweep has left of late mail of a user
// who is on mbox again, and tells what it did; "" if there was nothing. The caller
// holds the run lock, and no run is at work.
func (s Site) recoverBack(ctx context.Context, a account.Account) (did string, err error) {
	if _, err := journal.ReadSweepBack(s.State, a.Name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return s.recovering(a, func(w *sweep, sem *semaphore.Semaphore) (string, error) {
		switch state, err := sem.Get(); {
		case err != nil || state == semaphore.Hold:
			return "", err
		case state != semaphore.Mbox:
			return "", fmt.Errorf("late mail was being taken into an mbox of his, and he is on %s now: left alone; look at his record in %q", state, filepath.Join(s.State, "sweepback"))
		}
		return w.resumeBack(ctx)
	})
}

// resumeBack goes on where a sweep was killed.
func (w *sweep) resumeBack(ctx context.Context) (did string, err error) {
	record, err := journal.ReadSweepBack(w.State, w.account.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	const undone = "a sweep that had taken nothing was undone"
	b := w.bringing(record)
	b.check = within(ctx, b.check)
	defer func() { err = errors.Join(err, b.close()) }()
	limited, cancel := context.WithTimeout(ctx, w.opts.Wait)
	defer cancel()
	if record.Phase == journal.BackBegun {
		_ = b.lock(limited) // to release what the dead one held; what can't be had is another's by now
		return undone, errors.Join(b.dropTemps(), b.abandon())
	}
	where, err := b.where()
	if err != nil {
		return "", err
	}
	if where == "tmp" {
		_ = b.lock(limited)
		return "a sweep was finished", errors.Join(b.dropTemps(), b.abandon())
	}
	if err := b.lock(limited); errors.Is(err, fs.ErrNotExist) {
		return "", b.doubt("that is gone")
	} else if err != nil {
		return "", err
	}
	var found verdict
	err = b.c.asUser(func() (err error) {
		found, err = b.judge(where)
		return err
	})
	if err != nil {
		return "", err
	}
	switch found {
	case absent:
		return undone, errors.Join(b.dropTemps(), b.abandon())
	case inPart:
		return undone, errors.Join(b.cutOff(), b.dropTemps())
	}
	return "a sweep was finished", errors.Join(b.finish(), b.dropTemps())
}

// where is "new" or "cur" if the message is still one, "tmp" if it was put away, and ""
// if it is gone.
func (b *bringing) where() (sub string, err error) {
	err = b.c.asUser(func() (err error) {
		err = b.openFolder()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			sub, _, err = b.find()
		}
		return err
	})
	return sub, err
}

// verdict is what the mbox holds of a message.
type verdict int

const (
	absent verdict = iota
	inPart         // the first bytes of it, at the end
	whole
)

// judge finds out what the locked mbox holds of the message. It makes durable what it
// finds whole.
func (b *bringing) judge(where string) (verdict, error) {
	r := b.record
	info, err := b.box().Stat()
	if err != nil {
		return absent, err
	}
	born := bornOf(b.box())
	if idOf(info).ino != r.BoxIno || r.BoxBorn != 0 && born != 0 && born != r.BoxBorn {
		return absent, b.doubt("that was replaced by another file")
	}
	size, untouched := info.Size(), statOf(info).Mtime == r.Written
	if size >= r.From+r.Bytes {
		switch is, err := b.holdsAll(); {
		case err != nil:
			return absent, err
		case is:
			return whole, b.box().Sync()
		}
	}
	switch {
	case size == r.From && (untouched || r.Phase == journal.BackCutting):
		return absent, nil
	case size > r.From && size < r.From+r.Bytes && where != "":
		if is, err := b.holdsPart(size - r.From); err != nil || is {
			return inPart, err
		}
	}
	return absent, b.doubt("another program has changed that since")
}

// errOtherBytes ends a comparison.
var errOtherBytes = errors.New("other bytes")

// holdsPart reports whether the mbox ends with the first n bytes of what was to be
// appended, which is made again of the message.
func (b *bringing) holdsPart(n int64) (bool, error) {
	sub, name, err := b.find()
	if err != nil || sub == "" || sub == "tmp" {
		return false, err
	}
	var busy *Busy
	if err := b.open(sub, name); errors.As(err, &busy) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	same := &comparing{with: io.NewSectionReader(b.box(), b.record.From, n)}
	written, err := b.writeTo(same)
	if errors.Is(err, errOtherBytes) {
		return false, nil
	}
	return written == b.record.Bytes && same.left() == 0, err
}

// comparing is a Writer of what has to be what a Reader gives, up to its end.
type comparing struct {
	with *io.SectionReader
	at   int64
}

func (c *comparing) left() int64 { return c.with.Size() - c.at }

func (c *comparing) Write(p []byte) (int, error) {
	n := min(int64(len(p)), c.left())
	was := make([]byte, n)
	if _, err := c.with.ReadAt(was, c.at); err != nil && err != io.EOF {
		return 0, err
	}
	if string(was) != string(p[:n]) {
		return 0, errOtherBytes
	}
	c.at += n
	return len(p), nil
}

// cutOff cuts off what the mbox holds of the message.
func (b *bringing) cutOff() error {
	info, err := b.box().Stat()
	if err != nil {
		return err
	}
	b.record.Phase = journal.BackCutting
	if err := journal.WriteSweepBack(b.State, b.record); err != nil {
		return err
	}
	if err := b.c.asUser(func() error { return b.cut(info.Size() - b.record.From) }); err != nil {
		return err
	}
	return b.abandon()
}

// dropTemps removes what a dead sweep has left of locks that had not got their names.
func (b *bringing) dropTemps() error {
	if !b.opts.Alone {
		return nil
	}
	return b.c.asUser(func() error {
		dir, err := safefs.OpenFor(filepath.Dir(b.record.Live), b.account.UID)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer dir.Close()
		return dropDotlocks(source{root: dir, file: filepath.Base(b.record.Live)})
	})
}
