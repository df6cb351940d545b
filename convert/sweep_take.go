package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// taking is the work at one stray.
type taking struct {
	*sweep
	c       *cutover // for its gate and its locks
	dot     *semaphore.Gate
	record  journal.Sweep
	taken   Taken
	source  *os.File // locked
	parent  *safefs.Dir
	staging *safefs.Dir
	sync    *safefs.Dir // the same, older than the first write
	names   []string
}

func (w *sweep) taking(record journal.Sweep) *taking {
	c := &cutover{stage: &stage{Site: w.Site, account: w.account}, spoolGroup: w.group}
	return &taking{sweep: w, c: c, record: record, taken: Taken{Mailbox: record.Mailbox, Path: record.Path, From: record.From}}
}

// takingOf is what is going to be done with a stray.
func (w *sweep) takingOf(st stray) *taking {
	t := w.taking(journal.Sweep{
		User: w.account.Name, Run: w.opts.Run, Time: time.Now().UTC(),
		Parent: filepath.Dir(w.account.Maildir), Name: maildir.StagingName(filepath.Base(w.account.Maildir)), Folder: st.folder,
		Mailbox: st.mailbox, Live: st.live, Path: st.src.path, Park: st.park,
		BootID: w.boot, Dev: st.src.id.dev, Ino: st.src.id.ino, Mode: st.mode, From: st.from, To: st.src.size,
	})
	t.taken.Agent = st.agent
	return t
}

// take delivers what is new in a stray.
func (w *sweep) take(ctx context.Context, st stray) (err error) {
	t := w.takingOf(st)
	if err := journal.WriteSweep(w.State, t.record); err != nil {
		return errors.Join(err, journal.RemoveSweep(w.State, w.account.Name))
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if err := t.prepare(ctx); err != nil {
		return errors.Join(w.unlessNoMail(st, err), t.abandon())
	}
	if err := t.promise(); err != nil {
		return err
	}
	err = t.c.asUser(t.deliver)
	if err == nil {
		err = t.finish()
	}
	if err == nil {
		err = t.end()
	}
	if err != nil {
		return fmt.Errorf("%q: its mail is being delivered, and the next sweep goes on: %w", st.src.path, err)
	}
	return nil
}

// unlessNoMail makes a difference of what is no mail, or not any more.
func (w *sweep) unlessNoMail(st stray, err error) error {
	var format *mbox.FormatError
	var unfit *Unfit
	switch {
	case errors.As(err, &unfit):
		w.differ(st.src.path, unfit.Code, "%s", unfit.Text)
	case errors.As(err, &format) && st.from > 0:
		w.differ(st.src.path, "stray-format", "what came to it at offset %d begins no message: %v", st.from, err)
	case errors.As(err, &format):
		w.differ(st.src.path, "stray-format", "%v", err)
	default:
		return err
	}
	return nil
}

// prepare locks the source and writes its messages to staging.
func (t *taking) prepare(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, t.opts.Wait)
	defer cancel()
	return t.c.asUser(func() error {
		if err := t.lock(limited); err != nil {
			return err
		}
		info, err := t.source.Stat()
		if err != nil {
			return err
		}
		if t.record.To = info.Size(); t.record.To <= t.record.From || idOf(info) != (fileID{t.record.Dev, t.record.Ino}) {
			return &Busy{t.record.Path}
		}
		if err := t.makeStaging(); err != nil {
			return err
		}
		if err := t.write(ctx); err != nil {
			return err
		}
		return errors.Join(t.syncStaging(), t.check())
	})
}

