package lmtp

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	answerLine    = regexp.MustCompile(`^([23]\d\d|4\d\d|550[ -]5\.1\.1) ?-?`)
	toldDelivered = regexp.MustCompile(`(?mi)^250 2\.0\.0 <[^\r\n]*> delivered`)
)

// Whatever a client sends: nothing bounces but for an absent user, no answer
// tells of a bug, and as many messages are in the mailboxes as were told.
func FuzzConversation(f *testing.F) {
	const begin = "LHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<alice@x>\r\n"
	for _, seed := range []string{
		begin + "DATA\r\nSubject: 1\r\n\r\n..\r\nFrom x\r\n.\r\nQUIT\r\n",
		begin + "RCPT TO:<bob+x@x>\r\nRCPT TO:<\"bob\"@x>\r\nDATA\r\n\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob@x>\r\nDATA\r\nx\r\n.\r\n",
		begin + "BDAT 3\r\nA: BDAT 5 LAST\r\nb\r\n\r\nRSET\r\n",
		begin + "RCPT TO:<alice@x>\r\nRCPT TO:<carol@x>\r\nRCPT TO:<dave@x>\r\nDATA\r\nA: b\n.\nMAIL FROM:<c@d>\r\n\r\n.\r\n",
		begin + "BDAT 0 LAST\r\nBDAT 99999999999999999999\r\nBDAT -1\r\nVRFY a\r\nNOOP\r\nRSET\r\nDATA\r\n",
		"EHLO x\r\nHELO x\r\nSTARTTLS\r\nAUTH PLAIN =\r\nMAIL FROM:<a@b> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x\r\nRCPT TO:<bob@x> NOTIFY=NEVER ORCPT=rfc822;x\r\n",
		"LHLO\r\nMAIL FROM:a@b\r\nRCPT TO:<@c,@d:bob@x>\r\nDATA\r\n.\r\n\x00\xff\r\r\n",
		begin + "DATA\r\nA: b\r\r\n..\r\r\r\n.\r\r\n\r\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<bob@x>\r\nBDAT 7 LAST\r\n\r\r\n.\r\r\nQUIT\r\n",
	} {
		f.Add([]byte(seed))
	}
	s := prepare(f)
	s.must(unix.Mount("none", s.dir, "tmpfs", 0, "mode=0755"))
	f.Cleanup(func() { s.must(unix.Unmount(s.dir, 0)) })
	s.furnish()
	s.serve()
	f.Cleanup(s.hush)
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := exchange(s.socket, in)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out) {
			if !answerLine.MatchString(line) || strings.Contains(line, "Internal server error") || strings.Contains(line, "bug: ") {
				t.Errorf("%q is answered with %q", in, line)
			}
		}
		told := len(toldDelivered.FindAllString(out, -1))
		if there := s.collected(t); there != told {
			t.Errorf("after %q, %d messages are there, and %q tells of %d", in, there, out, told)
		}
	})
}

// hush ends the server, which may have told of connections that broke.
func (s *site) hush() {
	s.stop()
	<-s.ended
	close(s.ended)
	s.log.Reset()
}

// exchange sends all and returns what was answered until the server closed.
func exchange(socket string, in []byte) (string, error) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	go func() {
		_, _ = c.Write(in) // the server may have had enough
		_ = c.(*net.UnixConn).CloseWrite()
	}()
	out, err := io.ReadAll(c)
	if err != nil && !strings.Contains(err.Error(), "reset") {
		return "", fmt.Errorf("%q has no end: %q: %w", in, out, err)
	}
	return string(out), nil
}

// collected counts the messages of alice and bob, and takes them away.
func (s *site) collected(t *testing.T) int {
	t.Helper()
	now := &site{TB: t, dir: s.dir} // within a fuzz target, its own T is the only one
	return now.takeAway()
}

func (s *site) takeAway() int {
	s.Helper()
	box, files := "\n"+s.inMbox("alice"), s.inMaildir("bob")
	s.must(os.RemoveAll(s.path("spool/alice")))
	entries, err := os.ReadDir(s.path("home/bob/Maildir/new"))
	s.must(err)
	for _, e := range entries {
		s.must(os.Remove(s.path("home/bob/Maildir/new", e.Name())))
	}
	return strings.Count(box, "\nFrom ") + len(files)
}
