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

	"mailferry/internal/account"
	"mailferry/internal/journal"
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
	fresh   bool     // as of stray
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
		BootID: w.boot, Dev: st.src.id.dev, Ino: st.src.id.ino, Born: st.born, Mode: st.mode, From: st.from, To: st.src.size,
	})
	t.taken.Agent, t.fresh = st.agent, st.fresh
	if st.fresh && st.folder == "." {
		t.toInbox()
	}
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

// prepare locks the source and writes its messages to staging. That nobody has it
// open is asked as root, who sees all processes.
func (t *taking) prepare(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, t.opts.Wait)
	defer cancel()
	if err := t.lockQuiet(limited); err != nil {
		return err
	}
	if err := t.c.asUser(func() error { return t.stage(ctx) }); err != nil {
		return err
	}
	if err := notOpen(t.record.Path, t.source); err != nil { // who has come and gone made it longer
		return err
	}
	return t.c.asUser(t.check)
}

// lockQuiet locks the source while nobody writes to it, with a lock or without:
// half a message must not become one. Who has it open may wait for the lock, and
// gets it between two looks.
func (t *taking) lockQuiet(ctx context.Context) error {
	for {
		err := t.c.asUser(func() error { return t.lock(ctx) })
		if err != nil {
			return err
		}
		var used *InUse
		var busy *Busy
		if err = t.quiet(); !errors.As(err, &used) && !errors.As(err, &busy) {
			return err
		}
		if err := t.letGo(); err != nil {
			return err
		}
		if pause(ctx, lockPause) != nil {
			return err
		}
	}
}

// letGo gives up what is held, to be taken again.
func (t *taking) letGo() error {
	err := t.c.asUser(t.unlock)
	if t.c.gateDir != nil {
		err = errors.Join(err, t.c.gateDir.Close())
		t.c.gateDir = nil
	}
	return err
}

// lineTime is the time that the rest of a line gets to come.
const lineTime = 4 * time.Second

// quiet demands that nobody has the source open, or has just left a line unended.
func (t *taking) quiet() error {
	if err := notOpen(t.record.Path, t.source); err != nil {
		return err
	}
	info, err := t.source.Stat()
	if err != nil || info.Size() == 0 || time.Since(info.ModTime()) > lineTime {
		return err
	}
	last := make([]byte, 1)
	if _, err := t.source.ReadAt(last, info.Size()-1); err != nil && err != io.EOF {
		return err
	}
	if last[0] != '\n' {
		return &Busy{t.record.Path}
	}
	return nil
}

// stage writes the messages of the locked source to staging.
func (t *taking) stage(ctx context.Context) error {
	info, err := t.source.Stat()
	if err != nil {
		return err
	}
	if t.record.To = info.Size(); t.record.To <= t.record.From || idOf(info) != (fileID{t.record.Dev, t.record.Ino}) || bornOf(t.source) != t.record.Born {
		return &Busy{t.record.Path}
	}
	if err := t.makeStaging(); err != nil {
		return err
	}
	if err := t.write(ctx); err != nil {
		return err
	}
	if t.fresh {
		if err := t.makeFolder(); err != nil {
			return err
		}
	}
	return t.syncStaging()
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
	if err == nil && info.Size() != t.record.To {
		err = &Busy{t.record.Path}
	}
	return err
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
	if err := parent.RemoveAll(t.record.Name); err != nil {
		return err
	}
	return parent.Sync() // before nothing tells any more whose it was
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
		if p.Path == r.Park && p.Ino == r.Ino && (p.Born == r.Born || p.Born == 0) {
			s.Parked[i].Taken = max(p.Taken, r.To)
			return s
		}
	}
	s.Parked = append(s.Parked, journal.Parked{
		Mailbox: r.Mailbox, Live: r.Live, Path: r.Park, Dev: r.Dev, Ino: r.Ino, Born: r.Born, Mode: r.Mode, Taken: r.To,
	})
	return s
}
