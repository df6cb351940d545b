package openfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPartial says that not every process could be looked at: there may be more
// holders than were found.
var ErrPartial = errors.New("not every process could be looked at")

// ID is a file: st_dev and st_ino of stat(2).
type ID struct{ Dev, Ino uint64 }

// Holder is a process that has a file open.
type Holder struct {
	PID     int
	Command string // of /proc/PID/comm; the process itself chooses it: any bytes
	UID     int    // the effective one
	Write   bool   // by at least one descriptor
}

// Holders finds the processes that have files open, by file; a file that
// nobody has open is not in the map. Processes are in the order of /proc,
// which is that of their numbers.
//
// This process is left out, its children are not. Processes that end meanwhile
// are left out, too, without an error. Not seen: what other containers and
// hosts have open, mappings whose descriptor is closed, descriptors on their
// way in a socket. [InUse] counts these.
//
// It walks over all descriptors of the host, at some 3 µs each, and asks no
// file server. What was found comes with ErrPartial if a process refuses to be
// looked at: nearly all do in a thread that works as a user, and some may even
// if root asks.
func Holders(ids ...ID) (map[ID][]Holder, error) {
	found := map[ID][]Holder{}
	proc, err := os.Open("/proc")
	if err != nil {
		return found, err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return found, err
	}
	denied := 0
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		p := process{proc: int(proc.Fd()), pid: pid}
		switch err := p.look(ids, found); {
		case errors.Is(err, fs.ErrPermission):
			denied++
		case err != nil && !gone(err):
			return found, fmt.Errorf("process %d: %w", pid, err)
		}
	}
	if denied > 0 {
		return found, fmt.Errorf("%w (%d were not)", ErrPartial, denied)
	}
	return found, nil
}

// gone tells whether err is that of a process or descriptor that has ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// process is a directory of /proc.
type process struct{ proc, pid int }

func (p process) path(name string) string { return strconv.Itoa(p.pid) + "/" + name }

// look adds the process to the holders of each of ids that it has open.
func (p process) look(ids []ID, found map[ID][]Holder) error {
	fd, err := unix.Openat(p.proc, p.path("fd"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), "fd")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		id, err := identify(fd, name)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if slices.Contains(ids, id) {
			if err := p.add(id, name, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// identify tells which file a descriptor is of. It takes what this host knows:
// a plain stat(2) of a file on a dead file server would never return.
func identify(dir int, name string) (ID, error) {
	var s unix.Statx_t
	err := unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &s)
	switch {
	case gone(err), errors.Is(err, fs.ErrPermission):
		return ID{}, err
	case err != nil:
		return ID{}, nil // a file in such trouble is none of ours
	}
	return ID{unix.Mkdev(s.Dev_major, s.Dev_minor), s.Ino}, nil
}

// add records that the process has id open by the descriptor of that name.
func (p process) add(id ID, name string, found map[ID][]Holder) error {
	write, err := p.writes(name)
	if err != nil {
		return err
	}
	list := found[id]
	if last := len(list) - 1; last >= 0 && list[last].PID == p.pid {
		list[last].Write = list[last].Write || write
		return nil
	}
	h := Holder{PID: p.pid, Write: write}
	comm, err := p.read("comm")
	if err != nil {
		return err
	}
	h.Command = strings.TrimSuffix(string(comm), "\n")
	if h.UID, err = p.uid(); err != nil {
		return err
	}
	found[id] = append(list, h)
	return nil
}

// writes tells whether a descriptor can write (proc(5), /proc/PID/fdinfo).
func (p process) writes(name string) (bool, error) {
	text, err := p.field("fdinfo/"+name, "flags:")
	if err != nil {
		return false, err
	}
	flags, err := strconv.ParseUint(text, 8, 64)
	return flags&unix.O_ACCMODE != unix.O_RDONLY, err
}

// uid is the effective uid. The owner of /proc/PID is no measure: it is root
// for processes that gave up an identity.
func (p process) uid() (int, error) {
	text, err := p.field("status", "Uid:")
	if err != nil {
		return 0, err
	}
	ids := strings.Fields(text) // real, effective, saved, filesystem
	if len(ids) != 4 {
		return 0, fmt.Errorf("status: Uid is %q", text)
	}
	return strconv.Atoi(ids[1])
}

// field is the value in a line of a file of the process, or an error like that
// of a process that has ended if there is no such line.
func (p process) field(name, key string) (string, error) {
	data, err := p.read(name)
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(data) {
		if value, ok := bytes.CutPrefix(line, []byte(key)); ok {
			return string(bytes.TrimSpace(value)), nil
		}
	}
	return "", fmt.Errorf("%s: no %s: %w", name, key, unix.ESRCH)
}

func (p process) read(name string) ([]byte, error) {
	fd, err := unix.Openat(p.proc, p.path(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return io.ReadAll(f)
}
