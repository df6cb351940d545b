package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// write writes the messages to staging, each under the name that it will have.
// Its memory is bounded by the names.
func (t *taking) write(ctx context.Context) error {
	scan := t.Scan
	scan.Digest = true
	from, err := t.first()
	if err != nil {
		return err
	}
	size := t.record.To - from
	in, err := mbox.NewScanner(io.NewSectionReader(t.source, from, size), size, scan)
	if err != nil {
		if t.record.From == 0 && begins(t.source) {
			return &Busy{t.record.Path}
		}
		return err
	}
	defer in.Close()
	namer := maildir.NewNamer(time.Now(), os.Getpid(), hostname())
	track := mbox.NewTracker(in)
	shown := time.Now()
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
		if err := t.message(name, e, in.WriteContent); err != nil {
			return fmt.Errorf("%q: message at offset %d: %w", t.record.Path, from+e.Offset, err)
		}
		t.names = append(t.names, name)
		t.taken.Bytes += e.Size
		if time.Since(shown) > refreshEvery {
			shown = time.Now()
			err = t.alive()
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// first is where the first message is to begin: behind the line ends that an agent
// adds when the mbox before it has none.
func (t *taking) first() (from int64, err error) {
	c := make([]byte, 1)
	for from = t.record.From; from > 0 && from < t.record.To; from++ {
		if _, err := t.source.ReadAt(c, from); err != nil || c[0] != '\n' && c[0] != '\r' {
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
