package semaphore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func roleSet(args []string) error {
	s, err := For(args[0])
	if err != nil {
		return err
	}
	return s.Set(Maildir, at(2))
}

// roleFlip is a whole cutover.
func roleFlip(args []string) error {
	s, err := For(args[0])
	if err != nil {
		return err
	}
	back, err := s.Prepare(Mbox, at(3))
	if err != nil {
		return err
	}
	p, err := s.Prepare(Maildir, at(3))
	if err != nil {
		return err
	}
	if err := s.Hold(at(2)); err != nil {
		return err
	}
	return errors.Join(p.Flip(), p.Discard(), back.Discard())
}

func roleMirror(args []string) error {
	dir, err := unix.Open(args[0], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return WriteMirror(dir, ".mailstate", Maildir)
}

// steps are the calls that write a file that lasts.
func steps(name string) []string {
	return []string{"create " + name, "write " + name, "chmod " + name, "fsync " + name}
}

func TestEveryChangeIsDurableBeforeTheNext(t *testing.T) {
	discard := func(kind string) []string {
		return []string{"unlink .alice." + kind, "unlink .alice." + kind + ".meta"}
	}
	files := func(kind string) []string {
		return slices.Concat(discard(kind), steps(".alice."+kind+".meta"), steps(".alice."+kind))
	}
	commit := func(kind string) []string {
		return []string{"rename .alice." + kind + ".meta alice.meta", "fsync semaphores", "rename .alice." + kind + " alice", "fsync semaphores"}
	}
	lock, set := []string{"create .lock"}, slices.Concat(files("set"), commit("set"))
	for _, tt := range []struct {
		role string
		want []string
	}{
		{"set", slices.Concat(lock, set)},
		{"flip", slices.Concat(lock, files("next-mbox"), lock, files("next-maildir"), lock, set,
			commit("next-maildir"), discard("next-maildir"), discard("next-mbox"))},
	} {
		t.Run(tt.role, func(t *testing.T) {
			s := newScene(t)
			s.start(Mbox)
			got := trace(t, process(tt.role, s.sem.Path()), s.dir, -1)
			if !slices.Equal(got, tt.want) {
				t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
	t.Run("mirror", func(t *testing.T) {
		s := newScene(t)
		temp := ".mailstate" + tempInfix + "RANDOM"
		want := append(steps(temp), "rename "+temp+" .mailstate", "fsync home")
		if got := trace(t, process("mirror", s.home), s.home, -1); !slices.Equal(got, want) {
			t.Errorf("calls:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// killedAt runs a role to its n-th change of the disk, and reports whether there are that many.
func killedAt(t *testing.T, n int, role, dir, arg string) bool {
	t.Helper()
	return len(trace(t, process(role, arg), dir, n)) > n
}

func TestKilledAnywhereASemaphoreIsOldOrNew(t *testing.T) {
	for _, tt := range []struct {
		role string
		seen []State // in this order
	}{{"set", []State{Mbox, Maildir}}, {"flip", []State{Mbox, Hold, Maildir}}} {
		t.Run(tt.role, func(t *testing.T) {
			var seen []State
			ahead := 0
			for n := 0; ; n++ {
				s := newScene(t)
				s.start(Mbox)
				if !killedAt(t, n, tt.role, s.dir, s.sem.Path()) {
					break
				}
				state, err := s.sem.Get()
				s.must(err)
				if len(seen) == 0 || seen[len(seen)-1] != state {
					seen = append(seen, state)
				}
				meta, err := s.sem.Meta()
				s.must(err)
				if meta.Ahead(state) {
					ahead++
					if meta.Expired(time.Now()) {
						t.Errorf("killed at %d, the hold has lost its deadline: %+v", n, meta)
					}
				}
				s.recovers(meta)
			}
			if !slices.Equal(seen, tt.seen) {
				t.Errorf("states seen: %v, want %v", seen, tt.seen)
			}
			// Each commit has two calls between its two renames: fsync and the second rename.
			if want := 2 * (len(tt.seen) - 1); ahead != want {
				t.Errorf("the meta was ahead %d times, want %d", ahead, want)
			}
		})
	}
}

// recovers checks that after any crash the next changes are as ever, and leave nothing behind.
func (s *scene) recovers(meta Meta) {
	s.Helper()
	s.wantError(s.sem.Set(Mbox, at(meta.Epoch)), ErrEpoch)
	s.must(s.sem.Set(Mbox, at(meta.Epoch+1)))
	for _, to := range []State{Mbox, Maildir} {
		p, err := s.sem.Prepare(to, at(meta.Epoch+3))
		s.must(err)
		s.must(p.Discard())
	}
	s.wants(Mbox, meta.Epoch+1)
	s.wantFiles(s.dir, ".lock", "alice", "alice.meta")
}

func TestKilledAnywhereAMirrorIsOldOrNew(t *testing.T) {
	for n := 0; ; n++ {
		s := newScene(t)
		s.must(WriteMirror(s.fd, ".mailstate", Hold))
		if !killedAt(t, n, "mirror", s.home, s.home) {
			break
		}
		want := Hold
		if n > 4 { // create, write, chmod, fsync, rename
			want = Maildir
		}
		if state, err := ReadMirror(s.fd, ".mailstate", os.Geteuid()); state != want || err != nil {
			t.Errorf("killed at %d: %v, %v; want %v", n, state, err, want)
		}
		s.must(Sweep(s.fd, 0, ".mailstate"))
		s.wantFiles(s.home, ".mailstate")
	}
}

func TestLeftoversAreOverwrittenWhateverTheyAre(t *testing.T) {
	for name, plant := range plants {
		if name == "directory" {
			continue // only root can make one in the authority's directory
		}
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.start(Mbox)
			for _, left := range []string{".alice.set", ".alice.next-maildir.meta"} {
				s.must(plant(s, filepath.Join(s.dir, left)))
			}
			within(t, func() {
				s.must(s.sem.Set(Mbox, at(2)))
				p, err := s.sem.Prepare(Maildir, at(4))
				s.must(err)
				s.must(s.sem.Hold(at(3)))
				s.must(errors.Join(p.Flip(), p.Discard()))
			})
			s.wants(Maildir, 4)
		})
	}
}
