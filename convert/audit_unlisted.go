package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"mailferry/maildir"
)

// unlisted is a message of the folder's own mbox that was found in it without a
// UID.
type unlisted struct {
	offset int64
	uid    uint32
	name   string
	state  fileState
	listed bool
}

// maxUnlisted bounds how many are remembered before they are judged.
const maxUnlisted = 10000

// readUIDs reads the list of UIDs again: a client may have moved a message back
// since it was walked. What is wrong with it was said then.
func (s *search) readUIDs(each func(maildir.UIDEntry)) error {
	f, err := s.dir.dir.OpenRegular(maildir.UIDListName)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	maildir.ScanUIDList(f, func(u maildir.UIDEntry) error {
		each(u)
		return nil
	})
	return nil
}

// list takes the UID of a file that had none.
func (s *search) list(u maildir.UIDEntry) {
	f := s.folder.files.find(keyOf(u.Name))
	if f == nil || f.uid != 0 {
		return
	}
	f.uid = u.UID
	if u.UIDL != "" {
		f.state |= hasUIDL
	}
}

// listLag is how long after a file a server may write its line in the list of
// UIDs.
const listLag = 200 * time.Millisecond

// judgeUnlisted tells messages that have lost their line in the list from those
// that came back a moment ago.
func (s *search) judgeUnlisted(ctx context.Context) error {
	if len(s.unlisted) == 0 {
		return nil
	}
	if err := pause(ctx, listLag); err != nil {
		return err
	}
	slices.SortFunc(s.unlisted, func(a, b unlisted) int { return cmp.Compare(uniqueOf(a.name), uniqueOf(b.name)) })
	err := s.readUIDs(func(u maildir.UIDEntry) {
		i, found := slices.BinarySearchFunc(s.unlisted, u.Name, func(m unlisted, unique string) int { return cmp.Compare(uniqueOf(m.name), unique) })
		if found {
			s.unlisted[i].listed = true
		}
	})
	slices.SortFunc(s.unlisted, func(a, b unlisted) int { return cmp.Compare(a.offset, b.offset) })
	m := s.folder.report
	for _, u := range s.unlisted {
		if n, err := maildir.ParseName(u.name); u.listed || err != nil || !s.folder.box.wrote(n) {
			m.Returned++
			continue
		}
		m.Astray++
		s.differ(m, u.offset, s.filePath(u.name, u.state), "UID", fmt.Sprint(u.uid), "none")
	}
	s.unlisted = s.unlisted[:0]
	return err
}
