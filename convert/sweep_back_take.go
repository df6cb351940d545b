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

	"mailferry/internal/journal"
	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// bringing is the work at one late message.
type bringing struct {
	*sweep
	c       *cutover // for its gate and its locks
	record  journal.SweepBack
	taken   Taken
	folder  *safefs.Dir // that new, cur and tmp lie in
	source  *os.File    // the message
	content *solid      // of it
	digest  message.Digest
	check   func() error // of whether to go on, before each piece that is read
	altered bool         // it can't be read back to the byte
}

func (w *sweep) bringing(record journal.SweepBack) *bringing {
	c := &cutover{stage: &stage{Site: w.Site, account: w.account}, spoolGroup: w.group}
	path := filepath.Join(record.Folder, record.Sub, record.Name)
	return &bringing{sweep: w, c: c, record: record, check: nowAndThen(c.refresh), taken: Taken{Mailbox: record.Mailbox, Path: path, Agent: "unknown", Messages: 1, Bytes: record.Size, To: record.Size}}
}

// bring takes a message into the mbox.
func (w *sweep) bring(ctx context.Context, m lateMail) (err error) {
	b, err := w.bringingOf(m)
	if err != nil {
		return err
	}
	b.check = within(ctx, b.check)
	if err := journal.WriteSweepBack(w.State, b.record); err != nil {
		return errors.Join(err, journal.RemoveSweepBack(w.State, w.account.Name))
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.prepare(ctx); err != nil {
		return errors.Join(b.unlessUnfit(err), b.abandon())
	}
	if err := journal.WriteSweepBack(w.State, b.record); err != nil {
		return errors.Join(err, b.abandon())
	}
	n := int64(0)
	err = b.c.asUser(func() (err error) {
		if n, err = b.append(); err == nil {
			err = b.holds()
		}
		return err
	})
	if err != nil {
		return errors.Join(b.unlessUnfit(err), b.undo(n))
	}
	if err := b.finish(); err != nil {
		return fmt.Errorf("%q is in %q, and the next sweep goes on: %w", b.taken.Path, b.record.Live, err)
	}
	return nil
}

// bringingOf is what is going to be done about a message.
func (w *sweep) bringingOf(m lateMail) (*bringing, error) {
	r := journal.SweepBack{
		User: w.account.Name, Run: w.opts.Run, Time: time.Now().UTC(), Phase: journal.BackBegun,
		Folder: m.folder, Sub: m.sub, Name: m.name, Ino: m.ino, Born: m.born, Size: m.size, Date: m.date, Mailbox: m.mailboxName(),
	}
	instead := ""
	err := asUser(w.account, func() error {
		r.Live, instead = w.boxOf(m)
		return nil
	})
	b := w.bringing(r)
	b.taken.Folder = instead
	return b, err
}

// unlessUnfit makes a difference of an mbox or a message that is none.
func (b *bringing) unlessUnfit(err error) error {
	var unfit *Unfit
	var irregular *safefs.Irregular
	switch {
	case errors.As(err, &unfit) && unfit.Path == b.record.Live:
		b.differ(unfit.Path, unfit.Code, "%s; %q is not in it", unfit.Text, b.taken.Path)
	case errors.As(err, &unfit):
		b.differ(unfit.Path, unfit.Code, "%s", unfit.Text)
	case errors.As(err, &irregular):
		b.differ(b.taken.Path, "aside-mail", "%v", irregular)
	default:
		return err
	}
	return nil
}

// prepare locks the mbox and finds out what is going to be appended. That nobody
// has the message open is asked as root, who sees all processes.
func (b *bringing) prepare(ctx context.Context) error {
	if err := b.c.asUser(func() error { return b.open(b.record.Sub, b.record.Name) }); err != nil {
		return err
	}
	if err := notOpen(b.taken.Path, b.source); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, b.opts.Wait)
	defer cancel()
	if err := b.lockOrMake(limited); err != nil {
		return err
	}
	if err := b.c.asUser(b.canPutAway); err != nil {
		return err
	}
	if err := b.c.asUser(b.measure); err != nil {
		return err
	}
	if err := b.c.asUser(b.isNew); err != nil {
		return err
	}
	if err := fits(b.c.locks[0].dir, b.taken.Path, b.record.Bytes); err != nil {
		return err
	}
	b.record.Phase = journal.BackAppending
	return notOpen(b.taken.Path, b.source)
}

// open opens the message, which has to be what was looked at.
func (b *bringing) open(sub, name string) (err error) {
	if err := b.openFolder(); err != nil {
		return err
	}
	dir, err := b.folder.Sub(sub)
	if err != nil {
		return err
	}
	defer dir.Close()
	if b.source, err = dir.OpenRegular(name); errors.Is(err, fs.ErrNotExist) {
		return &Busy{b.taken.Path} // a client renames
	} else if err != nil {
		return err
	}
	leaveAtime(b.source)
	b.content = &solid{watched: watched{b.source, b.check}, path: b.taken.Path}
	info, err := b.source.Stat()
	if err != nil {
		return err
	}
	if idOf(info).ino != b.record.Ino || bornOf(b.source) != b.record.Born || info.Size() != b.record.Size {
		return &Busy{b.taken.Path}
	}
	return fit(info, b.taken.Path, b.account.UID)
}

func (b *bringing) openFolder() (err error) {
	if b.folder == nil {
		b.folder, err = safefs.OpenFor(b.record.Folder, b.account.UID)
	}
	return err
}

