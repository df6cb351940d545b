package convert

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"mailferry/internal/message"
	"mailferry/maildir"
)

// Altered says that staging does not hold what was written there. The user is
// left on his mbox; staging is to be thrown away.
type Altered struct {
	Path string
	Text string
}

func (e *Altered) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Text) }

// verify proves that staging holds what its manifests say: it reads every
// message that was not yet read back and compares the digest with the mbox's;
// of the others it asks whether the file is still the same. It compares the
// lists with the files, and their number.
//
// After the sync of a precopy it is called once; under the locks of a cutover
// again, when only the delta is left to be read. A folder that this process has
// proved, and that was as it was then when the round came to it, needs a look at
// nothing but what the round changed: see recall.
//
// It returns the number of messages.
func (r *round) verify(ctx context.Context) (files int, err error) {
	dirs, err := r.staging.Dirs()
	for _, dir := range dirs {
		if err != nil {
			return 0, err
		}
		var n int
		n, err = r.verifyFolder(ctx, dir)
		files += n
	}
	return files, err
}

func (r *round) verifyFolder(ctx context.Context, dir string) (files int, err error) {
	folder, err := r.staging.FolderAt(dir)
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	trusted := r.trusted[dir]
	if trusted != nil && !r.touched[dir] {
		return trusted.files, nil
	}
	state, err := readState(folder, r.settings)
	if err != nil {
		return 0, err
	}
	if state == nil {
		return 0, r.verifyBare(folder, dir)
	}
	b := &readBack{round: r, folder: folder, state: state, trusted: trusted != nil}
	if m := r.resumed[dir]; m != nil {
		b.from, b.files = m.reach, m.entries
	}
	if err := b.run(ctx); err != nil {
		return 0, err
	}
	return b.files, r.recall.prove(dir, folder, state, b.files)
}

// verifyBare allows one folder without a mailbox: the INBOX of an account that
// has none, and the parents of layout fs.
func (r *round) verifyBare(folder *maildir.Folder, dir string) error {
	return folder.Names(func(name string) error {
		return &Altered{folder.Path(name), "is in a folder that no mailbox accounts for"}
	})
}

// readBack verifies one folder.
type readBack struct {
	*round
	folder  *maildir.Folder
	state   *mailboxState
	from    reach // in the lists: what lies before was proved, and is as it was
	trusted bool  // so were the files, but for those that the round made

	list     *os.File // the manifest, open to mark; nil before the first mark
	marked   []byte   // lines with marks that are not written yet
	markedAt int64    // where in the manifest they begin
	measure  *message.Measure
	buffer   []byte
	files    int
}

func (b *readBack) run(ctx context.Context) (err error) {
	defer func() {
		if b.list != nil {
			err = errors.Join(err, b.list.Close())
		}
	}()
	if err := b.records(ctx); err != nil {
		return err
	}
	if !b.trusted {
		if err := b.count(); err != nil {
			return err
		}
	}
	if b.list == nil {
		return nil
	}
	if err := b.writeMarks(); err != nil {
		return err
	}
	b.state.Unchecked = 0
	return writeState(b.folder, b.state)
}

// records walks the manifest and the uidlist in step.
func (b *readBack) records(ctx context.Context) error {
	manifest, err := b.folder.OpenList(manifestName)
	if err != nil {
		return err
	}
	defer manifest.Close()
	uids, err := b.folder.OpenList(maildir.UIDListName)
	if err != nil {
		return err
	}
	defer uids.Close()
	at := b.from.manifest
	lines := bufio.NewReaderSize(io.NewSectionReader(manifest, at, b.state.Manifest-at), 1<<16)
	header, err := maildir.ScanUIDListFrom(uids, b.from.uids, func(u maildir.UIDEntry) error {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return &Altered{uids.Name(), fmt.Sprintf("has a line for UID %d that the manifest has not", u.UID)}
		}
		r, err := parseRecord(line[:len(line)-1])
		if err == nil && (r.uid != u.UID || r.unique() != u.Name) {
			err = fmt.Errorf("says UID %d, file %q, and the manifest UID %d, file %q", u.UID, u.Name, r.uid, r.unique())
		}
		if err != nil {
			return &Altered{uids.Name(), err.Error()}
		}
		if err := b.message(&r, line, at); err != nil {
			return err
		}
		at += int64(len(line))
		b.files++
		if err := b.show(); err != nil {
			return err
		}
		return ctx.Err()
	})
	switch {
	case err != nil:
		return err
	case at != b.state.Manifest:
		return &Altered{uids.Name(), "has fewer lines than the manifest"}
	case header.UIDValidity != b.state.UIDValidity || header.NextUID != b.state.NextUID:
		return &Altered{uids.Name(), fmt.Sprintf("has UIDVALIDITY %d and next UID %d, not %d and %d", header.UIDValidity, header.NextUID, b.state.UIDValidity, b.state.NextUID)}
	case b.files+len(b.state.Quarantined) != b.state.Messages:
		return &Altered{uids.Name(), fmt.Sprintf("has %d messages, with %d in quarantine, of the mbox's %d", b.files, len(b.state.Quarantined), b.state.Messages)}
	}
	return nil
}

