package semaphore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEnrollWritesMboxOnce(t *testing.T) {
	s := newScene(t)
	if state, err := s.sem.Get(); state != Hold || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before: %v, %v; want hold and not exist", state, err)
	}
	s.must(s.sem.Enroll(Meta{Epoch: 1, Run: "first", Host: "mail.example.org"}))
	s.wants(Mbox, 1)
	s.wantError(s.sem.Enroll(Meta{Epoch: 2}), ErrEnrolled)
	s.wants(Mbox, 1)
	s.wantFiles(s.dir, ".lock", "alice", "alice.meta")

	meta, err := s.sem.Meta()
	s.must(err)
	if meta.Run != "first" || meta.Host != "mail.example.org" || meta.PID != os.Getpid() ||
		time.Since(meta.Time) > time.Minute || !meta.Deadline.IsZero() || meta.State != Mbox {
		t.Errorf("meta %+v", meta)
	}
}

func TestEnrollTakesNobodyForNewWhoIsNot(t *testing.T) {
	for _, tt := range []struct {
		name, semaphore, meta string
		want                  error
	}{
		{"garbage is a semaphore, too", "gone bad", "", ErrEnrolled},
		{"maildir", Maildir.Line(), "", ErrEnrolled},
		{"semaphore lost, meta says maildir", "", `{"epoch":7,"state":"maildir"}`, ErrState},
		{"semaphore lost, meta says hold", "", `{"epoch":7,"state":"hold"}`, ErrState},
		{"an enrolment crashed", "", `{"epoch":7,"state":"mbox"}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			if tt.semaphore != "" {
				s.put(s.sem.Path(), tt.semaphore)
			}
			if tt.meta != "" {
				s.put(s.sem.Path()+".meta", tt.meta)
			}
			s.wantError(s.sem.Enroll(at(8)), tt.want)
			if content, _ := os.ReadFile(s.sem.Path()); tt.want != nil && string(content) != tt.semaphore {
				t.Errorf("the semaphore became %q", content)
			}
		})
	}
}

func TestADirectoryThatIsMissingMakesNobodyNew(t *testing.T) {
	s := newScene(t)
	s.must(os.Remove(s.dir))
	for what, err := range map[string]error{
		"Get": second(s.sem.Get()), "Meta": second(s.sem.Meta()), "Enroll": s.sem.Enroll(at(1)), "Set": s.sem.Set(Mbox, at(1)),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v; want an error that is not ErrNotExist", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestADirectoryThatOthersCanWriteIsNoAuthority(t *testing.T) {
	for _, mode := range []fs.FileMode{0o777, 0o775, 0o777 | fs.ModeSticky} {
		s := newScene(t)
		s.start(Mbox)
		s.must(os.Chmod(s.dir, mode))
		if state, err := s.sem.Get(); state != Hold || err == nil || !strings.Contains(err.Error(), "written by others") {
			t.Errorf("mode %v: %v, %v", mode, state, err)
		}
		if err := s.sem.Set(Maildir, at(2)); err == nil {
			t.Errorf("mode %v: set", mode)
		}
	}
}

func TestEveryChangeOfStates(t *testing.T) {
	set := func(to State) func(*Semaphore, Meta) error {
		return func(s *Semaphore, m Meta) error { return s.Set(to, m) }
	}
	flip := func(to State) func(*Semaphore, Meta) error {
		return func(s *Semaphore, m Meta) error {
			p, err := s.Prepare(to, m)
			if err != nil {
				return err
			}
			defer p.Discard()
			return p.Flip()
		}
	}
	for _, tt := range []struct {
		name   string
		from   State
		change func(*Semaphore, Meta) error
		to     State
		want   error
	}{
		{"hold", Mbox, (*Semaphore).Hold, Hold, nil},
		{"hold for a rollback", Maildir, (*Semaphore).Hold, Hold, nil},
		{"hold of a hold", Hold, (*Semaphore).Hold, Hold, ErrState},
		{"set mbox", Hold, set(Mbox), Mbox, nil},
		{"set maildir", Hold, set(Maildir), Maildir, nil},
		{"set what it is", Maildir, set(Maildir), Maildir, nil},
		{"set back", Maildir, set(Mbox), Mbox, nil},
		{"flip to maildir", Hold, flip(Maildir), Maildir, nil},
		{"flip back to mbox", Hold, flip(Mbox), Mbox, nil},
		{"flip without a hold", Mbox, flip(Maildir), Mbox, ErrState},
		{"flip after a flip", Maildir, flip(Maildir), Maildir, ErrState},
		{"flip to hold", Mbox, flip(Hold), Hold, nil},
		{"flip to hold from maildir", Maildir, flip(Hold), Hold, nil},
		{"flip to hold in a hold", Hold, flip(Hold), Hold, ErrState},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.start(tt.from)
			m := at(2)
			m.Run = "start"
			s.wantError(tt.change(s.sem, m), tt.want)
			s.wants(tt.to, map[bool]uint64{true: 2, false: 1}[tt.want == nil])
			s.wantFiles(s.dir, ".lock", "alice", "alice.meta")
		})
	}
}

func TestEpochsOnlyRise(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	s.must(s.sem.Set(Mbox, at(5)))
	for _, epoch := range []uint64{0, 1, 4, 5} {
		s.wantError(s.sem.Set(Maildir, at(epoch)), ErrEpoch)
		s.wantError(s.sem.Hold(at(epoch)), ErrEpoch)
		s.wantError(s.sem.Enroll(at(epoch)), ErrEpoch)
		s.wants(Mbox, 5)
	}
	s.must(s.sem.Hold(at(1 << 63)))
	s.wants(Hold, 1<<63)
}

func TestAHoldNeedsADeadlineAndKeepsIt(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	if err := s.sem.Hold(Meta{Epoch: 2}); err == nil {
		t.Error("a hold for ever")
	}
	s.wants(Mbox, 1)
	deadline := time.Date(2026, 11, 21, 1, 30, 0, 123456789, time.FixedZone("", 3600))
	s.must(s.sem.Hold(Meta{Epoch: 2, Deadline: deadline}))
	meta, err := s.sem.Meta()
	s.must(err)
	if !meta.Deadline.Equal(deadline) || !meta.Expired(deadline) || meta.Expired(deadline.Add(-1)) || meta.Ahead(Hold) {
		t.Errorf("meta %+v, want the deadline %v", meta, deadline)
	}
}

// A flip whose meta was renamed, and whose semaphore was not, is no obstacle to
// the way back.
func TestTheWayBackFollowsAFlipThatFailed(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	back, err := s.sem.Prepare(Mbox, at(4))
	s.must(err)
	s.must(s.sem.Hold(at(2)))
	s.put(s.sem.Path()+".meta", `{"epoch":3,"state":"maildir","run":"run-1"}`)
	s.must(back.Flip())
	s.wants(Mbox, 4)
	s.must(back.Discard())
}

func TestNobodyFlipsTheHoldOfAnother(t *testing.T) {
	for _, tt := range []struct {
		name    string
		between func(s *scene) error
		want    error
		state   State
		epoch   uint64
	}{
		{"it was ended", func(s *scene) error { return s.sem.Set(Mbox, at(3)) }, ErrEpoch, Mbox, 3},
		{"it was ended and begun again by another run", func(s *scene) error {
			return errors.Join(s.sem.Set(Mbox, at(3)), s.sem.Hold(Meta{Epoch: 4, Run: "run-2", Deadline: time.Now()}))
		}, ErrEpoch, Hold, 4},
		{"the user was taken off the list", func(s *scene) error { return os.Remove(s.sem.Path()) }, fs.ErrNotExist, Hold, 2},
		{"a flip crashed between meta and semaphore", func(s *scene) error {
			s.put(s.sem.Path()+".meta", `{"epoch":2,"state":"mbox","run":"run-1"}`)
			return nil
		}, ErrState, Hold, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t)
			s.start(Mbox)
			p, err := s.sem.Prepare(Maildir, at(3))
			s.must(err)
			s.must(s.sem.Hold(at(2)))
			s.must(tt.between(s))
			s.wantError(p.Flip(), tt.want)
			s.must(p.Discard())
			if state, _ := s.sem.Get(); state != tt.state {
				t.Errorf("semaphore says %v, want %v", state, tt.state)
			}
			if meta, err := s.sem.Meta(); meta.Epoch != tt.epoch || err != nil {
				t.Errorf("epoch %d, %v; want %d", meta.Epoch, err, tt.epoch)
			}
		})
	}
	t.Run("it is another run's from the start", func(t *testing.T) {
		s := newScene(t)
		s.start(Mbox)
		p, err := s.sem.Prepare(Maildir, at(3))
		s.must(err)
		s.must(s.sem.Hold(Meta{Epoch: 2, Run: "run-2", Deadline: time.Now()}))
		s.wantError(p.Flip(), ErrState)
		s.wants(Hold, 2)
		s.must(p.Discard())
	})
}

func TestACutoverPreparesBothWaysAndTakesOne(t *testing.T) {
	for _, to := range []State{Mbox, Maildir} {
		t.Run(to.String(), func(t *testing.T) {
			s := newScene(t)
			s.start(Mbox)
			ends := map[State]*Prepared{}
			for _, end := range []State{Mbox, Maildir} {
				p, err := s.sem.Prepare(end, at(3))
				s.must(err)
				ends[end] = p
				_, err = s.sem.Prepare(end, at(3))
				s.wantError(err, ErrBusy)
			}
			s.must(s.sem.Hold(at(2)))
			s.must(ends[to].Flip())
			s.wants(to, 3)
			s.wantError(ends[to].Flip(), ErrState)
			for _, p := range ends {
				s.must(p.Discard())
				s.must(p.Discard())
				s.wantError(p.Flip(), ErrState)
			}
			s.wants(to, 3)
			s.wantFiles(s.dir, ".lock", "alice", "alice.meta")
			p, err := s.sem.Prepare(to, at(9))
			s.must(err)
			s.must(p.Discard())
		})
	}
}

// A limit of 0 on file sizes is a disk where files can be made, but not filled.
func TestAFullDiskStopsNoFlip(t *testing.T) {
	for _, to := range []State{Mbox, Maildir} {
		s := newScene(t)
		s.start(Mbox)
		s.must(process("full", s.sem.Path(), strconv.Itoa(int(to)), s.home).Run())
		s.wants(to, 3)
		if state, err := ReadMirror(s.fd, ".mailstate", os.Geteuid()); state != to || err != nil {
			t.Errorf("the mirror says %v, %v; want %v", state, err, to)
		}
		s.wantFiles(s.home, ".mailstate")
		s.wantFiles(s.dir, ".lock", "alice", "alice.meta")
	}
}

func roleFull(args []string) error {
	s, err := For(args[0])
	if err != nil {
		return err
	}
	to, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	home, err := unix.Open(args[2], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	p, err := s.Prepare(State(to), at(3))
	if err != nil {
		return err
	}
	mirror, err := PrepareMirror(home, ".mailstate", State(to))
	if err != nil {
		return err
	}
	if err := errors.Join(s.Hold(at(2)), WriteMirror(home, ".mailstate", Hold)); err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{}); err != nil {
		return err
	}
	if err := s.Set(State(to), at(4)); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("Set on a full disk: %v", err)
	}
	if err := WriteMirror(home, ".mailstate", State(to)); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("WriteMirror on a full disk: %v", err)
	}
	if state, err := s.Get(); state != Hold || err != nil {
		return fmt.Errorf("a Set that failed left %v, %v", state, err)
	}
	if m, err := s.Meta(); m.Epoch != 2 || err != nil {
		return fmt.Errorf("a Set that failed left %+v, %v", m, err)
	}
	return errors.Join(p.Flip(), p.Discard(), mirror.Flip(), mirror.Discard())
}

func TestAMetaThatIsNoneAllowsNoChange(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "not JSON": "epoch 3", "cut off": `{"epoch":3,"sta`, "no epoch": `{"state":"mbox"}`,
		"another word": `{"epoch":3,"state":"dbox"}`, "negative": `{"epoch":-3}`, "two": `{"epoch":3}{"epoch":4}`,
		"huge": `{"epoch":3,"run":"` + strings.Repeat("x", maxMeta) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.start(Mbox)
			s.put(s.sem.Path()+".meta", content)
			if m, err := s.sem.Meta(); err == nil || m != (Meta{}) {
				t.Errorf("%+v, %v", m, err)
			}
			if err := s.sem.Set(Maildir, at(9)); err == nil {
				t.Error("set all the same")
			}
			if state, err := s.sem.Get(); state != Mbox || err != nil {
				t.Errorf("the semaphore itself: %v, %v", state, err)
			}
		})
	}
}

