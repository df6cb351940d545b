package mbox

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
)

func TestDovecotReadsWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	contents := []string{
		"Subject: one\n\nplain\n", "Subject: two\n\nFrom x\n\n" + look + "\nSubject: inner\n\n", "Subject: three\n\nno newline",
		"Subject: four\n\nCR\r", "Subject: five\n\n\n", "Subject: six\n", "\nno header\n", "Subject: eight\n\n" + strings.Repeat("long ", 40<<10) + "\n\nFrom x\n",
		"Subject: nine\nX-UID: 4000000000\nStatus: D\nContent-Length: 3\n\nabcdef\n", "Subject: ten\n\nCRLF\r\n\r\n" + look + "\r\n\r\n", "Subject: last\n\nlast",
	}
	shown := slices.Clone(contents)
	shown[8] = "Subject: nine\n\nabcdef\n"
	keywords := []string{"$Label1", "Junk", "NonJunk"}
	flags := map[Flags]string{Seen: `\Seen`, Answered: `\Answered`, Flagged: `\Flagged`, Draft: `\Draft`, Deleted: `\Deleted`}
	o := WriterOptions{Profile: Dovecot, Zone: time.UTC, UIDValidity: 1234567, NextUID: 5000, Keywords: keywords}
	var messages []Outgoing
	var want []dovecottest.Message
	for i, content := range contents {
		m := outgoing(stored{content: content})
		m.Sender, m.Date = "a@b", time.Unix(1e9+int64(i)*86400, 0).UTC()
		m.State = &State{UID: uint32(10 + 7*i), Flags: Old | Flags(i*11)%64, Keywords: keywords[:i%4]}
		messages = append(messages, m)
		crlf := strings.ReplaceAll(strings.ReplaceAll(shown[i], "\r\n", "\n"), "\n", "\r\n")
		w := dovecottest.Message{UID: m.State.UID, Flags: slices.Clone(m.State.Keywords), InternalDate: m.Date, Size: int64(len(crlf)), Digest: dovecottest.Sum(crlf)}
		for f, name := range flags {
			if m.State.Flags&f != 0 {
				w.Flags = append(w.Flags, name)
			}
		}
		slices.Sort(w.Flags)
		want = append(want, w)
	}
	mbox, _ := written(t, o, messages...)
	empty, _ := written(t, o)
	if err := os.MkdirAll(filepath.Join(dir, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"inbox": mbox, "mail/empty": empty} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dovecottest.Own(t, dir)
	loc := dovecottest.Location{Mail: fmt.Sprintf("mbox:%s/mail:INBOX=%s/inbox", dir, dir)}
	for _, when := range []string{"first", "second"} {
		dump := dovecottest.DumpIMAP(t, loc)
		inbox := dump.Mailbox("INBOX")
		if inbox.Error != "" || inbox.UIDValidity != 1234567 || inbox.UIDNext != 5000 || !slices.Equal(inbox.Keywords, keywords) || len(inbox.Messages) != len(want) {
			t.Errorf("%s session: %d messages of %d: %+v", when, len(inbox.Messages), len(want), inbox)
		}
		for i := range min(len(want), len(inbox.Messages)) {
			if got := inbox.Messages[i]; fmt.Sprint(got) != fmt.Sprint(want[i]) {
				t.Errorf("%s session, message %d:\ngot  %v\nwant %v", when, i+1, got, want[i])
			}
		}
		if box := dump.Mailbox("empty"); box.Error != "" || len(box.Messages) != 0 || box.UIDValidity != 1234567 || box.UIDNext != 5000 {
			t.Errorf("%s session: the empty mailbox: %+v", when, box)
		}
	}
}

// shownBy gives content as Dovecot's IMAP sends it.
func shownBy(content string) string {
	return strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n").Replace(content)
}

func TestDovecotReadsHostileContent(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 30 {
		dir := t.TempDir()
		var messages []Outgoing
		var contents []string
		for i := range 20 {
			// What follows a NUL in a field's name Dovecot loses when it rewrites the header.
			contents = append(contents, strings.ReplaceAll(hostile(r), "\x00", ""))
			m := outgoing(stored{from: fromLines[r.IntN(len(fromLines))], content: contents[i]})
			m.State = &State{UID: uint32(i + 1), Flags: Old}
			messages = append(messages, m)
		}
		mbox, list := written(t, WriterOptions{Profile: Dovecot, Zone: time.UTC, UIDValidity: 7, NextUID: 100}, messages...)
		if err := os.WriteFile(filepath.Join(dir, "inbox"), []byte(mbox), 0o600); err != nil {
			t.Fatal(err)
		}
		dovecottest.Own(t, dir)
		inbox := dovecottest.DumpIMAP(t, dovecottest.Location{Mail: fmt.Sprintf("mbox:%s/mail:INBOX=%s/inbox", dir, dir)}).Mailbox("INBOX")
		if len(inbox.Messages) != len(contents) || inbox.Error != "" {
			t.Fatalf("%d messages of %d, %s\n%q", len(inbox.Messages), len(contents), inbox.Error, mbox)
		}
		for i, got := range inbox.Messages {
			if got.UID != uint32(i+1) {
				t.Errorf("UID %d of message %d", got.UID, i+1)
			}
			if list[i].Exact() && got.Digest != dovecottest.Sum(shownBy(contents[i])) {
				t.Errorf("message %d of %q is shown in %d bytes; %q", i+1, contents[i], got.Size, mbox[list[i].Offset:][:300])
			}
		}
	}
}

// repeated is a huge message: a header and then one text over and over.
type repeated struct{ header, text string }

func (r repeated) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		if at := off + int64(n); at < int64(len(r.header)) {
			n += copy(b[n:], r.header[at:])
		} else {
			n += copy(b[n:], r.text[(at-int64(len(r.header)))%int64(len(r.text)):])
		}
	}
	return n, nil
}

func TestHugeMessagesTakeBoundedMemory(t *testing.T) {
	const size = 64 << 20
	for name, text := range map[string]string{
		"lines": strings.Repeat("x", 70) + "\n", "one line": "x", "From_ lines": "\n" + look + "\nA: b\n", "CRs": "\r\n",
	} {
		text = strings.Repeat(text, 4096)
		for header, profile := range map[string]string{"A: b\n\n": "dovecot", "": "dovecot", "B: c\n\n": "uw"} {
			p, err := ProfileByName(profile)
			if err != nil {
				t.Fatal(err)
			}
			m := Outgoing{From: FromLine{[]byte(look)}, Content: repeated{header, text}, Size: size}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			w := NewWriter(io.Discard, WriterOptions{Profile: p})
			if _, err := w.WriteMessage(m); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if w.out.n < size-1 {
				t.Errorf("%s: %d bytes written", name, w.out.n)
			}
			if used := int64(after.TotalAlloc - before.TotalAlloc); used > size/2 {
				t.Errorf("%s, %s, %q: %d bytes allocated in all", name, profile, header, used)
			}
		}
	}
}
