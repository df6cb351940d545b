package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// Retirement ends the soak of a user: what was parked or set aside is deleted,
// after a fresh audit, and with it the cheap way back. The way back that remains
// makes From_ lines of those that were written down before.
//
//	semaphore maildir, soak over → sweep left nothing → nobody has it open → audit → From_ lines kept → delete
type retirement struct {
	Site
	account account.Account
	before  time.Time // parked earlier than that is old enough
	dry     bool

	soak journal.Soak
	sem  *semaphore.Semaphore
	list []retired
}

// retired is a parked mbox, or a Maildir that was set aside, that is going to be
// deleted.
type retired struct {
	path  string
	bytes int64
	file  *os.File // of an mbox, until it is known that nobody else has it open
}

// Unready says why the soak of a user can't end yet. He is left as he was.
type Unready struct{ Why string }

func (e *Unready) Error() string { return e.Why }

// Retired tells what was deleted, or in a dry run would be.
type Retired struct {
	Paths []string
	Bytes int64 // that it frees
}

// Retire deletes what was parked before a moment, if the user's Maildir holds
// everything that is not explained by his use of it.
func (s Site) Retire(ctx context.Context, a account.Account, before time.Time, dry bool) (*Retired, error) {
	r := &retirement{Site: s, account: a, before: before, dry: dry}
	free, err := r.begin()
	if err != nil {
		return nil, err
	}
	done, err := r.do(ctx)
	return done, errors.Join(err, free())
}

// begin keeps everybody else from changing the user's semaphore.
func (r *retirement) begin() (free func() error, err error) {
	if r.sem, err = semaphore.For(r.account.Semaphore); err != nil {
		return nil, err
	}
	return exclude(r.sem)
}

func (r *retirement) do(ctx context.Context) (*Retired, error) {
	if err := r.state(); err != nil {
		return nil, err
	}
	if err := r.old(); err != nil {
		return nil, err
	}
	err := asUser(r.account, r.look)
	if err = errors.Join(err, r.notOpen(err)); err != nil {
		return nil, err
	}
	if err := r.audit(ctx); err != nil {
		return nil, err
	}
	done := &Retired{}
	for _, t := range r.list {
		done.Paths = append(done.Paths, t.path)
		done.Bytes += t.bytes
	}
	if r.dry || len(r.list) == 0 {
		return done, nil
	}
	if err := r.keepFromLines(ctx); err != nil {
		return nil, fmt.Errorf("writing From_ lines down, before which nothing is deleted: %w", err)
	}
	for _, t := range r.list {
		if err := r.remove(t); err != nil {
			return nil, fmt.Errorf("%q could not be deleted; what is left of the soak stays until the next retire: %w", t.path, err)
		}
	}
	return done, journal.RemoveSoak(r.State, r.account.Name)
}

