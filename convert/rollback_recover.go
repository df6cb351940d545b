package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// undoRollback resolves what a killed rollback has left of a user:
//
//	semaphore            then
//	hold, from maildir   mboxes lose their names and go; maildir
//	maildir              what was being built goes
//	mbox, by the record  the Maildir is set aside
//
// handled is false where there is nothing of a rollback.
func (r *recovery) undoRollback(state semaphore.State, meta semaphore.Meta) (did string, handled bool, err error) {
	way, err := journal.ReadRollback(r.State, r.account.Name)
	recorded := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", true, err
	}
	way = withoutDevices(way)
	switch {
	case state == semaphore.Hold && meta.Before() == semaphore.Maildir:
		if meta.Run == "" || meta.Host != hostname() && !meta.Expired(time.Now()) {
			return "", false, nil // an admin's, or another host's
		}
		did, err = r.undoHeld(way, recorded)
	case !recorded || state == semaphore.Hold:
		return "", false, nil
	case state == semaphore.Maildir:
		did, err = "what a rollback had begun was removed", errors.Join(r.unname(way), r.unmake(way))
	case meta.Run == way.Run && meta.Before() == semaphore.Maildir:
		did, err = r.finish(way)
	default: // the word of an admin
		did, err = "what a rollback had begun was removed", r.unmake(way)
	}
	if err != nil {
		return "", true, err
	}
	return did, true, errors.Join(r.unprepare(meta), journal.RemoveRollback(r.State, r.account.Name))
}

// undoHeld brings a held user back to his Maildir, unless the run that holds him
// lives: while it does, nobody else can prepare what it has prepared.
func (r *recovery) undoHeld(way journal.Rollback, recorded bool) (did string, err error) {
	free, err := exclude(r.sem)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, free()) }()
	state, err := r.sem.Get()
	if err != nil || state != semaphore.Hold {
		return "", err // it has come to its end meanwhile
	}
	meta, err := r.sem.Meta()
	if err != nil {
		return "", err
	}
	if !recorded {
		err = r.nothingNamed()
	} else if c, cerr := r.spoolUser(); cerr == nil {
		err = c.takeAllBack(way)
	} else {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	// A lock that can't be had is another's by now, and no reason to hold on.
	r.unlock()
	if err := r.sem.Set(semaphore.Maildir, semaphore.Meta{Epoch: meta.Epoch + 1, Run: meta.Run, From: semaphore.Maildir}); err != nil {
		return "", err
	}
	return "his rollback was undone", r.unmake(way)
}

// unmake removes what a rollback has made, of a user who is not held.
func (r *recovery) unmake(way journal.Rollback) error {
	state, err := r.sem.Get()
	if err != nil {
		return err
	}
	if err := asUser(r.account, func() error { return r.mirror(state) }); err != nil {
		return err
	}
	c, err := r.spoolUser()
	if err != nil {
		return err
	}
	return errors.Join(c.asUser(func() error { return dropRecordedDotlocks(way, r.account.UID) }), c.discardFiles(way))
}

