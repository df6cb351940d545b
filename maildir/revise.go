package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"mailferry/internal/safefs"
)

// The lists of a folder that servers read.
const (
	UIDListName  = "dovecot-uidlist"
	KeywordsName = "dovecot-keywords"

	subscriptionsName = "subscriptions" // of the whole Maildir
)

const revisionSuffix = ".new"

// Revision writes a list anew and leaves the old one alone for as long as the
// two are equal: a round that changes nothing writes nothing, and one that
// appends appends. Anything else makes a new file, of the same name at Commit.
type Revision struct {
	dir     *safefs.Dir
	name    string
	old     *os.File // nil: there is none
	oldSize int64
	new     *os.File // nil: no difference so far; old itself while appending
	size    int64    // written so far
	scratch []byte
}

// Revise begins to write a list. The old one may be read meanwhile, to the
// size that it has now.
func (f *Folder) Revise(name string) (*Revision, error) { return revise(f.dir, name) }

// ReviseFrom is Revise for a list of which so many bytes stay as they are.
func (f *Folder) ReviseFrom(name string, at int64) (*Revision, error) {
	r, err := f.Revise(name)
	if err != nil {
		return nil, err
	}
	if r.old == nil || r.oldSize < at {
		return nil, errors.Join(f.failed("revise", name, errShort), r.Close())
	}
	r.size = at
	return r, nil
}

var errShort = errors.New("is shorter than it was")

func revise(dir *safefs.Dir, name string) (*Revision, error) {
	r := &Revision{dir: dir, name: name}
	if err := dir.RemoveAll(name + revisionSuffix); err != nil {
		return nil, err
	}
	old, err := dir.OpenUpdate(name)
	var irregular *safefs.Irregular
	switch {
	case errors.As(err, &irregular): // not our doing: it gives way
		if err := dir.RemoveAll(name); err != nil {
			return nil, err
		}
		return r, r.depart()
	case errors.Is(err, fs.ErrNotExist):
		return r, r.depart()
	case err != nil:
		return nil, err
	}
	info, err := old.Stat()
	if err != nil {
		return nil, errors.Join(err, old.Close())
	}
	r.old, r.oldSize = old, info.Size()
	return r, nil
}

// depart ends the likeness: it appends to the old file where that is enough,
// and else begins the new one with what was equal.
func (r *Revision) depart() (err error) {
	if r.old != nil && r.size == r.oldSize {
		r.new = r.old
		return nil
	}
	if r.new, err = r.dir.Create(r.name+revisionSuffix, fileMode); err != nil || r.old == nil {
		return err
	}
	_, err = io.Copy(r.new, io.NewSectionReader(r.old, 0, r.size))
	return err
}

// Size is how much was written, in bytes.
func (r *Revision) Size() int64 { return r.size }

// Write appends to the list.
func (r *Revision) Write(b []byte) (int, error) {
	if r.new == nil {
		same := r.likeness(b)
		r.size += int64(same)
		if same == len(b) {
			return same, nil
		}
		if err := r.depart(); err != nil {
			return same, err
		}
		n, err := r.write(b[same:])
		return same + n, err
	}
	return r.write(b)
}

// write appends at the end, wherever the file's offset is.
func (r *Revision) write(b []byte) (int, error) {
	n, err := r.new.WriteAt(b, r.size)
	r.size += int64(n)
	return n, err
}

// WriteAt replaces bytes that were written already.
func (r *Revision) WriteAt(b []byte, at int64) (int, error) {
	if r.new == nil {
		was := make([]byte, len(b))
		n, _ := r.old.ReadAt(was, at) // what can't be read differs
		if n == len(b) && string(was) == string(b) {
			return n, nil
		}
		if err := r.depart(); err != nil {
			return 0, err
		}
	}
	return r.new.WriteAt(b, at)
}

// likeness tells how many bytes of b, from its start, the old list goes on with.
func (r *Revision) likeness(b []byte) int {
	if cap(r.scratch) < len(b) {
		r.scratch = make([]byte, len(b))
	}
	n, _ := r.old.ReadAt(r.scratch[:min(int64(len(b)), r.oldSize-r.size)], r.size)
	for i, was := range r.scratch[:n] {
		if was != b[i] {
			return i
		}
	}
	return n
}

// Commit puts the new list in the place of the old one, and tells whether they
// differ.
func (r *Revision) Commit() (changed bool, err error) {
	if r.new == nil && r.size != r.oldSize { // the old one goes on
		if err := r.depart(); err != nil {
			return false, errors.Join(err, r.Close())
		}
	}
	changed, apart := r.new != nil, r.new != r.old
	if err := r.Close(); err != nil || !changed || !apart {
		return changed, err
	}
	return true, r.dir.Rename(r.name+revisionSuffix, r.name, true)
}

// Close gives the revision up. After Commit it does nothing.
func (r *Revision) Close() (err error) {
	if r.new != nil && r.new != r.old {
		err = r.new.Close()
	}
	if r.old != nil {
		err = errors.Join(err, r.old.Close())
	}
	r.old, r.new = nil, nil
	return err
}

// ReviseUIDs begins to write the uidlist of a folder. next is what the next UID
// will be, as far as is known: the old list's.
func (f *Folder) ReviseUIDs(uidValidity uint32, guid [16]byte, next uint32) (*UIDListWriter, *Revision, error) {
	r, err := f.Revise(UIDListName)
	if err != nil {
		return nil, nil, err
	}
	w, err := newUIDListWriter(r, uidValidity, guid, next)
	return w, r, err
}

// ReviseUIDsFrom is ReviseUIDs for a uidlist that stays as it is up to a place.
func (f *Folder) ReviseUIDsFrom(from UIDListPlace, uidValidity uint32) (*UIDListWriter, *Revision, error) {
	r, err := f.ReviseFrom(UIDListName, from.At)
	if err != nil {
		return nil, nil, err
	}
	return resumeUIDList(r, uidValidity, from), r, nil
}

// ReviseKeywords writes the keywords of a folder.
func (f *Folder) ReviseKeywords(table *KeywordTable) (changed bool, err error) {
	if table.Len() == 0 {
		_, err := f.dir.Lstat(KeywordsName)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, errors.Join(err, f.RemoveList(KeywordsName))
	}
	r, err := f.Revise(KeywordsName)
	if err != nil {
		return false, err
	}
	if _, err := table.WriteTo(r); err != nil {
		return false, errors.Join(err, r.Close())
	}
	return r.Commit()
}
