package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

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
		i := slices.IndexFunc(r.soak.Parked, func(p journal.Parked) bool { return p.Path == src.path && p.Ino == src.id.ino })
		if i < 0 {
			continue // is none of those that go
		}
		if err := r.keepFromLinesOf(ctx, src, r.soak.Parked[i].Size); err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
	}
	return nil
}

func (r *retirement) keepFromLinesOf(ctx context.Context, src source, size int64) error {
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
		return eachFromLine(ctx, in, size, list.Add)
	})
	if err != nil {
		return errors.Join(err, list.Discard())
	}
	return list.Commit()
}

// eachFromLine walks the messages that were converted. What was swept since has
// UIDs in the Maildir that nothing here tells.
func eachFromLine(ctx context.Context, in *input, size int64, each func(journal.FromLine) error) error {
	for {
		e, err := in.Next()
		if err == io.EOF || err == nil && e.Offset >= size {
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

// removeAll deletes what is on the list, and then the record of the soak.
func (r *retirement) removeAll(ctx context.Context) error {
	spool, err := spoolGroup(r.account)
	if err != nil {
		return err
	}
	c := &cutover{stage: &stage{Site: r.Site, account: r.account}, spoolGroup: spool}
	for _, t := range r.list {
		err := ctx.Err()
		if err == nil {
			err = r.remove(c, t)
		}
		if err != nil {
			return fmt.Errorf("%q could not be deleted; what is left of the soak stays until the next retire: %w", t.path, err)
		}
		r.done.add(t)
	}
	if err := asUser(r.account, r.removeClearings); err != nil {
		return err
	}
	// What comes to an old place is late mail still: the time of the flip tells it.
	r.soak.Parked, r.soak.Aside = nil, nil
	return journal.WriteSoak(r.State, r.soak)
}

// remove deletes one of the list, as its user where he may.
func (r *retirement) remove(c *cutover, t retired) error {
	err := c.asUser(func() error {
		return r.unlink(t, func(dir *safefs.Dir, name string) error {
			return inGroup(dir, func() error { return dir.RemoveAll(name) })
		})
	})
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// In a spool in which only root can, he does; in a directory that anybody
	// else can write to, he does nothing.
	return r.unlink(t, func(dir *safefs.Dir, name string) error {
		if err := rootsOwn(dir); err != nil {
			return err
		}
		return dir.Unlink(name)
	})
}

// unlink removes a name, if it is still that of what was looked at.
func (r *retirement) unlink(t retired, remove func(*safefs.Dir, string) error) error {
	dir, err := r.dirOf(t.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(t.path)
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if idOf(info).ino != t.ino {
		return unready("%q is not what it was a moment ago", t.path)
	}
	return errors.Join(remove(dir, name), dir.Sync())
}

// removeClearings removes the directories that rollbacks have made for what they
// took out of the folders, if they are empty.
func (r *retirement) removeClearings() (err error) {
	for _, p := range r.soak.Parked {
		err = errors.Join(err, removeClearing(filepath.Dir(p.Path), r.account.UID))
	}
	for _, a := range r.soak.Aside {
		err = errors.Join(err, removeClearing(filepath.Dir(a.Path), r.account.UID))
	}
	return err
}