// lock takes the gate and the locks of the source, in the order in which a
// cutover does.
func (t *taking) lock(ctx context.Context) error {
	if err := t.c.takeGate(ctx); err != nil {
		return err
	}
	dir, err := safefs.OpenFor(filepath.Dir(t.record.Path), t.account.UID)
	if err != nil {
		return err
	}
	defer dir.Close()
	src := source{path: t.record.Path, root: dir, file: filepath.Base(t.record.Path), owner: t.account.UID}
	var l locked
	if t.record.Path == t.record.Live {
		l, err = t.c.lock(ctx, src)
	} else {
		l, err = t.lockParked(ctx, src)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &Busy{t.record.Path} // it has another name by now
	}
	if err != nil {
		return err
	}
	t.c.locks = append(t.c.locks, l)
	t.source = l.File
	return nil
}

// lockParked locks a parked mbox against those who had opened it before it was
// parked, and so lock its inode, or the old path by a dotlock. Nobody waits for
// one of the two while he holds the other: see package mbox.
func (t *taking) lockParked(ctx context.Context, src source) (locked, error) {
	dir, err := src.dir()
	if err != nil {
		return locked{}, err
	}
	o := t.Locks
	o.Path, o.Owner, o.Dotlock, o.Fcntl = src.path, t.account.UID, false, true
	for {
		held, err := mbox.Lock(ctx, dir.Fd(), src.file, o)
		if err == nil && t.Locks.Dotlock {
			if err = t.takeDotlock(ctx, dir); err != nil {
				err = errors.Join(err, held.Release())
			}
		}
		if err == nil {
			return locked{held, dir, src}, nil
		}
		var fault *mbox.LockError
		busy := errors.Is(err, semaphore.ErrGateBusy) || errors.As(err, &fault) && fault.Busy()
		if !busy || pause(ctx, lockPause) != nil {
			return locked{}, errors.Join(err, dir.Close())
		}
	}
}

// lockPause is the time between two attempts at locks.
const lockPause = 50 * time.Millisecond

// takeDotlock makes the dotlock of an mbox that is not there any more.
func (t *taking) takeDotlock(ctx context.Context, dir *safefs.Dir) error {
	return inGroup(dir, func() (err error) {
		t.dot, err = semaphore.TakeGate(ctx, dir.Fd(), filepath.Base(t.record.Live)+".lock", semaphore.GateOptions{Hostname: t.Locks.Hostname})
		return err
	})
}

// alive shows that gate and locks are held, and by whom.
func (t *taking) alive() error {
	err := t.c.refresh()
	if err == nil && t.dot != nil {
		err = t.dot.Refresh()
	}
	return err
}

// check is the last look before it is settled that the messages are delivered.
func (t *taking) check() error {
	for _, l := range t.c.locks {
		if err := l.Check(); err != nil {
			return err
		}
	}
	for _, g := range []*semaphore.Gate{t.c.gate, t.dot} {
		if g == nil {
			continue
		}
		if err := g.Check(); err != nil {
			return err
		}
	}
	info, err := t.source.Stat()
	if err == nil && info.Size() < t.record.To {
		err = &Busy{t.record.Path}
	}
	return err
}

func (t *taking) makeStaging() (err error) {
	if t.parent, err = safefs.OpenFor(t.record.Parent, t.account.UID); err != nil {
		return err
	}
	if t.staging, err = t.parent.Mkdir(t.record.Name, 0o700); err != nil {
		return err
	}
	t.sync, err = t.staging.Again()
	return err
}

