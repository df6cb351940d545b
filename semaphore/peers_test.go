package semaphore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The real programs, reading what this package writes. They run as nobody when
// the tests run as root, else as whoever that is.

const (
	peerMail = "From: b@example.org\nSubject: hello\n\nhello\n"
	nobody   = 65534
)

// peer is a program that delivers one message as the semaphore says.
type peer struct {
	name, binary string
	args         func(s *scene, rc string) []string
	rules        string // $HOME, SEMAPHORE stand for paths, PAUSE for a rule
	pause        string // the rule that runs a script while it has the gate
}

// agents have the rules that sites are told to use, and short timeouts.
var agents = []peer{
	{"procmail", "procmail", func(s *scene, rc string) []string {
		return []string{"-t", "-f", "b@example.org", "-m", "HOME=" + s.home, rc}
	}, `SHELL=/bin/sh
LOCKSLEEP=1
LOCKTIMEOUT=5
SUSPEND=1
MAILSTATE=unknown
LOCKFILE=$HOME/.mailstate.lock
INCLUDERC=SEMAPHORE
:0
* ! LOCKFILE ?? .
{
 EXITCODE=75
 HOST
}
PAUSE
:0:
* MAILSTATE ?? ^^mbox^^
$HOME/inbox.mbox
:0
* MAILSTATE ?? ^^maildir^^
$HOME/Maildir/
EXITCODE=75
HOST
`, ":0 fw\n| /bin/sh %s\n"},
	{"maildrop", "maildrop", func(s *scene, rc string) []string { return []string{rc} }, `SHELL="/bin/sh"
LOCKSLEEP=1
LOCKTIMEOUT=5
MAILSTATE="unknown"
dotlock "$HOME/.mailstate.lock" {
include "SEMAPHORE"
PAUSE
if ($MAILSTATE eq "mbox")
{
  to "$HOME/inbox.mbox"
}
if ($MAILSTATE eq "maildir")
{
  to "$HOME/Maildir"
}
}
EXITCODE=75
exit
`, "xfilter \"/bin/sh %s\"\n"},
}

// peerScene is a home of the user who is delivered to, with an empty Maildir.
func peerScene(t *testing.T) *scene {
	s := newScene(t)
	s.must(os.Chmod(filepath.Dir(filepath.Dir(s.home)), 0o755)) // t.TempDir's own is 0700
	for _, dir := range []string{"Maildir", "Maildir/tmp", "Maildir/new", "Maildir/cur"} {
		s.must(os.Mkdir(filepath.Join(s.home, dir), 0o700))
	}
	s.must(filepath.WalkDir(s.home, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, s.give(path)) }))
	return s
}

// give makes a file the user's.
func (s *scene) give(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, nobody, nobody)
}

// asUser makes a command run as the user.
func (s *scene) asUser(cmd *exec.Cmd) *exec.Cmd {
	cmd.Dir = s.home
	cmd.Env = []string{"HOME=" + s.home, "PATH=" + os.Getenv("PATH")}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	return cmd
}

// write writes the peer's rules, which read the state from a file. With pause, a
// shell script is run while it has the gate.
func (p *peer) write(s *scene, state, pause string) (rc string) {
	s.Helper()
	if pause != "" {
		script := filepath.Join(s.home, "pause.sh")
		s.put(script, pause+"\ncat\n")
		pause = fmt.Sprintf(p.pause, script)
	}
	rules := strings.NewReplacer("$HOME", s.home, "SEMAPHORE", state, "PAUSE\n", pause).Replace(p.rules)
	rc = filepath.Join(s.home, ".rules-"+p.name)
	s.must(os.WriteFile(rc, []byte(rules), 0o600))
	s.must(s.give(rc))
	return rc
}

// run is a delivery by these rules.
func (p *peer) run(s *scene, rc string) *exec.Cmd {
	cmd := s.asUser(exec.Command(p.binary, p.args(s, rc)...))
	cmd.Stdin = strings.NewReader(peerMail)
	cmd.Stderr = new(strings.Builder)
	return cmd
}

// deliver starts a delivery.
func (p *peer) deliver(s *scene, state, pause string) *exec.Cmd {
	s.Helper()
	cmd := p.run(s, p.write(s, state, pause))
	if err := cmd.Start(); err != nil {
		s.Fatalf("%v: is the package %s installed?", err, p.name)
	}
	return cmd
}

