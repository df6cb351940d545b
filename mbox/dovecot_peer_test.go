package mbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
	"mailferry/mbox"
)

// peerMessage is what matters of a message to compare with Dovecot.
type peerMessage struct {
	content string
	date    time.Time
}

// scanned reads an mbox by the dovecot profile.
func scanned(t *testing.T, file string, zone *time.Location) (list []peerMessage, err error) {
	t.Helper()
	s, err := mbox.NewScanner(strings.NewReader(file), int64(len(file)), mbox.Options{Profile: mbox.Dovecot, Zone: zone, EOL: mbox.EOLKeep})
	if err != nil {
		return nil, err
	}
	for {
		e, err := s.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if err := s.WriteContent(&content); err != nil {
			t.Fatal(err)
		}
		list = append(list, peerMessage{content.String(), e.Date})
	}
}

// onTheWire is a message as IMAP sends it: lines end in CRLF, and a NUL is 0x80.
func onTheWire(content string) string {
	content = strings.ReplaceAll(content, "\r\n", "\n")
	return strings.NewReplacer("\n", "\r\n", "\x00", "\x80").Replace(content)
}

// servedInbox is what Dovecot shows of an mbox at the given look, and the mbox
// that it leaves: Dovecot writes its state into it. At the second look dates
// come from its cache.
func servedInbox(t *testing.T, file, zone string, look int) (box *dovecottest.Mailbox, left string) {
	t.Helper()
	dir := t.TempDir()
	inbox := filepath.Join(dir, "inbox")
	if err := os.WriteFile(inbox, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	dovecottest.Own(t, dir)
	loc := dovecottest.Location{Mail: "mbox:" + dir + "/mail:INBOX=" + inbox, TZ: zone}
	for range look {
		box = dovecottest.DumpIMAP(t, loc).Mailbox("INBOX")
	}
	b, err := os.ReadFile(inbox)
	if box == nil || err != nil {
		t.Fatalf("Dovecot shows no INBOX; %v", err)
	}
	return box, string(b)
}

// compareWithDovecot demands the same messages, bytes and dates, of the mbox
// as it was before Dovecot opened it and as Dovecot left it.
func compareWithDovecot(t *testing.T, file, zone string, look int) {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	box, left := servedInbox(t, file, zone, look)
	if strings.Contains(box.Error, "server gone") {
		return // Dovecot stumbles over the Content-Lengths that it left: "message unexpectedly lost"
	}
	before, err := scanned(t, file, loc)
	if box.Error != "" {
		if refused := (*mbox.FormatError)(nil); !errors.As(err, &refused) {
			t.Errorf("Dovecot refuses the file (%.200s); the scan gives %d messages, %v", box.Error, len(before), err)
		}
		return
	}
	if err != nil {
		t.Fatalf("Dovecot shows %d messages; the scan says %v", len(box.Messages), err)
	}
	after, err := scanned(t, left, loc)
	if err != nil {
		t.Fatalf("of what Dovecot left the scan says %v:\n%q", err, left)
	}
	for i, want := range box.Messages {
		if i >= len(before) || i >= len(after) {
			break
		}
		wire := onTheWire(after[i].content)
		if dovecottest.Sum(wire) != want.Digest || int64(len(wire)) != want.Size {
			t.Fatalf("message %d is %d bytes to Dovecot, not %d:\n%q", i+1, want.Size, len(wire), after[i].content)
		}
		if before[i].content != after[i].content && !endsInHeader(before[i].content, after[i].content) {
			t.Fatalf("message %d before and after Dovecot:\n%q\n%q", i+1, before[i].content, after[i].content)
		}
		if !before[i].date.Equal(want.InternalDate) || !after[i].date.Equal(want.InternalDate) {
			t.Errorf("message %d: Dovecot serves %v, not %v, %v:\n%.200q", i+1, want.InternalDate, before[i].date, after[i].date, before[i].content)
		}
	}
	if n := len(box.Messages); len(before) != n || len(after) != n {
		t.Fatalf("Dovecot shows %d messages, the scan %d, and %d of what Dovecot left:\n%q", n, len(before), len(after), left)
	}
}

// endsInHeader reports whether the two differ as a message does that has no
// empty line after its header: Dovecot drops its last newline, but once it has
// written its own fields behind the others, only that of the last of those.
func endsInHeader(before, after string) bool {
	return before+"\n" == after && !strings.Contains(before, "\n\n")
}

// fromShapes are From_ lines as programs wrote them, what Dovecot takes and
// what it doesn't.
var fromShapes = []string{
	"From alice@example.org Thu Nov 29 22:33:52 2001",
	"From alice@example.org  Thu Nov 29 22:33:52 2001",
	"From MAILER-DAEMON Fri Jan  2 03:04:05 1998",
	"From a@b Fri Jan 02 03:04:05 1998 +0000",
	"From a@b Mon Jan  2 03:04:05 2023 +0530",
	"From a@b Mon Jan  2 03:04:05 2023 -0930",
	"From a@b Mon Jan  2 03:04:05 -0700 2023",
	"From a@b Mon Jan  2 03:04:05 PST 2023",
	"From a@b Mon Jan  2 03:04 2023",
	"From a@b Mon Jan  2 03:04 EST 2023",
	"From a@b Mon, 2 Jan 2023 03:04:05 -0700",
	"From a@b Mon, 12 Jan 2023 03:04 +0100",
	"From  Mon Jan  2 03:04:05 2023",
	`From "a b"@c Mon Jan  2 03:04:05 2023 remote from zz`,
	`From "a\" b"@c Mon Jan  2 03:04:05 2023`,
	"From a@b Mon Jan 02 3:04:05 2023",
	"From a at b  Mon Jan  2 03:04:05 2023",
	"From a@b Mon Jan  2 03:04:05 1969",
	"From a@b Wed Dec 31 23:59:59 1969",
	"From a@b Wed Dec 31 23:59:59 1969 +0000",
	"From a@b Mon Feb 31 25:61:61 2023",
	"From a@b Mon Feb 31 25:61:61 2023 +0000",
	"From a@b Mon Feb 28 23:59:60 2023 +0000",
	"From a@b Mon Jan 00 03:04:05 2023",
	"From a@b Mon ??? 12 03:04:05 2023",
	"From a@b Mon jAN 12 03:04:05 2023",
	"From a@b Mon Jan  2 03:04:05 MET DST 2023",
	"From a@b Mon\tJan  2 03:04:05 2023",
	"From a@b Mon Jan  2 03:04:05 23",
	"From a@b 2023-01-02 03:04:05",
	"From a@b Mon Jan  2 03:04:05 2107",
	"From a@b Mon Jan  2 03:04:05 9999",
	"From a@b Mon Jan  2 03:04:05 0001",
	"From - Mon Jan  2 03:04:05 2023",
	"From a@b",
	"From -",
	"From 1844674407370955@xxx Mon Jan 02 03:04:05 +0000 2023",
	"From the beginning",
}

// mutated changes a few bytes or words of a line.
func mutated(r *rand.Rand, line string) string {
	const bytes = "0123456789 :+-,\"aJn\t\r"
	for range 1 + r.IntN(2) {
		at := len("From ") + r.IntN(len(line)-len("From ")+1)
		b := string(bytes[r.IntN(len(bytes))])
		rest := line[min(len(line), at+1):]
		switch words := strings.Split(line, " "); r.IntN(5) {
		case 0:
			line = line[:at] + b + line[at:]
		case 1:
			line = line[:at] + rest
		case 2:
			line = line[:at] + b + rest
		case 3:
			i, j := 1+r.IntN(len(words)-1), 1+r.IntN(len(words)-1)
			words[i], words[j] = words[j], words[i]
			line = strings.Join(words, " ")
		case 4:
			line = line[:at]
		}
	}
	return line
}

// fromLines are the shapes and n mutations of them.
func fromLines(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 0))
	lines := append([]string{}, fromShapes...)
	for range n {
		lines = append(lines, mutated(r, fromShapes[r.IntN(len(fromShapes))]))
	}
	return lines
}