// write writes the messages to staging, each under the name that it will have.
// Its memory is bounded by the names.
func (t *taking) write(ctx context.Context) error {
	scan := t.Scan
	scan.Digest = true
	size := t.record.To - t.record.From
	in, err := mbox.NewScanner(io.NewSectionReader(t.source, t.record.From, size), size, scan)
	if err != nil {
		if t.record.From == 0 && begins(t.source) {
			return &Busy{t.record.Path}
		}
		return err
	}
	defer in.Close()
	namer := maildir.NewNamer(time.Now(), os.Getpid(), hostname())
	shown := time.Now()
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, mbox.ErrShrunk) {
			return &Busy{t.record.Path}
		}
		if err != nil {
			return err
		}
		name := string(namer.Append(nil, e.Size, e.VSize))
		if err := t.message(name, e, in.WriteContent); err != nil {
			return fmt.Errorf("%q: message at offset %d: %w", t.record.Path, t.record.From+e.Offset, err)
		}
		t.names = append(t.names, name)
		t.taken.Bytes += e.Size
		if time.Since(shown) > refreshEvery {
			shown = time.Now()
			err = t.alive()
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// message writes a file. What is read again, since it is long, must be what was
// measured.
func (t *taking) message(name string, e *mbox.Entry, content func(io.Writer) error) error {
	f, err := t.staging.Create(name, 0o600)
	if err != nil {
		return err
	}
	written := message.NewMeasure()
	err = content(io.MultiWriter(written, f))
	if err == nil && written.Digest() != e.Digest || errors.Is(err, mbox.ErrShrunk) {
		err = &Busy{t.record.Path}
	}
	if err = errors.Join(err, f.Close()); err != nil || e.Date.IsZero() {
		return err
	}
	ts := []unix.Timespec{{Sec: e.Date.Unix()}, {Sec: e.Date.Unix()}}
	return unix.UtimesNanoAt(t.staging.Fd(), name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// syncStaging makes durable what was written, and that it is there.
func (t *taking) syncStaging() error {
	if len(t.names) > manyFiles {
		if err := t.sync.SyncFS(); err != nil {
			return err
		}
		return t.parent.Sync()
	}
	for _, name := range t.names {
		f, err := t.staging.OpenRegular(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return errors.Join(t.staging.Sync(), t.parent.Sync())
}

// promise makes it durable that all of staging is to be delivered. If it can't be
// told whether it is, staging stays, and is whole whichever it is.
func (t *taking) promise() error {
	t.record.Ready, t.record.Messages = true, len(t.names)
	err := journal.WriteSweep(t.State, t.record)
	if err == nil {
		return nil
	}
	t.record.Ready = false
	if again := journal.WriteSweep(t.State, t.record); again != nil {
		return errors.Join(err, again)
	}
	return errors.Join(err, t.abandon())
}

// abandon throws staging away of which nothing was delivered, and the record.
func (t *taking) abandon() error {
	err := t.c.asUser(func() error { return errors.Join(t.unlock(), t.removeStaging()) })
	if err == nil {
		err = journal.RemoveSweep(t.State, t.account.Name)
	}
	return err
}

// end is the same when all has been delivered.
func (t *taking) end() error {
	err := t.abandon()
	if err == nil {
		t.taken.To, t.taken.Messages = t.record.To, t.record.Messages
		t.report.Taken = append(t.report.Taken, t.taken)
	}
	return err
}

func (t *taking) removeStaging() error {
	parent, err := safefs.OpenFor(t.record.Parent, t.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.RemoveAll(t.record.Name)
}

// unlock gives up what is held.
func (t *taking) unlock() (err error) {
	if t.dot != nil {
		err = inGroup(t.c.locks[0].dir, t.dot.Release)
		t.dot = nil
	}
	return errors.Join(err, t.c.release())
}

// close releases what an error left open.
func (t *taking) close() error {
	err := t.c.asUser(t.unlock)
	for _, d := range []*safefs.Dir{t.parent, t.staging, t.sync} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	return errors.Join(err, t.c.tidy())
}

// sweepSoak is the soak record with what a sweep took.
func sweepSoak(s journal.Soak, r journal.Sweep, a account.Account) journal.Soak {
	for i, p := range s.Parked {
		if p.Path == r.Park && p.Ino == r.Ino {
			s.Parked[i].Taken = max(p.Taken, r.To)
			return s
		}
	}
	s.Parked = append(s.Parked, journal.Parked{
		Mailbox: r.Mailbox, Live: r.Live, Path: r.Park, Dev: r.Dev, Ino: r.Ino, Mode: r.Mode, Taken: r.To,
	})
	return s
}
