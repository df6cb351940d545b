package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// wayBack takes one account from its Maildir back to mbox:
//
//	find → build (live, repeated) → prepare → hold → gate → drain → lock → build what was changed
//	→ sync → verify → publish → flip → set the Maildir aside → release
//
// It uses what a cutover has for gate, drain, locks and mirrors. Whatever goes
// wrong before the flip, the semaphore goes back to maildir, and the mboxes that
// were made are removed. The parked mboxes are only read: they stay for another
// way back.
type wayBack struct {
	*cutover
	soak  journal.Soak // zero if there is none
	way   journal.Rollback
	root  *safefs.Dir // the Maildir
	boxes []*backBox
	rels  []string // places of its folders
	gone  []source // parked mboxes whose folder was deleted
	// noInbox says that there was no spool, and INBOX is empty: no mbox is made.
	noInbox bool
	reader  *reader
	list    *backList // of subscriptions; nil: stays as it is
	held    bool
	shown   time.Time
	doubts  []string
}

// backBox is one mailbox on the way back.
type backBox struct {
	*wayBack
	rel    string // its folder, below the Maildir
	parts  []string
	base   *source // the parked mbox; nil if there is none
	live   string  // path that the mbox gets
	mode   uint32  // permissions
	bytes  int64   // about
	lines  *journal.FromLines
	dir    *safefs.Dir // that it lies in
	roots  bool        // which is root's alone, so that root changes names there
	temp   string      // its name there, as long as it has not its own
	out    *os.File
	lock   *mbox.Held
	named  bool  // it may have its own name
	built  bool  // and, when it was:
	seen   sight // of the folder
	made   stat  // of the mbox
	end    *backEnd
	report MailboxRound

	verbatim        bool // it is the parked one, to the byte
	copied, altered int  // messages
}

func (b *backBox) file() string { return filepath.Base(b.live) }

// show keeps gate and locks alive.
func (w *wayBack) show() error {
	if !w.held || time.Since(w.shown) < refreshEvery {
		return nil
	}
	w.shown = time.Now()
	err := w.refresh()
	for _, b := range w.boxes {
		if b.lock != nil {
			err = errors.Join(err, b.lock.Refresh())
		}
	}
	return err
}

// promise records what is going to be made, before it is.
func (w *wayBack) promise() error {
	boot, err := journal.BootID()
	if err != nil {
		return err
	}
	w.way.User, w.way.Run, w.way.BootID, w.way.Time = w.account.Name, w.run, boot, time.Now().UTC()
	for _, b := range w.boxes {
		b.temp = tempName(b.file())
		w.way.Files = append(w.way.Files, journal.RollbackFile{Live: b.live, Temp: b.temp})
	}
	if w.list != nil {
		w.list.temp = tempName(filepath.Base(w.list.path))
		w.way.Files = append(w.way.Files, journal.RollbackFile{Live: w.list.path, Temp: w.list.temp, List: true})
	}
	if err := asUser(w.account, func() error { return errors.Join(w.nameAside(), w.missingDirs()) }); err != nil {
		return err
	}
	return journal.WriteRollback(w.State, w.way)
}

