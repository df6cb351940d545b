package maildir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

func openDir(t *testing.T, path string) *safefs.Dir {
	t.Helper()
	d, err := safefs.OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// text is a message's content.
func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

// fill writes INBOX with one message into a staging Maildir.
func fill(t *testing.T, s *Staging) {
	t.Helper()
	f, err := s.Folder(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(NewNamer(time.Unix(1600000000, 0), 1, "host"), 7, [16]byte{1}); err != nil {
		t.Fatal(err)
	}
	date := time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)
	if err := f.Add(Message{Size: 5, VSize: 7, Date: date, Flags: Seen, UID: 3, UIDL: "x"}, text("a\n\nb\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.End(9, nil); err != nil {
		t.Fatal(err)
	}
}

// begin makes a full staging Maildir for dir/Maildir.
func begin(t *testing.T, dir string) *Staging {
	t.Helper()
	s, err := NewStaging(openDir(t, dir), "Maildir", Folders{})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	return s
}

func TestPublishGivesTheFinalName(t *testing.T) {
	dir := t.TempDir()
	s := begin(t, dir)
	if list := names(t, dir); len(list) != 1 || !strings.HasPrefix(list[0], ".Maildir"+StagingMark) {
		t.Errorf("before: %q", list)
	}
	if err := s.Publish(); err != nil {
		t.Fatal(err)
	}
	if list := names(t, dir); !slices.Equal(list, []string{"Maildir"}) {
		t.Errorf("after: %q", list)
	}
	root := filepath.Join(dir, "Maildir")
	if list := names(t, root); !slices.Equal(list, []string{"cur", "dovecot-uidlist", "new", "tmp"}) {
		t.Errorf("in it: %q", list)
	}
	file := filepath.Join(root, "cur", "1600000000.M000000P1Q0.host,S=5,W=7:2,S")
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "a\n\nb\n" {
		t.Errorf("message: %q, %v; of %q", b, err, names(t, filepath.Dir(file)))
	}
	if info, err := os.Stat(file); err == nil && info.ModTime().Unix() != 1582977600 {
		t.Errorf("date: %v", info.ModTime())
	}
	for _, tt := range []struct {
		path string
		mode fs.FileMode
	}{{root, 0o700}, {filepath.Join(root, "cur"), 0o700}, {filepath.Join(root, "dovecot-uidlist"), 0o600}} {
		if info, err := os.Stat(tt.path); err != nil || info.Mode().Perm() != tt.mode {
			t.Errorf("%s: mode %v, %v; want %v", tt.path, info.Mode(), err, tt.mode)
		}
	}
	list, err := os.ReadFile(filepath.Join(root, "dovecot-uidlist"))
	if want := "3 V7 N0000000009 G01000000000000000000000000000000\n3 Px :1600000000.M000000P1Q0.host,S=5,W=7\n"; string(list) != want {
		t.Errorf("uidlist: %q, %v; want %q", list, err, want)
	}
}

// mustDiscard removes a staging Maildir and demands that nothing but want is left.
func mustDiscard(t *testing.T, s *Staging, dir string, want ...string) {
	t.Helper()
	if err := s.Discard(); err != nil {
		t.Errorf("discard: %v", err)
	}
	if list := names(t, dir); !slices.Equal(list, want) {
		t.Errorf("left: %q, want %q", list, want)
	}
}

func TestDiscardLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	mustDiscard(t, begin(t, dir), dir)
}

// occupants are what somebody may put where the Maildir is to be.
var occupants = map[string]func(path string) error{
	"a file":                        func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
	"a symlink to nothing":          func(p string) error { return os.Symlink("nowhere", p) },
	"a symlink to an empty folder":  func(p string) error { return errors.Join(os.Mkdir(p+"~", 0o700), os.Symlink("Maildir~", p)) },
	"a FIFO":                        func(p string) error { return unix.Mkfifo(p, 0o600) },
	"a directory with a file in it": func(p string) error { return os.MkdirAll(filepath.Join(p, "kept"), 0o700) },
}

func TestNewStagingRefusesATakenName(t *testing.T) {
	for name, occupy := range occupants {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := occupy(filepath.Join(dir, "Maildir")); err != nil {
				t.Fatal(err)
			}
			before := names(t, dir)
			_, err := NewStaging(openDir(t, dir), "Maildir", Folders{})
			if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), filepath.Join(dir, "Maildir")) {
				t.Errorf("%v", err)
			}
			if after := names(t, dir); !slices.Equal(after, before) {
				t.Errorf("%q, before %q", after, before)
			}
		})
	}
}

