package mailgen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// SnapshotEntry is a file as it was.
type SnapshotEntry struct {
	Mode     fs.FileMode
	UID, GID int
	Links    uint64
	Size     int64 // octets, of a regular file
	MTime    time.Time
	SHA256   [32]byte // of a regular file
	Target   string   // of a symlink
}

// SnapshotTree is a directory as it was: files by their path relative to it,
// itself being ".".
type SnapshotTree map[string]SnapshotEntry

// Snapshot looks at path and all below it, following nothing. A path that is not
// there gives an empty tree.
func Snapshot(path string) (SnapshotTree, error) {
	tree := SnapshotTree{}
	err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(path, name)
		if err == nil {
			tree[rel], err = look(name)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) && len(tree) == 0 {
		return tree, nil
	}
	return tree, err
}

// Snapshot looks at all that is the user's: his home as "home", and what the
// spool directory has under his name as "spool/...".
func (u SiteUser) Snapshot() (SnapshotTree, error) {
	all := SnapshotTree{}
	if u.Home == "" {
		return all, nil
	}
	places := map[string]string{"home": u.Home}
	spool := filepath.Dir(u.Spool)
	entries, err := os.ReadDir(spool)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if name := e.Name(); name == u.Name || strings.HasPrefix(strings.TrimPrefix(name, "."), u.Name+".") {
			places["spool/"+name] = filepath.Join(spool, name)
		}
	}
	for prefix, path := range places {
		tree, err := Snapshot(path)
		if err != nil {
			return nil, err
		}
		for rel, entry := range tree {
			all[filepath.Join(prefix, rel)] = entry
		}
	}
	return all, nil
}

func look(path string) (e SnapshotEntry, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return e, err
	}
	st := info.Sys().(*syscall.Stat_t)
	e = SnapshotEntry{Mode: info.Mode(), UID: int(st.Uid), GID: int(st.Gid), Links: uint64(st.Nlink), MTime: info.ModTime()}
	switch {
	case info.Mode().IsRegular():
		e.Size = info.Size()
		e.SHA256, err = digest(path)
	case info.Mode()&fs.ModeSymlink != 0:
		e.Target, err = os.Readlink(path)
	}
	return e, err
}

func digest(path string) (sum [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return [32]byte(h.Sum(nil)), err
}

// Diff says what is different in another tree, one line a file in order of
// path; nil if nothing is.
func (t SnapshotTree) Diff(now SnapshotTree) []string {
	paths := map[string]bool{}
	for path := range t {
		paths[path] = true
	}
	for path := range now {
		paths[path] = true
	}
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		before, was := t[path]
		after, is := now[path]
		switch {
		case !was:
			lines = append(lines, fmt.Sprintf("%q: new, %v", path, after.Mode))
		case !is:
			lines = append(lines, fmt.Sprintf("%q: gone", path))
		default:
			if what := before.diff(after); what != "" {
				lines = append(lines, fmt.Sprintf("%q: %s", path, what))
			}
		}
	}
	return lines
}

// diff names the attributes that differ, with their values; "" if none does.
func (e SnapshotEntry) diff(now SnapshotEntry) string {
	var what []string
	for _, a := range []struct {
		name   string
		differ bool
		was    any
		is     any
	}{
		{"mode", e.Mode != now.Mode, e.Mode, now.Mode},
		{"uid", e.UID != now.UID, e.UID, now.UID},
		{"gid", e.GID != now.GID, e.GID, now.GID},
		{"links", e.Links != now.Links, e.Links, now.Links},
		{"size", e.Size != now.Size, e.Size, now.Size},
		{"mtime", !e.MTime.Equal(now.MTime), e.MTime, now.MTime},
		{"target", e.Target != now.Target, e.Target, now.Target},
	} {
		if a.differ {
			what = append(what, fmt.Sprintf("%s %v, was %v", a.name, a.is, a.was))
		}
	}
	if e.SHA256 != now.SHA256 {
		what = append(what, "other content")
	}
	return strings.Join(what, "; ")
}