func TestAMetaTooLongIsNotWritten(t *testing.T) {
	s := newScene(t)
	s.start(Mbox)
	m := at(2)
	m.Run = strings.Repeat("x", maxMeta)
	if err := s.sem.Set(Maildir, m); err == nil {
		t.Error("written, though nobody could read it")
	}
	s.wants(Mbox, 1)
}

func TestFilesAreReadableWhateverTheUmask(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s := newScene(t)
	s.must(s.sem.Enroll(at(1)))
	s.must(WriteMirror(s.fd, ".mailstate", Mbox))
	for path, want := range map[string]fs.FileMode{
		s.sem.Path(): 0o644, s.sem.Path() + ".meta": 0o644, filepath.Join(s.dir, ".lock"): 0o600,
		filepath.Join(s.home, ".mailstate"): 0o644,
	} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", filepath.Base(path), info.Mode(), err, want)
		}
	}
}

func TestNamesThatLieBesideTheSemaphoresAreNoUsers(t *testing.T) {
	for _, name := range []string{"", ".", "..", ".lock", ".alice.set", "alice.meta", ".meta", "a\x00b"} {
		if _, err := For("/semaphores/" + name); err == nil {
			t.Errorf("For took %q for a user", name)
		}
		if state, err := Get(t.TempDir(), name); state != Hold || err == nil {
			t.Errorf("Get took %q for a user: %v", name, state)
		}
	}
	s, err := For("/semaphores/alice")
	if err != nil || s.Path() != "/semaphores/alice" {
		t.Errorf("%v, %v", s, err)
	}
}
