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
	if err := fitName(name); err != nil {
		return err
	}
	temp := tempName(name)
	if err := writeFile(dir, temp, []byte(to.Line())); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	if err := replace(dir, temp, name); err != nil {
		return fmt.Errorf("mirror: %w", errors.Join(err, unlink(dir, temp)))
	}
	return nil
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

// sweepAge is older than any temporary file that is still going to be renamed.
const sweepAge = 10 * time.Minute

// Sweep removes from the directory open as dir what killed calls of WriteMirror
// and TakeGate have left there for these names, once it is ten minutes old. It
// lists the directory, so it is for recoveries, not for every user. It is called
// with the user's identity.
func Sweep(dir int, names ...string) error { return sweep(dir, sweepAge, names) }

func sweep(dir int, age time.Duration, names []string) error {
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
