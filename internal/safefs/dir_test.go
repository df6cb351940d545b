package safefs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is a directory with one of everything, open.
func scene(t *testing.T) *Dir {
	t.Helper()
	path := t.TempDir()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.WriteFile(filepath.Join(path, "file"), []byte("content"), 0o600))
	check(os.Mkdir(filepath.Join(path, "dir"), 0o700))
	check(os.Symlink("file", filepath.Join(path, "link")))
	check(os.Symlink("dir", filepath.Join(path, "dirlink")))
	check(os.Symlink("nowhere", filepath.Join(path, "dangling")))
	check(unix.Mkfifo(filepath.Join(path, "pipe"), 0o600))
	socket, err := net.Listen("unix", filepath.Join(path, "socket"))
	check(err)
	t.Cleanup(func() { socket.Close() })
	d, err := OpenDir(path)
	check(err)
	t.Cleanup(func() { d.Close() })
	return d
}

// within fails the test if f blocks.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("blocks")
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	d := scene(t)
	for name, what := range map[string]string{
		"dir": "directory", "link": "symlink", "dirlink": "symlink", "dangling": "symlink", "pipe": "FIFO", "socket": "socket",
	} {
		t.Run(name, func(t *testing.T) {
			within(t, func() {
				f, err := d.OpenRegular(name)
				var irregular *Irregular
				if !errors.As(err, &irregular) || irregular.What != what || irregular.Path != filepath.Join(d.Path(), name) {
					t.Errorf("OpenRegular: %v, %v; want a %s", f, err, what)
				}
				if _, err := d.LstatRegular(name); !errors.As(err, &irregular) || irregular.What != what {
					t.Errorf("LstatRegular: %v; want a %s", err, what)
				}
			})
		})
	}
	f, err := d.OpenRegular("file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "content" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestOnlyDirectoriesAreEntered(t *testing.T) {
	d := scene(t)
	for _, name := range []string{"file", "link", "dirlink", "dangling", "pipe", "socket", "absent"} {
		within(t, func() {
			if sub, err := d.Sub(name); err == nil {
				t.Errorf("%s was entered: %v", name, sub.Path())
			}
		})
	}
	sub, err := d.Sub("dir")
	if err != nil {
		t.Fatal(err)
	}
	sub.Close()
}

func TestNothingIsCreatedOverAnything(t *testing.T) {
	d := scene(t)
	for _, name := range []string{"file", "dir", "link", "dirlink", "dangling", "pipe", "socket"} {
		within(t, func() {
			if _, err := d.Create(name, 0o600); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Create %s: %v", name, err)
			}
			if _, err := d.Mkdir(name, 0o700); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Mkdir %s: %v", name, err)
			}
		})
	}
	if _, err := os.Lstat(filepath.Join(d.Path(), "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the target of a dangling symlink was made")
	}
}

func TestNamesAreSingle(t *testing.T) {
	d := scene(t)
	for _, name := range []string{"", ".", "..", "dir/x", "/", "../x", "a\x00b"} {
		calls := map[string]error{}
		_, calls["Sub"] = d.Sub(name)
		_, calls["Mkdir"] = d.Mkdir(name, 0o700)
		_, calls["Create"] = d.Create(name, 0o600)
		_, calls["OpenRegular"] = d.OpenRegular(name)
		_, calls["Lstat"] = d.Lstat(name)
		calls["RemoveAll"] = d.RemoveAll(name)
		calls["Rename from"] = d.Rename(name, "new", false)
		calls["Rename to"] = d.Rename("file", name, true)
		for call, err := range calls {
			if err == nil || !strings.Contains(err.Error(), "not a single name") {
				t.Errorf("%s %q: %v", call, name, err)
			}
		}
	}
}

func TestErrorsNamePathAndCause(t *testing.T) {
	d := scene(t)
	_, err := d.Create("file", 0o600)
	var p *fs.PathError
	if !errors.As(err, &p) || p.Path != filepath.Join(d.Path(), "file") || p.Err != unix.EEXIST {
		t.Errorf("%#v", err)
	}
	if _, err := OpenDir("/absent/x"); !errors.As(err, &p) || p.Path != "/absent/x" || p.Err != unix.ENOENT {
		t.Errorf("%#v", err)
	}
}

