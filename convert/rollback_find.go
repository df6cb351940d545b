package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// find finds the folders of the Maildir, the parked mbox of each, and the path
// that it goes back to. It is called as the user.
func (w *wayBack) find() (err error) {
	if w.parent, err = safefs.OpenFor(filepath.Dir(w.account.Maildir), w.account.UID); err != nil {
		return err
	}
	name := filepath.Base(w.account.Maildir)
	if w.root, err = w.parent.Sub(name); err != nil {
		return &Unfit{w.account.Maildir, "no-maildir", "is no Maildir that can be read: " + reason(err).Error()}
	}
	info, err := w.root.Stat()
	switch {
	case err != nil:
		return err
	case ownerOf(info) != w.account.UID:
		return &Unfit{w.account.Maildir, "maildir-foreign", fmt.Sprintf("belongs to uid %d, not to uid %d", ownerOf(info), w.account.UID)}
	case isMount(w.parent, name):
		return &Unfit{w.account.Maildir, "maildir-mount", "is a mount point, and can't be set aside"}
	}
	id := idOf(info)
	w.way.Maildir = journal.Aside{Path: w.account.Maildir, Dev: id.dev, Ino: id.ino}
	if w.found, err = findParked(w.account); err != nil {
		return err
	}
	if err := w.keepRecorded(); err != nil {
		return err
	}
	w.reader = newReader()
	if w.rels, err = w.folders(); err != nil {
		return err
	}
	for _, rel := range w.rels {
		if err := w.addBox(rel); err != nil {
			return err
		}
	}
	if err := w.adoptRenamed(); err != nil {
		return err
	}
	w.dropEmptyInbox()
	if err := w.checkPlaces(); err != nil {
		return err
	}
	return w.planList()
}

// keepRecorded leaves out what an earlier migration has parked, and what is not
// the file that was parked.
func (w *wayBack) keepRecorded() error {
	if len(w.soak.Parked) == 0 {
		return w.noneWritten()
	}
	w.found.sources = slices.DeleteFunc(w.found.sources, func(s source) bool {
		p := w.parked(s.path)
		return p == nil || p.Ino != s.id.ino
	})
	for _, s := range w.found.sources {
		if err := w.allTaken(s, s.size); err != nil {
			return err
		}
	}
	return nil
}

