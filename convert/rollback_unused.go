package convert

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"mailferry/internal/openfiles"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// lockUnusedBack locks the parked mboxes, at a moment at which no program has one
// of them or the Maildir open: a session goes on writing to the one that it knows.
// Programs get until the drain limit to let go.
func (w *wayBack) lockUnusedBack(ctx context.Context) error {
	for {
		err := w.asUser(func() error { return w.lockParked(ctx) })
		if err == nil {
			err = cmp.Or(w.unused(), w.maildirUnused())
		}
		var used *InUse
		if !errors.As(err, &used) || !time.Now().Before(w.drained) {
			return err
		}
		if err := w.asUser(w.unlockParked); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(usedAgain):
		}
	}
}

func (w *wayBack) unlockParked() (err error) {
	for _, l := range w.locks {
		err = errors.Join(err, l.Release(), l.dir.Close())
	}
	w.locks = nil
	return err
}

// maildirUnused demands that nobody else uses the Maildir, as far as open files
// tell: a session keeps indexes or the list of UIDs open, an agent at work a
// directory. Root asks, to see processes of others.
func (w *wayBack) maildirUnused() error {
	var ids []openfiles.ID
	err := w.asUser(func() (err error) {
		ids, err = w.openable()
		return err
	})
	if err != nil {
		return err
	}
	found, err := openfiles.Holders(ids...)
	if err != nil && !errors.Is(err, openfiles.ErrPartial) { // of a process that not even root may look at
		return err
	}
	var who []openfiles.Holder
	for _, list := range found {
		for _, h := range list {
			if !slices.ContainsFunc(who, func(o openfiles.Holder) bool { return o.PID == h.PID }) {
				who = append(who, h)
			}
		}
	}
	if len(who) == 0 {
		return nil
	}
	slices.SortFunc(who, func(a, b openfiles.Holder) int { return a.PID - b.PID })
	return &InUse{w.account.Maildir, who}
}

// maxOpenable is of how many files it is asked who has them open: each descriptor
// of the host is held against all of them. INBOX comes first.
const maxOpenable = 4096

// openable lists what programs keep open of the folders.
func (w *wayBack) openable() (ids []openfiles.ID, err error) {
	for _, b := range w.boxes {
		d, err := openLive(w.root, b.rel)
		if err != nil {
			return nil, err
		}
		ids, err = d.openable(ids)
		if err = errors.Join(err, d.close()); err != nil {
			return nil, err
		}
	}
	return ids[:min(len(ids), maxOpenable)], nil
}

func (d *liveDir) openable(ids []openfiles.ID) ([]openfiles.ID, error) {
	add := func(info fs.FileInfo) {
		id := idOf(info)
		ids = append(ids, openfiles.ID{Dev: id.dev, Ino: id.ino})
	}
	for _, dir := range []*safefs.Dir{d.dir, d.cur, d.new} {
		if dir == nil {
			continue
		}
		info, err := dir.Stat()
		if err != nil {
			return nil, err
		}
		add(info)
	}
	err := d.dir.Names(func(name string) error {
		if !strings.HasPrefix(name, indexPrefix) && name != maildir.UIDListName && name != keywordsName {
			return nil
		}
		info, err := d.dir.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server replaces it
		}
		if err == nil {
			add(info)
		}
		return err
	})
	return ids, err
}
