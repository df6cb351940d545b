package convert

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// lookFolders finds mailboxes that were made in a folder tree since the flip, by a
// session that went on or a rule of procmail's. What was there before was no
// mailbox that could be converted, which its cutover has told.
func (w *sweep) lookFolders(strays *[]stray) error {
	if !w.recorded || w.soak.Flipped.IsZero() {
		return nil
	}
	t := &tree{owner: w.account.UID}
	defer t.close()
	for _, path := range w.account.Folders {
		if err := t.addTree(safefs.OpenFor(path, w.account.UID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	t.arrange()
	known := w.oldPaths()
	for _, src := range t.sources {
		if slices.Contains(known, src.path) {
			continue
		}
		if err := w.lookFolder(src, strays); err != nil {
			return err
		}
	}
	return nil
}

// flipUnclear is how far the recorded time of a flip may lie behind it: it is moved
// on to a second for which nothing was parked.
const flipUnclear = 2 * time.Second

// lookFolder looks at a file of which there is no record.
func (w *sweep) lookFolder(src source, strays *[]stray) error {
	f, err := w.entry(src.path)
	if err != nil || f.FileInfo == nil || f.Size() == 0 || f.changed().Before(w.soak.Flipped.Add(-flipUnclear)) || !isMailbox(src) || w.likeAny(f) == itself {
		return err
	}
	if f.born == 0 || time.Unix(0, f.born).Before(w.soak.Flipped.Add(-clockTick)) {
		w.differ(src.path, "stray-doubt", "holds mail, was changed since the flip, and is no mailbox that was converted: what of it is in the Maildir can't be told")
		return nil
	}
	st := stray{live: src.path, mailbox: src.name(), fresh: true}
	if st.folder, err = w.Folders.Dir(src.parts); err != nil {
		st.folder = "." // the layout can't spell it
	}
	return w.addNew(strays, st, f)
}

func isMailbox(src source) bool {
	dir, err := src.dir()
	if err != nil {
		return false
	}
	defer dir.Close()
	return isMbox(dir, src.file)
}

// makeFolder makes the folder of a mailbox that is new. One that can't be made is
// INBOX.
func (t *taking) makeFolder() error {
	root, err := t.maildir()
	if err != nil {
		return err
	}
	defer root.Close()
	if live, err := openLive(root, t.record.Folder); err == nil {
		return live.close()
	}
	if err := makeFolder(root, t.record.Folder, t.Folders.Layout); err != nil {
		t.toInbox()
	}
	return nil
}

// makeFolder makes what is missing of a folder, durably.
func makeFolder(root *safefs.Dir, rel string, layout maildir.Layout) error {
	dir, err := root.Again()
	for part := range strings.SplitSeq(rel, "/") {
		if err != nil {
			return err
		}
		var next *safefs.Dir
		if next, err = subOrMake(dir, part); err == nil {
			err = dir.Sync()
		}
		dir.Close()
		dir = next
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range []string{"new", "tmp", "cur"} {
		sub, err := subOrMake(dir, name)
		if err != nil {
			return err
		}
		sub.Close()
	}
	if layout == maildir.MaildirPP { // from where quota programs climb to the root
		f, err := dir.Create("maildirfolder", 0o600)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return dir.Sync()
}

func subOrMake(dir *safefs.Dir, name string) (*safefs.Dir, error) {
	sub, err := dir.Mkdir(name, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return dir.Sub(name)
	}
	return sub, err
}
