package maildir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"mailferry/internal/safefs"
)

// Permissions of what is written: a Maildir is its owner's alone, as Dovecot
// makes one where it finds no directory to take the mode from.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// StagingMark is in the name of every staging directory:
// ".NAME.mailferry-RANDOM" for a Maildir that will be NAME.
const StagingMark = ".mailferry-"

// IsStaging reports whether a name is that of a staging directory.
func IsStaging(name string) bool {
	_, random, ok := strings.Cut(name, StagingMark)
	_, err := hex.DecodeString(random)
	return ok && err == nil && len(random) == 16 && name[0] == '.'
}

// Staging is a Maildir that is being built. Its methods may be called by
// several goroutines.
type Staging struct {
	parent  *safefs.Dir
	final   string
	name    string
	replace fs.FileInfo // final, if it is there: an empty directory
	folders Folders
	root    *safefs.Dir // opened before the first write, so that SyncFS sees every error

	mu sync.Mutex // one goroutine at a time makes directories
}

// Place is where a staging directory lies in its parent, and which one it is:
// a name alone can be taken by another.
type Place struct {
	Name string
	Dev  uint64
	Ino  uint64
}

// ErrOtherStaging is returned when a staging directory is not the one that was
// recorded.
var ErrOtherStaging = errors.New("is not the staging directory that was recorded")

// ErrNotEmpty is returned for a final name that something is already using.
var ErrNotEmpty = errors.New("exists and is not an empty directory")

// NewStaging makes the staging directory of parent/final. Final must not exist
// or be an empty directory of this process's user; its mode and group are kept.
func NewStaging(parent *safefs.Dir, final string, folders Folders) (*Staging, error) {
	return NewStagingAs(parent, StagingName(final), final, folders)
}

// StagingName is a new name for a staging directory of final: nobody can know
// it before it is used.
func StagingName(final string) string {
	random := make([]byte, 8)
	rand.Read(random)
	return "." + strings.TrimPrefix(final, ".") + StagingMark + hex.EncodeToString(random)
}

// NewStagingAs is NewStaging under a name that StagingName gave.
func NewStagingAs(parent *safefs.Dir, name, final string, folders Folders) (*Staging, error) {
	replace, err := vacant(parent, final)
	if err != nil {
		return nil, err
	}
	s := &Staging{parent: parent, final: final, replace: replace, folders: folders, name: name}
	if s.root, err = parent.Mkdir(s.name, dirMode); err != nil {
		return nil, err
	}
	return s, nil
}