// noneWritten demands of parked mboxes that no record tells of that nothing was written
// to them since they were parked: it would not be in the Maildir.
func (w *wayBack) noneWritten() error {
	for _, s := range w.found.sources {
		_, err := unrecorded(s)
		var unready *Unready
		if errors.As(err, &unready) {
			return &Unfit{s.path, "stray", "was written to since its name says that it was parked, and no record tells whether that is in the Maildir: look, and move it away"}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// allTaken demands that the Maildir was given all that a parked mbox holds: a
// program may have had it open since before the cutover.
func (w *wayBack) allTaken(s source, size int64) error {
	taken := s.size
	if p := w.parked(s.path); p != nil {
		taken = p.Taken
	}
	if size == taken {
		return nil
	}
	return &Unfit{s.path, "stray", fmt.Sprintf("has %d bytes, and the Maildir was given %d of them; first run: mailferry sweep %s", size, taken, shellWord(w.account.Name))}
}

// parked returns the record of a parked mbox; nil if there is none.
func (w *wayBack) parked(path string) *journal.Parked {
	i := slices.IndexFunc(w.soak.Parked, func(p journal.Parked) bool { return p.Path == path })
	if i < 0 {
		return nil
	}
	return &w.soak.Parked[i]
}

// folders lists the places of the folders below the Maildir.
func (w *wayBack) folders() (rels []string, err error) {
	rels, err = w.foldersOf(w.root)
	if err == nil && !slices.Contains(rels, ".") {
		err = &Unfit{w.account.Maildir, "no-maildir", "is no Maildir: it has no cur"}
	}
	return rels, err
}

// addBox adds the mailbox of a folder.
func (w *wayBack) addBox(rel string) error {
	parts, err := w.Folders.Parts(rel)
	if err != nil {
		return &Unfit{filepath.Join(w.account.Maildir, rel), "folder-name", err.Error()}
	}
	b := &backBox{wayBack: w, rel: rel, parts: parts, mode: 0o600}
	b.report.Name = folderName(parts)
	i := slices.IndexFunc(w.found.sources, func(s source) bool { return slices.Equal(s.parts, parts) })
	switch {
	case i >= 0:
		b.take(&w.found.sources[i])
		b.live, _ = unparked(b.base.path)
	case len(parts) == 0:
		b.live = w.account.Spool
	default:
		if b.live, err = w.newPath(parts); err != nil {
			return err
		}
	}
	b.report.Path = b.live
	w.boxes = append(w.boxes, b)
	return nil
}

// take makes a parked mbox the base of the new one.
func (b *backBox) take(s *source) {
	b.base = s
	if p := b.parked(s.path); p != nil {
		b.mode = p.Mode & 0o777
	}
}

// newPath is where the mbox of a folder goes that was made since the flip: into
// the first tree.
func (w *wayBack) newPath(parts []string) (string, error) {
	name := folderName(parts)
	if len(w.account.Folders) == 0 {
		return "", &Unfit{name, "folder-name", "is a folder, and the configuration names no directory for mboxes"}
	}
	for _, part := range parts {
		if disk, err := maildir.DiskName(part); err != nil || disk != part || !mayBeMbox(part) {
			return "", &Unfit{name, "folder-name", "is a folder that can't be an mbox of that name; rename it"}
		}
	}
	return filepath.Join(append([]string{w.account.Folders[0]}, parts...)...), nil
}

// mayBeMbox reports whether a file of a tree of mboxes with that name is one.
func mayBeMbox(part string) bool {
	_, parked := unparked(part)
	return part != "" && part != "." && part != ".." && !strings.ContainsAny(part, "/\x00") && len(part) <= 255-len(".lock") &&
		!parked && !isMetadata(part) && !maildir.IsStaging(part)
}

// adoptRenamed finds the parked mboxes of folders that have another name now,
// which have their UIDVALIDITY.
func (w *wayBack) adoptRenamed() error {
	for i := range w.found.sources {
		s := &w.found.sources[i]
		if slices.ContainsFunc(w.boxes, func(b *backBox) bool { return b.base != nil && b.base.path == s.path }) {
			continue
		}
		validity, err := validityOf(*s, w.Scan)
		if err != nil && !isSkippable(err) {
			return failed(*s, err)
		}
		if b := w.renamed(validity); b != nil {
			b.take(s)
		} else {
			w.gone = append(w.gone, *s)
		}
	}
	return nil
}

// renamed is the only folder without a parked mbox that has a UIDVALIDITY.
func (w *wayBack) renamed(validity uint32) (only *backBox) {
	for _, b := range w.boxes {
		if b.base != nil || validity == 0 {
			continue
		}
		dir, err := subDir(w.root, b.rel)
		if err != nil {
			continue // building it will say why
		}
		its, err := readValidity(dir)
		dir.Close()
		if err != nil || its != validity {
			continue
		}
		if only != nil {
			return nil
		}
		only = b
	}
	return only
}

// dropEmptyInbox makes no spool where there was none, and is no mail.
func (w *wayBack) dropEmptyInbox() {
	w.boxes = slices.DeleteFunc(w.boxes, func(b *backBox) bool {
		if len(b.parts) > 0 || b.base != nil {
			return false
		}
		none, err := w.isEmpty(b.rel)
		w.noInbox = err == nil && none
		return w.noInbox
	})
}

// isEmpty reports whether a folder has no messages.
func (w *wayBack) isEmpty(rel string) (bool, error) {
	d, err := openLive(w.root, rel)
	if err != nil {
		return false, err
	}
	defer d.close()
	t, err := d.scan()
	return err == nil && len(t.list) == 0, err
}

// checkPlaces looks at the paths that the mboxes go to: nothing may be there,
// but an empty file, as agents make before they know better.
func (w *wayBack) checkPlaces() error {
	for _, b := range w.boxes {
		for _, other := range w.boxes {
			if strings.HasPrefix(other.live, b.live+"/") {
				return &Unfit{b.report.Name, "folder-collides", fmt.Sprintf("holds mail and the folder %s, which no mbox can; move the one or the other", other.report.Name)}
			}
		}
		if err := w.checkPlace(b); err != nil {
			return err
		}
	}
	return nil
}

func (w *wayBack) checkPlace(b *backBox) error {
	dir, rest, err := w.nearest(b.live)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Lstat(rest[0])
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(rest) > 1 || info.IsDir():
		return &Unfit{b.live, "folder-collides", fmt.Sprintf("can't be made for the folder %s: %q is in the way", b.report.Name, rest[0])}
	case !info.Mode().IsRegular() || info.Size() > 0:
		return &Unfit{b.live, "stray", "came to the old path since the user was moved; first run: mailferry sweep " + shellWord(w.account.Name)}
	}
	return nil
}

// nearest opens the last directory on the way to a path that is there, and
// returns what remains of the path.
func (w *wayBack) nearest(path string) (dir *safefs.Dir, rest []string, err error) {
	at := filepath.Dir(path)
	rest = []string{filepath.Base(path)}
	for {
		dir, err = safefs.OpenFor(at, w.account.UID)
		if err == nil || !errors.Is(err, fs.ErrNotExist) || at == "/" {
			return dir, rest, err
		}
		rest = append([]string{filepath.Base(at)}, rest...)
		at = filepath.Dir(at)
	}
}

// room demands that a second copy finds room.
func (w *wayBack) room(in *Inspector) error {
	need := map[uint64]*need{}
	for _, b := range w.boxes {
		dir, _, err := w.nearest(b.live)
		if err != nil {
			return err
		}
		err = b.roomIn(dir, need, in)
		if err = errors.Join(err, dir.Close()); err != nil {
			return err
		}
	}
	return nil
}

// extraPerMessage is what a message takes in an mbox beside its bytes: From_
// line, fields of its state.
const extraPerMessage = 512

func (b *backBox) roomIn(dir *safefs.Dir, sum map[uint64]*need, in *Inspector) error {
	left, err := dir.Statfs()
	if err != nil {
		return err
	}
	n := sum[left.Dev]
	if n == nil {
		n = &need{}
		sum[left.Dev] = n
	}
	if err := b.weigh(n); err != nil {
		return err
	}
	if plus(n.bytes, in.FreeFloor) > left.Bytes {
		return &Unfit{dir.Path(), "space", fmt.Sprintf("has %d bytes free; %d are needed, and %d must stay free", left.Bytes, n.bytes, in.FreeFloor)}
	}
	l := &look{in: in, a: b.account, i: &Inspection{User: b.account.Name}}
	if l.quota(dir, *n); l.i.Refused {
		f := l.i.reason()
		return &Unfit{dir.Path(), f.Code, f.Text}
	}
	return nil
}

// weigh adds what the mailbox takes, by the sizes of its files.
func (b *backBox) weigh(n *need) error {
	d, err := openLive(b.root, b.rel)
	if err != nil {
		return err
	}
	defer d.close()
	n.inodes++
	for _, dir := range []*safefs.Dir{d.cur, d.new} {
		if dir == nil {
			continue
		}
		err = errors.Join(err, dir.Names(func(name string) error {
			if _, err := maildir.ParseName(name); err != nil {
				return nil
			}
			if info, err := dir.Lstat(name); err == nil { // the name may say anything of its size
				b.bytes = plus(b.bytes, info.Size())
				n.bytes = plus(n.bytes, plus(info.Size(), extraPerMessage))
			}
			return nil
		}))
	}
	return err
}
