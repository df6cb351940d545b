package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// lost is a message of an mbox that its folder does not have under its UID.
type lost struct {
	size   int64
	offset int64
	digest [16]byte // the first half
	uid    uint32   // 0: it was found
	box    int32
}

// searchAll looks for the lost messages among the files that no mbox explains,
// in all folders that there are now, and counts the others as having come.
func (c *accountAudit) searchAll(ctx context.Context) error {
	slices.SortFunc(c.lost, func(a, b lost) int {
		return cmp.Or(cmp.Compare(a.size, b.size), slices.Compare(a.digest[:], b.digest[:]), cmp.Compare(a.box, b.box), cmp.Compare(a.offset, b.offset))
	})
	if err := c.listFolders(); err != nil { // some may be new
		return err
	}
	for _, f := range c.folders {
		if err := c.search(ctx, f); err != nil {
			return err
		}
	}
	for i := range c.lost {
		if l := &c.lost[i]; l.uid != 0 {
			c.boxes[l.box].report.Deleted++
		}
	}
	return nil
}

// search looks through one folder.
func (c *accountAudit) search(ctx context.Context, f *auditFolder) error {
	dir, err := openLive(c.root, f.rel)
	if errors.Is(err, fs.ErrNotExist) || isNoDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.close()
	if f.files == nil || len(c.lost) > 0 {
		fresh, err := dir.list(ctx)
		if err != nil {
			return err
		}
		fresh.inherit(f.files)
		f.files = fresh
	}
	s := &search{accountAudit: c, folder: f, dir: dir}
	s.limit()
	if len(c.lost) == 0 && !s.suspicious() {
		s.came(f.files.others())
		return nil
	}
	return s.run(ctx)
}

// search is the work at one folder.
type search struct {
	*accountAudit
	folder *auditFolder
	dir    *liveDir
	below  uint32          // UIDs below were given before the flip; 0: none
	extra  map[uint64]bool // files that came after the listing, by key

	unlisted []unlisted
}

// limit settles which UIDs no server may have given since the flip.
func (s *search) limit() {
	if b := s.folder.box; b != nil && !b.differs() {
		s.below = b.nextUID
	}
}

// suspicious reports whether a file that is no message of the mbox has a UID
// from before the flip.
func (s *search) suspicious() bool {
	return slices.ContainsFunc(s.folder.files.list, func(f file) bool { return f.state&taken == 0 && s.isOld(&f) })
}

func (s *search) isOld(f *file) bool { return f.uid != 0 && f.uid < s.below }

// run looks at all files that are no messages of the mbox, until no name has
// changed meanwhile.
func (s *search) run(ctx context.Context) error {
	if err := s.readUIDs(s.list); err != nil {
		return err
	}
	if err := s.passes(ctx); err != nil {
		return err
	}
	return s.judgeUnlisted(ctx)
}

// passes looks at all files until no name has changed meanwhile.
func (s *search) passes(ctx context.Context) error {
	for look := 0; look < maxLooks; look++ {
		before, err := s.dir.stamp()
		if err != nil {
			return err
		}
		if err := s.pass(ctx); err != nil {
			return err
		}
		if after, err := s.dir.stamp(); err != nil || after == before {
			return err
		}
	}
	return &Busy{s.dir.dir.Path()}
}

func (s *search) pass(ctx context.Context) error {
	look := func(dir *safefs.Dir, state fileState) error {
		return dir.Names(func(name string) error {
			if name[0] == '.' {
				return nil
			}
			err := errors.Join(s.name(name, state), ctx.Err())
			if err == nil && len(s.unlisted) >= maxUnlisted {
				err = s.judgeUnlisted(ctx)
			}
			return err
		})
	}
	err := look(s.dir.cur, 0)
	if s.dir.new != nil && err == nil {
		err = look(s.dir.new, inNew)
	}
	return err
}

// name looks at a file, unless it was looked at.
func (s *search) name(name string, state fileState) error {
	key := keyOf(uniqueOf(name))
	f := s.folder.files.find(key)
	if f == nil {
		f = &file{key: key}
		if s.extra[key] {
			return nil
		}
	}
	if f.state&(taken|examined) != 0 {
		return nil
	}
	path := s.filePath(name, state)
	err := s.examine(f, name, path, state)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has another name by now, or is gone
	}
	f.state |= examined
	if s.folder.files.find(key) == nil {
		if s.extra == nil {
			s.extra = map[uint64]bool{}
		}
		s.extra[key] = true
	}
	return err
}