// message proves one file, and marks it in the manifest when it was read.
func (b *readBack) message(r *record, line []byte, at int64) error {
	if r.file.Ino == 0 {
		now, err := b.read(r)
		if err != nil {
			return b.gone(r, err)
		}
		r.file = now
		return b.mark(r, line, at)
	}
	if b.trusted {
		return nil
	}
	now, err := b.folder.Identify(r.name)
	if err != nil {
		return b.gone(r, err)
	}
	if now != r.file {
		return &Altered{b.folder.Path(r.name), "was changed since it was read back"}
	}
	return nil
}

func (b *readBack) gone(r *record, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &Altered{b.folder.Path(r.name), "is gone"}
	}
	return err
}

// read compares the bytes of a file with the digest of the message in the mbox.
func (b *readBack) read(r *record) (maildir.FileID, error) {
	if b.measure == nil {
		b.measure, b.buffer = message.NewMeasure(), make([]byte, 1<<16)
	}
	b.measure.Reset()
	// Nobody else reads staging yet.
	now, err := b.folder.Read(r.name, b.measure, b.buffer, b.held)
	if err != nil {
		return now, err
	}
	name, err := maildir.ParseName(r.name)
	switch digest := b.measure.Digest(); {
	case err != nil:
		return now, err
	case digest != r.digest:
		return now, &Altered{b.folder.Path(r.name), fmt.Sprintf("has SHA-256 %x, and the message in the mbox %x", digest, r.digest)}
	case b.measure.Size != name.Size || b.measure.VSize != name.VSize:
		return now, &Altered{b.folder.Path(r.name), fmt.Sprintf("has %d bytes, %d with CRLFs, which is not what its name says", b.measure.Size, b.measure.VSize)}
	}
	return now, nil
}

// onlyReader hides WriteTo, which would not use the buffer.
type onlyReader struct{ io.Reader }

// marksAtOnce is how much of the manifest is marked with one write, in bytes.
const marksAtOnce = 32 << 10

// mark enters what identifies the file into the line of the manifest at an
// offset. Lines that follow each other are written together.
func (b *readBack) mark(r *record, line []byte, at int64) (err error) {
	if b.list == nil {
		if err := b.folder.RemoveList(mailboxName); err != nil {
			return err
		}
		if b.list, err = b.folder.UpdateList(manifestName); err != nil {
			return err
		}
	}
	if at != b.markedAt+int64(len(b.marked)) || len(b.marked) > marksAtOnce {
		if err := b.writeMarks(); err != nil {
			return err
		}
		b.markedAt = at
	}
	start := len(b.marked)
	b.marked = append(b.marked, line...)
	mark := start + int(r.markAt(line[:len(line)-1]))
	r.appendMark(b.marked[:mark])
	return nil
}

func (b *readBack) writeMarks() error {
	if len(b.marked) == 0 {
		return nil
	}
	_, err := b.list.WriteAt(b.marked, b.markedAt)
	b.marked = b.marked[:0]
	return err
}

// count demands that there is no file beside those of the manifest.
func (b *readBack) count() error {
	files := 0
	if err := b.folder.Names(func(string) error { files++; return nil }); err != nil {
		return err
	}
	if files != b.files {
		return &Altered{b.folder.Path(""), fmt.Sprintf("has %d files, and the manifest %d", files, b.files)}
	}
	return nil
}
