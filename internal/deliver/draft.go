package deliver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/mbox"
)

const (
	// inMemory is how big a message may be to stay in memory, in bytes.
	inMemory = 512 << 10

	// room is kept free before a message for what is known when all of it has
	// come: the From_ line, and our fields.
	room = 4 << 10

	// maxAddress is how long an address may be, four times what SMTP allows
	// (RFC 5321 4.5.3.1.3): three of them fit into the room.
	maxAddress = 1 << 10
)

// draft is a whole message, ready to be written by one call:
//
//	LF LF | From_ line | our fields | the message | LF
//
// A Maildir gets what stands behind the From_ line, without the last LF. An mbox
// gets the From_ line and what follows, and before that as many of the LFs as the
// end of what is there lacks.
type draft struct {
	dir     *safefs.Dir
	memory  []byte   // of the layout: all, or what is not in the file yet
	file    *os.File // without a name; nil as long as memory does
	written int64    // bytes of the layout in the file

	from, message, end int64 // of the layout: the From_ line, the message with our fields, behind the last LF

	fromLine []byte
	sizes    message.Sizes
	changes  bool // an mbox needs another text than this
}

// newDraft begins a message, which goes to dir if it is big.
func newDraft(dir *safefs.Dir) *draft {
	return &draft{dir: dir, memory: make([]byte, room, room+pieceSize)}
}

// add appends a part of the message.
func (m *draft) add(text []byte) (err error) {
	m.sizes.Write(text)
	m.memory = append(m.memory, text...)
	if len(m.memory) <= inMemory {
		return nil
	}
	return m.flush()
}

func (m *draft) flush() (err error) {
	if m.file == nil {
		if m.file, err = unnamed(m.dir); err != nil {
			return err
		}
	}
	n, err := m.file.Write(m.memory)
	m.written += int64(n)
	m.memory = m.memory[:0]
	return err
}

// finish completes the message by what stands on top of it.
func (m *draft) finish(from, fields []byte) error {
	own := message.SizesOf(fields)
	m.sizes.Size += own.Size
	m.sizes.VSize += own.VSize
	const lfs = "\n\n"
	front := bytes.Join([][]byte{[]byte(lfs), from, fields}, nil)
	if len(front) > room {
		return fmt.Errorf("%d bytes are too much to stand before a message", len(front))
	}
	m.memory = append(m.memory, '\n')
	m.fromLine = from
	m.end = m.written + int64(len(m.memory))
	start := room - int64(len(front))
	m.from = start + int64(len(lfs))
	m.message = room - int64(len(fields))
	if m.file == nil {
		copy(m.memory[start:], front)
		return nil
	}
	if err := m.flush(); err != nil {
		return err
	}
	_, err := m.file.WriteAt(front, start)
	return err
}

// content is the message, with our fields.
func (m *draft) content() io.Reader {
	if m.file != nil {
		return io.NewSectionReader(m.file, m.message, m.end-1-m.message)
	}
	return bytes.NewReader(m.memory[m.message : m.end-1])
}

// writeTo writes a part of the layout at the offset of f, by a single call
// unless that is cut short.
func (m *draft) writeTo(f *os.File, from, to int64) error {
	if m.file == nil {
		_, err := f.Write(m.memory[from:to])
		return err
	}
	for from < to {
		n, err := unix.Sendfile(int(f.Fd()), int(m.file.Fd()), &from, int(min(to-from, 1<<30)))
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err == unix.EINVAL || err == unix.ENOSYS: // a filesystem that can't
			_, err := io.CopyBuffer(struct{ io.Writer }{f}, io.NewSectionReader(m.file, from, to-from), make([]byte, inMemory))
			return err
		case err != nil:
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		case n == 0:
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

func (m *draft) close() {
	if m.file != nil {
		_ = m.file.Close() // nobody will read it
	}
}

// unnamed makes a file that is gone when it is closed.
func unnamed(dir *safefs.Dir) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err := unix.Openat(dir.Fd(), ".", flags|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL) { // as NFS
		name := fmt.Sprintf(".mailferry-deliver-%016x", rand.Uint64())
		if fd, err = unix.Openat(dir.Fd(), name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600); err == nil {
			err = dir.Unlink(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("a temporary file in %q: %w", dir.Path(), err)
	}
	return os.NewFile(uintptr(fd), dir.Path()), nil
}

func fromLine(sender string) []byte {
	return append(mbox.FormatFromLine(sender, time.Now(), time.Local), '\n')
}
