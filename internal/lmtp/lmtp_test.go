package lmtp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/deliver"
	"mailferry/mbox"
)

// site is a server with the users alice, bob and carol, who have a Maildir.
type site struct {
	*testing.T
	dir    string
	log    bytes.Buffer
	socket string
	stop   func()
	ended  chan error
}

func newSite(t *testing.T) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: the server works as its users")
	}
	s := &site{T: t, dir: t.TempDir(), ended: make(chan error, 1)}
	for dir := s.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		s.must(os.Chmod(dir, 0o755))
	}
	for _, name := range []string{"semaphores", "spool", "home", "state"} {
		s.must(os.Mkdir(s.path(name), 0o755))
	}
	s.must(os.Chmod(s.path("spool"), 0o777|os.ModeSticky))
	var users strings.Builder
	for i, name := range []string{"alice", "bob", "carol"} {
		uid := 20001 + i
		for _, d := range []string{"", "Maildir", "Maildir/cur", "Maildir/new", "Maildir/tmp"} {
			d = s.path("home", name, d)
			s.must(errors.Join(os.Mkdir(d, 0o700), os.Chown(d, uid, uid)))
		}
		fmt.Fprintf(&users, "%s:%d:%d:%s\n", name, uid, uid, s.path("home", name))
	}
	s.must(os.WriteFile(s.path("users"), []byte(users.String()), 0o644))
	s.say("alice", "mbox")
	s.say("bob", "maildir")
	s.say("carol", "hold")
	s.serve()
	return s
}

func (s *site) serve() {
	s.Helper()
	short, err := os.MkdirTemp("", "lmtp") // a socket's path has 107 bytes at most
	s.must(err)
	s.Cleanup(func() { os.RemoveAll(short) })
	s.socket = filepath.Join(short, "s")
	l, err := net.Listen("unix", s.socket)
	s.must(err)
	server := &Server{
		Agent: &deliver.Agent{
			Places: account.Places{
				Spool: s.path("spool/{user}"), Maildir: "{home}/Maildir", Semaphore: s.path("semaphores/{user}"),
				Mirror: "{home}/.mailstate", Gate: "{home}/.mailstate.lock",
			},
			Users: deliver.Users{Spec: "file:" + s.path("users"), MinUID: 1000}, Locks: mbox.LockOptions{Dotlock: true, Fcntl: true},
			LockWait: 10 * time.Second,
		},
		Dir: s.path("state"), Log: &s.log, grace: 5 * time.Second,
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.ended <- server.Serve(ctx, l) }()
	s.Cleanup(func() {
		stop()
		if err, ok := <-s.ended; ok && err != nil {
			s.Error(err)
		}
		if s.log.Len() > 0 {
			s.Errorf("log: %s", s.log.String())
		}
		left, _ := os.ReadDir(s.path("state"))
		if len(left) > 0 {
			s.Errorf("left: %v", left)
		}
	})
}

func (s *site) path(name ...string) string { return filepath.Join(append([]string{s.dir}, name...)...) }

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) say(user, state string) {
	s.Helper()
	s.must(os.WriteFile(s.path("semaphores", user), []byte("MAILSTATE="+state+"\n"), 0o644))
}

func (s *site) inMaildir(user string) (list []string) {
	s.Helper()
	files, err := filepath.Glob(s.path("home", user, "Maildir/new/*"))
	s.must(err)
	for _, f := range files {
		content, err := os.ReadFile(f)
		s.must(err)
		list = append(list, string(content))
	}
	slices.Sort(list)
	return list
}

func (s *site) inMbox(user string) string {
	content, err := os.ReadFile(s.path("spool", user))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
	return string(content)
}

// client speaks LMTP.
type client struct {
	*site
	*textproto.Conn
	raw net.Conn
}

func (s *site) dial() *client {
	s.Helper()
	raw, err := net.Dial("unix", s.socket)
	s.must(err)
	s.must(raw.SetDeadline(time.Now().Add(time.Minute)))
	c := &client{s, textproto.NewConn(raw), raw}
	s.Cleanup(func() { raw.Close() })
	c.wants("220")
	c.does("LHLO x", "250")
	return c
}

