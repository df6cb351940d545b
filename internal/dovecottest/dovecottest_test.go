package dovecottest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// tree writes files below a new directory that Dovecot owns; a name ending in "/" is a directory.
func tree(tb testing.TB, files map[string]string) (dir string) {
	tb.Helper()
	dir = tb.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				tb.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		} else {
			age(tb, path, time.Now().Add(-time.Hour))
		}
	}
	Own(tb, dir)
	return dir
}

// age sets the date of a file.
func age(tb testing.TB, path string, date time.Time) {
	tb.Helper()
	if err := os.Chtimes(path, date, date); err != nil {
		tb.Fatal(err)
	}
}

func mboxIn(dir string) Location {
	return Location{Mail: "mbox:" + dir + "/mail:INBOX=" + dir + "/inbox"}
}

func maildirIn(dir string) Location { return Location{Mail: "maildir:" + dir + "/Maildir"} }

// equal compares values and prints both when they differ.
func equal(tb testing.TB, what string, got, want any) {
	tb.Helper()
	if !reflect.DeepEqual(got, want) {
		tb.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// flagged is an mbox with the state that Dovecot keeps in headers.
const flagged = `From a@example.org Mon Jan  2 03:04:05 2023
Subject: first
X-IMAPbase: 1234567890 0000000020 Junk $Label1
X-UID: 7
Status: RO
X-Status: AF
X-Keywords: $Label1
Content-Length: 5

text

From b@example.org Tue Jan  3 10:00:00 2023
Subject: second
X-UID: 9
X-Status: TD

no empty line follows
From c@example.org Wed Jan  4 10:00:00 2023
Subject: third
Status: O

.dot
end
`

func flaggedMessages() []Message {
	const (
		first  = "Subject: first\r\n\r\ntext\r\n"
		second = "Subject: second\r\n\r\nno empty line follows"
		third  = "Subject: third\r\n\r\n.dot\r\nend"
	)
	return []Message{
		{7, []string{"$Label1", `\Answered`, `\Flagged`, `\Seen`}, time.Date(2023, 1, 2, 3, 4, 5, 0, time.UTC), int64(len(first)), Sum(first)},
		{9, []string{`\Deleted`, `\Draft`}, time.Date(2023, 1, 3, 10, 0, 0, 0, time.UTC), int64(len(second)), Sum(second)},
		{21, []string{}, time.Date(2023, 1, 4, 10, 0, 0, 0, time.UTC), int64(len(third)), Sum(third)},
	}
}

func TestMboxShowsItsStateHeaders(t *testing.T) {
	got := DumpIMAP(t, mboxIn(tree(t, map[string]string{"inbox": flagged})))
	want := &Dump{Mailboxes: []Mailbox{{
		Name:        "INBOX",
		Attrs:       []string{`\HasNoChildren`},
		Selectable:  true,
		UIDValidity: 1234567890,
		UIDNext:     22,
		Keywords:    []string{"$Label1", "Junk"},
		Messages:    flaggedMessages(),
	}}}
	equal(t, "dump", got, want)
}

func TestMboxRenumbersBadUIDs(t *testing.T) {
	const from = "From a@example.org Mon Jan  2 03:04:05 2023\n"
	inbox := from + "X-IMAPbase: 1600000000 0000000100\nX-UID: 10\n\na\n\n" +
		from + "X-UID: 50\n\nb\n\n" + from + "X-UID: 40\n\nc\n\n" + from + "X-UID: 99999\n\nd\n\n" + from + "\ne\n"
	box := DumpIMAP(t, mboxIn(tree(t, map[string]string{"inbox": inbox}))).Mailbox("INBOX")
	equal(t, "UIDs", uids(box), []uint32{10, 50, 101, 102, 103})
	equal(t, "UIDNEXT", box.UIDNext, uint32(104))
}

func uids(box *Mailbox) []uint32 {
	var uids []uint32
	for _, m := range box.Messages {
		uids = append(uids, m.UID)
	}
	return uids
}

func TestFromLineDateIsReadInTheZoneOfTheServer(t *testing.T) {
	for _, tt := range []struct {
		name, date, zone string
		want             time.Time
	}{
		{"no zone, UTC", "Mon Jan  2 03:04:05 2023", "", time.Unix(1672628645, 0)},
		{"no zone, New York", "Mon Jan  2 03:04:05 2023", "America/New_York", time.Unix(1672646645, 0)},
		{"offset after the year, minutes taken as seconds", "Mon Jan  2 03:04:05 2023 +0530", "", time.Date(2023, 1, 1, 22, 3, 35, 0, time.UTC)},
		{"offset before the year, ignored", "Mon Jan  2 03:04:05 -0700 2023", "", time.Unix(1672628645, 0)},
		{"RFC 5322 date, offset applied", "Mon, 2 Jan 2023 03:04:05 -0700", "", time.Date(2023, 1, 2, 10, 4, 5, 0, time.UTC)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loc := mboxIn(tree(t, map[string]string{"inbox": "From a@example.org " + tt.date + "\nSubject: x\n\nx\n"}))
			loc.TZ = tt.zone
			equal(t, "INTERNALDATE", DumpIMAP(t, loc).Mailbox("INBOX").Messages[0].InternalDate, tt.want.UTC())
		})
	}
}

// uidlist is the file with every kind of field; its messages are those of numbered.
const uidlist = `3 V1234567890 N500 Gdeadbeef0123456789abcdef01234567
10 P0000000a1f2e3d4c O3 :1600000001.M1P1.host,S=67,W=73
12 Pab"c:!#{~ O2 G00112233445566778899aabbccddeeff :1600000002.M2P1.host,S=67,W=73
15 O1 :1600000003.M3P1.host,S=67,W=73
20 P :1600000004.M4P1.host,S=67,W=73
33 W73 S67 :1600000005.5.host
45 :gonefile,S=1,W=1
`

// numbered is a message of 67 octets in 6 lines, as a file and as it is sent.
func numbered(n string) (stored, sent string) {
	stored = "Subject: message " + n + "\nFrom: a@example.org\n\nline\nline\n" + strings.Repeat("x", 16) + "\n"
	return stored, strings.ReplaceAll(stored, "\n", "\r\n")
}

// uidlistMaildir returns a Maildir that no server has opened.
func uidlistMaildir(t *testing.T) Location {
	t.Helper()
	files := map[string]string{"Maildir/dovecot-uidlist": uidlist, "Maildir/dovecot-keywords": "0 Junk\n1 $Label1\n"}
	for n, name := range map[string]string{
		"1": "cur/1600000001.M1P1.host,S=67,W=73:2,FSb",
		"2": "cur/1600000002.M2P1.host,S=67,W=73:2,DRT",
		"3": "new/1600000003.M3P1.host,S=67,W=73",
		"4": "cur/1600000004.M4P1.host,S=67,W=73:2,",
		"5": "cur/1600000005.5.host:2,S",
		"6": "new/1600000006.M6P1.host,S=67,W=73",
		"7": "cur/1600000007.M7P1.host,S=67,W=73:2,a",
	} {
		files["Maildir/"+name], _ = numbered(n)
	}
	files["Maildir/tmp/"] = ""
	dir := tree(t, files)
	age(t, dir+"/Maildir/cur/1600000001.M1P1.host,S=67,W=73:2,FSb", time.Date(2017, 3, 4, 5, 6, 7, 0, time.UTC))
	return maildirIn(dir)
}

func TestMaildirShowsItsUIDList(t *testing.T) {
	dump := DumpIMAP(t, uidlistMaildir(t))
	equal(t, "mailboxes", dump.names(), []string{"INBOX"})
	box := dump.Mailbox("INBOX")
	equal(t, "error", box.Error, "")
	equal(t, "UIDVALIDITY", box.UIDValidity, uint32(1234567890))
	equal(t, "UIDNEXT", box.UIDNext, uint32(502))
	equal(t, "UIDs", uids(box), []uint32{10, 12, 15, 20, 33, 500, 501})
	equal(t, "keywords", box.Keywords, []string{"$Label1", "Junk"})
	equal(t, "date", box.Messages[0].InternalDate, time.Date(2017, 3, 4, 5, 6, 7, 0, time.UTC))
	var flags []string
	for i, m := range box.Messages {
		flags = append(flags, strings.Join(m.Flags, " "))
		_, sent := numbered(string(rune('1' + i)))
		equal(t, "body", m.Digest, Sum(sent))
		equal(t, "size", m.Size, int64(73))
	}
	equal(t, "flags", flags, []string{`$Label1 \Flagged \Seen`, `\Answered \Deleted \Draft`, "", "", `\Seen`, "", "Junk"})
}

func TestPOP3ShowsOrderAndUIDLsOfTheUIDList(t *testing.T) {
	var uidls []string
	var digests []Digest
	for i, m := range DumpPOP3(t, uidlistMaildir(t)) {
		uidls = append(uidls, m.UIDL)
		digests = append(digests, m.Digest)
		equal(t, "number", m.Number, i+1)
		equal(t, "size", m.Size, int64(73))
	}
	equal(t, "UIDLs", uidls, []string{
		"0000000f499602d2", `ab"c:!#{~`, "0000000a1f2e3d4c", "1600000004.M4P1.host,S=67,W=73",
		"00000021499602d2", "000001f4499602d2", "000001f5499602d2",
	})
	var want []Digest
	for _, n := range []string{"3", "2", "1", "4", "5", "6", "7"} {
		_, sent := numbered(n)
		want = append(want, Sum(sent))
	}
	equal(t, "digests", digests, want)
}

func TestPOP3OfAnMbox(t *testing.T) {
	loc := mboxIn(tree(t, map[string]string{"inbox": flagged}))
	loc.UIDLFormat = "%v.%u"
	equal(t, "messages", DumpPOP3(t, loc), []POP3Message{
		{1, 24, "1234567890.7", Sum("Subject: first\r\n\r\ntext\r\n")},
		{2, 40, "1234567890.9", Sum("Subject: second\r\n\r\nno empty line follows\r\n")},
		{3, 27, "1234567890.21", Sum("Subject: third\r\n\r\n.dot\r\nend\r\n")},
	})
}

func TestPOP3RefusalIsAnError(t *testing.T) {
	loc := mboxIn(tree(t, map[string]string{"inbox": "not an mbox\n"}))
	p := &pop3{startServer(t, loc, "pop3")}
	if _, err := p.dump(); err == nil || !strings.Contains(err.Error(), "isn't a valid mbox file") {
		t.Errorf("got %v", err)
	}
}

func TestOddBytesAreDigestedAsSent(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 1<<16) + "\n"
	for _, tt := range []struct{ name, body string }{
		{"empty", ""},
		{"NUL", "a\x00b\n"},
		{"8-bit", "\xff\xfe\x80\n"},
		{"CR within a line", "a\rb\r\r\nc\n"},
		{"dots", ".\n..\n.a\n"},
		{"text like a literal", "{3}\nabc {100}\n"},
		{"text like the end of the answer", "t3 OK Fetch completed.\n)\nt4 NO\n"},
		{"a line of a MiB", long},
		{"24 MiB", strings.Repeat(long, 24)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loc := maildirIn(tree(t, map[string]string{"Maildir/cur/1.M1.host:2,": "A: b\n\n" + tt.body, "Maildir/new/": "", "Maildir/tmp/": ""}))
			sent := "A: b\r\n\r\n" + crlf(tt.body)
			m := DumpIMAP(t, loc).Mailbox("INBOX").Messages[0]
			equal(t, "IMAP digest", m.Digest, Sum(strings.ReplaceAll(sent, "\x00", "\x80")))
			equal(t, "IMAP size", m.Size, int64(len(sent)))
			equal(t, "POP3 digest", DumpPOP3(t, loc)[0].Digest, Sum(sent))
		})
	}
}

