package safefs

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// rootOnly is a directory that root alone can write, as are all above it: the
// usual temporary ones are everybody's.
func rootOnly(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/lib", "safefs-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

func TestOpenForFollowsOnlyWhatRootAloneCanHavePut(t *testing.T) {
	if !asRoot(t) {
		return
	}
	base := rootOnly(t)
	at := func(name string) string { return filepath.Join(base, name) }
	home := give(t, base, "alice", alice.UID, alice.GID, 0o711)
	give(t, home, "mail", alice.UID, alice.GID, 0o700)
	give(t, home, "roots", 0, 0, 0o755)
	give(t, base, "bob", bob.UID, bob.GID, 0o777)
	give(t, at("bob"), "alice", alice.UID, alice.GID, 0o700)
	give(t, base, "spool", 0, 8, 0o775|fs.ModeSetgid)
	give(t, base, "everybody", 0, 0, 0o777|fs.ModeSticky)
	give(t, at("everybody"), "alice", alice.UID, alice.GID, 0o700)
	give(t, at("everybody"), "bob", bob.UID, bob.GID, 0o755)
	give(t, base, "searchable", 0, 0, 0o711)
	give(t, at("searchable"), "alice", alice.UID, alice.GID, 0o700)
	give(t, base, "closed", 0, 0, 0o700)
	must(t, os.WriteFile(at("file"), nil, 0o644))
	for name, target := range map[string]string{
		"link": home, "relative": "alice/mail", "up": "../" + filepath.Base(base) + "/alice", "chain": "link/mail",
		"loop": "loop", "dangling": "nowhere", "slashes": "//" + base + "///alice/./",
		"alice/tobob": at("bob"), "alice/tomail": "mail", "everybody/toalice": home, "spool/toalice": home,
	} {
		must(t, os.Symlink(target, at(name)))
	}
	// A second name of root's symlink, as anybody may make it where
	// fs.protected_hardlinks is 0.
	must(t, unix.Linkat(unix.AT_FDCWD, at("link"), unix.AT_FDCWD, at("everybody/linked"), 0))

	for _, tt := range []struct {
		path string
		want string // the directory, or the error
		err  error
	}{
		{"alice", "alice", nil},
		{"alice/mail", "alice/mail", nil},
		{"alice/mail/", "alice/mail", nil},
		{"./alice/./mail", "alice/mail", nil},
		{"spool/../alice", `below a directory that others than root can write`, nil},
		{"searchable/../alice", "alice", nil},
		{"alice/roots", "alice/roots", nil},
		{"spool", "spool", nil},
		{"everybody/alice", "everybody/alice", nil},
		{"searchable/alice", "searchable/alice", nil},
		{"link", "alice", nil},
		{"link/mail", "alice/mail", nil},
		{"relative", "alice/mail", nil},
		{"up/mail", "alice/mail", nil},
		{"chain", "alice/mail", nil},
		{"slashes", "alice", nil},
		{"bob", `bob" belongs to uid 40002, neither to root nor to uid 40001`, nil},
		{"bob/alice", `bob" belongs to uid 40002`, nil},
		{"everybody/bob", `bob" belongs to uid 40002`, nil},
		{"alice/tobob", `tobob" is a symlink (owner uid 0) below a directory that others`, nil},
		{"alice/tomail", `tomail" is a symlink`, nil},
		{"link/tomail", `tomail" is a symlink`, nil},
		{"everybody/toalice", `toalice" is a symlink`, nil},
		{"everybody/linked", `linked" is a symlink`, nil},
		{"spool/toalice/mail", `toalice" is a symlink`, nil},
		{"closed", "permission denied", fs.ErrPermission},
		{"closed/x", "permission denied", fs.ErrPermission},
		{"searchable", "permission denied", fs.ErrPermission}, // the last must be readable
		{"file", "not a directory", unix.ENOTDIR},
		{"file/x", "not a directory", unix.ENOTDIR},
		{"loop", "too many levels", unix.ELOOP},
		{"dangling", "no such file", fs.ErrNotExist},
		{"absent", "no such file", fs.ErrNotExist},
		{"alice/absent/mail", "no such file", fs.ErrNotExist},
		{"alice/\x00", "invalid argument", nil},
	} {
		t.Run(tt.path, func(t *testing.T) {
			must(t, AsUser(alice, func() error {
				d, err := OpenFor(base+"/"+tt.path, alice.UID)
				if err != nil {
					if !strings.Contains(err.Error(), tt.want) || tt.err != nil && !errors.Is(err, tt.err) {
						t.Errorf("%v, want %q", err, tt.want)
					}
					return nil
				}
				defer d.Close()
				got, err := os.Readlink(fmt.Sprintf("/proc/thread-self/fd/%d", d.Fd()))
				if err != nil || got != at(tt.want) {
					t.Errorf("opened %q, %v; want %q", got, err, at(tt.want))
				}
				return nil
			}))
		})
	}
	for _, path := range []string{"", "alice", "./alice", "../alice"} {
		if _, err := OpenFor(path, alice.UID); err == nil || !strings.Contains(err.Error(), "not an absolute path") {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestUntrustedTellsOwnerAndMode(t *testing.T) {
	if !asRoot(t) {
		return
	}
	dir := give(t, place(t), "bob", bob.UID, bob.GID, 0o750)
	_, err := OpenFor(dir, alice.UID)
	var u *Untrusted
	if !errors.As(err, &u) || *u != (Untrusted{dir, bob.UID, fs.ModeDir | 0o750, alice.UID}) {
		t.Errorf("%#v", err)
	}
}

func TestOpenForLeavesNoDescriptorBehind(t *testing.T) {
	dir := place(t)
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644), os.Symlink("loop", filepath.Join(dir, "loop")))
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	before := count()
	for range 100 {
		for _, name := range []string{"", "file", "loop", "absent", "file/x"} {
			if d, err := OpenFor(filepath.Join(dir, name), os.Getuid()); err == nil {
				d.Close()
			}
		}
	}
	if after := count(); after > before+10 {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestStatfsTellsWhatOthersThanRootHave(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	must(t, err)
	defer d.Close()
	var st unix.Statfs_t
	must(t, unix.Statfs(d.Path(), &st))
	room, err := d.Statfs()
	must(t, err)
	near := func(a, b int64) bool { return max(a-b, b-a) < 1<<28 } // others write meanwhile
	if !near(room.Bytes, int64(st.Bavail)*st.Bsize) || !near(room.Inodes, int64(st.Ffree)) {
		t.Errorf("%+v, want %d blocks of %d and %d inodes", room, st.Bavail, st.Bsize, st.Ffree)
	}
	sub, err := d.Mkdir("sub", 0o700)
	must(t, err)
	defer sub.Close()
	proc, err := OpenDir("/proc")
	must(t, err)
	defer proc.Close()
	same, err := sub.Statfs()
	must(t, err)
	other, err := proc.Statfs()
	must(t, err)
	if same.Dev != room.Dev || other.Dev == room.Dev {
		t.Errorf("devices: %d, below it %d, /proc %d", room.Dev, same.Dev, other.Dev)
	}
	if other.Inodes != math.MaxInt64 {
		t.Errorf("/proc, which counts no inodes, has %d", other.Inodes)
	}
}

func TestSaturatedProductsAreNotNegative(t *testing.T) {
	for _, tt := range []struct {
		n, unit uint64
		want    int64
	}{
		{0, 4096, 0}, {3, 4096, 12288}, {math.MaxUint64, 1, math.MaxInt64},
		{math.MaxInt64, 1, math.MaxInt64}, {1 << 62, 2, math.MaxInt64}, {math.MaxUint64, math.MaxUint64, math.MaxInt64}, {5, 0, 0},
	} {
		if got := saturated(tt.n, tt.unit); got != tt.want {
			t.Errorf("%d times %d: %d, want %d", tt.n, tt.unit, got, tt.want)
		}
	}
}

func TestUnlinkRemovesWhatIsNoDirectory(t *testing.T) {
	d := scene(t)
	for _, name := range []string{"file", "link", "dirlink", "dangling", "pipe"} {
		must(t, d.Unlink(name))
		if _, err := d.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Unlink("dir"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("dir: %v", err)
	}
	if err := d.Unlink("file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a second time: %v", err)
	}
	if err := d.Unlink("../x"); err == nil || !strings.Contains(err.Error(), "not a single name") {
		t.Errorf("%v", err)
	}
}

// Nobody can make us use up the descriptors of the process.
func TestRemoveAllStopsAtADepthNothingOfOursHas(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	must(t, err)
	defer d.Close()
	must(t, os.MkdirAll(filepath.Join(d.Path(), "deep", strings.Repeat("d/", 2*maxDepth)), 0o700))
	must(t, os.MkdirAll(filepath.Join(d.Path(), "flat", strings.Repeat("d/", maxDepth-1)), 0o700))
	if err := d.RemoveAll("deep"); err == nil || !strings.Contains(err.Error(), "too many levels of directories") {
		t.Errorf("%v", err)
	}
	must(t, d.RemoveAll("flat"))
}

func TestInterruptedCallsAreMadeAgain(t *testing.T) {
	results := []error{unix.EINTR, unix.EINTR, unix.EEXIST}
	n, err := retry(func() (int, error) {
		err := results[0]
		results = results[1:]
		return len(results), err
	})
	if n != 0 || err != unix.EEXIST {
		t.Errorf("%d, %v", n, err)
	}
}
