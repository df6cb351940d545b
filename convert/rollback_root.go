package convert

import (
	"context"
	"errors"

	"mailferry/internal/journal"
)

// A spool in which only root makes and removes names, as where agents deliver as
// root: there root parks mboxes, and there he makes those of a rollback. They are
// the user's, and are written by him.

// makeRoots makes the files of such directories.
func (w *wayBack) makeRoots() error {
	for _, b := range w.boxes {
		if b.roots {
			if err := b.createAsRoot(); err != nil {
				return err
			}
		}
	}
	return w.asUser(func() error {
		for _, b := range w.boxes {
			if b.roots {
				if err := b.open(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// createAsRoot makes the file that an mbox is built in: one that was not there,
// in the directory that was looked at, for the user alone.
func (b *backBox) createAsRoot() error {
	if err := rootsOwn(b.dir); err != nil {
		return err
	}
	group := b.account.GID
	if b.base != nil {
		err := b.asUser(func() (err error) {
			group, err = b.groupOfBase()
			return err
		})
		if err != nil {
			return err
		}
	}
	f, err := b.dir.Create(b.temp, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(b.account.UID, group), f.Close())
}

// clearRoots is clear for such directories.
func (w *wayBack) clearRoots(ctx context.Context) error {
	for _, b := range w.boxes {
		if !b.roots {
			continue
		}
		if err := rootsOwn(b.dir); err != nil {
			return err
		}
		if err := b.clear(ctx); err != nil {
			return err
		}
	}
	return nil
}

// eachBox calls do, which changes names, for each mailbox: as the user, or where
// nobody else may, as root.
func (w *wayBack) eachBox(do func(*backBox) error) error {
	err := w.asUser(func() error {
		for _, b := range w.boxes {
			if !b.roots {
				if err := do(b); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range w.boxes {
		if !b.roots {
			continue
		}
		if err := rootsOwn(b.dir); err != nil {
			return err
		}
		if err := do(b); err != nil {
			return err
		}
	}
	return nil
}

// unname takes the names back that mboxes have got.
func (w *wayBack) unname() error {
	files := map[*backBox]journal.RollbackFile{}
	for i, b := range w.boxes {
		files[b] = w.way.Files[i]
	}
	return w.eachBox(func(b *backBox) error {
		if !b.named {
			return nil
		}
		return takeBack(b.dir, files[b])
	})
}
