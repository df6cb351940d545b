package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"mailferry/mbox"
)

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"mailferry-deliver": main,
		"broken-deliver":    broken,
	})
}

// tidy removes what tests share.
type tidy struct{ *testing.M }

func (t tidy) Run() int {
	defer func() { os.RemoveAll(builtDir) }()
	return t.M.Run()
}

const (
	uid     = 20001
	mailGID = 8
)

// scene is a server with the user alice.
type scene struct {
	testing.TB
	dir string
}

func newScene(t testing.TB) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{t, dir}
	s.must(os.Chmod(filepath.Dir(dir), 0o755))
	s.furnish()
	return s
}

// furnish makes what there is. The Maildir is there in every state, as it is
// just before a flip.
func (s *scene) furnish() {
	s.Helper()
	s.must(errors.Join(os.MkdirAll(s.path("semaphores"), 0o755), os.MkdirAll(s.path("home"), 0o755), os.MkdirAll(s.spool(), 0o775)))
	s.must(errors.Join(os.Chown(s.spool(), 0, mailGID), os.Chmod(s.spool(), 0o775|fs.ModeSetgid)))
	for _, d := range []string{"", "mail", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
		s.must(errors.Join(os.Mkdir(s.home(d), 0o700), os.Chown(s.home(d), uid, uid)))
	}
	s.put(s.path("users"), fmt.Sprintf("alice:%d:%d:%s\n", uid, uid, s.home("")))
	s.put(s.path("mailferry.toml"), s.config())
	s.say("mbox")
}

func (s *scene) config() string {
	return fmt.Sprintf(`spool = "%[1]s/spool/{user}"
folders = ["{home}/mail"]
semaphore = "%[1]s/semaphores/{user}"
users = "file:%[1]s/users"
state = "%[1]s/state"
`, s.dir)
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }
func (s *scene) home(name string) string { return filepath.Join(s.dir, "home", "alice", name) }
func (s *scene) spool() string           { return s.path("spool") }
func (s *scene) inbox() string           { return s.path("spool/alice") }
func (s *scene) gate() string            { return s.home(".mailstate.lock") }

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// put writes a file for everybody to read; own gives it to the user.
func (s *scene) put(path, content string) {
	s.Helper()
	s.must(os.WriteFile(path, []byte(content), 0o644))
}

func (s *scene) own(path, content string) {
	s.Helper()
	s.put(path, content)
	s.must(errors.Join(os.Chown(path, uid, uid), os.Chmod(path, 0o600)))
}

// say sets the semaphore, as a flip does.
func (s *scene) say(state string) {
	s.Helper()
	s.put(s.path("semaphores/.new"), "MAILSTATE="+state+"\n")
	s.must(os.Rename(s.path("semaphores/.new"), s.path("semaphores/alice")))
}

// command is a delivery to alice, or with the arguments given instead.
func (s *scene) command(message string, args ...string) *exec.Cmd {
	if len(args) == 0 {
		args = []string{"-d", "alice", "-f", "bob@example.org"}
	}
	cmd := exec.Command("mailferry-deliver", append([]string{"--config", s.path("mailferry.toml"), "--wait", "0s", "--lock-wait", "500ms"}, args...)...)
	cmd.Stdin = strings.NewReader(message)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	return cmd
}

// deliver returns the exit code and what the MTA would log.
func (s *scene) deliver(message string, args ...string) (code int, log string) {
	s.Helper()
	return s.run(s.command(message, args...))
}

func (s *scene) run(cmd *exec.Cmd) (code int, log string) {
	s.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// wants delivers and compares the exit code.
func (s *scene) wants(code int, message string, args ...string) (log string) {
	s.Helper()
	got, log := s.deliver(message, args...)
	if got != code {
		s.Errorf("exit code %d, want %d: %s", got, code, log)
	}
	if strings.Count(log, "\n") > 1 || (log == "") != (code == 0) {
		s.Errorf("with exit code %d it says %q", code, log)
	}
	return log
}

// inMbox are the messages of an mbox, as Dovecot shows them.
func (s *scene) inMbox(path string) []string {
	s.Helper()
	return s.inMboxAs(mbox.Dovecot, path)
}

// inMboxAs are the messages of an mbox, as some server shows them.
func (s *scene) inMboxAs(profile mbox.Profile, path string) (list []string) {
	s.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.must(err)
	defer f.Close()
	info, err := f.Stat()
	s.must(err)
	scanner, err := mbox.NewScanner(f, info.Size(), mbox.Options{Profile: profile})
	s.must(err)
	defer scanner.Close()
	for {
		_, err := scanner.Next()
		if err != nil {
			return list
		}
		var b bytes.Buffer
		s.must(scanner.WriteContent(&b))
		list = append(list, b.String())
	}
}

// inMaildir are the messages in new.
func (s *scene) inMaildir(path string) (list []string) {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(path, "new"))
	s.must(err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(path, "new", e.Name()))
		s.must(err)
		list = append(list, string(content))
	}
	return list
}

// clean compares what is in the spool and in the home beside what belongs there.
func (s *scene) clean(beside ...string) {
	s.Helper()
	for _, dir := range []string{s.spool(), s.home(""), s.home("Maildir/tmp")} {
		entries, err := os.ReadDir(dir)
		s.must(err)
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			if name != s.inbox() && name != s.home("mail") && name != s.home("Maildir") && !slices.Contains(beside, name) {
				s.Errorf("left: %s", name)
			}
		}
	}
}

// same compares a list of messages.
func (s *scene) same(what string, got []string, want ...string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Errorf("%s: %.300q, want %.300q", what, got, want)
	}
}

// inRoom mounts a filesystem of a few blocks at a directory of the user's.
func (s *scene) inRoom(dir string, size int) {
	s.Helper()
	var st unix.Stat_t
	s.must(unix.Stat(dir, &st))
	s.must(unix.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=%o,uid=%d,gid=%d", size, st.Mode&0o7777, st.Uid, st.Gid)))
	s.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			s.Error(err)
		}
	})
}

// times tells when the mbox was read and written.
func (s *scene) times() (access, change time.Time) {
	s.Helper()
	var st unix.Stat_t
	s.must(unix.Stat(s.inbox(), &st))
	return time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix())
}
