package semaphore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tempInfix is between a name and the random part of the file that is to bear it.
const tempInfix = ".mailferry-"

func tempName(name string) string { return name + tempInfix + rand.Text() }

// WriteMirror replaces the mirror called name in the home that is open as dir
// (not O_PATH), durably. Whatever bears the name is replaced and not followed,
// but for a directory. It is called with the user's identity: the file is his.
func WriteMirror(dir int, name string, to State) error {
	p, err := PrepareMirror(dir, name, to)
	if err != nil {
		return err
	}
	return errors.Join(p.Flip(), p.Discard())
}

// PreparedMirror is a mirror that is written and synced under a temporary name,
// which is all that takes space: a full disk or quota does not stop Flip.
type PreparedMirror struct {
	dir        int
	name, temp string // no temp: renamed or removed
}

// PrepareMirror makes a WriteMirror ready. dir must stay open until Flip or
// Discard, which are called with the user's identity, too.
func PrepareMirror(dir int, name string, to State) (*PreparedMirror, error) {
	if err := fitName(name); err != nil {
		return nil, err
	}
	p := &PreparedMirror{dir, name, tempName(name)}
	if err := writeFile(dir, p.temp, []byte(to.Line())); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return p, nil
}

// Flip replaces the mirror. The home is the user's, who may have removed what
// was prepared: then the error is fs.ErrNotExist.
func (p *PreparedMirror) Flip() error {
	if p.temp == "" {
		return fmt.Errorf("mirror %q: flipped or discarded already: %w", p.name, ErrState)
	}
	err := replace(p.dir, p.temp, p.name)
	if err == nil || errors.Is(err, ErrNotDurable) {
		p.temp = ""
	}
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	return nil
}

// Discard removes what was prepared and not renamed. A second Discard, and one
// after Flip, does nothing.
func (p *PreparedMirror) Discard() error {
	if p.temp == "" {
		return nil
	}
	temp := p.temp
	p.temp = ""
	return unlink(p.dir, temp)
}

// ReadMirror reads the mirror called name in the directory open as dir. It must
// be a regular file with one link that belongs to one of uids, normally the
// user's and 0. With every error the state is Hold; it waits for nobody.
func ReadMirror(dir int, name string, uids ...int) (State, error) {
	content, st, err := readFile(dir, name, maxLine, uids...)
	if err == nil && st.Nlink > 1 {
		err = fmt.Errorf("has %d links", st.Nlink)
	}
	if err != nil {
		return Hold, fmt.Errorf("mirror %q: %w: holding", name, err)
	}
	return Parse(content)
}

// Sweep removes from the directory open as dir what killed calls of WriteMirror
// and TakeGate have left there for these names, if it is older than age. What
// lives is some milliseconds old at most. It lists the directory, so it is for
// recoveries, not for every user. It is called with the user's identity.
func Sweep(dir int, age time.Duration, names ...string) error {
	fd, err := openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0) // a position of its own in the list
	if err != nil {
		return fmt.Errorf("sweeping: %w", err)
	}
	list := os.NewFile(uintptr(fd), ".")
	defer list.Close()
	for {
		entries, err := list.Readdirnames(1024)
		for _, entry := range entries {
			if isTemp(entry, names) {
				if err := sweepOne(dir, age, entry); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("sweeping: %w", err)
		}
	}
}

// isTemp reports whether entry is a tempName of one of names.
func isTemp(entry string, names []string) bool {
	for _, name := range names {
		random, found := strings.CutPrefix(entry, name+tempInfix)
		if found && len(random) == len(rand.Text()) {
			return true
		}
	}
	return false
}

func sweepOne(dir int, age time.Duration, entry string) error {
	st, err := lstat(dir, entry)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || sinceChange(&st) < age {
		return err
	}
	return unlink(dir, entry)
}

func lstat(dir int, name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// sinceChange goes by ctime, which moves with content, times and links alike and
// which no user can set back.
func sinceChange(st *unix.Stat_t) time.Duration {
	return time.Since(time.Unix(st.Ctim.Unix()))
}