// ended waits for a peer and checks its exit code.
func (s *scene) ended(cmd *exec.Cmd, want int) {
	s.Helper()
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != want {
		s.Errorf("%s: exit code %d, want %d: %v", filepath.Base(cmd.Path), got, want, cmd.Stderr)
	}
}

// delivered tells where the message is: "mbox", "maildir", "" or both.
func (s *scene) delivered() string {
	s.Helper()
	var where []string
	if content, err := os.ReadFile(filepath.Join(s.home, "inbox.mbox")); err == nil && strings.HasSuffix(string(content), "\n"+peerMail+"\n") {
		where = append(where, "mbox")
	}
	files, err := filepath.Glob(filepath.Join(s.home, "Maildir/new/*"))
	s.must(err)
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && strings.HasSuffix(string(content), peerMail) {
			where = append(where, "maildir")
		}
	}
	return strings.Join(where, " ")
}

// mirror writes the user's mirror, and lets it be his.
func (s *scene) mirror(to State) {
	s.Helper()
	s.must(WriteMirror(s.fd, ".mailstate", to))
	s.must(s.give(filepath.Join(s.home, ".mailstate")))
}

func TestPeersDeliverAsTheSemaphoreSays(t *testing.T) {
	for _, p := range agents {
		for _, tt := range []struct {
			name  string
			write func(s *scene) string // returns the file to read
			where string
			exit  int
		}{
			{"mirror mbox", func(s *scene) string { s.mirror(Mbox); return s.home + "/.mailstate" }, "mbox", 0},
			{"mirror hold", func(s *scene) string { s.mirror(Hold); return s.home + "/.mailstate" }, "", 75},
			{"mirror maildir", func(s *scene) string { s.mirror(Maildir); return s.home + "/.mailstate" }, "maildir", 0},
			{"no mirror", func(s *scene) string { return s.home + "/.mailstate" }, "", 75},
			{"garbage", func(s *scene) string {
				s.put(s.home+"/.mailstate", "MAILSTATE=dbox\n")
				return s.home + "/.mailstate"
			}, "", 75},
			{"authority mbox", func(s *scene) string { s.must(s.sem.Enroll(at(1))); return s.sem.Path() }, "mbox", 0},
			{"authority hold", func(s *scene) string {
				s.must(s.sem.Enroll(at(1)))
				s.must(s.sem.Hold(at(2)))
				return s.sem.Path()
			}, "", 75},
			{"authority maildir", func(s *scene) string {
				s.must(s.sem.Enroll(at(1)))
				flip, err := s.sem.Prepare(Maildir, at(3))
				s.must(err)
				s.must(s.sem.Hold(at(2)))
				s.must(errors.Join(flip.Flip(), flip.Discard()))
				return s.sem.Path()
			}, "maildir", 0},
		} {
			t.Run(p.name+", "+tt.name, func(t *testing.T) {
				t.Parallel()
				s := peerScene(t)
				cmd := p.deliver(s, tt.write(s), "")
				s.ended(cmd, tt.exit)
				if got := s.delivered(); got != tt.where {
					t.Errorf("delivered to %q, want %q", got, tt.where)
				}
				if _, err := os.Lstat(s.gate()); err == nil {
					t.Error("it has left its gate")
				}
			})
		}
	}
}

// The state is read after the gate was taken, and nobody delivers before.
func TestPeersWaitForOurGateAndThenReadTheState(t *testing.T) {
	for _, p := range agents {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := peerScene(t)
			s.mirror(Mbox)
			g, err := s.take(GateOptions{})
			s.must(err)
			cmd := p.deliver(s, s.home+"/.mailstate", "")
			// Longer than its LOCKTIMEOUT of 5 s: refreshing keeps it out.
			for range 16 {
				time.Sleep(500 * time.Millisecond)
				if err := g.Refresh(); err != nil {
					t.Error(err)
					break
				}
			}
			if got := s.delivered(); got != "" {
				t.Errorf("delivered to %s beside our gate", got)
			}
			s.mirror(Maildir)
			s.must(g.Release())
			s.ended(cmd, 0)
			if got := s.delivered(); got != "maildir" {
				t.Errorf("delivered to %q, want maildir", got)
			}
		})
	}
}

