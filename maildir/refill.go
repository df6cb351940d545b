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
	for _, name := range append(lists, UIDListName, KeywordsName) {
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

// ListID identifies a list of the folder by its directory's name for it; zero if
// there is none.
func (f *Folder) ListID(name string) (FileID, error) {
	var st unix.Stat_t
	err := unix.Fstatat(f.dir.Fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return FileID{}, nil
	}
	if err != nil {
		return FileID{}, f.failed("stat", name, err)
	}
	return f.identity(name, &st)
}

// Stamp is the mtime and ctime of cur, in ns since 1970: both are new whenever
// a message comes, goes or gets another name, and the ctime can't be set.
func (f *Folder) Stamp() (stamp [2]int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.cur.Fd(), &st); err != nil {
		return stamp, f.failed("stat", "", err)
	}
	return [2]int64{st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// Sync makes the given messages, the lists that servers read and cur durable;
// SyncList adds the folder itself.
func (f *Folder) Sync(messages []string) error {
	for _, name := range messages {
		if err := syncFile(f.cur, name); err != nil {
			return err
		}
	}
	for _, name := range []string{UIDListName, KeywordsName} {
		if err := syncFile(f.dir, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.cur.Sync()
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
// for INBOX. A Maildir that was published is in use meanwhile.
func (s *Staging) Dirs() (dirs []string, err error) {
	if s.folders.Layout == MaildirPP {
		dirs = append(dirs, ".")
		err = s.root.Names(func(name string) error {
			info, err := s.root.Lstat(name)
			if err == nil && info.IsDir() && name[0] == '.' {
				dirs = append(dirs, name)
			}
			return unlessGone(err)
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
			return unlessGone(err)
		}
		if name == "cur" {
			dirs = append(dirs, at)
			return nil
		}
		sub, err := dir.Sub(name)
		if errors.Is(err, fs.ErrPermission) {
			return nil // is nothing that we made
		}
		if err != nil {
			return unlessGone(err)
		}
		below, err := walkFolders(sub, path.Join(at, name))
		dirs = append(dirs, below...)
		return unlessGone(err)
	})
	return dirs, err
}

// unlessGone drops the error of what went away between being listed and being
// looked at: a lock of a server's, or a folder that the user deleted.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// FolderAt opens a folder, as Dirs names it. What has no cur is none, which is an
// fs.ErrNotExist.
func (s *Staging) FolderAt(rel string) (*Folder, error) {
	dir, err := s.openAll(rel, (*safefs.Dir).Sub)
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

// RemoveLists removes lists of a folder, as Dirs names it, durably. Of a folder
// that is gone there is nothing to remove.
func (s *Staging) RemoveLists(rel string, names ...string) error {
	dir, err := s.openAll(rel, (*safefs.Dir).Sub)
	if err != nil {
		return unlessGone(err)
	}
	defer dir.Close()
	for _, name := range names {
		err = errors.Join(err, dir.RemoveAll(name), dir.RemoveAll(name+revisionSuffix))
	}
	return errors.Join(err, dir.Sync())
}

// Resubscribe is Subscribe for a staging Maildir that may have a list, and tells
// whether that was another.
func (s *Staging) Resubscribe(names [][]string) (changed bool, refused []*FolderError, err error) {
	r, err := revise(s.root, subscriptionsName)
	if err != nil {
		return false, nil, err
	}
	if refused, err = WriteSubscriptions(r, names, s.folders); err != nil {
		return false, refused, errors.Join(err, r.Close())
	}
	changed, err = r.Commit()
	return changed, refused, err
}

// Unsubscribe removes the list, and tells whether there was one.
func (s *Staging) Unsubscribe() (changed bool, err error) {
	if _, err := s.root.Lstat(subscriptionsName); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return true, s.root.RemoveAll(subscriptionsName)
}

// SyncRoot makes the list of subscriptions and the Maildir's own entries durable.
func (s *Staging) SyncRoot() error {
	if err := syncFile(s.root, subscriptionsName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.root.Sync()
}
