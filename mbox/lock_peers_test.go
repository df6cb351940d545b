package mbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the peers deliver, and how an mbox program has to store it.
const (
	lockMail      = "From: b@example.org\nTo: nobody@example.org\nSubject: from a peer\n\nfirst line\n\nlast line\n"
	lockDelivered = "From b@example.org  Mon Jan  1 00:00:00 2024\n" + lockMail + "\n"
)

// lockPeer is a real program that delivers lockMail into an mbox.
type lockPeer struct {
	name, binary, pkg string

	// command gives its arguments and input. With hold it has to keep its lock
	// until a file called go appears (the script hold.sh waits for that), or
	// until the input, of which it then gets only the first half, goes on.
	command func(s *lockSpool, hold bool) (args []string, input string)

	locks  []LockOptions // what keeps it waiting, each alone
	holds  LockKind      // what we meet first when it holds its locks
	silent bool          // it does not tell its pid
	holder bool          // it waits by the script
}

var (
	onlyDotlock = LockOptions{Dotlock: true}
	onlyFcntl   = LockOptions{Fcntl: true}
	onlyFlock   = LockOptions{Flock: true}
)

var lockPeers = []lockPeer{
	{"procmail", "procmail", "procmail", procmailPeer, []LockOptions{onlyDotlock, onlyFcntl}, KindDotlock, true, true},
	{"maildrop, dotlock", "maildrop", "maildrop", maildropPeer("dotlock", "mbox.lock"), []LockOptions{onlyDotlock, onlyFcntl}, KindDotlock, false, true},
	{"maildrop, fcntl", "maildrop", "maildrop", maildropPeer("flock", "mbox"), nil, KindFcntl, false, true},
	{"Dovecot, dotlock fcntl", "doveadm", "dovecot-imapd", dovecotPeer("dotlock fcntl"), []LockOptions{onlyDotlock, onlyFcntl}, KindFcntl, false, false},
	{"Dovecot, fcntl dotlock", "doveadm", "dovecot-imapd", dovecotPeer("fcntl dotlock"), []LockOptions{onlyDotlock, onlyFcntl}, KindFcntl, false, false},
	{"Dovecot, dotlock", "doveadm", "dovecot-imapd", dovecotPeer("dotlock"), []LockOptions{onlyDotlock}, KindDotlock, false, false},
	{"Dovecot, flock", "doveadm", "dovecot-imapd", dovecotPeer("flock"), []LockOptions{onlyFlock}, KindFlock, false, false},
	{"mutt_dotlock", "mutt_dotlock", "mutt", muttPeer, []LockOptions{onlyDotlock}, KindDotlock, true, true},
	{"Postfix", "postlock", "postfix", postfixPeer, []LockOptions{onlyDotlock, onlyFcntl}, KindFcntl, false, true},
}

// file names a file in the spool directory, writing it first when there is content.
func (s *lockSpool) file(name, content string) string {
	s.Helper()
	path := filepath.Join(s.path, name)
	if content != "" {
		s.write(path, content)
	}
	return path
}

// holdScript says that it is reached and waits for leave to go on.
func (s *lockSpool) holdScript() string {
	return "/bin/sh " + s.file("hold.sh", fmt.Sprintf("cd %s; : > held; while [ ! -e go ]; do sleep 0.05; done; cat\n", s.path))
}

// procmailPeer runs with -m: without it, procmail creates a mailbox in the system's
// spool when it starts.
func procmailPeer(s *lockSpool, hold bool) ([]string, string) {
	rc := "LOCKSLEEP=1\nSHELL=/bin/sh\n"
	if hold {
		rc += fmt.Sprintf(":0 fw: %s\n| %s\n", s.dotlock, s.holdScript())
	}
	return []string{"-f", "b@example.org", "-m", s.file("procmailrc", rc+fmt.Sprintf(":0:\n%s\n", s.mbox))}, lockMail
}

// maildropPeer holds by a lock statement of its filter language; `flock` is fcntl
// as Debian builds it.
func maildropPeer(statement, file string) func(*lockSpool, bool) ([]string, string) {
	return func(s *lockSpool, hold bool) ([]string, string) {
		rc := "SHELL=\"/bin/sh\"\nLOCKSLEEP=1\n"
		if hold {
			rc += fmt.Sprintf("%s \"%s\" {\n`%s > /dev/null`\n}\n", statement, s.file(file, ""), s.holdScript())
		}
		return []string{s.file("mailfilter", rc+fmt.Sprintf("to \"%s\"\n", s.mbox))}, lockMail
	}
}

