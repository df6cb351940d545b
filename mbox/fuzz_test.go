package mbox

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"mailferry/internal/message"
)

// smallWindow makes every scan slide; it must hold what a decision looks at.
const smallWindow = 2*lookAhead + 64

// checkScan demands of a scan what holds for any input at all.
func checkScan(t *testing.T, file []byte, o Options) {
	t.Helper()
	got, err := readAll(bytes.NewReader(file), int64(len(file)), o, windowSize)
	small, smallErr := readAll(bytes.NewReader(file), int64(len(file)), o, smallWindow)
	if (err == nil) != (smallErr == nil) {
		t.Fatalf("%s: %v with a large window, %v with a small one", o.Profile.Name, err, smallErr)
	}
	if err != nil {
		return
	}
	checkTiles(t, file, got)
	checkContents(t, got)
	if len(small.entries) != len(got.entries) || small.odd != got.odd || small.careful != got.careful {
		t.Fatalf("%s: %d messages, %d by careful with a large window, %d and %d with a small one\n%s\n%s", o.Profile.Name,
			len(got.entries), got.careful, len(small.entries), small.careful, got.odd, small.odd)
	}
	for i, e := range got.entries {
		s := small.entries[i]
		if s.Offset != e.Offset || s.FromLen != e.FromLen || s.Length != e.Length || s.SepLen != e.SepLen ||
			s.Digest != e.Digest || !s.Date.Equal(e.Date) || small.states[i].UID != got.states[i].UID {
			t.Fatalf("%s: message %d is %+v with a large window, %+v with a small one", o.Profile.Name, i, e, s)
		}
	}
	checkFollower(t, file, o, got)
}

// checkTiles: each byte is of the lead, or of one From_ line, message or
// separator.
func checkTiles(t *testing.T, file []byte, got read) {
	t.Helper()
	off := got.lead
	for i, e := range got.entries {
		if e.Offset != off || e.FromLen < 0 || e.Length < 0 || e.SepLen < 0 || e.Next() <= e.Offset {
			t.Fatalf("message %d begins at %d, should at %d: %+v", i, e.Offset, off, e)
		}
		line := file[e.Offset:][:e.FromLen]
		if e.FromLen > 0 && (!bytes.HasPrefix(line, fromPrefix) || bytes.IndexByte(line[:len(line)-1], '\n') >= 0) {
			t.Fatalf("message %d has the From_ line %q", i, line)
		}
		off = e.Next()
	}
	if off != int64(len(file)) {
		t.Fatalf("the entries end at %d of %d", off, len(file))
	}
}

// checkContents: sizes and digests are those of the bytes delivered.
func checkContents(t *testing.T, got read) {
	t.Helper()
	for i, e := range got.entries {
		c := got.contents[i]
		vsize := len(c) + strings.Count(c, "\n") - strings.Count(c, "\r\n")
		if e.Size != int64(len(c)) || e.VSize != int64(vsize) || e.Digest != sha256.Sum256([]byte(c)) {
			t.Fatalf("message %d: size %d, vsize %d, digest %x; its bytes are %d, %d, %x", i, e.Size, e.VSize, e.Digest,
				len(c), vsize, sha256.Sum256([]byte(c)))
		}
	}
}

// checkFollower: the count beside the scan is that of a careful scan.
func checkFollower(t *testing.T, file []byte, o Options, got read) {
	t.Helper()
	if got.kind != Mbox {
		return
	}
	o.Profile = Careful
	careful, err := readAll(bytes.NewReader(file), int64(len(file)), o, windowSize)
	if err != nil {
		return // careful takes no file that begins with what another takes for a From_ line
	}
	if got.careful != len(careful.entries) {
		t.Fatalf("%d messages by careful beside the scan, %d by a scan of its own", got.careful, len(careful.entries))
	}
}

