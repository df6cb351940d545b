package journal

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"mailferry/internal/safefs"
)

// records is a kind of record, of which a user has at most one: a small JSON
// file in a directory of its kind.
type records[T any] struct {
	dir  string                         // below the state directory
	user func(T) string                 // whose it is
	each func(T, func(string) string) T // applies a function to the fields that may hold any bytes
}

// write writes records, each durable and whole.
func (k records[T]) write(state string, list []T) error {
	top, err := makeState(state)
	if err != nil {
		return err
	}
	defer top.Close()
	dir, err := makeSub(top, k.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	files := make([]file, len(list))
	for i, r := range list {
		line, err := encode(k.each(r, escape))
		if err != nil {
			return fmt.Errorf("%s record of %q: %w", k.dir, k.user(r), err)
		}
		files[i] = file{recordName(k.user(r)), line}
	}
	return replace(dir, files)
}

// read reads the record of a user; fs.ErrNotExist when there is none.
func (k records[T]) read(state, user string) (none T, err error) {
	dir, err := openPath(state, k.dir)
	if err != nil {
		return none, err
	}
	defer dir.Close()
	return k.readFile(dir, recordName(user))
}

func (k records[T]) readFile(dir *safefs.Dir, name string) (r T, err error) {
	data, err := readFile(dir, name)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, &fs.PathError{Op: "read", Path: filepath.Join(dir.Path(), name), Err: err}
	}
	if r = k.each(r, unescape); recordName(k.user(r)) != name {
		return r, &fs.PathError{Op: "read", Path: filepath.Join(dir.Path(), name), Err: fmt.Errorf("it is of user %q", k.user(r))}
	}
	return r, nil
}

// remove removes the records of users, durably.
func (k records[T]) remove(state string, users []string) error {
	dir, err := openPath(state, k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, user := range users {
		if err := dir.RemoveAll(recordName(user)); err != nil {
			return err
		}
	}
	return dir.Sync()
}

// list returns all records, by user. Those that can't be read are named in the
// error; the others are returned with it.
func (k records[T]) list(state string) ([]T, error) {
	dir, err := openPath(state, k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var list []T
	var bad error
	err = dir.Names(func(name string) error {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, recordSuffix) {
			return nil
		}
		r, err := k.readFile(dir, name)
		if err != nil {
			bad = errors.Join(bad, err)
			return nil
		}
		list = append(list, r)
		return nil
	})
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(k.user(a), k.user(b)) })
	return list, errors.Join(bad, err)
}

const recordSuffix = ".json"

func recordName(user string) string { return fileName(user) + recordSuffix }

// fileName is a user's name as that of a file. What shells and ls would
// misread, and a leading dot, is spelled %HH; a long name ends in its digest.
func fileName(user string) string {
	var b strings.Builder
	for i := range len(user) {
		c := user[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_@+", c) >= 0 || c == '.' && i > 0
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	name := b.String()
	if len(name) > 200 {
		name = fmt.Sprintf("%s%%%x", name[:100], sha256.Sum256([]byte(user)))
	}
	return name
}