func TestWeWaitForTheGateOfAPeer(t *testing.T) {
	for _, p := range agents {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := peerScene(t)
			s.mirror(Mbox)
			inside, leave := filepath.Join(s.home, "inside"), filepath.Join(s.home, "go")
			cmd := p.deliver(s, s.home+"/.mailstate", fmt.Sprintf("> %s; while [ ! -e %s ]; do sleep 0.05; done", inside, leave))
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if _, err := os.Lstat(inside); err == nil {
					break
				} else if time.Now().After(end) {
					t.Fatal(err)
				}
			}
			content, err := os.ReadFile(s.gate())
			s.must(err)
			_, err = s.take(GateOptions{Timeout: 300 * time.Millisecond})
			s.wantError(err, ErrGateBusy)
			t.Logf("its gate holds %q: %v", content, err)
			if got := s.delivered(); got != "" {
				t.Errorf("delivered to %s already: nothing is tested", got)
			}
			s.put(leave, "")
			g, err := s.take(GateOptions{Timeout: 20 * time.Second})
			s.must(err)
			// Whoever gets the gate finds the message of him who had it before.
			if got := s.delivered(); got != "mbox" {
				t.Errorf("delivered to %q, want mbox", got)
			}
			s.must(g.Release())
			s.ended(cmd, 0)
		})
	}
}

// Who holds a gate and does not refresh it loses it, and is told.
func TestPeersBreakAGateThatIsNotRefreshed(t *testing.T) {
	for _, p := range agents {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := peerScene(t)
			s.mirror(Mbox)
			g, err := s.take(GateOptions{})
			s.must(err)
			cmd := p.deliver(s, s.home+"/.mailstate", "")
			s.ended(cmd, 0)
			if got := s.delivered(); got != "mbox" {
				t.Errorf("delivered to %q, want mbox", got)
			}
			s.wantError(g.Check(), ErrGateLost)
			s.wantError(g.Release(), ErrGateLost)
		})
	}
}

// Deliveries in parallel, each with a message of its own, during cutovers: what
// is not deferred is there, once, and nothing comes to an mbox that was moved away.
func TestNothingIsDeliveredToAnMboxAfterItsCutover(t *testing.T) {
	for round := range 2 {
		s := peerScene(t)
		s.mirror(Mbox)
		var wg sync.WaitGroup
		var lock sync.Mutex
		exits := map[string]int{}
		var rcs []string
		for _, p := range agents {
			rcs = append(rcs, p.write(s, s.home+"/.mailstate", "sleep 0.1")) // between reading the state and writing
		}
		for worker := range 4 {
			p, rc := agents[worker%len(agents)], rcs[worker%len(agents)]
			wg.Go(func() {
				for i := range 3 {
					id := fmt.Sprintf("<%d.%d.%s@example.org>", worker, i, p.name)
					cmd := p.run(s, rc)
					cmd.Stdin = strings.NewReader("Message-Id: " + id + "\n" + peerMail)
					cmd.Run()
					lock.Lock()
					exits[id] = cmd.ProcessState.ExitCode()
					lock.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(100+300*round) * time.Millisecond)
		s.mirror(Hold)
		g, err := s.take(GateOptions{Timeout: 20 * time.Second})
		s.must(err)
		err = os.Rename(s.home+"/inbox.mbox", s.home+"/parked")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		s.mirror(Maildir)
		s.must(g.Release())
		wg.Wait()

		if _, err := os.Lstat(s.home + "/inbox.mbox"); err == nil {
			t.Error("there is an mbox at the old path again")
		}
		mail, _ := os.ReadFile(s.home + "/parked")
		files, err := filepath.Glob(s.home + "/Maildir/new/*")
		s.must(err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			s.must(err)
			mail = append(mail, content...)
		}
		for id, exit := range exits {
			want, known := map[int]int{0: 1, 75: 0}[exit]
			if got := strings.Count(string(mail), "Message-Id: "+id+"\n"); got != want || !known {
				t.Errorf("%s is there %d times after exit code %d", id, got, exit)
			}
		}
	}
}

func TestOneLineOfShellReadsASemaphore(t *testing.T) {
	const line = `case $(cat "$0") in MAILSTATE=mbox) echo mbox;; MAILSTATE=maildir) echo maildir;; *) echo hold;; esac`
	for _, state := range []State{Mbox, Hold, Maildir} {
		s := peerScene(t)
		s.must(s.sem.Enroll(at(1)))
		s.must(s.sem.Set(state, at(2)))
		s.mirror(state)
		for _, file := range []string{s.sem.Path(), s.home + "/.mailstate"} {
			out, err := s.asUser(exec.Command("/bin/sh", "-c", line, file)).Output()
			if string(out) != state.String()+"\n" || err != nil {
				t.Errorf("%s: the shell says %q, %v; want %v", filepath.Base(file), out, err, state)
			}
		}
	}
}