// state demands that the user is on his Maildir, and nothing half-done.
func (r *retirement) state() error {
	state, err := r.sem.Get()
	if err != nil {
		return err
	}
	if state != semaphore.Maildir {
		return &Unready{fmt.Sprintf("the semaphore says %s, not maildir", state)}
	}
	if _, err := journal.ReadStaging(r.State, r.account.Name); err == nil {
		return &Unready{"a cutover has not come to its end: run mailferry recover first"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r.soak, err = r.soakOf(r.account)
	return err
}

// soakOf is the record of a user's soak. If it is lost, it is made of the names
// of parked mboxes.
func (s Site) soakOf(a account.Account) (journal.Soak, error) {
	soak, err := journal.ReadSoak(s.State, a.Name)
	if !errors.Is(err, fs.ErrNotExist) {
		return soak, err
	}
	soak = journal.Soak{User: a.Name, Maildir: a.Maildir}
	if soak.BootID, err = journal.BootID(); err != nil {
		return soak, err
	}
	err = asUser(a, func() error {
		found, err := findParked(a)
		if err != nil {
			return err
		}
		defer found.close()
		for _, src := range found.sources {
			name, _ := parseParked(filepath.Base(src.path))
			soak.Flipped = name.flip
			soak.Parked = append(soak.Parked, journal.Parked{
				Mailbox: src.name(), Live: filepath.Join(filepath.Dir(src.path), name.live), Path: src.path,
				Dev: src.id.dev, Ino: src.id.ino, Mode: 0o600, Size: src.size, Taken: src.size,
			})
		}
		return nil
	})
	return soak, err
}

// old demands that all was parked before the moment: one soak ends at once, or
// not at all.
func (r *retirement) old() error {
	paths := []string{}
	for _, p := range r.soak.Parked {
		paths = append(paths, p.Path)
	}
	for _, p := range r.soak.Aside {
		paths = append(paths, p.Path)
	}
	for _, path := range paths {
		if name, ok := parseParked(filepath.Base(path)); !ok || name.flip.After(r.before) {
			return &Unready{fmt.Sprintf("%q is not old enough", path)}
		}
	}
	return nil
}

// look demands that what is going to be deleted is what was parked, and that
// nothing came to it or to its old path; it runs as the user. What is gone
// already is no fault: an earlier retirement was killed.
func (r *retirement) look() error {
	for _, p := range r.soak.Parked {
		if err := r.lookAt(p); err != nil {
			return err
		}
	}
	for _, p := range r.soak.Aside {
		if err := r.lookAside(p); err != nil {
			return err
		}
	}
	return nil
}

func (r *retirement) lookAt(p journal.Parked) error {
	dir, err := r.dirOf(p.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if info, err := dir.Lstat(filepath.Base(p.Live)); err == nil && info.Size() > 0 && !info.IsDir() {
		return &Unready{fmt.Sprintf("there is mail at the old path %q: run mailferry sweep", p.Live)}
	}
	file, err := dir.OpenRegular(filepath.Base(p.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.list = append(r.list, retired{p.Path, info.Size(), file})
	switch id := idOf(info); {
	case id.ino != p.Ino:
		return &Unready{fmt.Sprintf("%q is not the file that was parked", p.Path)}
	case info.Size() != p.Taken:
		return &Unready{fmt.Sprintf("%q has %d bytes, of which %d are in the Maildir: run mailferry sweep", p.Path, info.Size(), p.Taken)}
	}
	return nil
}

// notOpen demands that nobody has one of the files open, unless it is known
// already that they stay, and closes them.
func (r *retirement) notOpen(known error) (err error) {
	for i := range r.list {
		t := &r.list[i]
		if t.file == nil {
			continue
		}
		var used *InUse
		if known == nil && err == nil {
			if err = notOpen(t.path, t.file); errors.As(err, &used) {
				err = &Unready{used.Error()}
			}
		}
		err = errors.Join(err, t.file.Close())
		t.file = nil
	}
	return err
}

func (r *retirement) lookAside(p journal.Aside) error {
	dir, err := r.dirOf(p.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(filepath.Base(p.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if idOf(info).ino != p.Ino {
		return &Unready{fmt.Sprintf("%q is not what was set aside", p.Path)}
	}
	r.list = append(r.list, retired{path: p.Path, bytes: info.Size()})
	return nil
}

// dirOf opens the directory of a path for the user.
func (r *retirement) dirOf(path string) (*safefs.Dir, error) {
	return safefs.OpenFor(filepath.Dir(path), r.account.UID)
}

// audit demands that the Maildir holds what was parked, but for what its user
// has done since.
func (r *retirement) audit(ctx context.Context) error {
	report, err := r.Audit(ctx, r.account)
	if err != nil {
		return err
	}
	left := slices.ContainsFunc(r.soak.Parked, func(p journal.Parked) bool {
		name, _ := parseParked(filepath.Base(p.Path))
		return !name.late && slices.ContainsFunc(r.list, func(t retired) bool { return t.path == p.Path })
	})
	switch {
	case report.Differing > 0:
		return &Unready{fmt.Sprintf("the audit finds %d differences: see mailferry verify %s", report.Differing, r.account.Name)}
	case len(report.Unparked) > 0:
		return &Unready{fmt.Sprintf("there are mboxes at their old paths, %q: run mailferry sweep, or move them away", report.Unparked)}
	case left && report.Note != "":
		return &Unready{"could not be audited: he " + report.Note}
	}
	return nil
}

// keepFromLines writes down what a Maildir does not hold: without it the way
// back would make From_ lines up.
func (r *retirement) keepFromLines(ctx context.Context) error {
	var found *tree
	err := asUser(r.account, func() (err error) {
		found, err = findParked(r.account)
		return err
	})
	if err != nil {
		return err
	}
	defer found.close()
	for _, src := range found.sources {
		if err := r.keepFromLinesOf(ctx, src); err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
	}
	return nil
}

func (r *retirement) keepFromLinesOf(ctx context.Context, src source) error {
	list, err := journal.NewFromLines(r.State, r.account.Name, src.name())
	if err != nil {
		return err
	}
	err = asUser(r.account, func() error {
		in, err := open(src, r.Scan)
		if err != nil {
			return err
		}
		defer in.Close()
		return r.eachFromLine(ctx, in, list.Add)
	})
	if err != nil {
		return errors.Join(err, list.Discard())
	}
	return list.Commit()
}

func (r *retirement) eachFromLine(ctx context.Context, in *input, each func(journal.FromLine) error) error {
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if state := in.State(e); !state.Pseudo {
			err = each(journal.FromLine{UID: state.UID, From: string(e.From.Raw)})
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// remove deletes one of the list, as its user where he may.
func (r *retirement) remove(t retired) error {
	spool, err := spoolGroup(r.account)
	if err != nil {
		return err
	}
	c := &cutover{stage: &stage{Site: r.Site, account: r.account}, spoolGroup: spool}
	err = c.asUser(func() error {
		dir, err := r.dirOf(t.path)
		if err != nil {
			return err
		}
		defer dir.Close()
		return errors.Join(inGroup(dir, func() error { return dir.RemoveAll(filepath.Base(t.path)) }), dir.Sync())
	})
	if errors.Is(err, fs.ErrPermission) {
		return r.removeAsRoot(t)
	}
	return err
}

// removeAsRoot deletes in a spool in which only root can. In a directory that
// anybody else can write to, root does nothing.
func (r *retirement) removeAsRoot(t retired) error {
	dir, err := r.dirOf(t.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := rootsOwn(dir); err != nil {
		return fmt.Errorf("%q: %w", t.path, err)
	}
	return errors.Join(dir.Unlink(filepath.Base(t.path)), dir.Sync())
}

// retire ends the soak of a user of a chunk.
func (c *chunk) retire(ctx context.Context, m *member) {
	if !c.DryRun { // what came late is mail of his Maildir
		if _, err := c.Sweep(ctx, m.account, SweepOptions{Run: c.Journal.ID()}); err != nil {
			c.failed(m, err)
			return
		}
	}
	done, err := c.Retire(ctx, m.account, time.Now().Add(-c.OlderThan), c.DryRun)
	var unready *Unready
	switch {
	case errors.As(err, &unready):
		m.Outcome, m.Reason, m.Text = journal.Skipped, reasonUnready, unready.Why
	case err != nil:
		c.failed(m, err)
	default:
		m.Outcome, m.Retired, m.Freed = journal.Done, done.Paths, done.Bytes
	}
}

const reasonUnready = "not-ready"
