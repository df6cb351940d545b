package dovecottest

import (
	"os"
	"strings"
	"testing"
	"time"
)

func inboxOf(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(dir + "/inbox")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFlagsReachTheMboxWhenTheSessionCloses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		end    func(*Session)
		stored bool
	}{
		{"close", (*Session).Close, true},
		{"kill", (*Session).Kill, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string]string{"inbox": flagged})
			loc := mboxIn(dir)
			s := Start(t, loc)
			s.Command("SELECT %s", Quote("INBOX"))
			lines := s.Command("STORE 2 FLAGS (Junk)")
			equal(t, "answer", lines, []string{`* 2 FETCH (FLAGS (Junk))`})
			tt.end(s)
			equal(t, "keyword in the file", strings.Contains(inboxOf(t, dir), "\nX-Keywords: Junk"), tt.stored)
			equal(t, "flags of the next session", DumpIMAP(t, loc).Mailbox("INBOX").Messages[1].Flags, []string{"Junk"})
		})
	}
}

func TestCommandKeepsLiteralsAsTheyCame(t *testing.T) {
	s := Start(t, mboxIn(tree(t, map[string]string{"inbox": flagged})))
	s.Command("SELECT INBOX")
	got := s.Command("FETCH 3 (BODY.PEEK[HEADER.FIELDS (Subject)] BODY.PEEK[TEXT])")
	equal(t, "responses", got, []string{
		"* 3 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {18}\r\nSubject: third\r\n\r\n BODY[TEXT] {9}\r\n.dot\r\nend)",
	})
}

func TestTryReturnsTheRefusal(t *testing.T) {
	s := Start(t, mboxIn(tree(t, map[string]string{"inbox": flagged})))
	for name, want := range map[string]string{
		`no "such" \box`:   `NO Mailbox doesn't exist: no "such" \box`,
		"no such box {12}": "NO Mailbox doesn't exist: no such box {12}",
	} {
		_, err := s.Try("SELECT %s", Quote(name))
		refusal, ok := err.(*Refusal)
		if !ok {
			t.Fatalf("%s: got %v", name, err)
		}
		equal(t, name, refusal.Answer, want)
	}
	if _, err := s.Try("SELECT %s", Quote("8-bit \xe4\r\nname")); err == nil {
		t.Error("8-bit name: no error")
	}
	equal(t, "next answer", s.Command("STATUS INBOX (MESSAGES)"), []string{"* STATUS INBOX (MESSAGES 3)"})
}

// recorder keeps what would fail a test.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Errorf(string, ...any) { r.errors++ }

func TestSilentServerIsKilledAndFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	s := Start(r, mboxIn(tree(t, map[string]string{"inbox": flagged})))
	s.limit = 50 * time.Millisecond
	// The server waits for the rest of the literal.
	_, err := s.Try("SELECT {100+}\r\nINBOX")
	if err == nil || !strings.Contains(err.Error(), "silent for 50ms") {
		t.Errorf("got %v", err)
	}
	equal(t, "failures", r.errors, 1)
	if _, err := s.Try("NOOP"); err == nil || !strings.Contains(err.Error(), "server gone") {
		t.Errorf("after that: got %v", err)
	}
}

func TestMailboxThatIsNoMboxIsRecorded(t *testing.T) {
	dump := DumpIMAP(t, mboxIn(tree(t, map[string]string{"inbox": flagged, "mail/a.txt": "not an mbox\n", "mail/dir/box": flagged})))
	equal(t, "names", dump.names(), []string{"INBOX", "a.txt", "dir", "dir/box"})
	equal(t, "error", dump.Mailbox("a.txt").Error, `SELECT "a.txt": NO [CANNOT] Mailbox isn't a valid mbox file`)
	equal(t, "selectable directory", dump.Mailbox("dir").Selectable, false)
	equal(t, "messages beside it", dump.Mailbox("dir/box").Messages, flaggedMessages())
}

func TestDumpGoesOnAfterTheServerDies(t *testing.T) {
	dir := tree(t, map[string]string{
		// W= is too big by 5, at which Dovecot drops the connection.
		"Maildir/.a/cur/1.M1.host,S=9,W=17:2,": "A: b\n\ncd\n",
		"Maildir/.b/cur/1.M1.host,S=9,W=12:2,": "A: b\n\ncd\n",
	})
	dump := DumpIMAP(t, maildirIn(dir))
	equal(t, "names", dump.names(), []string{"INBOX", "a", "b"})
	if got := dump.Mailbox("a").Error; !strings.Contains(got, "server gone") || !strings.Contains(got, "got too little data") {
		t.Errorf("a: got %q", got)
	}
	b := dump.Mailbox("b")
	equal(t, "b: error", b.Error, "")
	equal(t, "b: digest", b.Messages[0].Digest, Sum("A: b\r\n\r\ncd\r\n"))
}
