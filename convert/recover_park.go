package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// forth parks the mailboxes of a user who was flipped.
func (r *recovery) forth() error {
	parent, place, err := r.parent()
	if err != nil {
		return err
	}
	defer parent.Close()
	err = asUser(r.account, func() error { return r.mirror(semaphore.Maildir) })
	if err != nil {
		return err
	}
	c := &cutover{stage: &stage{Site: r.Site, account: r.account, parent: parent}, run: r.record.Run}
	ctx, cancel := context.WithTimeout(context.Background(), unlockLimit)
	defer cancel()
	if c.spoolGroup, err = spoolGroup(r.account); err != nil {
		return err
	}
	was, flipped, err := r.recordedParks()
	if err != nil {
		return err
	}
	c.flipped = flipped
	err = c.asUser(func() (err error) {
		if c.staging, err = maildir.OpenPublished(parent, place, r.record.Final, r.Folders); err != nil {
			return err
		}
		if was == nil {
			if was, err = convertedFrom(c.staging); err != nil {
				return err
			}
		}
		c.only = func(path string) bool { return was[path].Ino != 0 }
		return errors.Join(c.takeGate(ctx), c.lockAll(ctx))
	})
	if err == nil {
		err = r.park(c, was)
	}
	if c.staging != nil {
		err = errors.Join(err, c.staging.Close())
	}
	return errors.Join(err, c.asUser(c.release), c.asUser(r.dropDotlocks), c.tidy())
}

func (r *recovery) parent() (parent *safefs.Dir, place maildir.Place, err error) {
	err = asUser(r.account, func() error {
		parent, place, err = r.place()
		return err
	})
	return parent, place, err
}

// recordedParks tells of which file each mailbox was made, by path, and the time
// that the names of parked ones have, if the dead run came so far as to record
// it. If not, the map is nil: the lists in the Maildir tell, which are there until
// all is parked.
func (r *recovery) recordedParks() (map[string]stat, time.Time, error) {
	soak, err := journal.ReadSoak(r.State, r.account.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, err
	}
	if err != nil || soak.Run != r.record.Run || !soak.Back.IsZero() {
		return nil, time.Now(), nil
	}
	was := map[string]stat{}
	r.born = map[string]int64{}
	for _, p := range soak.Parked {
		if name, _ := parseParked(p.Path); !name.late {
			was[p.Live] = stat{Ino: p.Ino, Size: p.Size}
			r.born[p.Live] = p.Born
		}
	}
	return was, soak.Flipped, nil
}

// isParked reports whether the mbox that was converted, and which another has the
// name of now, was parked by the dead run.
func (c *cutover) isParked(l locked, was stat) bool {
	info, err := l.dir.Lstat(parkedName(l.src.file, c.flipped))
	return err == nil && idOf(info).ino == was.Ino
}

// convertedFrom reads the lists of a Maildir. A folder with messages and without
// one is in doubt: its mbox would be taken for late mail, and delivered again.
func convertedFrom(staging *maildir.Staging) (map[string]stat, error) {
	dirs, err := staging.Dirs()
	if err != nil {
		return nil, err
	}
	was := map[string]stat{}
	for _, dir := range dirs {
		folder, err := staging.FolderAt(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // the user, who is on his Maildir, is about to delete it, or has made something of his own
		}
		if err != nil {
			return nil, err
		}
		state, err := decodeState(folder)
		if err == nil && state == nil {
			err = folder.Names(func(string) error {
				return fmt.Errorf("%s: the list that says of which mbox the folder was made is gone: all is left where it is", folder.Path(""))
			})
		}
		if err == nil && state != nil {
			was[state.Source] = state.Stat
		}
		if err := errors.Join(err, folder.Close()); err != nil {
			return nil, err
		}
	}
	return was, nil
}

// park parks those that were converted, whatever came to them since: behind
// what the Maildir holds, the sweep finds it. Files that are new at an old path
// are the sweep's, too.
func (r *recovery) park(c *cutover, was map[string]stat) error {
	var short []string
	var ours []converted
	for _, l := range c.locks {
		info, err := l.File.Stat()
		if err != nil {
			return err
		}
		now, read := statOf(info), was[l.src.path]
		if born := r.born[l.src.path]; born != 0 && born != bornOf(l.File) {
			now.Ino = 0 // another file, of which the inode was used before
		}
		switch {
		case read.Ino != now.Ino && (read.Ino == 0 || c.isParked(l, read)):
		case read.Ino != now.Ino, now.Size < read.Size:
			short = append(short, l.src.path)
		default:
			ours = append(ours, converted{l, read.Size})
		}
	}
	if len(short) > 0 {
		return fmt.Errorf("%q: was rewritten behind the flip, so that what came late can't be told from what is in the Maildir: all is left where it is; compare the two, move it away, and run mailferry recover", short)
	}
	if _, err := c.parkAll(ours); err != nil {
		return err
	}
	return c.asUser(func() error { return removeManifests(c.staging) })
}
