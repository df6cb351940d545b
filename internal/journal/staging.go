package journal

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailferry/internal/safefs"
)

// Staging records where the Maildir of a user is being built, so that after a
// crash nothing is taken for ours that merely looks like it.
type Staging struct {
	User   string    `json:"user"`
	Parent string    `json:"parent"` // path of the directory that it lies in
	Name   string    `json:"name"`   // in Parent
	Final  string    `json:"final"`  // its name once it is published
	Dev    uint64    `json:"dev"`    // st_dev; counts while BootID is that of now
	Ino    uint64    `json:"ino"`    // st_ino
	Layout string    `json:"layout"` // how its folders lie
	BootID string    `json:"boot_id"`
	Synced bool      `json:"synced"` // all that it holds is durable
	Run    string    `json:"run"`
	Time   time.Time `json:"time"`
}

const stagingName = "staging"

// WriteStaging writes the records of users, each durable and whole: first all
// of them are written and synced, then renamed. After an error some may be
// old, some new.
func WriteStaging(state string, records ...Staging) error {
	top, err := makeState(state)
	if err != nil {
		return err
	}
	defer top.Close()
	dir, err := makeSub(top, stagingName)
	if err != nil {
		return err
	}
	defer dir.Close()
	files := make([]file, len(records))
	for i, s := range records {
		line, err := encode(s.each(escape))
		if err != nil {
			return fmt.Errorf("staging record of %q: %w", s.User, err)
		}
		files[i] = file{recordName(s.User), line}
	}
	return replace(dir, files)
}

// each applies a function to the fields that may hold any bytes.
func (s Staging) each(do func(string) string) Staging {
	s.User, s.Parent, s.Name, s.Final = do(s.User), do(s.Parent), do(s.Name), do(s.Final)
	return s
}

// ReadStaging reads the record of a user; fs.ErrNotExist when there is none.
func ReadStaging(state, user string) (Staging, error) {
	dir, err := openPath(state, stagingName)
	if err != nil {
		return Staging{}, err
	}
	defer dir.Close()
	return readStaging(dir, recordName(user))
}

func readStaging(dir *safefs.Dir, name string) (Staging, error) {
	data, err := readFile(dir, name)
	if err != nil {
		return Staging{}, err
	}
	var s Staging
	if err := json.Unmarshal(data, &s); err != nil {
		return Staging{}, &fs.PathError{Op: "read", Path: filepath.Join(dir.Path(), name), Err: err}
	}
	if s = s.each(unescape); recordName(s.User) != name {
		return Staging{}, &fs.PathError{Op: "read", Path: filepath.Join(dir.Path(), name), Err: fmt.Errorf("it is of user %q", s.User)}
	}
	return s, nil
}

// RemoveStaging removes the records of users, durably. Users without one are
// no error.
func RemoveStaging(state string, users ...string) error {
	dir, err := openPath(state, stagingName)
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

// ListStaging returns all records, by user. Those that can't be read are
// named in the error; the others are returned with it.
func ListStaging(state string) ([]Staging, error) {
	dir, err := openPath(state, stagingName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var list []Staging
	var bad error
	err = dir.Names(func(name string) error {
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, recordSuffix) {
			return nil
		}
		s, err := readStaging(dir, name)
		if err != nil {
			bad = errors.Join(bad, err)
			return nil
		}
		list = append(list, s)
		return nil
	})
	slices.SortFunc(list, func(a, b Staging) int { return strings.Compare(a.User, b.User) })
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

// BootID returns what changes each time that the kernel is started: device
// numbers are good only until then (proc(5), random/boot_id).
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