// finish does what remains behind the flip.
func (r *recovery) finish(way journal.Rollback) (did string, err error) {
	if err := asUser(r.account, func() error { return r.mirror(semaphore.Mbox) }); err != nil {
		return "", err
	}
	r.unlock()
	spool, err := r.spoolUser()
	if err != nil {
		return "", err
	}
	err = spool.asUser(func() error {
		if err := errors.Join(finishLists(way, r.account.UID), dropRecordedDotlocks(way, r.account.UID)); err != nil {
			return err
		}
		parent, err := safefs.OpenFor(filepath.Dir(way.Maildir.Path), r.account.UID)
		if err != nil {
			return err
		}
		return errors.Join(setAside(parent, way), parent.Close())
	})
	if err != nil {
		return "", err
	}
	soak, err := journal.ReadSoak(r.State, r.account.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if soak, err = recordBack(r.State, way, soak); err != nil {
		return "", err
	}
	c := clearing{Site: r.Site, account: r.account, way: way, soak: soak, again: true}
	if err := c.do(); err != nil {
		return "", err
	}
	return strings.Join(append([]string{"his rollback was finished"}, c.stays...), "; "), nil
}

// unname takes the names of what a rollback has made of a user whom somebody has
// set on his Maildir in the hold. What can't be told for sure from a file that
// came since keeps its name.
func (r *recovery) unname(way journal.Rollback) error {
	c, err := r.spoolUser()
	if err != nil {
		return err
	}
	way.Files = slices.DeleteFunc(slices.Clone(way.Files), func(f journal.RollbackFile) bool { return f.Born == 0 })
	return c.takeAllBack(way)
}

// nothingNamed demands, of a rollback whose record is lost, that it had not come
// so far as to name mboxes: for late mail they would be taken, and each message
// be in the Maildir twice.
func (r *recovery) nothingNamed() error {
	soak, err := journal.ReadSoak(r.State, r.account.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var found []string
	err = asUser(r.account, func() error {
		tree, err := findAccount(r.account)
		if err != nil {
			return err
		}
		defer tree.close()
		for _, s := range tree.sources {
			if made, err := mayBeMade(s, soak); err != nil {
				return err
			} else if made {
				found = append(found, s.path)
			}
		}
		return nil
	})
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("a rollback was killed, and the record of what it made is gone from %q: %q may be mboxes that it made, which hold what is in the Maildir, or mail that came late; he is held until they are moved away: then run mailferry recover", r.State, found)
	}
	return err
}

// mayBeMade reports whether a rollback may have made a file at an old path: one
// that was parked there, or that was not touched since the flip, it did not.
func mayBeMade(s source, soak journal.Soak) (bool, error) {
	if s.size == 0 || slices.ContainsFunc(soak.Parked, func(p journal.Parked) bool { return p.Ino == s.id.ino && p.Live == s.path }) {
		return false, nil
	}
	dir, err := s.dir()
	if err != nil {
		return false, err
	}
	defer dir.Close()
	info, err := dir.Lstat(s.file)
	return err == nil && !time.Unix(0, statOf(info).Ctime).Before(soak.Flipped.Add(-clockTick)), err
}

// spoolUser works as the user who may take the group of the spool.
func (r *recovery) spoolUser() (c *cutover, err error) {
	c = &cutover{stage: &stage{Site: r.Site, account: r.account}}
	c.spoolGroup, err = spoolGroup(r.account)
	return c, err
}

// withoutDevices forgets the numbers of devices, which say nothing: that of btrfs is
// another after each mount.
func withoutDevices(way journal.Rollback) journal.Rollback {
	way.Maildir.Dev = 0
	for i := range way.Files {
		way.Files[i].Dev = 0
	}
	return way
}

// eachFile calls do for each recorded file whose directory is there.
func eachFile(way journal.Rollback, uid int, do func(*safefs.Dir, journal.RollbackFile) error) error {
	for _, f := range way.Files {
		dir, err := safefs.OpenFor(filepath.Dir(f.Live), uid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(do(dir, f), dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

// removeEmpty removes a directory that was made, if nothing lies in it but what
// was to be a dotlock in it.
func removeEmpty(path string, uid int) error {
	above, err := safefs.OpenFor(filepath.Dir(path), uid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer above.Close()
	if err := dropTemps(above, filepath.Base(path)); err != nil {
		return err
	}
	switch err := unix.Unlinkat(above.Fd(), filepath.Base(path), unix.AT_REMOVEDIR); err {
	case nil, unix.ENOENT, unix.ENOTEMPTY, unix.EEXIST, unix.ENOTDIR:
		return nil
	default:
		return &fs.PathError{Op: "rmdir", Path: path, Err: err}
	}
}

func dropTemps(above *safefs.Dir, name string) error {
	dir, err := above.Sub(name)
	if err != nil {
		return nil // it is none, and is not removed
	}
	defer dir.Close()
	return dir.Names(func(name string) error {
		if !mbox.IsDotlockTemp(name) {
			return nil
		}
		return dir.Unlink(name)
	})
}

// finishLists puts the lists into place that are due behind the flip.
func finishLists(way journal.Rollback, uid int) error {
	return eachFile(way, uid, func(dir *safefs.Dir, f journal.RollbackFile) error {
		if !f.List {
			return nil
		}
		if _, err := dir.LstatRegular(f.Temp); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err := dir.Rename(f.Temp, filepath.Base(f.Live), true); err != nil {
			return err
		}
		return dir.Sync()
	})
}

// setAside renames the Maildir that is not used any more, if it is there still.
func setAside(parent *safefs.Dir, way journal.Rollback) error {
	name := filepath.Base(way.Maildir.Path)
	info, err := parent.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if id := idOf(info); id.ino != way.Maildir.Ino || way.Maildir.Dev != 0 && id.dev != way.Maildir.Dev {
		return nil
	}
	if err := parent.Rename(name, filepath.Base(way.Aside), false); err != nil {
		return err
	}
	return parent.Sync()
}

// recordBack says in the soak record that the user is back, and what was set
// aside: whatever came to that since the last look before the flip is in no mbox.
func recordBack(state string, way journal.Rollback, soak journal.Soak) (journal.Soak, error) {
	if soak.User == "" {
		soak = journal.Soak{User: way.User, Run: way.Run, BootID: way.BootID, Maildir: way.Maildir.Path}
	}
	soak.Back = way.Seen.UTC()
	if way.Seen.IsZero() { // of an older version
		soak.Back = time.Now().UTC()
	}
	if !slices.ContainsFunc(soak.Aside, func(a journal.Aside) bool {
		return a.Ino == way.Maildir.Ino && (a.Path == way.Aside || a.From == way.Aside)
	}) {
		soak.Aside = append(soak.Aside, journal.Aside{Path: way.Aside, Dev: way.Maildir.Dev, Ino: way.Maildir.Ino, Back: soak.Back, Begun: way.Begun, Held: way.Held})
	}
	return soak, journal.WriteSoak(state, soak)
}

// dropRecordedDotlocks removes the dotlocks of the dead run beside what it made.
func dropRecordedDotlocks(way journal.Rollback, uid int) error {
	return eachFile(way, uid, func(dir *safefs.Dir, f journal.RollbackFile) error {
		return dropDotlocks(source{root: dir, file: parkedName(filepath.Base(f.Live), way.Time)})
	})
}