// nameAside finds a name for the Maildir that nothing has: of two rollbacks
// within a second, the other has taken the first.
func (w *wayBack) nameAside() error {
	for at := w.way.Time; ; at = at.Add(time.Second) {
		w.way.Aside = parkedName(w.account.Maildir, at)
		_, err := w.parent.Lstat(filepath.Base(w.way.Aside))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tempName is a new name for an mbox that is being built.
func tempName(file string) string {
	return maildir.StagingName(file[:min(len(file), 200)])
}

// missingDirs lists the directories that have to be made.
func (w *wayBack) missingDirs() error {
	for _, b := range w.boxes {
		dir, rest, err := w.nearest(b.live)
		if err != nil {
			return err
		}
		path := dir.Path()
		dir.Close()
		for _, name := range rest[:len(rest)-1] {
			if path = filepath.Join(path, name); !slices.Contains(w.way.Dirs, path) {
				w.way.Dirs = append(w.way.Dirs, path)
			}
		}
	}
	return nil
}

// makeFiles makes what was promised, empty.
func (w *wayBack) makeFiles() error {
	for _, path := range w.way.Dirs {
		if err := w.mkdir(path); err != nil {
			return err
		}
	}
	for _, b := range w.boxes {
		if err := b.create(); err != nil {
			return err
		}
	}
	if w.list != nil {
		return w.list.create(w.account.UID)
	}
	return nil
}

func (w *wayBack) mkdir(path string) error {
	above, err := safefs.OpenFor(filepath.Dir(path), w.account.UID)
	if err != nil {
		return err
	}
	defer above.Close()
	dir, err := above.Mkdir(filepath.Base(path), 0o700)
	if err != nil {
		return err
	}
	return errors.Join(dir.Close(), above.Sync())
}

// create makes the file that the mbox is built in, with the permissions and the
// group that the parked one had.
func (b *backBox) create() (err error) {
	if b.dir, err = safefs.OpenFor(filepath.Dir(b.live), b.account.UID); err != nil {
		return err
	}
	if rootsOwn(b.dir) == nil {
		b.roots = true
		return nil
	}
	err = inGroup(b.dir, func() error {
		f, err := b.dir.Create(b.temp, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if errors.Is(err, fs.ErrPermission) {
		return &Unfit{b.dir.Path(), "mbox-unreadable", "does not let the user make his mailbox in it, and is not root's alone, which would make it for him there"}
	}
	if err != nil {
		return err
	}
	return b.open()
}

// open opens the file that the mbox is built in, which is the user's.
func (b *backBox) open() (err error) {
	if b.out, err = b.dir.OpenUpdate(b.temp); err != nil {
		return err
	}
	return b.permit()
}

func (b *backBox) permit() error {
	info, err := b.out.Stat()
	if err != nil {
		return err
	}
	mode := fs.FileMode(b.mode)
	if b.base != nil {
		if group, err := b.groupOfBase(); err != nil {
			return err
		} else if have := groupOfFile(info); group != have {
			err := inGroup(b.dir, func() error { return b.out.Chown(-1, group) })
			if errors.Is(err, fs.ErrPermission) && mode&0o070 != 0 {
				mode &^= 0o070
				b.doubt("%q had group %d, which its user is not in; it has group %d now, which may not read it", b.live, group, have)
			} else if err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
	}
	return b.out.Chmod(mode)
}

func groupOfFile(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

func (b *backBox) groupOfBase() (int, error) {
	f, err := b.base.open()
	if err != nil {
		return 0, failed(*b.base, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return groupOfFile(info), nil
}

func (w *wayBack) doubt(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.doubts, text) {
		w.doubts = append(w.doubts, text)
	}
}

// identify records the inodes of what was made, durably: from then on it can be
// told from whatever else gets its name.
func (w *wayBack) identify() error {
	err := asUser(w.account, func() error {
		for i := range w.way.Files {
			f := &w.way.Files[i]
			if f.List {
				f.Dev, f.Ino, f.Size = w.list.stat.Dev, w.list.stat.Ino, w.list.stat.Size
				continue
			}
			info, err := w.boxes[i].out.Stat()
			if err != nil {
				return err
			}
			now := statOf(info)
			f.Dev, f.Ino, f.Size, f.Born = now.Dev, now.Ino, now.Size, bornOf(w.boxes[i].out)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return journal.WriteRollback(w.State, w.way)
}

// liveRounds is how often a mailbox is built that changes meanwhile. What is not
// done then is done in the hold.
const liveRounds = 3

// buildLive builds the mboxes while the Maildir is in use.
func (w *wayBack) buildLive(ctx context.Context) error {
	for range liveRounds {
		again := false
		for _, b := range w.boxes {
			current, err := b.current(ctx)
			if err == nil && !current {
				again = true
				err = b.renew(ctx)
			}
			var busy *Busy
			if err != nil && !errors.As(err, &busy) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if !again {
			return nil
		}
	}
	return nil
}

// prepareBack makes ready what ends the hold, either way.
func (w *wayBack) prepareBack() (err error) {
	if w.sem, err = semaphore.For(w.account.Semaphore); err != nil {
		return err
	}
	state, err := w.sem.Get()
	if err != nil {
		return err
	}
	if state != semaphore.Maildir {
		return fmt.Errorf("the semaphore of %s says %s, not maildir: left alone", w.account.Name, state)
	}
	last, err := w.sem.Meta()
	if err != nil {
		return err
	}
	w.epoch = last.Epoch
	deadline := time.Now().Add(w.limit)
	if w.toMbox, err = w.sem.Prepare(semaphore.Mbox, w.metaBack(2, deadline)); err != nil {
		return err
	}
	if w.toMaildir, err = w.sem.Prepare(semaphore.Maildir, w.metaBack(3, deadline)); err != nil {
		return err
	}
	return w.asUser(w.prepareMirrors)
}

func (w *wayBack) metaBack(ahead uint64, deadline time.Time) semaphore.Meta {
	m := w.meta(ahead, deadline)
	m.From = semaphore.Maildir
	return m
}

// discardBack throws away what was made, and the record of it. It is not called
// behind the flip, or for who is stuck.
func (w *wayBack) discardBack() error {
	err := w.discardFiles(w.way)
	if err != nil || w.way.User == "" {
		return err
	}
	return journal.RemoveRollback(w.State, w.account.Name)
}

// closeBack closes what is open.
func (w *wayBack) closeBack() (err error) {
	for _, b := range w.boxes {
		if b.out != nil {
			err = errors.Join(err, b.out.Close())
		}
		if b.dir != nil {
			err = errors.Join(err, b.dir.Close())
		}
		if b.lines != nil {
			err = errors.Join(err, b.lines.Close())
		}
	}
	for _, d := range []*safefs.Dir{w.root, w.parent} {
		if d != nil {
			err = errors.Join(err, d.Close())
		}
	}
	w.root, w.parent = nil, nil
	return errors.Join(err, w.tidy())
}
