package maildir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

// Folder is a folder of a staging Maildir that is being filled. It serves one
// goroutine.
type Folder struct {
	dir, cur *safefs.Dir
	namer    *Namer
	uidFile  *os.File
	uids     *UIDListWriter
	name     []byte // of the file at hand, reused
}

// Begin sets what all messages of the folder share: whence their names and
// UIDs come.
func (f *Folder) Begin(namer *Namer, uidValidity uint32, guid [16]byte) (err error) {
	f.namer = namer
	if f.uidFile, err = f.dir.Create("dovecot-uidlist", fileMode); err != nil {
		return err
	}
	f.uids, err = NewUIDListWriter(f.uidFile, uidValidity, guid)
	return err
}

// Message is what a file says of its message, beside the bytes.
type Message struct {
	Size, VSize int64 // as of message.Measure
	Date        time.Time
	Flags       Flags
	UID         uint32
	UIDL        string // POP3 UIDL; empty leaves it to the server's format
}

// Add writes a message under its final name in cur. All goes to cur, new mail
// too: a server that finds thousands of files in new moves each at the first
// login. The file is not synced; Staging.Publish does that for all of them.
//
// content must write exactly m.Size bytes.
func (f *Folder) Add(m Message, content func(io.Writer) error) error {
	f.name = f.namer.Append(f.name[:0], m.Size, m.VSize)
	unique := len(f.name)
	f.name = append(f.name, InfoPrefix...)
	f.name = m.Flags.Append(f.name)
	name := string(f.name)
	if err := f.Create(name, m, content); err != nil {
		return err
	}
	return f.uids.Add(UIDEntry{UID: m.UID, Name: name[:unique], UIDL: m.UIDL})
}

// Create writes a message under a name in cur that does not exist. It is not
// synced. content must write exactly m.Size bytes.
func (f *Folder) Create(name string, m Message, content func(io.Writer) error) error {
	if err := f.create(name, m, content); err != nil {
		return f.failed("write", name, err)
	}
	return nil
}

func (f *Folder) failed(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(f.cur.Path(), name), Err: err}
}

// create writes the file by raw calls: the four that it takes are most of the
// cost of a conversion.
func (f *Folder) create(name string, m Message, content func(io.Writer) error) error {
	fd, err := unix.Openat(f.cur.Fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return err
	}
	out := rawFile{fd: fd}
	err = content(&out)
	if err == nil && out.written != m.Size {
		err = fmt.Errorf("%d bytes written of a message of %d", out.written, m.Size)
	}
	if err == nil && !m.Date.IsZero() {
		err = setMtime(fd, m.Date)
	}
	return errors.Join(err, unix.Close(fd))
}

// End writes the lists that make the folder whole: the UID that comes next,
// and the keywords.
func (f *Folder) End(nextUID uint32, keywords *KeywordTable) error {
	err := errors.Join(f.uids.Close(nextUID), f.uidFile.Close())
	f.uidFile = nil
	if err == nil && keywords.Len() > 0 {
		err = f.writeKeywords(keywords)
	}
	return errors.Join(err, f.Close())
}

func (f *Folder) writeKeywords(keywords *KeywordTable) error {
	file, err := f.dir.Create("dovecot-keywords", fileMode)
	if err != nil {
		return err
	}
	_, err = keywords.WriteTo(file)
	return errors.Join(err, file.Close())
}

// Close releases a folder. After End, which does so too, it does nothing.
func (f *Folder) Close() error {
	if f.dir == nil {
		return nil
	}
	err := errors.Join(f.cur.Close(), f.dir.Close())
	f.dir = nil
	if f.uidFile != nil {
		err = errors.Join(err, f.uidFile.Close())
	}
	return err
}

// rawFile writes to a descriptor and counts.
type rawFile struct {
	fd      int
	written int64
}

func (r *rawFile) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Write(r.fd, b[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
		done += n
		r.written += int64(n)
	}
	return done, nil
}

// setMtime is futimens(3): utimensat on the descriptor itself, which x/sys
// does not offer.
func setMtime(fd int, t time.Time) error {
	ts := [2]unix.Timespec{{Sec: t.Unix()}, {Sec: t.Unix()}}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