func (s *search) filePath(name string, state fileState) string {
	if state&inNew != 0 {
		return s.path(s.folder.rel, "new", name)
	}
	return s.path(s.folder.rel, "cur", name)
}

// examine settles what a file is.
func (s *search) examine(f *file, name, path string, state fileState) error {
	got, err := s.reader.read(s.dir.in(state), name, func(size int64) bool { return s.isOld(f) || s.isWanted(size) })
	if isIrregular(err) || errors.Is(err, fs.ErrPermission) {
		got, err = nil, nil
	}
	if err != nil {
		return err
	}
	var l *lost
	if got != nil {
		l = s.match(got)
	}
	switch {
	case l == nil && s.isOld(f):
		s.differ(s.folder.report, -1, path, "message", "absent", fmt.Sprintf("present with UID %d", f.uid))
		s.came(1)
	case l == nil:
		s.came(1)
	default:
		s.found(l, f, name, path, state)
	}
	return nil
}

// isWanted reports whether a lost message has that size.
func (s *search) isWanted(size int64) bool {
	_, found := slices.BinarySearchFunc(s.lost, size, func(l lost, size int64) int { return cmp.Compare(l.size, size) })
	return found
}

// match finds a lost message with those bytes, one of this folder if there is
// one.
func (s *search) match(m *measured) (l *lost) {
	digest := m.digest[:16]
	i, _ := slices.BinarySearchFunc(s.lost, m.size, func(l lost, size int64) int {
		return cmp.Or(cmp.Compare(l.size, size), slices.Compare(l.digest[:], digest))
	})
	for ; i < len(s.lost) && s.lost[i].size == m.size && slices.Equal(s.lost[i].digest[:], digest); i++ {
		own := s.folder.box != nil && s.lost[i].box == s.folder.box.index
		if s.lost[i].uid != 0 && (l == nil || own) {
			l = &s.lost[i]
		}
		if own && l != nil {
			break
		}
	}
	return l
}

// found counts a lost message that was found.
func (s *search) found(l *lost, f *file, name, path string, state fileState) {
	of := s.boxes[l.box].report
	switch {
	case s.folder.box == nil || s.folder.box.index != l.box:
		of.Moved++
	case f.uid == 0:
		s.unlisted = append(s.unlisted, unlisted{offset: l.offset, uid: l.uid, name: name, state: state})
	case s.wasRenumbered(f, name):
		of.Astray++
		s.differ(of, l.offset, path, "UID", fmt.Sprint(l.uid), fmt.Sprint(f.uid))
	default:
		of.Returned++
	}
	l.uid = 0
}

// wasRenumbered reports whether a message of this folder has another UID,
// although nobody has moved it away and back. To do that a server writes a line
// without UIDL, and a file with the sizes in its name.
func (s *search) wasRenumbered(f *file, name string) bool {
	n, err := maildir.ParseName(name)
	ours := err == nil && s.folder.box.wrote(n)
	return s.isOld(f) || f.state&hasUIDL != 0 || ours && (n.Size < 0 || n.VSize < 0 || s.folder.box.differs())
}

// wrote reports whether a name is one that the conversion gave.
func (b *mailboxAudit) wrote(n maildir.Name) bool {
	_, rest, _ := strings.Cut(n.Unique, ".M")
	made, _, _ := strings.Cut(rest, ".")
	digits := strings.NewReplacer("P", "", "Q", "").Replace(made)
	return n.Sec <= b.flip && strings.Count(made, "P") == 1 && strings.Count(made, "Q") == 1 && strings.Trim(digits, "0123456789") == ""
}

// came counts messages that are in no mbox.
func (s *search) came(n int) {
	if n == 0 {
		return
	}
	if s.folder.report == nil {
		s.folder.report = &MailboxAudit{Name: s.nameOf(s.folder.rel), Folder: s.folder.rel}
		s.report.Mailboxes = append(s.report.Mailboxes, s.folder.report)
	}
	s.folder.report.Came += n
}