// dovecotPeer is an IMAP session that appends: Dovecot takes the write locks when
// the literal begins and keeps them until it is complete.
func dovecotPeer(locks string) func(*lockSpool, bool) ([]string, string) {
	return func(s *lockSpool, _ bool) ([]string, string) {
		read := locks // must be a part of the write locks
		if strings.Contains(locks, "fcntl") {
			read = "fcntl"
		}
		conf := s.file("dovecot.conf", fmt.Sprintf(`base_dir = %[1]s/run
log_path = %[1]s/dovecot.log
mail_location = mbox:%[1]s/mail:INBOX=%[1]s/mbox:INDEX=MEMORY
mbox_write_locks = %[2]s
mbox_read_locks = %[3]s
ssl = no
stats_writer_socket_path =
`, s.path, locks, read))
		text := strings.ReplaceAll(lockMail, "\n", "\r\n")
		return []string{"-c", conf, "exec", "imap"}, fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\nb LOGOUT\r\n", len(text), text)
	}
}

// muttPeer has mutt's own locking program around an append by cat.
func muttPeer(s *lockSpool, hold bool) ([]string, string) {
	script := fmt.Sprintf("cd %s; $0 -r 20 mbox || exit; ", s.path)
	if hold {
		script += s.holdScript() + " < /dev/null; "
	}
	return []string{"-c", script + "cat >> mbox; $0 -u mbox"}, lockDelivered
}

// postfixPeer has Postfix's locking program, which locks as local(8) does, around an
// append by cat.
func postfixPeer(s *lockSpool, hold bool) ([]string, string) {
	s.file("main.cf", "compatibility_level = 3.6\nmailbox_delivery_lock = fcntl, dotlock\ndeliver_lock_delay = 1s\n")
	s.must(os.Chmod(s.file("main.cf", ""), 0o644))
	script := fmt.Sprintf("cd %s; ", s.path)
	if hold {
		script += s.holdScript() + " < /dev/null; "
	}
	return []string{"-c", s.path, s.mbox, "/bin/sh", "-c", script + "cat >> mbox"}, lockDelivered
}

// runningPeer is a peer at work as the spool's user.
type runningPeer struct {
	*lockPeer
	s     *lockSpool
	cmd   *exec.Cmd
	stdin io.WriteCloser
	rest  string // of its input
	out   strings.Builder
	ended chan error
}

func (p *lockPeer) start(s *lockSpool, hold bool) *runningPeer {
	s.Helper()
	binary, err := exec.LookPath(p.binary)
	if err != nil {
		s.Fatalf("%v: install the package %s", err, p.pkg)
	}
	args, input := p.command(s, hold)
	r := &runningPeer{lockPeer: p, s: s, cmd: exec.Command(binary, args...), rest: input, ended: make(chan error, 1)}
	if p.binary == "mutt_dotlock" {
		r.cmd.Path, r.cmd.Args = "/bin/sh", append([]string{"sh", args[0], args[1]}, binary)
	}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = s.path, &r.out, &r.out
	r.cmd.Env = []string{"HOME=" + s.path, "USER=nobody", "LOGNAME=nobody", "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: lockNobody, Gid: lockNobody}}
	r.stdin, err = r.cmd.StdinPipe()
	s.must(err)
	s.must(r.cmd.Start())
	s.Cleanup(func() { r.cmd.Process.Kill() })
	go func() { r.ended <- r.cmd.Wait() }()
	if hold && !p.holder {
		half := len(input) / 2
		_, err = io.WriteString(r.stdin, input[:half])
		s.must(err)
		r.rest = input[half:]
		return r
	}
	r.feed()
	return r
}

// feed gives the peer the rest of its input.
func (r *runningPeer) feed() {
	_, err := io.WriteString(r.stdin, r.rest)
	r.s.must(errors.Join(err, r.stdin.Close()))
}

// goOn lets a holding peer finish.
func (r *runningPeer) goOn() {
	if r.holder {
		r.s.file("go", "\n")
		return
	}
	r.feed()
}

// awaitHold returns when the peer has had a lock for 200 ms without a break: a
// dotlock, or a line in the kernel's table.
func (r *runningPeer) awaitHold() {
	r.s.Helper()
	var st unix.Stat_t
	r.s.must(unix.Stat(r.s.mbox, &st))
	inode := fmt.Sprintf(":%d ", st.Ino)
	end := time.Now().Add(20 * time.Second)
	for since := time.Now(); time.Since(since) < 200*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		table, err := os.ReadFile("/proc/locks")
		r.s.must(err)
		if _, err := os.Lstat(r.s.dotlock); err != nil && !strings.Contains(string(table), inode) {
			since = time.Now()
		}
		if time.Now().After(end) {
			r.s.Fatalf("%s takes no lock; it says: %s", r.name, &r.out)
		}
	}
}

