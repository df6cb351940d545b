package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"mailferry/internal/safefs"
)

const (
	stateMode = 0o711
	dirMode   = 0o700
	fileMode  = 0o600
)

// openState opens the state directory and refuses one that others could
// write.
func openState(path string) (*safefs.Dir, error) {
	dir, err := safefs.OpenDir(path)
	if err != nil {
		return nil, err
	}
	return trusted(dir)
}

// makeState opens the state directory, and makes it if need be. Its parent
// must be there.
func makeState(path string) (*safefs.Dir, error) {
	err := os.Mkdir(path, stateMode)
	if err == nil {
		err = os.Chmod(path, stateMode) // whatever the umask
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return openState(path)
}

// makeSub opens a directory of ours, and makes it if need be.
func makeSub(parent *safefs.Dir, name string) (*safefs.Dir, error) {
	dir, err := openSub(parent, name)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	dir, err = parent.Mkdir(name, dirMode)
	if errors.Is(err, fs.ErrExist) { // somebody was faster
		return openSub(parent, name)
	}
	if err != nil {
		return nil, err
	}
	if err := parent.Sync(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func openSub(parent *safefs.Dir, name string) (*safefs.Dir, error) {
	dir, err := parent.Sub(name)
	if err != nil {
		return nil, err
	}
	return trusted(dir)
}

// openPath opens a directory below the state directory.
func openPath(state string, names ...string) (*safefs.Dir, error) {
	dir, err := openState(state)
	for _, name := range names {
		if err != nil {
			return nil, err
		}
		above := dir
		dir, err = openSub(above, name)
		above.Close()
	}
	return dir, err
}

// trusted closes and refuses a directory that others could write: what is
// read there is believed.
func trusted(dir *safefs.Dir) (*safefs.Dir, error) {
	info, err := dir.Stat()
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() {
		err = fmt.Errorf("state directory %q belongs to uid %d, not to root", dir.Path(), owner)
	} else if info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("state directory %q is writable by others (mode %04o)", dir.Path(), info.Mode().Perm())
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// maxFile bounds what is read of a file that is small by nature.
const maxFile = 1 << 20

// readFile reads a small file of a directory.
func readFile(dir *safefs.Dir, name string) ([]byte, error) {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: errors.New("longer than 1 MiB")}
	}
	return data, err
}

// file is a file to be.
type file struct {
	name string
	data []byte
}

// atOnce is how many files are open before they are synced: enough for the
// filesystem to gather them into few commits.
const atOnce = 64

// replace writes files and makes them durable, each old or new at any time:
// write all, fsync all, rename all, fsync of the directory (safety.md 3.1).
func replace(dir *safefs.Dir, files []file) error {
	for rest := files; len(rest) > 0; {
		n := min(atOnce, len(rest))
		if err := prepare(dir, rest[:n]); err != nil {
			return errors.Join(err, discard(dir, files))
		}
		rest = rest[n:]
	}
	for i, f := range files {
		if err := dir.Rename(f.next(), f.name, true); err != nil {
			return errors.Join(err, discard(dir, files[i:]))
		}
	}
	return dir.Sync()
}

// next is the name of a file until it takes its place. No two write the same
// file, so what is there is left from a crash.
func (f file) next() string { return "." + f.name + ".new" }

// prepare writes the next files and syncs them.
func prepare(dir *safefs.Dir, files []file) (err error) {
	var open []*os.File
	defer func() {
		for _, f := range open {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, f := range files {
		if err := dir.RemoveAll(f.next()); err != nil {
			return err
		}
		w, err := dir.Create(f.next(), fileMode)
		if err != nil {
			return err
		}
		open = append(open, w)
		if _, err := w.Write(f.data); err != nil {
			return err
		}
	}
	for _, f := range open {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// discard removes next files.
func discard(dir *safefs.Dir, files []file) (err error) {
	for _, f := range files {
		err = errors.Join(err, dir.RemoveAll(f.next()))
	}
	return err
}