// mailboxOf puts each line before a message of its own.
func mailboxOf(lines []string) string {
	var b strings.Builder
	b.WriteString("From first@example.org Thu Nov 29 22:33:52 2001\nSubject: first\n\nfirst\n\n")
	for i, line := range lines {
		fmt.Fprintf(&b, "%s\nSubject: %d\n\n%s\n\n", line, i, line[1:])
	}
	return b.String()
}

func TestDovecotTakesTheSameFromLines(t *testing.T) {
	for _, zone := range []string{"UTC", "America/New_York", "Asia/Kolkata"} {
		t.Run(zone, func(t *testing.T) {
			for seed := range uint64(2) {
				compareWithDovecot(t, mailboxOf(fromLines(seed, 150)), zone, 2)
			}
		})
	}
}

func TestDovecotTakesTheSameFirstLines(t *testing.T) {
	for _, line := range fromShapes {
		t.Run(line, func(t *testing.T) {
			compareWithDovecot(t, line+"\nSubject: x\n\nbody\n\n", "UTC", 2)
		})
	}
}

// boundaryBits are what mailboxes are made of where boundaries are in doubt.
var boundaryBits = []string{
	"From a@b Thu Nov 29 22:33:52 2001\n",
	"From c@d Mon Jan  2 03:04:05 2023 +0530\n",
	"From c@d Mon, 2 Jan 2023 03:04:05 -0700\r\n",
	"From e@f Mon Jan  2 3:04:05 2023\n",
	"From - \n", "From the beginning\n", "From  \n", ">From x\n", "From : p@q\n",
	"\n", "\n", "\n", "\r\n",
	"Subject: x\n", "To: y\r\n", " folded\n", "Status: RO\n", "X-Keywords: nobody\n lists\n", "X-IMAPbase: 77 99\n",
	"text\n", "CR\rLF\r\n", "NUL\x00\n", "no colon\n", "last line",
}

// doubtful joins bits at random. Content-Lengths are wrong but for some by
// chance; they end a header, since Dovecot makes another mailbox of one that
// has a Content-Length and no empty line when it writes its own fields there.
func doubtful(r *rand.Rand) string {
	var b strings.Builder
	b.WriteString(boundaryBits[r.IntN(2)] + "Subject: first\n")
	for range r.IntN(40) {
		if r.IntN(8) == 0 {
			fmt.Fprintf(&b, "Content-Length: %d\n\n", r.IntN(120))
			continue
		}
		b.WriteString(boundaryBits[r.IntN(len(boundaryBits))])
	}
	endings := []string{"end", "end\n", "end\r\n", "end\n\n", "\n", "Content-Length: 5\n"}
	b.WriteString("\n" + endings[r.IntN(len(endings))])
	return b.String()
}

func TestDovecotFindsTheSameBoundaries(t *testing.T) {
	for seed := range uint64(40) {
		file := doubtful(rand.New(rand.NewPCG(seed, 1)))
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("in\n%q", file)
				}
			}()
			compareWithDovecot(t, file, "UTC", 1)
		})
	}
}