func TestPublishRefusesANameTakenMeanwhile(t *testing.T) {
	empty := func(p string) error { return os.Mkdir(p, 0o700) }
	for name, occupy := range occupants {
		t.Run(name+" where nothing was", func(t *testing.T) { publishOver(t, func(string) error { return nil }, occupy) })
		t.Run(name+" where an empty directory was", func(t *testing.T) {
			publishOver(t, empty, func(p string) error { return errors.Join(os.Remove(p), occupy(p)) })
		})
	}
	t.Run("an empty directory where nothing was", func(t *testing.T) { publishOver(t, func(string) error { return nil }, empty) })
}

// publishOver publishes where before held at the start and then after.
func publishOver(t *testing.T, before, after func(path string) error) {
	dir := t.TempDir()
	final := filepath.Join(dir, "Maildir")
	if err := before(final); err != nil {
		t.Fatal(err)
	}
	s := begin(t, dir)
	if err := after(final); err != nil {
		t.Fatal(err)
	}
	was, err := os.Lstat(final)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(); err == nil || !strings.Contains(err.Error(), final) {
		t.Errorf("published: %v", err)
	}
	if is, err := os.Lstat(final); err != nil || !os.SameFile(is, was) {
		t.Errorf("what had the name is gone: %v", err)
	}
	left := slices.DeleteFunc(names(t, dir), func(n string) bool { return strings.Contains(n, StagingMark) })
	mustDiscard(t, s, dir, left...)
}

func TestAReplacedStagingIsNeitherPublishedNorRemoved(t *testing.T) {
	dir := t.TempDir()
	s := begin(t, dir)
	staging := names(t, dir)[0]
	if err := os.Rename(filepath.Join(dir, staging), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, staging, "planted"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("published: %v", err)
	}
	mustDiscard(t, s, dir, staging, "moved")
	if list := names(t, filepath.Join(dir, staging)); !slices.Equal(list, []string{"planted"}) {
		t.Errorf("planted: %q", list)
	}
}