// find finds the file of the message in its folder, where a client may have given it
// another name: sub is "new" or "cur", "tmp" if it was put away, or "" if it is gone.
func (b *bringing) find() (sub, name string, err error) {
	is := func(dir *safefs.Dir, name string) bool {
		info, err := dir.LstatRegular(name)
		return err == nil && idOf(info).ino == b.record.Ino && bornAt(dir.Fd(), name) == b.record.Born
	}
	for _, at := range []string{b.record.Sub, "new", "cur", "tmp"} {
		dir, err := b.folder.Sub(at)
		if errors.Is(err, fs.ErrNotExist) || isNoDir(err) {
			continue
		}
		if err != nil {
			return "", "", err
		}
		name = ""
		if is(dir, b.record.Name) {
			name = b.record.Name
		} else {
			err = dir.Names(func(other string) error {
				if is(dir, other) {
					name = other
				}
				return nil
			})
		}
		if err = errors.Join(err, dir.Close()); err != nil || name != "" {
			return at, name, err
		}
	}
	return "", "", nil
}

// finish puts the file of a message away that is in the mbox, and ends.
func (b *bringing) finish() error {
	if err := b.c.asUser(b.putAway); err != nil {
		return err
	}
	if err := b.abandon(); err != nil {
		return err
	}
	if b.altered {
		b.taken.Warning = "holds header fields or lines that an mbox can't give back as they are"
	}
	b.report.Taken = append(b.report.Taken, b.taken)
	return nil
}

// holding is what an mbox holds.
type holding struct {
	was     stat // when it was read
	digests map[message.Digest]bool
}

// isNew demands that the mbox, which is locked, does not hold the message: a user may
// have put one back out of a backup, and no name or time tells.
func (b *bringing) isNew() error {
	info, err := b.box().Stat()
	if err != nil {
		return err
	}
	h := b.held[b.record.Live]
	if h == nil || h.was != statOf(info) {
		if h, err = b.hold(info); err != nil {
			return err
		}
	}
	measure := message.NewMeasure()
	if _, err := io.Copy(measure, io.NewSectionReader(b.content, 0, b.record.Size)); err != nil {
		return err
	}
	if b.digest = measure.Digest(); h.digests[b.digest] {
		return &Unfit{b.taken.Path, "aside-mail", "is in the mbox already, as a message of the same bytes"}
	}
	return nil
}

// holds notes that the mbox, still locked, holds the message now, so that the next one
// need not read it all again.
func (b *bringing) holds() error {
	info, err := b.box().Stat()
	if err != nil {
		return err
	}
	h := b.held[b.record.Live]
	h.was = statOf(info)
	h.digests[b.digest] = true
	return nil
}

// hold reads the mbox.
func (b *bringing) hold(info fs.FileInfo) (*holding, error) {
	h := &holding{statOf(info), map[message.Digest]bool{}}
	o := b.Scan
	o.Digest = true
	s, err := mbox.NewScanner(&solid{watched: watched{b.box(), b.check}, path: b.record.Live}, info.Size(), o)
	if s != nil {
		defer s.Close()
	}
	for err == nil {
		var e *mbox.Entry
		if e, err = s.Next(); err == nil {
			h.digests[e.Digest] = true
		}
	}
	if err != io.EOF {
		return nil, failed(source{path: b.record.Live}, err)
	}
	if b.held == nil {
		b.held = map[string]*holding{}
	}
	b.held[b.record.Live] = h
	return h, nil
}

// canPutAway demands that the file can be put away, while nothing is in the mbox yet.
func (b *bringing) canPutAway() error {
	tmp, err := subOrMake(b.folder, "tmp")
	if err != nil {
		return &Unfit{b.taken.Path, "aside-mail", fmt.Sprintf("can't be put away when it is taken: %v", err)}
	}
	defer tmp.Close()
	for dir, name := range map[int]string{tmp.Fd(): "tmp", b.folder.Fd(): b.record.Sub} {
		at := name
		if dir == tmp.Fd() {
			at = "."
		}
		if err := unix.Faccessat(dir, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return &Unfit{b.taken.Path, "aside-mail", fmt.Sprintf("can't be put away when it is taken: %s: %v", name, err)}
		}
	}
	return nil
}

// putAway renames the file into tmp of its folder, where it is no message any more.
func (b *bringing) putAway() error {
	sub, name, err := b.find()
	if err != nil || sub == "" || sub == "tmp" {
		return err
	}
	from, err := b.folder.Sub(sub)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := subOrMake(b.folder, "tmp")
	if err != nil {
		return err
	}
	defer tmp.Close()
	to := name
	for n := 1; ; n++ {
		err = unix.Renameat2(from.Fd(), name, tmp.Fd(), to, unix.RENAME_NOREPLACE)
		if err == unix.EEXIST {
			to = fmt.Sprintf("%d.%d.%d", b.record.Date, b.record.Ino, n)
			continue
		}
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &fs.PathError{Op: "put away", Path: filepath.Join(from.Path(), name), Err: err}
	}
	b.taken.Parked = filepath.Join(tmp.Path(), to)
	return errors.Join(tmp.Sync(), from.Sync(), b.folder.Sync())
}

// abandon lets go, and removes the record.
func (b *bringing) abandon() error {
	if err := b.c.asUser(b.c.release); err != nil {
		return err
	}
	return journal.RemoveSweepBack(b.State, b.account.Name)
}

// close releases what an error left open.
func (b *bringing) close() error {
	err := b.c.asUser(b.c.release)
	if b.source != nil {
		err = errors.Join(err, b.source.Close())
	}
	if b.folder != nil {
		err = errors.Join(err, b.folder.Close())
	}
	return errors.Join(err, b.c.tidy())
}
