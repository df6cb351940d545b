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
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/deliver"
	"mailferry/mbox"
)

// site is a server with the users alice, bob and carol, who have a Maildir.
type site struct {
	testing.TB
	dir     string
	folders bool // extensions lead to them
	log     bytes.Buffer
	socket  string
	stop    func()
	ended   chan error

	delimiters string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := prepare(t)
	s.furnish()
	s.serve()
	return s
}

// prepare makes the directory of a site.
func prepare(t testing.TB) *site {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: the server works as its users")
	}
	s := &site{TB: t, dir: t.TempDir(), ended: make(chan error, 1), delimiters: "+"}
	s.open(s.dir)
	return s
}

// open lets the users get to a temporary directory.
func (s *site) open(dir string) {
	s.Helper()
	for ; dir != os.TempDir(); dir = filepath.Dir(dir) {
		s.must(os.Chmod(dir, 0o755))
	}
}

func (s *site) furnish() {
	s.Helper()
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
			Users: deliver.Users{Spec: "file:" + s.path("users"), MinUID: 1000}, Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, Profile: mbox.Dovecot,
			LockWait: 10 * time.Second, Folders: s.folders,
		},
		Delimiters: s.delimiters, Dir: s.path("state"), Log: &s.log, grace: 5 * time.Second,
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