func TestAnEmptyDirectoryKeepsItsModeAndGroup(t *testing.T) {
	dir := t.TempDir()
	final := filepath.Join(dir, "Maildir")
	if err := os.Mkdir(final, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(final, 0, 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(final, 0o750|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(final)
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(t, dir).Publish(); err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(final)
	if err != nil {
		t.Fatal(err)
	}
	group := func(i fs.FileInfo) uint32 { return i.Sys().(*syscall.Stat_t).Gid }
	if got.Mode() != want.Mode() || group(got) != group(want) {
		t.Errorf("%v of group %d, want %v of %d", got.Mode(), group(got), want.Mode(), group(want))
	}
	if list := names(t, final); !slices.Contains(list, "cur") {
		t.Errorf("in it: %q", list)
	}
}

func TestAnEmptyDirectoryOfSomebodyElseIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can make one")
		return
	}
	dir := t.TempDir()
	final := filepath.Join(dir, "Maildir")
	if err := errors.Join(os.Mkdir(final, 0o755), os.Chown(final, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	_, err := NewStaging(openDir(t, dir), "Maildir", Folders{})
	if err == nil || !strings.Contains(err.Error(), final+": belongs to uid 65534") || !strings.Contains(err.Error(), "run it as the owner") {
		t.Errorf("%v", err)
	}
	if list := names(t, dir); !slices.Equal(list, []string{"Maildir"}) {
		t.Errorf("left: %q", list)
	}
}

func TestContentMustHaveTheSizeAnnounced(t *testing.T) {
	broken := errors.New("can't be read")
	for _, tt := range []struct {
		name    string
		content func(io.Writer) error
		want    string
	}{
		{"shorter", text("abcd"), "4 bytes written of a message of 5"},
		{"longer", text("abcdef"), "6 bytes written of a message of 5"},
		{"empty", func(io.Writer) error { return nil }, "0 bytes written of a message of 5"},
		{"unreadable", func(w io.Writer) error { return errors.Join(text("ab")(w), broken) }, broken.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := NewStaging(openDir(t, dir), "Maildir", Folders{})
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.Folder(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Begin(NewNamer(time.Unix(1600000000, 0), 1, "host"), 7, [16]byte{1}); err != nil {
				t.Fatal(err)
			}
			err = f.Add(Message{Size: 5, VSize: 5, UID: 1}, tt.content)
			var p *fs.PathError
			if !errors.As(err, &p) || !strings.HasSuffix(p.Path, "/cur/1600000000.M000000P1Q0.host,S=5,W=5:2,") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			mustDiscard(t, s, dir)
		})
	}
}

func TestAFolderIsFilledOnce(t *testing.T) {
	dir := t.TempDir()
	s := begin(t, dir)
	f, err := s.Folder(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Begin(NewNamer(time.Unix(1600000000, 0), 1, "host"), 7, [16]byte{1}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("INBOX a second time: %v", err)
	}
	f.Close()
	mustDiscard(t, s, dir)
}

// Behind the flip the Maildir is in use: servers make locks there and take them
// away, and users delete folders.
func TestListsAreRemovedFromAMaildirInUse(t *testing.T) {
	for _, layout := range []Layout{MaildirPP, FS} {
		dir := t.TempDir()
		s, err := NewStaging(openDir(t, dir), "Maildir", Folders{Layout: layout})
		if err != nil {
			t.Fatal(err)
		}
		for _, parts := range [][]string{nil, {"A"}, {"B"}} {
			f, err := s.Folder(parts)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if err := s.Publish(); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(dir, "Maildir")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, name := range []string{"mailboxes.lock", ".DOVECOT-TRASHED"} {
					os.Mkdir(filepath.Join(root, name), 0o700)
					os.Remove(filepath.Join(root, name))
				}
			}
		}()
		for range 2000 {
			if _, err := s.Dirs(); err != nil {
				t.Fatal(err)
			}
		}
		close(stop)
		<-stopped
		dirs, err := s.Dirs()
		if err != nil || len(dirs) != 3 {
			t.Fatalf("%q, %v", dirs, err)
		}
		slices.Sort(dirs) // "." is the first
		gone, kept := dirs[1], dirs[2]
		if err := errors.Join(os.RemoveAll(filepath.Join(root, gone)), os.WriteFile(filepath.Join(root, kept, "list"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			if err := s.RemoveLists(d, "list"); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.FolderAt(gone); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(root, gone)); err == nil {
			t.Errorf("%s is there again", gone)
		}
		if _, err := os.Stat(filepath.Join(root, kept, "list")); err == nil {
			t.Error("the list is still there")
		}
	}
}

func TestFoldersLieByTheirLayout(t *testing.T) {
	parts := [][]string{{"A"}, {"A", "B"}, {"C", "D", "E"}, {"C", "F"}}
	for _, tt := range []struct {
		layout Layout
		dirs   []string // that are folders
		not    []string // that are none
	}{
		{MaildirPP, []string{".A", ".A.B", ".C.D.E", ".C.F"}, []string{".C", ".C.D"}},
		{FS, []string{"A", "A/B", "C/D/E", "C/F"}, []string{"C", "C/D"}},
	} {
		t.Run(tt.dirs[0], func(t *testing.T) {
			dir := t.TempDir()
			s, err := NewStaging(openDir(t, dir), "Maildir", Folders{Layout: tt.layout})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range parts {
				f, err := s.Folder(p)
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
			if err := s.Publish(); err != nil {
				t.Fatal(err)
			}
			for _, d := range tt.dirs {
				list := names(t, filepath.Join(dir, "Maildir", d))
				for _, sub := range []string{"cur", "new", "tmp"} {
					if !slices.Contains(list, sub) {
						t.Errorf("%s holds %q", d, list)
					}
				}
				if slices.Contains(list, "maildirfolder") != (tt.layout == MaildirPP) {
					t.Errorf("%s holds %q", d, list)
				}
			}
			for _, d := range tt.not {
				if _, err := os.Stat(filepath.Join(dir, "Maildir", d, "cur")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is a folder: %v", d, err)
				}
			}
		})
	}
}

func TestStagingRefusesAMountPoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount")
		return
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "Maildir")
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", at, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(at, 0) })
	parent, err := safefs.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer parent.Close()
	if _, err := NewStaging(parent, "Maildir", Folders{}); err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("got %v, want a refusal that names the mount point", err)
	}
}
