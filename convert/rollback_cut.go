package convert

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// Returned tells of a way back that reached the flip.
type Returned struct {
	Hold     time.Duration
	Aside    string  // path of the Maildir now; "" if it could not be set aside
	Warnings []error // what was left undone behind the flip, for the next run
	Told     error   // by who was told of the flip; the user is back all the same
}

// cut carries the hold out. An error means that the user is on his Maildir, as
// he was, unless it is or wraps a *Stuck.
func (w *wayBack) cut(ctx context.Context) (*Returned, error) {
	if err := w.beforeHold(ctx); err != nil {
		return nil, err
	}
	if err := w.prepareBack(); err != nil {
		return nil, w.aborted(ctx, err)
	}
	start := time.Now()
	if w.drainLimit > 0 {
		w.drained = start.Add(w.drainLimit)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, w.limit, errHoldLimit)
	defer cancel()
	if err := w.sem.Hold(w.metaBack(1, start.Add(w.limit))); err != nil {
		if errors.Is(err, semaphore.ErrNotDurable) {
			err = w.undoBack(err) // it says hold
		}
		return nil, w.aborted(ctx, err)
	}
	w.held, w.shown = true, time.Now()
	steps := []func() error{
		func() error { return w.mirror(semaphore.Hold) }, // behind the authority, both before anything else
		func() error { return w.asUser(func() error { return w.takeGate(ctx) }) },
		func() error { return w.drain(ctx) },
		func() error { return w.lockUnusedBack(ctx) },
		func() error { return w.clearRoots(ctx) },
		func() error { return w.asUser(func() error { return w.rebuild(ctx) }) },
		w.identify,
		func() error { return w.publish(ctx) },
		func() error { return context.Cause(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, w.aborted(ctx, w.undoBack(err))
		}
	}
	flip := w.toMbox.Flip()
	if flip != nil && !errors.Is(flip, semaphore.ErrNotDurable) {
		return nil, w.aborted(ctx, w.undoBack(flip))
	}
	w.flipped = time.Now()
	back := &Returned{Hold: w.flipped.Sub(start)}
	back.Warnings = w.afterBack(back)
	if flip != nil {
		back.Warnings = append(back.Warnings, flip)
	}
	if w.around != nil {
		back.Told = w.around.AfterFlip(context.WithoutCancel(ctx), w.account, semaphore.Mbox)
	}
	return back, nil
}

func (w *wayBack) aborted(ctx context.Context, why error) error {
	return errors.Join(why, w.afterAbort(ctx, semaphore.Maildir, why))
}

// identifyAgain records the sizes, if something was built anew.
func (w *wayBack) identifyAgain() error {
	for i, b := range w.boxes {
		if w.way.Files[i].Size != b.made.Size {
			return w.identify()
		}
	}
	return nil
}

// rebuild is what happens while nobody else may touch the mail: the mboxes are
// made what the Maildir is.
func (w *wayBack) rebuild(ctx context.Context) error {
	if err := w.sameFolders(); err != nil {
		return err
	}
	for _, b := range w.boxes {
		if err := b.lockNew(ctx); err != nil {
			return err
		}
		current, err := b.current(ctx)
		if err == nil && !current {
			err = b.renew(ctx)
		}
		if err != nil {
			return err
		}
	}
	var err error
	seen := time.Now().Add(-clockTick) // all that it holds has an older ctime, for a sight waits for that
	if err := w.stillFolders(ctx); err != nil {
		return err
	}
	w.way.Seen = seen.UTC()
	if w.way.Begun, err = w.begun(seen); err != nil {
		return err
	}
	w.way.Held, err = countMessages(w.root, w.rels)
	return err
}

// begunSince is longer than an agent takes to write a message.
const begunSince = 24 * time.Hour

// begun lists what lies in tmp: if it comes to new, it came behind the last look, for
// another one is taken before the flip. What has a second name may be in new already.
func (w *wayBack) begun(seen time.Time) (list []journal.Undelivered, err error) {
	for _, rel := range w.rels {
		dir, err := subDir(w.root, path.Join(rel, "tmp"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = dir.Names(func(name string) error {
			info, err := dir.Lstat(name)
			if err != nil || !info.Mode().IsRegular() || fit(info, name, w.account.UID) != nil {
				return nil
			}
			if born := bornAt(dir.Fd(), name); born > seen.Add(-begunSince).UnixNano() {
				list = append(list, journal.Undelivered{Ino: idOf(info).ino, Born: born})
			}
			return nil
		})
		if err = errors.Join(err, dir.Close()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// lockParked locks the parked mboxes, and looks whether anything was written to
// them.
func (w *wayBack) lockParked(ctx context.Context) error {
	for _, src := range w.found.sources {
		dir, err := src.dir()
		if err != nil {
			return err
		}
		o := w.Locks
		o.Path, o.Owner, o.Timeout, o.Dotlock, o.Fcntl = src.path, w.account.UID, w.patience(ctx), false, true
		held, err := mbox.Lock(ctx, dir.Fd(), src.file, o)
		if err != nil {
			return errors.Join(err, dir.Close())
		}
		w.locks = append(w.locks, locked{held, dir, src})
		info, err := held.File.Stat()
		if err != nil {
			return err
		}
		if err := w.allTaken(src, info.Size()); err != nil {
			return err
		}
	}
	return nil
}

// sameFolders demands the folders that were found before the hold.
func (w *wayBack) sameFolders() error {
	rels, err := w.folders()
	if err != nil {
		return err
	}
	if !slices.Equal(rels, w.rels) {
		return &Busy{w.account.Maildir}
	}
	return nil
}

// lockNew locks the path that the mbox goes to, and the mbox itself.
func (b *backBox) lockNew(ctx context.Context) error {
	if err := b.clear(ctx); err != nil {
		return err
	}
	o := b.lockOptions(ctx)
	var err error
	b.lock, err = mbox.LockNew(ctx, b.dir.Fd(), b.temp, b.file(), o)
	return err
}

func (b *backBox) lockOptions(ctx context.Context) mbox.LockOptions {
	o := b.Locks
	o.Path, o.Owner, o.Timeout = b.live, b.account.UID, remaining(ctx)
	o.WithGroup = func(calls func() error) error { return inGroup(b.dir, calls) }
	return o
}

// clear removes an empty file that an agent has made at the path.
func (b *backBox) clear(ctx context.Context) error {
	info, err := b.dir.Lstat(b.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > 0 {
		return b.checkPlace(b)
	}
	held, err := mbox.Lock(ctx, b.dir.Fd(), b.file(), b.lockOptions(ctx))
	if err != nil {
		return err
	}
	if info, err = held.File.Stat(); err == nil && info.Size() == 0 {
		err = inGroup(b.dir, func() error { return b.dir.Unlink(b.file()) })
	}
	return errors.Join(err, held.Release())
}

// publish gives the mboxes their names, if all is still as it was read.
func (w *wayBack) publish(ctx context.Context) error {
	err := w.asUser(func() error {
		err := w.stillSame(ctx)
		if err == nil {
			w.dropIndexes() // as late as can be: an agent may make them anew
		}
		return err
	})
	if err != nil {
		return err
	}
	err = w.eachBox(func(b *backBox) error {
		b.named = true // from here on it may be
		return inGroup(b.dir, func() error { return b.dir.Rename(b.temp, b.file(), false) })
	})
	if err != nil {
		return err
	}
	return w.asUser(func() error {
		for _, b := range w.boxes {
			if err := b.dir.Sync(); err != nil {
				return err
			}
		}
		return w.stillFolders(ctx)
	})
}

// stillSame is the last look before the mboxes get their names.
func (w *wayBack) stillSame(ctx context.Context) error {
	for _, l := range w.locks {
		if err := l.Check(); err != nil {
			return err
		}
	}
	if w.gate != nil {
		if err := w.gate.Check(); err != nil {
			return err
		}
	}
	for _, b := range w.boxes {
		if err := b.lock.CheckNew(); err != nil {
			return err
		}
		info, err := b.dir.LstatRegular(b.temp)
		if err != nil {
			return err
		}
		if !statOf(info).same(b.made) {
			return &Busy{b.live}
		}
	}
	return errors.Join(w.stillFolders(ctx), w.sameFolders())
}

// stillFolders demands that the Maildir is what the mboxes were made of.
func (w *wayBack) stillFolders(ctx context.Context) error {
	for _, b := range w.boxes {
		if current, err := b.current(ctx); err != nil || !current {
			return errors.Join(err, &Busy{filepath.Join(w.account.Maildir, b.rel)})
		}
	}
	if !w.noInbox {
		return nil
	}
	if none, err := w.isEmpty("."); err != nil || !none {
		return errors.Join(err, &Busy{w.account.Maildir})
	}
	return nil
}

// undoBack brings the user back to his Maildir, for the given reason.
func (w *wayBack) undoBack(why error) error {
	back := w.unname()
	var left error
	if back == nil {
		left = w.asUser(w.releaseAll) // a lock that is lost already changes nothing
		back = w.toMaildir.Flip()
	}
	w.held = false
	if back != nil && !errors.Is(back, semaphore.ErrNotDurable) {
		return errors.Join(why, &Stuck{w.account.Name, semaphore.Maildir, back}, left)
	}
	return errors.Join(why, back, w.mirror(semaphore.Maildir), left)
}

func (w *wayBack) releaseAll() (err error) {
	for _, b := range w.boxes {
		if b.lock != nil {
			err = errors.Join(err, b.lock.Release())
			b.lock = nil
		}
	}
	return errors.Join(err, w.release())
}

// afterBack is what remains behind the flip.
func (w *wayBack) afterBack(back *Returned) (warnings []error) {
	var settled error
	for _, step := range []func() error{
		func() error { return w.mirror(semaphore.Mbox) },
		func() error { settled = w.settleBack(back); return settled },
		func() error { return w.asUser(w.releaseAll) },
		func() error { // he works meanwhile
			if settled == nil {
				settled = w.clear(back)
				return settled
			}
			return nil
		},
		func() error {
			if settled != nil {
				return nil // the next run needs the record
			}
			return journal.RemoveRollback(w.State, w.account.Name)
		},
	} {
		if err := step(); err != nil {
			warnings = append(warnings, err)
		}
	}
	return warnings
}

// settleBack sets the Maildir aside, and says so in the soak record.
func (w *wayBack) settleBack(back *Returned) error {
	err := w.asUser(func() error {
		err := finishLists(w.way, w.account.UID)
		w.lastLook()
		return errors.Join(err, setAside(w.parent, w.way))
	})
	if err == nil {
		back.Aside = w.way.Aside
		w.soak, err = recordBack(w.State, w.way, w.soak)
	}
	return err
}

// clear takes what is parked out of the user's folders.
func (w *wayBack) clear(back *Returned) error {
	c := clearing{Site: w.Site, account: w.account, way: w.way, soak: w.soak}
	err := c.do()
	for _, text := range c.stays {
		w.doubt("%s", text)
	}
	for _, a := range c.soak.Aside {
		if a.Ino == w.way.Maildir.Ino {
			back.Aside = a.Path
		}
	}
	return err
}

// lastLook tells of changes of the Maildir that came too late to be carried over:
// a session that outlived the drain can make them.
func (w *wayBack) lastLook() {
	for _, b := range w.boxes {
		d, err := openLive(w.root, b.rel)
		if err != nil {
			continue // it is set aside whatever it is
		}
		now, err := d.look(context.Background()) // an interrupt ends nothing behind the flip
		d.close()
		if err == nil && now != b.seen {
			w.doubt("the folder %s of the Maildir was changed while it was given up: look at %s", b.report.Name, filepath.Join(w.way.Aside, b.rel))
		}
	}
}