// OpenStaging opens a staging directory that an earlier run left in parent, to
// go on with it. It must be the one that was recorded. Durability begins anew:
// what lies there may never have reached the disk.
func OpenStaging(parent *safefs.Dir, place Place, final string, folders Folders) (*Staging, error) {
	replace, err := vacant(parent, final)
	if err != nil {
		return nil, err
	}
	root, err := parent.Sub(place.Name)
	if err != nil {
		return nil, err
	}
	s := &Staging{parent: parent, final: final, replace: replace, folders: folders, name: place.Name, root: root}
	now, err := s.Place()
	if err == nil && now != place {
		err = &fs.PathError{Op: "open", Path: root.Path(), Err: ErrOtherStaging}
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// Place tells which directory it is.
func (s *Staging) Place() (Place, error) {
	info, err := s.root.Stat()
	if err != nil {
		return Place{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return Place{Name: s.name, Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// Close releases the staging directory and leaves it for another run.
func (s *Staging) Close() error { return s.root.Close() }

// vacant checks that a Maildir may be published as parent/name, and describes
// the empty directory that has to give way, nil if there is none.
func vacant(parent *safefs.Dir, name string) (fs.FileInfo, error) {
	info, err := parent.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	refused := &fs.PathError{Op: "convert to", Path: path.Join(parent.Path(), name), Err: ErrNotEmpty}
	if !info.IsDir() {
		return nil, refused
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		refused.Err = fmt.Errorf("belongs to uid %d, and this runs as uid %d; run it as the owner, or remove the empty directory", owner, os.Geteuid())
		return nil, refused
	}
	if in, err := parent.Stat(); err != nil || device(in) != device(info) {
		refused.Err = errors.New("is a mount point, which no rename replaces; name a directory below it")
		return nil, errors.Join(err, refused)
	}
	dir, err := parent.Sub(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	empty, err := dir.Empty()
	if err == nil && !empty {
		err = refused
	}
	return info, err
}

func device(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Dev) }

// Path is where the Maildir is being built.
func (s *Staging) Path() string { return s.root.Path() }

// Folder opens the folder of the given hierarchy parts, none for INBOX, and
// makes what is missing of it.
func (s *Staging) Folder(parts []string) (*Folder, error) {
	rel, err := s.folders.Dir(parts)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := s.mkdirAll(rel)
	if err != nil {
		return nil, err
	}
	f := &Folder{dir: dir}
	for _, sub := range []string{"new", "tmp", "cur"} {
		if f.cur != nil {
			f.cur.Close()
		}
		if f.cur, err = subOrMkdir(dir, sub); err != nil {
			return nil, errors.Join(err, dir.Close())
		}
	}
	if s.folders.Layout == MaildirPP && len(parts) > 0 {
		// Quota programs climb from here to the root (Maildir++ 2.6).
		err := writeFile(dir, "maildirfolder", nil)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, errors.Join(err, f.cur.Close(), dir.Close())
		}
	}
	return f, nil
}

// mkdirAll opens a directory below the root and makes what is missing of it.
func (s *Staging) mkdirAll(rel string) (*safefs.Dir, error) { return s.openAll(rel, subOrMkdir) }

// openAll goes down to a directory, each part of rel by a call of open.
func (s *Staging) openAll(rel string, open func(dir *safefs.Dir, name string) (*safefs.Dir, error)) (*safefs.Dir, error) {
	dir, err := s.root.Again()
	if err != nil || rel == "." {
		return dir, err
	}
	for part := range strings.SplitSeq(rel, "/") {
		next, err := open(dir, part)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

func subOrMkdir(dir *safefs.Dir, name string) (*safefs.Dir, error) {
	sub, err := dir.Mkdir(name, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return dir.Sub(name)
	}
	return sub, err
}

// Subscribe writes the list of subscribed folders. Names that the layout can't
// spell are left out and returned.
func (s *Staging) Subscribe(names [][]string) ([]*FolderError, error) {
	f, err := s.root.Create("subscriptions", fileMode)
	if err != nil {
		return nil, err
	}
	refused, err := WriteSubscriptions(f, names, s.folders)
	return refused, errors.Join(err, f.Close())
}

// Publish makes the Maildir durable and gives it its final name. After an
// error nothing has the final name, or what had it before; but if the sync of
// the parent fails, which comes last, the Maildir has it, whole, and a power
// failure may take the name away again.
//
// The order is that of docs/formats.md: syncfs, check, rename, fsync of the
// parent. In every other one a crash leaves a Maildir without messages.
func (s *Staging) Publish() error {
	if err := s.root.SyncFS(); err != nil {
		return err
	}
	return s.PublishSynced()
}

// permit gives the Maildir the permissions of the directory that it replaces,
// durably.
func (s *Staging) permit() error { return errors.Join(s.root.Permit(s.replace), s.root.Sync()) }

// PublishSynced is Publish for a caller that has made everything durable.
func (s *Staging) PublishSynced() error {
	same, err := s.parent.Same(s.name, s.root)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%s was replaced while it was being filled; it is left as it is", s.root.Path())
	}
	if s.replace != nil {
		if _, err := vacant(s.parent, s.final); err != nil {
			return err
		}
		if err := s.permit(); err != nil {
			return err
		}
	}
	if err := s.parent.Rename(s.name, s.final, s.replace != nil); err != nil {
		return err
	}
	return s.parent.Sync()
}

// Unpublish takes the final name back, durably: the Maildir is staging again.
func (s *Staging) Unpublish() error {
	place, err := s.Place()
	if err != nil {
		return err
	}
	return Unpublish(s.parent, place, s.final)
}

// Unpublish makes a Maildir staging again, durably, if it is the one that was
// built at that place. If something else has its name, or nothing, it is left.
func Unpublish(parent *safefs.Dir, place Place, final string) error {
	ours, err := isAt(parent, final, place)
	if err != nil || !ours {
		return err
	}
	if err := parent.Rename(final, place.Name, false); err != nil {
		return err
	}
	return parent.Sync()
}

// isAt reports whether an entry of parent is the directory of a place.
func isAt(parent *safefs.Dir, name string, place Place) (bool, error) {
	info, err := parent.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return info.IsDir() && uint64(st.Dev) == place.Dev && st.Ino == place.Ino, nil
}

// OpenPublished opens a Maildir that was built at that place and has its final
// name.
func OpenPublished(parent *safefs.Dir, place Place, final string, folders Folders) (*Staging, error) {
	ours, err := isAt(parent, final, place)
	if err == nil && !ours {
		err = &fs.PathError{Op: "open", Path: path.Join(parent.Path(), final), Err: ErrOtherStaging}
	}
	if err != nil {
		return nil, err
	}
	root, err := parent.Sub(final)
	if err != nil {
		return nil, err
	}
	return &Staging{parent: parent, final: final, folders: folders, name: place.Name, root: root}, nil
}

// Discard removes the staging directory and all in it.
func (s *Staging) Discard() error {
	same, err := s.parent.Same(s.name, s.root)
	if err == nil && same {
		err = s.parent.RemoveAll(s.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, s.root.Close())
}

// writeFile makes a small file.
func writeFile(dir *safefs.Dir, name string, content []byte) error {
	f, err := dir.Create(name, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}