func TestWhatWasOpenedStaysWhatItIs(t *testing.T) {
	d := scene(t)
	sub, err := d.Sub("dir")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if same, err := d.Same("dir", sub); err != nil || !same {
		t.Errorf("same: %v, %v", same, err)
	}
	// Somebody moves the directory away and puts a symlink in its place.
	outside := t.TempDir()
	if err := os.Rename(filepath.Join(d.Path(), "dir"), filepath.Join(d.Path(), "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(d.Path(), "dir")); err != nil {
		t.Fatal(err)
	}
	if same, err := d.Same("dir", sub); err != nil || same {
		t.Errorf("same: %v, %v; it was replaced", same, err)
	}
	f, err := sub.Create("x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(d.Path(), "moved", "x")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a symlink was followed")
	}
}

func TestRenameReplacesNothingButAnEmptyDirectory(t *testing.T) {
	for _, tt := range []struct {
		to              string
		replace, allows bool
	}{
		{"new", false, true}, {"new", true, true},
		{"empty", false, false}, {"empty", true, true},
		{"full", false, false}, {"full", true, false},
		{"file", false, false}, {"file", true, false},
		{"dirlink", false, false}, {"dirlink", true, false},
	} {
		t.Run(fmt.Sprintf("%s, replace %t", tt.to, tt.replace), func(t *testing.T) {
			d := scene(t)
			for _, dir := range []string{"empty", "full", "full/kept"} {
				if err := os.Mkdir(filepath.Join(d.Path(), dir), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			err := d.Rename("dir", tt.to, tt.replace)
			if (err == nil) != tt.allows {
				t.Errorf("%v", err)
			}
			if _, kept := os.Stat(filepath.Join(d.Path(), "full", "kept")); kept != nil {
				t.Error(kept)
			}
			if _, gone := os.Stat(filepath.Join(d.Path(), "dir")); errors.Is(gone, fs.ErrNotExist) != tt.allows {
				t.Errorf("the directory itself: %v", gone)
			}
		})
	}
}

func TestNamesListsLargeDirectoriesTwice(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if empty, err := d.Empty(); err != nil || !empty {
		t.Errorf("empty: %t, %v", empty, err)
	}
	var want []string
	for i := range 5000 {
		name := fmt.Sprintf("%04d", i)
		f, err := d.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		want = append(want, name)
	}
	if empty, err := d.Empty(); err != nil || empty {
		t.Errorf("empty: %t, %v", empty, err)
	}
	for range 2 {
		var got []string
		if err := d.Names(func(name string) error { got = append(got, name); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d names, want %d", len(got), len(want))
		}
	}
}

// A staging directory of any size goes, on filesystems whose listings shift
// under deletion too; what its symlinks point at stays.
func TestRemoveAllFollowsNothing(t *testing.T) {
	for _, where := range []string{os.TempDir(), "/dev/shm"} {
		t.Run(where, func(t *testing.T) {
			path, err := os.MkdirTemp(where, "safefs-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(path)
			outside := filepath.Join(t.TempDir(), "kept")
			if err := os.WriteFile(outside, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			full := filepath.Join(path, "staging", "cur")
			if err := os.MkdirAll(full, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range 9000 {
				if err := os.Symlink(filepath.Dir(outside), filepath.Join(full, fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Mkfifo(filepath.Join(full, "pipe"), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenDir(path)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			within(t, func() {
				if err := d.RemoveAll("staging"); err != nil {
					t.Error(err)
				}
			})
			if _, err := os.Lstat(filepath.Join(path, "staging")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("staging is still there: %v", err)
			}
			if _, err := os.Stat(outside); err != nil {
				t.Error(err)
			}
			if err := d.RemoveAll("staging"); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestPermitGivesModeAndGroup(t *testing.T) {
	d := scene(t)
	like := filepath.Join(d.Path(), "dir")
	if os.Geteuid() == 0 {
		if err := os.Chown(like, 0, 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(like, 0o750|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(like)
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.Mkdir("other", 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Permit(want); err != nil {
		t.Fatal(err)
	}
	got, err := other.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got.Mode() != want.Mode() || gid(got) != gid(want) {
		t.Errorf("mode %v of group %d, want %v of %d", got.Mode(), gid(got), want.Mode(), gid(want))
	}
}