// wants reads an answer, which must begin so.
func (c *client) wants(answer string) {
	c.Helper()
	for {
		line, err := c.ReadLine()
		if err != nil {
			c.Fatalf("no answer, want %q: %v", answer, err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, answer) {
			c.Errorf("%q, want %q", line, answer)
		}
		return
	}
}

func (c *client) does(command, answer string) {
	c.Helper()
	c.must(c.PrintfLine("%s", command))
	c.wants(answer)
}

// sends hands over a message whose lines end in CRLF.
func (c *client) sends(text string, answers ...string) {
	c.Helper()
	c.does("DATA", "354")
	_, err := c.raw.Write([]byte(text + ".\r\n"))
	c.must(err)
	for _, a := range answers {
		c.wants(a)
	}
}

func TestEachRecipientGetsHisOwnAnswer(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	c.does("MAIL FROM:<x@example.org> SIZE=20", "250 2.0.0")
	for _, to := range []string{"alice@example.org", "BOB+list@example.org", "carol@example.org"} {
		c.does("RCPT TO:<"+to+">", "250 2.0.0")
	}
	c.does("RCPT TO:<dave@example.org>", "550 5.1.1")
	c.does("RCPT TO:<dave+x@example.org>", "550 5.1.1")
	c.does("RCPT TO:<../alice@example.org>", "451 4.3.0")
	c.sends("Subject: 1\r\n\r\n..dot\r\nFrom me\r\n", "250 2.0.0 <alice@example.org> delivered", "250 2.0.0 <BOB+list@example.org>", "451 4.2.1 <carol@example.org>")
	c.does("QUIT", "221")
	const want = "Return-Path: <x@example.org>\nDelivered-To: BOB+list@example.org\nSubject: 1\n\n.dot\nFrom me\n"
	if got := s.inMaildir("bob"); !slices.Equal(got, []string{want}) {
		t.Errorf("bob: %q", got)
	}
	_, got, _ := strings.Cut(s.inMbox("alice"), "\n")
	if got != "Return-Path: <x@example.org>\nDelivered-To: alice@example.org\nSubject: 1\n\n.dot\n>From me\n\n" {
		t.Errorf("alice: %q", s.inMbox("alice"))
	}
	if len(s.inMaildir("alice"))+len(s.inMaildir("carol"))+len(s.inMbox("bob"))+len(s.inMbox("carol")) > 0 {
		t.Error("more than that")
	}
}

func TestTroubleIsNeverForGood(t *testing.T) {
	for name, tt := range map[string]struct {
		make   func(s *site)
		answer string
	}{
		"semaphore missing": {func(s *site) { s.must(os.Remove(s.path("semaphores/bob"))) }, "451 4.3.0"},
		"semaphore unknown": {func(s *site) { s.say("bob", "nothing") }, "451 4.3.0"},
		"gate busy": {func(s *site) {
			s.must(os.WriteFile(s.path("home/bob/.mailstate.lock"), []byte(fmt.Sprint(os.Getpid())), 0o644))
		}, "451 4.2.0"},
		"disk full": {func(s *site) {
			dir := s.path("home/bob/Maildir/tmp")
			s.must(unix.Mount("none", dir, "tmpfs", 0, "size=4096,nr_inodes=1,mode=0700,uid=20002,gid=20002"))
			s.Cleanup(func() { s.must(unix.Unmount(dir, 0)) })
		}, "452 4.3.1"},
		"Maildir gone": {func(s *site) { s.must(os.RemoveAll(s.path("home/bob/Maildir"))) }, "451 4.3.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			tt.make(s)
			c := s.dial()
			c.does("MAIL FROM:<>", "250")
			c.does("RCPT TO:<bob@x>", "250")
			c.sends("Subject: 1\r\n\r\n", tt.answer)
			if n := len(s.inMaildir("bob")); n > 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

func TestTheUserDatabaseOutOfReachIsTemporary(t *testing.T) {
	s := newSite(t)
	s.must(os.Remove(s.path("users")))
	c := s.dial()
	c.does("MAIL FROM:<>", "250")
	c.does("RCPT TO:<bob@x>", "451 4.3.0")
	c.does("QUIT", "221")
}

func TestWhatTheLibraryRefusesIsRefusedForNow(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	c.does("MAIL FROM:<nodomain>", "401 4.5.2")
	c.does("MAIL FROM:<a@b> FOO=BAR", "400 4.5.4")
	c.does("DATA", "402 4.5.1")
	c.does("EHLO x", "400 4.5.1")
}

func TestABigMessageIsStoredOnceForAll(t *testing.T) {
	s := newSite(t)
	s.say("alice", "maildir")
	long := strings.Repeat("0123456789abcdef", 1<<16)
	text := "Subject: big\r\n\r\n" + long + "\r\n" + strings.Repeat("line\r\n", 300000)
	c := s.dial()
	c.does("MAIL FROM:<>", "250")
	c.does("RCPT TO:<bob@x>", "250")
	c.does("RCPT TO:<alice@x>", "250")
	c.sends(text, "250", "250")
	for _, user := range []string{"alice", "bob"} {
		want := "Return-Path: <>\nDelivered-To: " + user + "@x\n" + strings.ReplaceAll(text, "\r\n", "\n")
		if got := s.inMaildir(user); len(got) != 1 || got[0] != want {
			t.Errorf("%s has it otherwise", user)
		}
	}
}

func TestACommandHasAnEnd(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	_, err := c.raw.Write(bytes.Repeat([]byte("x"), maxCommand+1))
	s.must(err)
	c.wants("421")
	s.stop()
	s.must(<-s.ended)
	close(s.ended)
	if !strings.Contains(s.log.String(), "a command is too long") {
		t.Errorf("log: %q", s.log.String())
	}
	s.log.Reset()
}

func TestAMessageThatIsCutShortIsNone(t *testing.T) {
	for name, begin := range map[string]string{
		"DATA": "DATA\r\nSubject: half\r\n\r\nhalf a li",
		"BDAT": "BDAT 100 LAST\r\nSubject: half\r\n\r\nhalf a li",
	} {
		s := newSite(t)
		c := s.dial()
		c.does("MAIL FROM:<>", "250")
		c.does("RCPT TO:<bob@x>", "250")
		_, err := c.raw.Write([]byte(begin))
		s.must(errors.Join(err, c.raw.Close()))
		s.stop()
		s.must(<-s.ended)
		close(s.ended)
		s.log.Reset() // the library tells of the connection
		if got := s.inMaildir("bob"); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAStopEndsWhatIsAtWork(t *testing.T) {
	s := newSite(t)
	idle, busy := s.dial(), s.dial()
	busy.does("MAIL FROM:<>", "250")
	busy.does("RCPT TO:<bob@x>", "250")
	busy.does("DATA", "354")
	s.stop()
	idle.wants("421")
	if _, err := net.Dial("unix", s.socket); err == nil {
		t.Error("it takes connections yet")
	}
	_, err := busy.raw.Write([]byte("Subject: last\r\n\r\n.\r\n"))
	s.must(err)
	busy.wants("250")
	busy.wants("421")
	s.must(<-s.ended)
	close(s.ended)
	if got := s.inMaildir("bob"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestAClientThatNeverEndsDoesNotKeepAStopWaiting(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	c.does("MAIL FROM:<>", "250")
	s.stop()
	if err := <-s.ended; err == nil {
		t.Error("it waited")
	}
	close(s.ended)
	s.log.Reset()
}

func TestManyAtOnce(t *testing.T) {
	s := newSite(t)
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			c := s.dial()
			for k := range 20 {
				c.does("MAIL FROM:<>", "250")
				c.does("RCPT TO:<alice@x>", "250")
				c.does("RCPT TO:<bob@x>", "250")
				c.sends(fmt.Sprintf("Id: %d.%d\r\n\r\n", i, k), "250 2.0.0 <alice@x>", "250 2.0.0 <bob@x>")
			}
		})
	}
	all.Wait()
	inbox, files := s.inMbox("alice"), s.inMaildir("bob")
	for i := range 10 {
		for k := range 20 {
			id := fmt.Sprintf("\nId: %d.%d\n", i, k)
			if strings.Count(inbox, id) != 1 || strings.Count(strings.Join(files, ""), id) != 1 {
				t.Errorf("%q is not there once", id)
			}
		}
	}
	if len(files) != 200 || strings.Count(inbox, "\nId: ") != 200 {
		t.Errorf("%d and %d messages", len(files), strings.Count(inbox, "\nId: "))
	}
}
