//go:build linux && amd64

package stepper

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// calling is how a system call is called.
type calling struct {
	name   string
	places []place // of what it changes
	length int     // argument with the bytes to write; -1: it writes none
	flags  flags
}

// flags tells where the flags of a call that opens files are.
type flags struct {
	arg int
	how bool // in the memory that it points to (openat2)
}

// place tells by which arguments a call names a file; -1: not by that.
type place struct {
	dir  int // descriptor of a directory, or of the file itself
	name int // path, from the directory or the working directory
}

func at(dir int) place    { return place{dir, dir + 1} }
func path(name int) place { return place{-1, name} }
func fd(file int) place   { return place{file, -1} }

var noFlags = flags{arg: -1}

func changing(name string, places ...place) *calling { return &calling{name, places, -1, noFlags} }

func writing(name string, file, length int) *calling {
	return &calling{name, []place{fd(file)}, length, noFlags}
}

func opening(name string, where place, f flags) *calling {
	return &calling{name, []place{where}, -1, f}
}

// mutating are the calls that count, by number.
var mutating = map[uint64]*calling{
	unix.SYS_OPEN:    opening("open", path(0), flags{arg: 1}),
	unix.SYS_OPENAT:  opening("openat", at(0), flags{arg: 2}),
	unix.SYS_OPENAT2: opening("openat2", at(0), flags{arg: 2, how: true}),
	unix.SYS_CREAT:   changing("creat", path(0)),

	unix.SYS_WRITE:           writing("write", 0, 2),
	unix.SYS_PWRITE64:        writing("pwrite64", 0, 2),
	unix.SYS_WRITEV:          writing("writev", 0, 2),
	unix.SYS_PWRITEV:         writing("pwritev", 0, 2),
	unix.SYS_PWRITEV2:        writing("pwritev2", 0, 2),
	unix.SYS_COPY_FILE_RANGE: writing("copy_file_range", 2, 4),
	unix.SYS_SENDFILE:        writing("sendfile", 0, 3),
	unix.SYS_SPLICE:          writing("splice", 2, 4),
	unix.SYS_TRUNCATE:        changing("truncate", path(0)),
	unix.SYS_FTRUNCATE:       changing("ftruncate", fd(0)),
	unix.SYS_FALLOCATE:       changing("fallocate", fd(0)),

	unix.SYS_RENAME:    changing("rename", path(0), path(1)),
	unix.SYS_RENAMEAT:  changing("renameat", at(0), at(2)),
	unix.SYS_RENAMEAT2: changing("renameat2", at(0), at(2)),
	unix.SYS_LINK:      changing("link", path(0), path(1)),
	unix.SYS_LINKAT:    changing("linkat", at(0), at(2)),
	unix.SYS_UNLINK:    changing("unlink", path(0)),
	unix.SYS_UNLINKAT:  changing("unlinkat", at(0)),
	unix.SYS_SYMLINK:   changing("symlink", path(1)),
	unix.SYS_SYMLINKAT: changing("symlinkat", at(1)),
	unix.SYS_MKDIR:     changing("mkdir", path(0)),
	unix.SYS_MKDIRAT:   changing("mkdirat", at(0)),
	unix.SYS_RMDIR:     changing("rmdir", path(0)),
	unix.SYS_MKNOD:     changing("mknod", path(0)),
	unix.SYS_MKNODAT:   changing("mknodat", at(0)),

	unix.SYS_CHMOD:     changing("chmod", path(0)),
	unix.SYS_FCHMOD:    changing("fchmod", fd(0)),
	unix.SYS_FCHMODAT:  changing("fchmodat", at(0)),
	unix.SYS_FCHMODAT2: changing("fchmodat2", at(0)),
	unix.SYS_CHOWN:     changing("chown", path(0)),
	unix.SYS_LCHOWN:    changing("lchown", path(0)),
	unix.SYS_FCHOWN:    changing("fchown", fd(0)),
	unix.SYS_FCHOWNAT:  changing("fchownat", at(0)),
	unix.SYS_UTIMENSAT: changing("utimensat", at(0)),

	unix.SYS_FSYNC:           changing("fsync", fd(0)),
	unix.SYS_FDATASYNC:       changing("fdatasync", fd(0)),
	unix.SYS_SYNCFS:          changing("syncfs", fd(0)),
	unix.SYS_SYNC_FILE_RANGE: changing("sync_file_range", fd(0)),
}

// opensForWriting are the flags that make, empty, or write a file. One opened
// to read and write changes nothing yet: so are files opened that are locked.
func opensForWriting(flags uint64) bool {
	const tmpfile = unix.O_TMPFILE &^ unix.O_DIRECTORY
	return flags&(unix.O_CREAT|unix.O_TRUNC|tmpfile) != 0 || flags&unix.O_ACCMODE == unix.O_WRONLY
}

// changes reports whether a call changes anything, whatever file it is about.
func (c *calling) changes(tid int, r *registers) (bool, error) {
	if c.flags.arg < 0 {
		return true, nil
	}
	flags := r.arg(c.flags.arg)
	if c.flags.how { // struct open_how begins with them
		memory, err := read(tid, flags, 8)
		if err != nil || len(memory) < 8 {
			return false, err
		}
		flags = binary.LittleEndian.Uint64(memory)
	}
	return opensForWriting(flags), nil
}

// path is that of a place, as the kernel knows it now.
func (p place) path(tid int, r *registers) (string, error) {
	name := ""
	if p.name >= 0 && r.arg(p.name) != 0 { // utimensat(2) takes none
		var err error
		if name, err = readString(tid, r.arg(p.name)); err != nil {
			return "", err
		}
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name), nil
	}
	from := fmt.Sprintf("/proc/%d/cwd", tid)
	if p.dir >= 0 && int32(r.arg(p.dir)) != unix.AT_FDCWD {
		from = fmt.Sprintf("/proc/%d/fd/%d", tid, int32(r.arg(p.dir)))
	}
	dir, err := os.Readlink(from)
	if os.IsNotExist(err) {
		return "", nil // a bad descriptor: the call will say so
	}
	return filepath.Join(dir, name), err
}

// readString reads a string of the program, PATH_MAX at most. No read goes
// across the end of a page: the next one may not be there.
func readString(tid int, from uint64) (string, error) {
	var text []byte
	for len(text) < unix.PathMax {
		page := 4096 - int(from%4096)
		part, err := read(tid, from, page)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(part, 0); end >= 0 {
			return string(append(text, part[:end]...)), nil
		}
		if len(part) == 0 {
			break
		}
		text = append(text, part...)
		from += uint64(len(part))
	}
	return string(text), nil
}

// read reads memory of the program. Where there is none, it gives none: the call
// will say so.
func read(tid int, from uint64, size int) ([]byte, error) {
	buf := make([]byte, size)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(size)}}
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(from), Len: size}}, 0)
	if err == unix.EFAULT {
		return nil, nil
	}
	return buf[:max(n, 0)], err
}
