package semaphore

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a user may put where his mirror belongs.
var plants = map[string]func(s *scene, path string) error{
	"nothing":   func(*scene, string) error { return nil },
	"empty":     func(s *scene, path string) error { return os.WriteFile(path, nil, 0o644) },
	"garbage":   func(s *scene, path string) error { return os.WriteFile(path, []byte("MAILSTATE=`id`\n"), 0o644) },
	"oversize":  func(s *scene, path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o644) },
	"hole":      func(s *scene, path string) error { return sparse(path) },
	"FIFO":      func(s *scene, path string) error { return unix.Mkfifo(path, 0o644) },
	"directory": func(s *scene, path string) error { return os.Mkdir(path, 0o755) },
	"dangling":  func(s *scene, path string) error { return os.Symlink("nowhere", path) },
	"symlink":   func(s *scene, path string) error { return os.Symlink(s.elsewhere(), path) },
	"hard link": func(s *scene, path string) error { return os.Link(s.elsewhere(), path) },
	"socket":    func(s *scene, path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o644, 0) },
	"leased":    plantLease,
}

// elsewhere is a file that is none of the user's.
func (s *scene) elsewhere() string {
	path := filepath.Join(s.dir, "elsewhere")
	s.put(path, Maildir.Line())
	return path
}

func sparse(path string) error {
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return err
	}
	return os.Truncate(path, 1<<40)
}

// plantLease has a write lease on the mirror, which makes others wait in open for
// as long as the user likes, up to lease-break-time.
func plantLease(s *scene, path string) error {
	s.put(path, Maildir.Line())
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.Cleanup(func() { f.Close() })
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	return err
}

func TestWhateverAUserPlantsIsHoldAndIsReplaced(t *testing.T) {
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			path := filepath.Join(s.home, ".mailstate")
			s.must(plant(s, path))
			within(t, func() {
				if state, err := ReadMirror(s.fd, ".mailstate", os.Geteuid()); state != Hold || err == nil {
					t.Errorf("read: %v, %v; want hold and an error", state, err)
				}
				err := WriteMirror(s.fd, ".mailstate", Mbox)
				if name == "directory" {
					if err == nil {
						t.Error("a directory was replaced")
					}
					s.wantFiles(s.home, ".mailstate")
					return
				}
				if err != nil {
					t.Errorf("write: %v", err)
				}
				if state, err := ReadMirror(s.fd, ".mailstate", os.Geteuid()); state != Mbox || err != nil {
					t.Errorf("read again: %v, %v; want mbox", state, err)
				}
				s.wantFiles(s.home, ".mailstate")
			})
			if content, err := os.ReadFile(filepath.Join(s.dir, "elsewhere")); err == nil && string(content) != Maildir.Line() {
				t.Errorf("written through a link: %q", content)
			}
		})
	}
}

func TestAMirrorOfAStrangerIsHold(t *testing.T) {
	s := newScene(t)
	s.must(WriteMirror(s.fd, ".mailstate", Maildir))
	me := os.Geteuid()
	for _, tt := range []struct {
		uids []int
		want State
	}{{[]int{me}, Maildir}, {[]int{me + 1, me}, Maildir}, {[]int{me + 1}, Hold}, {nil, Hold}} {
		if state, err := ReadMirror(s.fd, ".mailstate", tt.uids...); state != tt.want || (err == nil) != (tt.want != Hold) {
			t.Errorf("owners %v allowed: %v, %v; want %v", tt.uids, state, err, tt.want)
		}
	}
}

func TestAPreparedMirrorIsFlippedOnceOrNever(t *testing.T) {
	s := newScene(t)
	s.must(WriteMirror(s.fd, ".mailstate", Hold))
	says := func(want State) {
		t.Helper()
		if state, err := ReadMirror(s.fd, ".mailstate", os.Geteuid()); state != want || err != nil {
			t.Errorf("%v, %v; want %v", state, err, want)
		}
	}
	ends := map[State]*PreparedMirror{}
	for _, to := range []State{Mbox, Maildir} {
		var err error
		ends[to], err = PrepareMirror(s.fd, ".mailstate", to)
		s.must(err)
	}
	says(Hold)
	s.must(ends[Maildir].Flip())
	for _, p := range ends {
		s.must(p.Discard())
		s.must(p.Discard())
		s.wantError(p.Flip(), ErrState)
	}
	says(Maildir)
	s.wantFiles(s.home, ".mailstate")

	p, err := PrepareMirror(s.fd, ".mailstate", Mbox)
	s.must(err)
	s.must(os.Remove(filepath.Join(s.home, p.temp))) // by the user
	s.wantError(p.Flip(), fs.ErrNotExist)
	s.must(p.Discard())
	says(Maildir)
}

func TestNamesOfMirrorsAreSingle(t *testing.T) {
	s := newScene(t)
	s.put(filepath.Join(s.home, "x"), Mbox.Line())
	for _, name := range []string{"", ".", "..", "../x", "/x", "./x", "a\x00b"} {
		if err := WriteMirror(s.fd, name, Mbox); err == nil {
			t.Errorf("%q was written", name)
		}
		if state, err := ReadMirror(s.fd, name, os.Geteuid()); state != Hold || err == nil {
			t.Errorf("%q was read: %v", name, state)
		}
		if _, err := TakeGate(t.Context(), s.fd, name, GateOptions{}); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	s.wantFiles(s.home, "x")
}

func TestSweepTakesOnlyOldLeftovers(t *testing.T) {
	s := newScene(t)
	random := strings.Repeat("A", 26)
	keep := []string{
		".mailstate.mailferry-SHORT", "INBOX" + tempInfix + random, ".mailstate" + tempInfix + random + "x",
		".mailstate.lock", ".mailstate", "mail",
	}
	for _, name := range append(keep, ".mailstate"+tempInfix+random, ".mailstate.lock"+tempInfix+random) {
		s.put(filepath.Join(s.home, name), "")
	}
	s.must(os.Mkdir(filepath.Join(s.home, ".mailstate"+tempInfix+strings.Repeat("B", 26)), 0o755))
	s.must(Sweep(s.fd, 10*time.Minute, ".mailstate", ".mailstate.lock"))
	if list, _ := os.ReadDir(s.home); len(list) != len(keep)+3 {
		t.Errorf("fresh ones went: %v", list)
	}
	s.must(Sweep(s.fd, 0, ".mailstate", ".mailstate.lock"))
	s.wantFiles(s.home, ".mailstate", ".mailstate.lock", ".mailstate"+tempInfix+random+"x",
		".mailstate"+tempInfix+strings.Repeat("B", 26), ".mailstate.mailferry-SHORT", "INBOX"+tempInfix+random, "mail")
}
