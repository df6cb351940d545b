package lmtp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

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

// The delimiters of a host may be others than the server knows. Only a name that
// no delimiter could make a user's is proved absent.
func TestWhatMayBeAnExtensionIsNotProvedAbsent(t *testing.T) {
	const perhaps = "451 4.3.0 user \"%s\": perhaps an extension of \"bob\", but --recipient-delimiter is \"%s\""
	for delimiters, answers := range map[string]map[string]string{
		"+": {
			"bob+list": "250", "bob-list": fmt.Sprintf(perhaps, "bob-list", "+"), "Bob-list": fmt.Sprintf(perhaps, "Bob-list", "+"),
			"bob.x-list": fmt.Sprintf(perhaps, "bob.x-list", "+"), "bob-x+list": fmt.Sprintf(perhaps, "bob-x+list", "+"),
			"bobs": "550 5.1.1", "dave-list": "550 5.1.1", "dave+bob": "550 5.1.1", "xbob-list": "550 5.1.1",
		},
		"-":  {"bob-list": "250", "bob-x-list": "250", "bob+list": fmt.Sprintf(perhaps, "bob+list", "-"), "dave-bob": "550 5.1.1"},
		"+-": {"bob-x+list": "250", "bob+x-list": "250", "dave+x-list": "550 5.1.1"},
		"":   {"bob": "250", "bob+list": fmt.Sprintf(perhaps, "bob+list", ""), "dave+list": "550 5.1.1"},
	} {
		s := prepare(t)
		s.delimiters = delimiters
		s.furnish()
		s.serve()
		c := s.dial()
		c.does("MAIL FROM:<>", "250")
		for local, answer := range answers {
			c.does("RCPT TO:<"+local+"@x>", answer)
		}
		c.does("QUIT", "221")
	}
}

func TestTheFirstDelimiterBeginsTheExtension(t *testing.T) {
	s := prepare(t)
	s.delimiters, s.folders = "-+", true
	s.furnish()
	for _, d := range []string{"", "cur", "new", "tmp"} {
		d = s.path("home/bob/Maildir/.a+b", d)
		s.must(errors.Join(os.Mkdir(d, 0o700), os.Chown(d, 20002, 20002)))
	}
	s.serve()
	c := s.dial()
	c.does("MAIL FROM:<>", "250")
	c.does("RCPT TO:<bob-a+b@x>", "250")
	c.sends("Subject: 1\r\n\r\n", "250")
	c.does("QUIT", "221")
	if files, err := os.ReadDir(s.path("home/bob/Maildir/.a+b/new")); len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

// A CR before a line's end belongs to the line. The library would take the line
// for one that does not end there.
func TestCRsBeforeALineEndAreText(t *testing.T) {
	for _, text := range []string{
		"foo\r\r\n..dot\r\nend\r\n", "foo\r\r\n", "foo\r\r\r\n..\r\r\r\r\n\r\r\r\n..\r\n", "\r\r\r\n\r\r\n..x\r\n",
		"a\rb\r\rc\r\r\rd\r\n", "..\r\r\n..\r.\r\n..\r\r\n", "\n.\n\r.\r\r\n",
		strings.Repeat("0123456789abcdef\r\r\n..\r\r\r\n", 40000),
	} {
		for _, size := range []int{1, 3, 1 << 20} {
			if len(text) > 1000 && size < 1000 {
				continue
			}
			s := newSite(t)
			c := s.dial()
			c.does("MAIL FROM:<>", "250")
			c.does("RCPT TO:<bob@x>", "250")
			c.does("DATA", "354")
			for part := range slices.Chunk([]byte("A: b\r\n\r\n"+text+".\r\n"), size) {
				_, err := c.raw.Write(part)
				s.must(err)
			}
			c.wants("250")
			c.does("QUIT", "221")
			want := strings.ReplaceAll("\r\n"+text, "\r\n..", "\r\n.")
			want = "Return-Path: <>\nDelivered-To: bob@x\nA: b\n" + strings.ReplaceAll(want, "\r\n", "\n")
			if got := s.inMaildir("bob"); !slices.Equal(got, []string{want}) {
				t.Errorf("%.100q in pieces of %d: %.300q", text, size, got)
			}
		}
	}
}

// What comes behind is not read as text, even if the client does not wait for an
// answer; and chunks have as many bytes as they say.
func TestCRsOfChunksAndPipelinesStay(t *testing.T) {
	s := newSite(t)
	c := s.dial()
	const begin = "MAIL FROM:<>\r\nRCPT TO:<bob@x>\r\n"
	const data, chunk = "DATA\r\n1: \r\r\n\r\r\r\n..\r\r\n.\r\n", "2: \r\r\r\n\r\n.\r\n\r\r\n"
	bdat := fmt.Sprintf("BDAT %d LAST\r\n%s", len(chunk), chunk)
	_, err := c.raw.Write([]byte(begin + data + begin + bdat + begin + data + begin + bdat + "QUIT\r\n"))
	s.must(err)
	for range 2 {
		for _, answer := range []string{"250", "250", "354", "250 2.0.0 <bob@x> delivered", "250", "250", "250 2.0.0 <bob@x> delivered"} {
			c.wants(answer)
		}
	}
	c.wants("221")
	const head = "Return-Path: <>\nDelivered-To: bob@x\n"
	one, two := head+"1: \r\n\r\r\n.\r\n", head+"2: \r\r\n\n.\n\r\n"
	if got := s.inMaildir("bob"); !slices.Equal(got, []string{one, one, two, two}) {
		t.Errorf("%q", got)
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
