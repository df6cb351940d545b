package convert

import (
	"errors"
	"path/filepath"
	"slices"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/internal/watchdir"
)

// watchBack watches the Maildirs of a user who is on mbox again, to which mail may
// come still: those that were set aside, and what is made at the old path. It is
// called again when something has happened: what was made is watched then, too.
func (w *sweeper) watchBack(g *graced, soak journal.Soak) {
	g.back, g.all = true, true
	if len(g.watched) == 0 {
		g.all = w.watchName(g, filepath.Dir(soak.Maildir), filepath.Base(soak.Maildir))
	}
	paths := []string{soak.Maildir}
	for _, a := range soak.Aside {
		if !a.Back.IsZero() {
			paths = append(paths, a.Path)
		}
	}
	for _, path := range paths {
		g.all = w.watchMaildir(g, path) && g.all
	}
}

// mostWatched is how many directories of a Maildir are watched: more are looked at now
// and then.
const mostWatched = 1000

var errWatched = errors.New("has more folders than are watched")

// watchMaildir watches the new and cur of each folder, which the user opens, and the
// directory itself, in which they are made. One that is not there needs no watch.
func (w *sweeper) watchMaildir(g *graced, path string) bool {
	var dirs []*safefs.Dir
	err := asUser(g.account, func() error {
		root, err := safefs.OpenFor(path, g.account.UID)
		if err != nil {
			return nil
		}
		dirs = append(dirs, root)
		return eachMessageDir(root, asideDepth, func(dir *safefs.Dir) error {
			if len(dirs) == mostWatched {
				return errWatched
			}
			again, err := dir.Again()
			if err == nil {
				dirs = append(dirs, again)
			}
			return err
		})
	})
	for _, dir := range dirs {
		watch, werr := w.watcher.Add(dir.Fd())
		if werr == nil {
			w.watchOnce(g, watch)
		} else {
			err = werr
		}
		dir.Close()
	}
	return err == nil
}

// watchOnce takes a watch of all names up, if it is none of the user's yet.
func (w *sweeper) watchOnce(g *graced, watch watchdir.Watch) {
	n := oldName{watch, anyName}
	if slices.Contains(g.watched, n) {
		w.watcher.Remove(watch) // which is counted
		return
	}
	w.names[n] = g.account.Name
	g.watched = append(g.watched, n)
}