// wantEnd waits for the peer's end and for its mail to be there, whole and once.
func (r *runningPeer) wantEnd() {
	r.s.Helper()
	select {
	case err := <-r.ended:
		if err != nil {
			r.s.Fatalf("%s: %v: %s", r.name, err, &r.out)
		}
	case <-time.After(30 * time.Second):
		r.s.Fatalf("%s does not end", r.name)
	}
	if got := r.s.stored(); got != lockStored(lockBody+lockDelivered) {
		r.s.Errorf("mbox after the delivery by %s:\n%s", r.name, got)
	}
}

func (s *lockSpool) stored() string {
	s.Helper()
	got, err := os.ReadFile(s.mbox)
	s.must(err)
	return lockStored(string(got))
}

// lockStored leaves out what differs by program: what the From_ line says, and
// Dovecot's own header fields.
func lockStored(mbox string) string {
	var b strings.Builder
	for line := range strings.Lines(mbox) {
		name, _, _ := strings.Cut(line, ":")
		switch name {
		case "X-IMAPbase", "X-UID", "X-Keywords", "Status", "Content-Length":
			continue
		}
		if strings.HasPrefix(line, "From ") {
			line = "From \n"
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestLockIsBusyWhileAPeerHolds(t *testing.T) {
	for _, p := range lockPeers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			s := newLockSpool(t)
			peer := p.start(s, true)
			peer.awaitHold()
			before, err := os.ReadFile(s.mbox)
			s.must(err)
			_, err = s.lock(allLocks)
			e := s.wantFault(err, LockBusy, p.holds, "mbox unchanged")
			if known := e.Holder.PID == peer.cmd.Process.Pid; known == p.silent {
				t.Errorf("holder %v, the peer is pid %d", e.Holder, peer.cmd.Process.Pid)
			}
			s.wantMbox(string(before))

			time.AfterFunc(300*time.Millisecond, peer.goOn)
			opts := allLocks
			opts.Timeout = 30 * time.Second
			held := s.mustLock(opts)
			during := s.stored()
			if during != lockStored(lockBody) && during != lockStored(lockBody+lockDelivered) {
				t.Errorf("locked in the middle of a delivery:\n%s", during)
			}
			time.Sleep(100 * time.Millisecond)
			if now := s.stored(); now != during {
				t.Errorf("changed under the lock:\n%s", now)
			}
			s.must(errors.Join(held.Check(), held.Release()))
			peer.wantEnd()
		})
	}
}

func TestPeersWaitWhileWeHold(t *testing.T) {
	for _, p := range lockPeers {
		for _, opts := range append(p.locks, allLocks) {
			t.Run(fmt.Sprintf("%s/dotlock %t fcntl %t flock %t", p.name, opts.Dotlock, opts.Fcntl, opts.Flock), func(t *testing.T) {
				t.Parallel()
				s := newLockSpool(t)
				held := s.mustLock(opts)
				peer := p.start(s, false)
				select {
				case err := <-peer.ended:
					t.Fatalf("%s did not wait: %v: %s", p.name, err, &peer.out)
				case <-time.After(time.Second):
				}
				s.wantMbox(lockBody)
				s.must(errors.Join(held.Refresh(), held.Check(), held.Release()))
				peer.wantEnd()
			})
		}
	}
}
