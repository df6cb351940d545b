package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// A staging Maildir is filled in rounds: a later one adds what came, removes
// what went, renames where flags changed, and revises the lists. These are its
// tools. None of them syncs, except for Sync itself.

// FileID tells whether a file is as it was: no program can set its ctime.
type FileID struct {
	Ino   uint64
	Ctime int64 // in ns since 1970
	Size  int64
}

// Identify describes a file of cur, which must be a regular one.
func (f *Folder) Identify(name string) (FileID, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(f.cur.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return FileID{}, f.failed("stat", name, err)
	}
	return f.identity(name, &st)
}

func (f *Folder) identity(name string, st *unix.Stat_t) (FileID, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return FileID{}, f.failed("stat", name, errors.New("is not a regular file"))
	}
	return FileID{Ino: st.Ino, Ctime: st.Ctim.Nano(), Size: st.Size}, nil
}

// Read writes the bytes of a message of cur to w, by way of a buffer, and
// describes the file as it was before. The page cache keeps it only if asked.
func (f *Folder) Read(name string, w io.Writer, buffer []byte, keep bool) (id FileID, err error) {
	fd, err := f.cur.OpenFD(name)
	if err != nil {
		return FileID{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return FileID{}, f.failed("stat", name, err)
	}
	if id, err = f.identity(name, &st); err != nil {
		return FileID{}, err
	}
	for left := st.Size; left > 0; {
		n, err := unix.Read(fd, buffer[:min(left, int64(len(buffer)))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return FileID{}, f.failed("read", name, err)
		}
		if n == 0 {
			break // it was cut, which the digest shows
		}
		if _, err := w.Write(buffer[:n]); err != nil {
			return FileID{}, err
		}
		left -= int64(n)
	}
	if !keep {
		unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) // advice only
	}
	return id, nil
}

// Path names a message of cur, for messages.
func (f *Folder) Path(name string) string { return filepath.Join(f.cur.Path(), name) }

// Open opens a message of cur to read.
func (f *Folder) Open(name string) (*os.File, error) { return f.cur.OpenRegular(name) }

// Rename gives a message another name, which must be free.
func (f *Folder) Rename(from, to string) error { return f.cur.Rename(from, to, false) }

// Remove removes a message.
func (f *Folder) Remove(name string) error { return f.cur.Unlink(name) }

// SetDate sets the date of delivery of a message.
func (f *Folder) SetDate(name string, date time.Time) error {
	ts := []unix.Timespec{{Sec: date.Unix()}, {Sec: date.Unix()}}
	if err := unix.UtimesNanoAt(f.cur.Fd(), name, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return f.failed("set the date of", name, err)
	}
	return nil
}

// Names calls yield with the name of each message, in no order.
func (f *Folder) Names(yield func(name string) error) error { return f.cur.Names(yield) }

// Clear removes all messages and lists: what an interrupted round left is not
// worth understanding.
func (f *Folder) Clear(lists ...string) error {
	err := f.cur.Names(f.cur.RemoveAll)
	for _, name := range append(lists, UIDListName, keywordsName) {
		err = errors.Join(err, f.dir.RemoveAll(name), f.dir.RemoveAll(name+revisionSuffix))
	}
	return err
}

// OpenList opens a list of the folder to read.
func (f *Folder) OpenList(name string) (*os.File, error) { return f.dir.OpenRegular(name) }

// RemoveList removes a list of the folder, if it is there.
func (f *Folder) RemoveList(name string) error {
	err := f.dir.Unlink(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sync makes the given messages, the lists and the directories durable.
func (f *Folder) Sync(messages []string) error {
	for _, name := range messages {
		if err := syncFile(f.cur, name); err != nil {
			return err
		}
	}
	for _, name := range []string{UIDListName, keywordsName} {
		if err := syncFile(f.dir, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(f.cur.Sync(), f.dir.Sync())
}

// SyncList makes one list durable, and that it is there.
func (f *Folder) SyncList(name string) error { return errors.Join(syncFile(f.dir, name), f.dir.Sync()) }

func syncFile(dir *safefs.Dir, name string) error {
	file, err := dir.OpenRegular(name)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// Dirs returns the directories of all folders, relative to the Maildir, "."
// for INBOX.
func (s *Staging) Dirs() (dirs []string, err error) {
	if s.folders.Layout == MaildirPP {
		dirs = append(dirs, ".")
		err = s.root.Names(func(name string) error {
			info, err := s.root.Lstat(name)
			if err == nil && info.IsDir() && name[0] == '.' {
				dirs = append(dirs, name)
			}
			return err
		})
		return dirs, err
	}
	root, err := s.root.Again()
	if err != nil {
		return nil, err
	}
	return walkFolders(root, ".")
}

// walkFolders finds what layout fs nests.
func walkFolders(dir *safefs.Dir, at string) (dirs []string, err error) {
	defer dir.Close()
	err = dir.Names(func(name string) error {
		info, err := dir.Lstat(name)
		if err != nil || !info.IsDir() || name == "new" || name == "tmp" {
			return err
		}
		if name == "cur" {
			dirs = append(dirs, at)
			return nil
		}
		sub, err := dir.Sub(name)
		if err != nil {
			return err
		}
		below, err := walkFolders(sub, path.Join(at, name))
		dirs = append(dirs, below...)
		return err
	})
	return dirs, err
}

// FolderAt opens a folder, as Dirs names it.
func (s *Staging) FolderAt(rel string) (*Folder, error) {
	dir, err := s.mkdirAll(rel)
	if err != nil {
		return nil, err
	}
	cur, err := dir.Sub("cur")
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return &Folder{dir: dir, cur: cur}, nil
}

// UpdateList opens a list of the folder to change it where it stands.
func (f *Folder) UpdateList(name string) (*os.File, error) { return f.dir.OpenUpdate(name) }

// RemoveDir removes a folder, as Dirs names it, and leaves those below it.
func (s *Staging) RemoveDir(rel string) error {
	dir, err := s.mkdirAll(rel)
	if err != nil {
		return err
	}
	defer dir.Close()
	below := false
	err = dir.Names(func(name string) error {
		info, err := dir.Lstat(name)
		if err != nil {
			return err
		}
		if info.IsDir() && s.folders.Layout == FS && name != "cur" && name != "new" && name != "tmp" {
			below = true
			return nil
		}
		return dir.RemoveAll(name)
	})
	if err != nil || below {
		return err
	}
	parent, err := s.mkdirAll(path.Dir(rel))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.RemoveAll(path.Base(rel))
}

// RemoveLists removes lists of a folder, as Dirs names it.
func (s *Staging) RemoveLists(rel string, names ...string) error {
	dir, err := s.mkdirAll(rel)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, name := range names {
		err = errors.Join(err, dir.RemoveAll(name), dir.RemoveAll(name+revisionSuffix))
	}
	return err
}

// Resubscribe is Subscribe for a staging Maildir that may have a list.
func (s *Staging) Resubscribe(names [][]string) (refused []*FolderError, err error) {
	r, err := revise(s.root, subscriptionsName)
	if err != nil {
		return nil, err
	}
	if refused, err = WriteSubscriptions(r, names, s.folders); err != nil {
		return refused, errors.Join(err, r.Close())
	}
	_, err = r.Commit()
	return refused, err
}

// Unsubscribe removes the list.
func (s *Staging) Unsubscribe() error { return s.root.RemoveAll(subscriptionsName) }

// SyncRoot makes the list of subscriptions and the Maildir's own entries durable.
func (s *Staging) SyncRoot() error {
	if err := syncFile(s.root, subscriptionsName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.root.Sync()
}

// The lists of a folder that servers read.
const (
	UIDListName  = "dovecot-uidlist"
	keywordsName = "dovecot-keywords"

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

// ReviseKeywords writes the keywords of a folder.
func (f *Folder) ReviseKeywords(table *KeywordTable) (changed bool, err error) {
	if table.Len() == 0 {
		_, err := f.dir.Lstat(keywordsName)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, errors.Join(err, f.RemoveList(keywordsName))
	}
	r, err := f.Revise(keywordsName)
	if err != nil {
		return false, err
	}
	if _, err := table.WriteTo(r); err != nil {
		return false, errors.Join(err, r.Close())
	}
	return r.Commit()
}
