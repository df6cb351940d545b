package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	gomaildir "github.com/emersion/go-maildir"
	"golang.org/x/sys/unix"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// liveDir is a folder of a Maildir that is in use: files come, go and change
// their names while it is looked at.
type liveDir struct {
	dir, cur *safefs.Dir
	new      *safefs.Dir // nil if there is none, as in a folder just made
}

// errNoFolder is about a directory that is no folder.
var errNoFolder = errors.New("has no cur")

// openLive opens the folder at a place relative to the root of a Maildir, and
// follows nothing. What is not there is fs.ErrNotExist, and besides errNoFolder
// if its directory is there.
func openLive(root *safefs.Dir, rel string) (*liveDir, error) {
	dir, err := subDir(root, rel)
	if err != nil {
		return nil, err
	}
	d := &liveDir{dir: dir}
	if d.cur, err = dir.Sub("cur"); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", errNoFolder, err)
	}
	if err == nil {
		d.new, err = dir.Sub("new")
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// subDir opens a directory below another.
func subDir(root *safefs.Dir, rel string) (*safefs.Dir, error) {
	dir, err := root.Again()
	if err != nil || rel == "." {
		return dir, err
	}
	for part := range strings.SplitSeq(rel, "/") {
		next, err := dir.Sub(part)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

func (d *liveDir) close() (err error) {
	for _, dir := range []*safefs.Dir{d.dir, d.cur, d.new} {
		if dir != nil {
			err = errors.Join(err, dir.Close())
		}
	}
	return err
}

// in returns the directory that a file lies in.
func (d *liveDir) in(s fileState) *safefs.Dir {
	if s&inNew != 0 {
		return d.new
	}
	return d.cur
}

// stamp tells whether names in cur or new have changed. The owner can set an
// mtime, not a ctime.
type stamp struct{ cur, new [2]int64 }

func (d *liveDir) stamp() (s stamp, err error) {
	if s.cur, err = timesOf(d.cur); err == nil && d.new != nil {
		s.new, err = timesOf(d.new)
	}
	return s, err
}

func timesOf(dir *safefs.Dir) ([2]int64, error) {
	info, err := dir.Stat()
	if err != nil {
		return [2]int64{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return [2]int64{st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// clockTick is more than the time of a file lies behind the clock: 4 ms with
// Linux before 6.13, up to 10 ms on some architectures.
const clockTick = 20 * time.Millisecond

// settledAt is from when on another change would have other times.
func (s stamp) settledAt() time.Time {
	last, fine := int64(0), false
	for _, t := range [...]int64{s.cur[0], s.cur[1], s.new[0], s.new[1]} {
		last, fine = max(last, t), fine || t%int64(time.Second) != 0
	}
	if !fine { // a filesystem that counts seconds
		return time.Unix(0, last).Add(time.Second + clockTick)
	}
	return time.Unix(0, last).Add(clockTick)
}

// listPatience is how long a folder may be in motion before its listing is
// given up, and listPause the time between two looks.
const (
	listPatience = time.Minute
	listPause    = 5 * time.Millisecond
)

// list lists the messages. A listing counts only if no name was changed
// meanwhile: while clients rename, up to half of the listings miss a file or
// have it twice.
func (d *liveDir) list(ctx context.Context) (*files, error) {
	until := time.Now().Add(listPatience)
	for time.Now().Before(until) {
		before, err := d.stamp()
		if err != nil {
			return nil, err
		}
		if wait := time.Until(before.settledAt()); wait > 0 && wait < listPatience {
			if err := pause(ctx, min(wait, time.Second)); err != nil {
				return nil, err
			}
			continue
		}
		t, err := d.scan()
		if err != nil {
			return nil, err
		}
		if after, err := d.stamp(); err != nil || after == before {
			return t, err
		}
		if err := pause(ctx, listPause); err != nil {
			return nil, err
		}
	}
	return nil, &Busy{d.dir.Path()}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// scan lists cur and new once. Names and flags in cur are read by go-maildir,
// not by what wrote them; it is given the open directory, so that it follows
// nothing. What go-maildir leaves out, a server shows all the same: new, and
// names without flags.
func (d *liveDir) scan() (*files, error) {
	t := &files{}
	err := gomaildir.Dir(fmt.Sprintf("/proc/self/fd/%d", d.dir.Fd())).Walk(func(m *gomaildir.Message) error {
		flags, _ := maildir.ParseFlags(letters(m.Flags())) // of others the name is kept as it is
		t.add(filepath.Base(m.Filename()), m.Key(), flags, 0)
		return nil
	})
	var invalid *gomaildir.MailfileError
	var info *gomaildir.FlagError
	if err != nil && !errors.As(err, &invalid) && !errors.As(err, &info) {
		return nil, err
	}
	if err := d.cur.Names(func(name string) error { t.addUnread(name); return nil }); err != nil {
		return nil, err
	}
	if d.new != nil {
		err = d.new.Names(func(name string) error { t.addNew(name); return nil })
		if err != nil {
			return nil, err
		}
	}
	t.sort()
	return t, nil
}

// doubles reports each file that has the unique name of another.
func (d *liveDir) doubles(t *files, report func(place, first string)) error {
	if !t.repeats {
		return nil
	}
	first := map[uint64]string{}
	look := func(sub string) func(string) error {
		return func(name string) error {
			f := t.find(keyOf(uniqueOf(name)))
			if f == nil || f.state&repeated == 0 {
				return nil
			}
			if other, again := first[f.key]; again {
				report(filepath.Join(sub, name), other)
			} else {
				first[f.key] = name
			}
			return nil
		}
	}
	err := d.cur.Names(look("cur"))
	if d.new != nil {
		err = errors.Join(err, d.new.Names(look("new")))
	}
	return err
}

func letters(flags []gomaildir.Flag) string {
	var b strings.Builder
	for _, f := range flags {
		b.WriteRune(rune(f))
	}
	return b.String()
}

// addUnread adds a name of cur that go-maildir does not take for a message's.
func (t *files) addUnread(name string) {
	unique, info, _ := strings.Cut(name, ":")
	if name[0] == '.' || unique != "" && strings.HasPrefix(info, "2,") {
		return
	}
	if read, known := t.odd[keyOf(strings.TrimLeft(unique, ":"))]; known && read == name {
		return
	}
	t.add(name, unique, 0, unread)
}

func (t *files) addNew(name string) {
	if name[0] == '.' {
		return
	}
	parsed, err := maildir.ParseName(name)
	if err == nil {
		t.add(name, parsed.Unique, parsed.Flags, inNew)
	}
}

// measured is what reading a file gave.
type measured struct {
	digest      message.Digest
	size, vsize int64
	date        int64 // mtime in seconds
}

// reader measures files, one after the other.
type reader struct {
	measure *message.Measure
	buffer  []byte
}

func newReader() *reader { return &reader{message.NewMeasure(), make([]byte, 1<<16)} }

// read measures a file of a directory, if it has a size that is wanted; nil
// if it has not. What it alone has brought into the page cache it drops again.
func (r *reader) read(dir *safefs.Dir, name string, wanted func(size int64) bool) (*measured, error) {
	return r.readWatched(dir, name, wanted, func() error { return nil })
}

// readWatched is read that ends when a check, made before each piece, fails.
func (r *reader) readWatched(dir *safefs.Dir, name string, wanted func(size int64) bool, check func() error) (*measured, error) {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || wanted != nil && !wanted(info.Size()) {
		return nil, err
	}
	pages, err := cachestat(int(f.Fd()), 0, info.Size())
	r.measure.Reset()
	if _, err := io.CopyBuffer(r.measure, onlyReader{io.NewSectionReader(watched{f, check}, 0, math.MaxInt64)}, r.buffer); err != nil {
		return nil, err
	}
	if err == nil && pages == 0 {
		unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // advice only
	}
	return &measured{r.measure.Digest(), r.measure.Size, r.measure.VSize, info.ModTime().Unix()}, nil
}
