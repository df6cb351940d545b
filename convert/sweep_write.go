package convert

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

func (t *taking) makeStaging() (err error) {
	if t.parent, err = safefs.OpenFor(t.record.Parent, t.account.UID); err != nil {
		return err
	}
	if t.staging, err = t.parent.Mkdir(t.record.Name, 0o700); err != nil {
		return err
	}
	t.sync, err = t.staging.Again()
	return err
}

// holeLimit is how many bytes of zeros a sweep reads of one file, in part of a second: a
// hole gives them without end, costs its owner nothing, and would keep all
// other users of a run waiting; mail has none (RFC 5322 2.2), but for what a loss of
// power leaves, and that is read some times. Other bytes count as mail however many they
// are, and however slow the disk: they take their owner's room.
var holeLimit int64 = 64 << 20

// solid is a file of which no more is read than holeLimit allows: else the error is an
// *Unfit.
type solid struct {
	watched
	path  string
	zeros int64 // that were read
	err   error // the first, which is that of each reading from then on
}

func (s *solid) ReadAt(b []byte, off int64) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.watched.ReadAt(b, off)
	s.zeros += int64(bytes.Count(b[:n], []byte{0}))
	switch {
	case err != nil && err != io.EOF:
		s.err = err
	case s.zeros > holeLimit:
		s.err = &Unfit{s.path, "stray-hole", fmt.Sprintf("is zeros for long, as a file with a hole is, and is read no further than offset %d, since others wait: remove or cut off what is no mail; what is, is taken then", off+int64(n))}
		return 0, s.err
	}
	return n, err
}

// fits demands that the filesystem of a directory has room for n bytes, before what is
// written of them takes all of it from others.
func fits(dir *safefs.Dir, path string, n int64) error {
	left, err := dir.Statfs()
	if err == nil && left.Bytes < n {
		err = &fs.PathError{Op: "take", Path: path, Err: unix.ENOSPC}
	}
	return err
}

// write writes the messages to staging, each under the name that it will have.
// Its memory is bounded by the names.
func (t *taking) write(ctx context.Context) error {
	scan := t.Scan
	scan.Digest = true
	check := within(ctx, nowAndThen(t.alive))
	source := &solid{watched: watched{t.source, check}, path: t.record.Path}
	from, err := t.first(source)
	if err != nil {
		return err
	}
	size := t.record.To - from
	in, err := mbox.NewScanner(io.NewSectionReader(source, from, size), size, scan)
	if err != nil {
		if t.record.From == 0 && begins(t.source) {
			return &Busy{t.record.Path}
		}
		return err
	}
	defer in.Close()
	namer := maildir.NewNamer(time.Now(), os.Getpid(), hostname())
	track := mbox.NewTracker(in)
	for {
		e, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, mbox.ErrShrunk) {
			return &Busy{t.record.Path}
		}
		if err != nil {
			return err
		}
		state := track.State(e)
		if state.Pseudo && from == 0 { // behind other mail a stranger sent it
			continue
		}
		name := string(namer.Append(nil, e.Size, e.VSize))
		if flags := systemFlags(state.Flags); flags != 0 { // a session has put it there: it goes to cur
			name += maildir.InfoPrefix + flags.String()
		}
		if in.ReadsAgain() { // it is long
			if err := fits(t.staging, t.record.Path, e.Size); err != nil {
				return err
			}
		}
		if err := t.message(name, e, in.WriteContent); err != nil {
			return fmt.Errorf("%q: message at offset %d: %w", t.record.Path, from+e.Offset, err)
		}
		t.names = append(t.names, name)
		t.taken.Bytes += e.Size
		if err := check(); err != nil {
			return err
		}
	}
}

// first is where the first message is to begin: behind the line ends that an agent
// adds when the mbox before it has none.
func (t *taking) first(source io.ReaderAt) (from int64, err error) {
	from = t.record.From
	in := bufio.NewReader(io.NewSectionReader(source, from, t.record.To-from))
	for ; from > 0 && from < t.record.To; from++ {
		if c, err := in.ReadByte(); err != nil || c != '\n' && c != '\r' {
			return from, err
		}
	}
	return from, nil
}

// message writes a file. What is read again, since it is long, must be what was
// measured.
func (t *taking) message(name string, e *mbox.Entry, content func(io.Writer) error) error {
	f, err := t.staging.Create(name, 0o600)
	if err != nil {
		return err
	}
	written := message.NewMeasure()
	err = content(io.MultiWriter(written, f))
	if err == nil && written.Digest() != e.Digest || errors.Is(err, mbox.ErrShrunk) {
		err = &Busy{t.record.Path}
	}
	if err = errors.Join(err, f.Close()); err != nil || e.Date.IsZero() {
		return err
	}
	ts := []unix.Timespec{{Sec: e.Date.Unix()}, {Sec: e.Date.Unix()}}
	return unix.UtimesNanoAt(t.staging.Fd(), name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// syncStaging makes durable what was written, and that it is there.
func (t *taking) syncStaging() error {
	if len(t.names) > manyFiles {
		if err := t.sync.SyncFS(); err != nil {
			return err
		}
		return t.parent.Sync()
	}
	for _, name := range t.names {
		f, err := t.staging.OpenRegular(name)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return errors.Join(t.staging.Sync(), t.parent.Sync())
}