// seedMailboxes are small files with the traps of real ones.
var seedMailboxes = []string{
	"",
	"\n \t\n",
	"From a@b Mon Jan  2 03:04:05 2023\nSubject: x\n\nbody\n\nFrom c@d Mon Jan  2 03:04:05 2023\n\nFrom here on\n",
	"From a@b Mon Jan  2 03:04:05 2023\nContent-Length: 62\n\ntext\n\nFrom c@d Mon Jan  2 03:04:05 2023\nSubject: inside\n\nmore text\n\nFrom e@f Mon Jan  2 03:04:05 2023\nA: b\n\nc",
	"\xef\xbb\xbfFrom -\nSubject: Netscape\n\nFrom Russia with love\nYear: 1963\n\nFrom -\nA: b\n\nx\n",
	"From a at b  Mon Jan  2 03:04:05 2023\r\nStatus: RO\r\nX-Keywords: a\r\n b\r\n\r\nbody\r\n\r\nFrom c@d Mon Jan  2 03:04:05 2023\r\nA: b\r\n\r\n",
	"\x01\x01\x01\x01\nA: b\n\nbody\n\x01\x01\x01\x01\n\x01\x01\x01\x01\nFrom a@b Mon Jan  2 03:04:05 2023\nC: d\n\x01\x01\x01\x01\n",
	"From MAILER_DAEMON Mon Jan  2 03:04:05 2023\nX-IMAP: 1234567890 0000000012 Junk\n\nFolder data\n\nFrom a@b Mon Jan  2 03:04:05 2023\nX-UID: 12\nX-Status: AFTD\n\n.\n",
	"From a@b Mon Jan  2 03:04:05 2023\nFrom : p@q\n>From c@d\nFrom e@f Mon Jan  2 03:04:05 2023\nA: b\n",
}

func FuzzScan(f *testing.F) {
	for _, m := range seedMailboxes {
		f.Add([]byte(m), uint16(0))
		f.Add([]byte(m), uint16(9000)) // a line that is too long
	}
	f.Fuzz(func(t *testing.T, file []byte, stretch uint16) {
		// A run of one letter, put in the middle, makes lines and messages
		// longer than the small window without a corpus of large files.
		if n := 4 * int(stretch); n > 0 {
			middle := len(file) / 2
			file = []byte(string(file[:middle]) + strings.Repeat("x", n) + string(file[middle:]))
		}
		for _, p := range profiles {
			checkScan(t, file, Options{Profile: p})
		}
		checkScan(t, file, Options{Profile: Careful, EOL: EOLLF, Quoting: message.MboxRD})
	})
}

// FuzzHeaderSummary: fields are found whatever is around them, and hidden ones
// are in no content.
func FuzzHeaderSummary(f *testing.F) {
	f.Add("Subject: x\n", "RO", "12")
	f.Add("Received: a\n\tb\r\n", "", "x")
	f.Add(" folded\nX-Status: AF\nsTATUS : R\n", "O", "4294967296")
	f.Fuzz(func(t *testing.T, other, status, uid string) {
		if strings.Contains(other, "\n\n") || strings.Contains(other, "\n\r\n") || strings.HasPrefix(other, "\n") || strings.HasPrefix(other, "\r\n") ||
			!strings.HasSuffix(other, "\n") || strings.Contains(other, "From ") || strings.ContainsAny(status+uid, "\r\n") || len(status)+len(uid) > 1000 {
			return
		}
		file := "From a@b Thu Nov 29 22:33:52 2001\nX-IMAPbase: 1 4294967200\n" + other + "Status: " + status + "\nX-UID: " + uid + "\n\nStatus: body\n"
		got := mustRead(t, file, "dovecot")
		if len(got.entries) != 1 {
			t.Fatalf("%d messages in %q", len(got.entries), file)
		}
		header, _, _ := strings.Cut("\n"+got.contents[0], "\n\n")
		for line := range strings.Lines(header + "\n") {
			if field, _ := message.ParseField([]byte(line)); Dovecot.hide.Has(field) {
				t.Errorf("%q is shown of %q", line, file)
			}
		}
		if !strings.HasSuffix("\n"+got.contents[0], "\n\nStatus: body") {
			t.Errorf("the body of %q became %q", file, got.contents[0])
		}
		if flags := got.states[0].Flags; strings.Contains(status, "R") && flags&Seen == 0 {
			t.Errorf("Status %q did not set Seen", status)
		}
	})
}