// crlf ends lines in CRLF that end in LF.
func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

func TestDoveadm(t *testing.T) {
	loc := mboxIn(tree(t, map[string]string{"inbox": flagged}))
	got := Doveadm(t, loc, "mailbox", "status", "messages uidnext uidvalidity", "INBOX")
	equal(t, "status", got, "INBOX messages=3 uidnext=22 uidvalidity=1234567890\n")
}

func TestExtraConfigurationCounts(t *testing.T) {
	loc := mboxIn(tree(t, map[string]string{"inbox": strings.Replace(flagged, "Status: RO", "Status: RO\nX-UIDL: old-one", 1)}))
	loc.Extra = "pop3_reuse_xuidl = yes"
	equal(t, "UIDL", DumpPOP3(t, loc)[0].UIDL, "old-one")
}

func TestOwnMakesATemporaryDirectoryReachable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "closed", "mail")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	Own(t, dir)
	DumpIMAP(t, Location{Mail: "mbox:" + dir})
	if _, err := os.Stat(dir + "/.imap"); err != nil {
		t.Errorf("Dovecot could not write: %v", err)
	}
}

func TestNoProcessOutlivesTheTest(t *testing.T) {
	var s *Session
	t.Run("session left open", func(t *testing.T) {
		s = Start(t, mboxIn(tree(t, map[string]string{"inbox": flagged})))
	})
	if s.cmd.ProcessState == nil {
		t.Fatal("still running")
	}
	equal(t, "end", s.cmd.ProcessState.String(), "signal: killed")
}

func BenchmarkDumpIMAP(b *testing.B) {
	var inbox strings.Builder
	for range 1000 {
		inbox.WriteString("From a@example.org Mon Jan  2 03:04:05 2023\nSubject: s\n\n" + strings.Repeat("line\n", 400) + "\n")
	}
	loc := mboxIn(tree(b, map[string]string{"inbox": inbox.String()}))
	b.SetBytes(int64(inbox.Len()))
	for b.Loop() {
		DumpIMAP(b, loc)
	}
}
