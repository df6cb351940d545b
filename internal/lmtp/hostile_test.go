package lmtp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/quotafs"
)

// Each recipient has his own quota, and his own answer.
func TestAQuotaIsAnsweredToItsUserAlone(t *testing.T) {
	s := prepare(t)
	behind := s.dir
	s.dir = t.TempDir()
	s.open(s.dir)
	q, err := quotafs.Mount(behind, s.dir)
	s.must(err)
	t.Cleanup(func() { s.must(q.Close()) })
	s.furnish()
	s.serve()
	s.say("carol", "maildir")
	const alice, carol = 20001, 20003
	q.Limit(alice, 100<<10)
	q.Limit(carol, 100<<10)
	small, big := "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n"+strings.Repeat("0123456789abcdef\r\n", 200<<10/16)
	const tooMuch = "452 4.2.2 "
	for _, m := range []struct{ text, alice, carol string }{
		{small, "250", "250"}, {big, tooMuch + "<alice@x>", tooMuch + "<carol@x>"}, {small, "250", "250"},
	} {
		c := s.dial()
		c.does("MAIL FROM:<x@y>", "250")
		for _, user := range []string{"alice", "bob", "carol"} {
			c.does("RCPT TO:<"+user+"@x>", "250")
		}
		c.sends(m.text, m.alice, "250 2.0.0 <bob@x>", m.carol)
		c.does("QUIT", "221")
		c.raw.Close()
	}
	plain := func(user string, texts ...string) (list []string) {
		for _, text := range texts {
			list = append(list, "Return-Path: <x@y>\nDelivered-To: "+user+"@x\n"+strings.ReplaceAll(text, "\r\n", "\n"))
		}
		return list
	}
	if got := s.inMaildir("carol"); !slices.Equal(got, plain("carol", small, small)) {
		t.Errorf("carol: %.200q", got)
	}
	if got := s.inMaildir("bob"); !slices.Equal(got, plain("bob", small, small, big)) {
		t.Errorf("bob: %.200q", got)
	}
	if got, want := s.inMbox("alice"), plain("alice", small)[0]; strings.Count(got, want) != 2 || strings.Count(got, "From x@y ") != 2 || strings.Contains(got, "Subject: 2") {
		t.Errorf("alice: %.300q", got)
	}
}

// Names that mean something to a shell, a path, a line or a program. Nobody has
// them, and it must not be a bounce where that is not proved.
func TestRecipientsNameNoFiles(t *testing.T) {
	s := newSite(t)
	s.must(os.Symlink("alice", s.path("home/dave")))
	before := tree(t, s.dir)
	for _, to := range []string{
		"../alice@x", "..@x", ".@x", "a/b@x", "/etc/passwd@x", "alice/../bob@x", "-d@x", "--config@x", "-falice@x",
		`"al ice"@x`, `"alice\ bob"@x`, "\"alice\rbob\"@x", `"alice:x"@x`, "al\x01ice@x", "al\x00ice@x", "al\xffice@x", ".hidden@x",
		"+bob@x", "$(id)@x", "`id`@x", "|id@x", "~root@x", "alice%x@x", "a*@x", "\xe2\x80\xaealice@x",
		strings.Repeat("x", 300) + "@x", strings.Repeat("x", 5000) + "@x", "<alice@x", "alice@x>>", "", "@x", "alice@",
	} {
		c := s.dial()
		c.does("MAIL FROM:<x@y>", "250")
		c.must(c.PrintfLine("RCPT TO:<%s>", to))
		line, err := c.ReadLine()
		if err != nil || !strings.HasPrefix(line, "4") && !strings.HasPrefix(line, "550 5.1.1 ") {
			t.Errorf("%q: %q, %v", to, line, err)
		}
		if strings.ContainsAny(to, "/\x00\x01\r") && !strings.HasPrefix(line, "4") {
			t.Errorf("%q, which can be nobody's name: %q", to, line)
		}
		c.does("QUIT", "221")
	}
	// A line end in a name ends the command: what is behind it is another one, and none that is known.
	c := s.dial()
	c.does("MAIL FROM:<x@y>", "250")
	c.must(c.PrintfLine("RCPT TO:<\"alice\nRCPT TO:bob\"@x>"))
	c.wants("4")
	c.wants("4")
	c.does("DATA", "402")
	c.does("QUIT", "221")
	if after := tree(t, s.dir); !slices.Equal(after, before) {
		t.Errorf("there was %q, there is %q", before, after)
	}
}

// An extension may be anything: it is no path either.
func TestExtensionsNameNoFiles(t *testing.T) {
	s := prepare(t)
	s.folders = true
	s.furnish()
	s.serve()
	for _, ext := range []string{"../../../etc", "..", ".", "/", "a/b", "-x", "lists.sub", strings.Repeat("y", 200), "\xff", "INBOX", "cur", "x.lock"} {
		c := s.dial()
		c.does("MAIL FROM:<x@y>", "250")
		c.must(c.PrintfLine("RCPT TO:<bob+%s@x>", ext))
		if line, err := c.ReadLine(); err != nil || !strings.HasPrefix(line, "250") && !strings.HasPrefix(line, "451") {
			t.Errorf("%q: %q, %v", ext, line, err)
		} else if strings.HasPrefix(line, "250") {
			c.sends("Id: "+ext+"\r\n\r\n", "250")
		}
		c.does("QUIT", "221")
	}
	names, err := filepath.Glob(s.path("home/bob/Maildir/*"))
	s.must(err)
	if len(names) != 3 || len(s.inMaildir("bob")) == 0 {
		t.Errorf("%q, %d messages", names, len(s.inMaildir("bob")))
	}
}

// Headers have no end that we set: fields of megabytes, a hundred thousand of
// them, and what would be a From_ line in them.
func TestGiantHeadersComeWhole(t *testing.T) {
	for name, header := range map[string]string{
		"a long field":   "X: " + strings.Repeat("x", 5<<20) + "\r\n",
		"many fields":    strings.Repeat("X-Field: a value of some length\r\n", 100000),
		"a folded field": "X: a\r\n" + strings.Repeat("\tand so on\r\n", 100000),
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			text := header + "Subject: 1\r\nFrom : y\r\n\r\nFrom me\r\n"
			c := s.dial()
			c.does("MAIL FROM:<>", "250")
			c.does("RCPT TO:<alice@x>", "250")
			c.does("RCPT TO:<bob@x>", "250")
			c.sends(text, "250", "250")
			text = strings.ReplaceAll(text, "\r\n", "\n")
			if got := s.inMaildir("bob"); len(got) != 1 || got[0] != "Return-Path: <>\nDelivered-To: bob@x\n"+text {
				t.Error("bob has it otherwise")
			}
			_, got, _ := strings.Cut(s.inMbox("alice"), "\n")
			if got != "Return-Path: <>\nDelivered-To: alice@x\n"+strings.ReplaceAll(text, "\nFrom ", "\n>From ")+"\n" {
				t.Error("alice has it otherwise")
			}
		})
	}
}

// tree lists all files below a directory, with their sizes.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		list = append(list, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
