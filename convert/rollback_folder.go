package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// backFolder is a folder of the Maildir that is read on the way back.
type backFolder struct {
	*liveDir
	files    *files
	header   maildir.UIDListHeader // zero if there is no list of UIDs
	keywords audit                 // for the names of letters
	strays   []unnumbered          // files that the list of UIDs does not have
}

// backMessage is a message of a folder.
type backMessage struct {
	uid   uint32
	name  string // of its file
	state fileState
	flags maildir.Flags
}

// unnumbered is a file that no server has numbered yet.
type unnumbered struct {
	name  string
	state fileState
}

// oddMaildir says why a Maildir is not taken back as it is.
func oddMaildir(path, format string, args ...any) error {
	return &Unfit{path, "maildir-odd", fmt.Sprintf(format, args...)}
}

// sight is what tells that nothing of a folder was changed between two looks.
type sight struct {
	stamp
	uids, keywords stat // of the lists; zero if there are none
	served         bool // see liveDir.served
}

// look takes a sight, once another change would make another one.
func (d *liveDir) look(ctx context.Context) (s sight, err error) {
	for {
		if s.stamp, err = d.stamp(); err != nil {
			return s, err
		}
		if s.uids, err = listStat(d.dir, maildir.UIDListName); err != nil {
			return s, err
		}
		if s.keywords, err = listStat(d.dir, keywordsName); err != nil {
			return s, err
		}
		if s.served, err = d.served(); err != nil {
			return s, err
		}
		wait := s.unsettled()
		if wait <= 0 {
			return s, nil
		}
		if err := pause(ctx, wait); err != nil {
			return s, err
		}
	}
}

func listStat(dir *safefs.Dir, name string) (stat, error) {
	info, err := dir.LstatRegular(name)
	if errors.Is(err, fs.ErrNotExist) {
		return stat{}, nil
	}
	if err != nil {
		return stat{}, err
	}
	return statOf(info), nil
}

// openBack opens a folder and reads what is known of all of its messages. What
// it read counts if a look before and one afterwards show the same.
func openBack(ctx context.Context, root *safefs.Dir, rel string) (f *backFolder, err error) {
	f = &backFolder{}
	if f.liveDir, err = openLive(root, rel); err != nil {
		return nil, err
	}
	for _, step := range []func() error{f.readKeywords, f.readNames, f.readUIDs, f.findStrays, ctx.Err} {
		if err = step(); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

func (f *backFolder) readKeywords() error {
	f.keywords.keywords = &maildir.KeywordTable{}
	file, err := f.openList(keywordsName)
	if file == nil || err != nil {
		return err
	}
	defer file.Close()
	f.keywords.keywords, err = maildir.ParseKeywords(file)
	return err
}

// openList opens a list of the folder; nil if there is none.
func (f *backFolder) openList(name string) (*os.File, error) {
	file, err := f.dir.OpenRegular(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return file, err
}

func (f *backFolder) readNames() (err error) {
	if f.files, err = f.scan(); err != nil {
		return err
	}
	if f.files.repeats {
		return oddMaildir(f.dir.Path(), "has two files of one name but for the flags; a server that opens it puts that right")
	}
	return nil
}

// readUIDs gives each file the last UID that the list has for it.
func (f *backFolder) readUIDs() (err error) {
	f.header, err = f.eachUID(func(u maildir.UIDEntry) error {
		if file := f.files.find(keyOf(u.Name)); file != nil {
			file.uid = u.UID
		}
		return nil
	})
	return err
}

// eachUID reads the list of UIDs; a zero header if there is none.
func (f *backFolder) eachUID(each func(maildir.UIDEntry) error) (header maildir.UIDListHeader, err error) {
	file, err := f.openList(maildir.UIDListName)
	if file == nil || err != nil {
		return header, err
	}
	defer file.Close()
	var own error
	header, err = maildir.ScanUIDList(file, func(u maildir.UIDEntry) error {
		own = each(u)
		return own
	})
	if err != nil && own == nil {
		err = oddMaildir(file.Name(), "can't be read: %v", err)
	}
	return header, err
}

// findStrays lists the files without a UID, in order of their names.
func (f *backFolder) findStrays() error {
	in := func(state fileState) func(string) error {
		return func(name string) error {
			if name[0] == '.' {
				return nil
			}
			file := f.files.find(keyOf(uniqueOf(name)))
			if file == nil {
				return &Busy{f.dir.Path()} // it came since the folder was listed
			}
			if file.uid == 0 {
				f.strays = append(f.strays, unnumbered{name, state | file.state&^inNew})
			}
			return nil
		}
	}
	err := f.cur.Names(in(0))
	if f.new != nil && err == nil {
		err = f.new.Names(in(inNew))
	}
	slices.SortFunc(f.strays, func(a, b unnumbered) int { return cmp.Compare(a.name, b.name) })
	return err
}

// nextUID is the UID that mail gets that comes after all that is there.
func (f *backFolder) nextUID() uint32 { return max(f.header.NextUID, 1) + uint32(len(f.strays)) }

func (f *backFolder) messages() int { return len(f.files.list) }

// each calls do for each message in order of UIDs: those that the list of UIDs
// has, and the others behind them.
func (f *backFolder) each(do func(backMessage) error) error {
	_, err := f.eachUID(func(u maildir.UIDEntry) error {
		file := f.files.find(keyOf(u.Name))
		if file == nil || file.uid != u.UID {
			return nil
		}
		return do(backMessage{u.UID, f.files.name(file, u.Name), file.state, file.flags})
	})
	next := max(f.header.NextUID, 1)
	for i, s := range f.strays {
		if err != nil {
			return err
		}
		file := f.files.find(keyOf(uniqueOf(s.name)))
		err = do(backMessage{next + uint32(i), s.name, s.state, file.flags})
	}
	return err
}

// served reports whether a server may have shown the folder to clients: Dovecot
// leaves indexes, if it is not told to keep them elsewhere.
func (d *liveDir) served() (bool, error) {
	found := errors.New("found")
	err := d.dir.Names(func(name string) error {
		if strings.HasPrefix(name, indexPrefix) {
			return found
		}
		return nil
	})
	if err == found {
		return true, nil
	}
	return false, err
}

const indexPrefix = "dovecot.index"

// names are the keywords of a message, as a server shows them.
func (f *backFolder) names(flags maildir.Flags) (names []string) {
	for i := range maildir.MaxKeywords {
		name := f.keywords.keyword(i)
		if flags&maildir.Keyword(i) != 0 && !strings.ContainsFunc(name, isBlank) { // which would be read as two
			names = append(names, name)
		}
	}
	return names
}

func isBlank(r rune) bool { return r <= ' ' || r == 0x7f }

// unsettled is for how long another change could still have the same times.
func (s sight) unsettled() time.Duration {
	at := s.settledAt()
	for _, list := range []stat{s.uids, s.keywords} {
		if list.Ino != 0 {
			at = latest(at, time.Unix(0, max(list.Mtime, list.Ctime)).Add(clockTick))
		}
	}
	wait := time.Until(at)
	if wait > listPatience {
		return 0 // times to come
	}
	return min(wait, time.Second)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
