package convert

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/safefs"
)

// Dovecot has an index of each mbox in .imap beside it, and that of INBOX in .imap of
// the root (dovecot mbox-storage.c, mbox_list_get_path). Something of Dovecot's that
// looked at an old place behind the flip has noted there that all messages are gone: of
// the mbox that is put back Dovecot would believe no UID then, as they are below the
// next one that the index knows. Without an index it believes the mbox.

// mboxIndexes is the directory of the indexes of a directory's mboxes.
const mboxIndexes = ".imap"

// indexFiles are the files of an index that Dovecot makes anew (dovecot mail-index.c,
// mail-index-write.c, mail-transaction-log.c, mail-cache.c, index-thread.c). Not among
// them are locks, and the flags of dovecot.index.pvt, which no mbox has.
var indexFiles = []string{
	"dovecot.index", "dovecot.index.tmp", "dovecot.index.backup", "dovecot.index.backup.tmp",
	"dovecot.index.log", "dovecot.index.log.2", "dovecot.index.cache", "dovecot.index.thread",
}

// dropIndexes removes the indexes that were changed behind the flip, of the mboxes that
// are put back. One that was not still fits, and may be the only place of UIDs that were
// never written. It runs as the user, when no session is left, and fails nothing: an index
// that stays costs UIDs, not mail.
func (w *wayBack) dropIndexes() {
	for _, b := range w.boxes {
		if b.made.Size == 0 {
			continue // its UIDVALIDITY is in the index alone, and UIDs to keep it has none
		}
		err := w.dropIndex(b.dir, b.file())
		if len(b.parts) == 0 {
			for _, root := range w.account.Folders {
				err = errors.Join(err, w.dropInboxIndex(root))
			}
		}
		if err != nil {
			w.doubt("Dovecot's index of %s stays as it is, and if Dovecot looked at the old place since the flip, it gives all messages new UIDs: %v", b.report.Name, err)
		}
	}
}

func (w *wayBack) dropInboxIndex(root string) error {
	dir, err := safefs.OpenFor(root, w.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(w.dropIndex(dir, "INBOX"), dir.Close())
}

// dropIndex removes the index of an mbox by the name that it has in .imap, if it was
// changed behind the flip, or if nothing tells when that was.
func (w *wayBack) dropIndex(above *safefs.Dir, name string) error {
	dir, err := subDir(above, filepath.Join(mboxIndexes, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	list, err := w.listIndex(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	if last := list[len(list)-1]; time.Unix(0, last.changed).Before(w.soak.Flipped.Add(-clockTick)) {
		return nil
	}
	for _, f := range list {
		if err := dir.Unlink(f.name); err != nil {
			return err
		}
	}
	return dir.Sync()
}

// indexFile is a file of an index.
type indexFile struct {
	name    string
	changed int64 // ctime, in ns since 1970
}

// listIndex lists the files of an index, the one that was changed last at the end: as
// long as it is there, another rollback knows what a killed one has left.
func (w *wayBack) listIndex(dir *safefs.Dir) (list []indexFile, err error) {
	for _, name := range indexFiles {
		info, err := dir.LstatRegular(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if owner := ownerOf(info); owner != w.account.UID {
			return nil, fmt.Errorf("%q belongs to uid %d", filepath.Join(dir.Path(), name), owner)
		}
		list = append(list, indexFile{name, statOf(info).Ctime})
	}
	slices.SortFunc(list, func(a, b indexFile) int { return cmp.Compare(a.changed, b.changed) })
	return list, nil
}
