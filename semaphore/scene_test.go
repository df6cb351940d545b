package semaphore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is a directory of semaphores and a home, both ours.
type scene struct {
	*testing.T
	dir  string // of the semaphores
	home string
	fd   int // of the home
	sem  *Semaphore
}

func newScene(t *testing.T) *scene {
	t.Helper()
	top := t.TempDir()
	s := &scene{T: t, dir: filepath.Join(top, "semaphores"), home: filepath.Join(top, "home")}
	for _, dir := range []string{s.dir, s.home} {
		s.must(os.Mkdir(dir, 0o755))
		s.must(os.Chmod(dir, 0o755)) // whatever the umask is
	}
	var err error
	s.fd, err = unix.Open(s.home, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	s.must(err)
	t.Cleanup(func() { unix.Close(s.fd) })
	s.sem, err = For(filepath.Join(s.dir, "alice"))
	s.must(err)
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// put writes a file by hand.
func (s *scene) put(path, content string) {
	s.Helper()
	s.must(os.WriteFile(path, []byte(content), 0o644))
}

// start puts the semaphore at a state, by hand, at epoch 1.
func (s *scene) start(at State) {
	s.Helper()
	s.put(filepath.Join(s.dir, "alice"), at.Line())
	s.put(filepath.Join(s.dir, "alice.meta"), fmt.Sprintf(`{"epoch":1,"state":%q,"run":"start","time":"2026-11-21T01:30:00Z"}`, at))
}

// wants checks what all readers see, and the epoch.
func (s *scene) wants(state State, epoch uint64) {
	s.Helper()
	if got, err := s.sem.Get(); got != state || err != nil {
		s.Errorf("semaphore says %v, %v; want %v", got, err, state)
	}
	if got, err := s.sem.Meta(); got.Epoch != epoch || err != nil {
		s.Errorf("epoch %d, %v; want %d", got.Epoch, err, epoch)
	}
}

// wantFiles checks the names in a directory.
func (s *scene) wantFiles(dir string, want ...string) {
	s.Helper()
	entries, err := os.ReadDir(dir)
	s.must(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		s.Errorf("%s holds %q, want %q", filepath.Base(dir), got, want)
	}
}

func (s *scene) wantError(err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("got error %v, want %v", err, want)
	}
}

// at is a meta of an epoch, with a deadline in case it is for a hold.
func at(epoch uint64) Meta {
	return Meta{Epoch: epoch, Run: "run-1", Deadline: time.Now().Add(time.Minute)}
}

// Other processes are this program again, given a role by the environment.
const roleVar = "SEMAPHORE_TEST_ROLE"

var roles = map[string]func(args []string) error{
	"set":    roleSet,
	"flip":   roleFlip,
	"mirror": roleMirror,
	"count":  roleCount,
	"gate":   roleGate,
	"full":   roleFull,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleVar)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := role(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is this program in a role.
func process(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// within fails the test if f takes long: nothing of ours waits for a user.
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
