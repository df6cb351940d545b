package convert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
	"mailferry/mbox"
)

// served is what clients of an mbox see, and of the Maildir made of it.
type served struct {
	imap *dovecottest.Dump
	pop3 []dovecottest.POP3Message
}

// serveMbox dumps an mbox that is the INBOX of an otherwise empty account,
// after a session that set a flag: so Dovecot has written all it knows into
// the mbox, UIDs and UIDVALIDITY too, which a look alone leaves in the index.
func serveMbox(t *testing.T, path, zone string) served {
	t.Helper()
	root := filepath.Join(t.TempDir(), "mail")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	dovecottest.Own(t, root)
	dovecottest.Own(t, filepath.Dir(path)) // the dotlock goes beside it
	loc := dovecottest.Location{Mail: "mbox:" + root + ":INBOX=" + path, TZ: zone}
	session := dovecottest.Start(t, loc)
	_, refused := session.Try("SELECT INBOX")
	if refused == nil {
		session.Command("STORE 1:* +FLAGS.SILENT ($Carried)")
		session.Command("CHECK")
	}
	session.Close()
	s := served{imap: dovecottest.DumpIMAP(t, loc)}
	if refused == nil {
		s.pop3 = dovecottest.DumpPOP3(t, loc)
	}
	return s
}

func serveMaildir(t *testing.T, path, zone string) served {
	t.Helper()
	dovecottest.Own(t, path)
	loc := dovecottest.Location{Mail: "maildir:" + path, TZ: zone}
	return served{imap: dovecottest.DumpIMAP(t, loc), pop3: dovecottest.DumpPOP3(t, loc)}
}

// compare reports whatever a client could notice.
func compare(t *testing.T, got, want served) {
	t.Helper()
	for _, d := range dovecottest.Diff(got.imap, want.imap, "keywords") {
		t.Error("IMAP:", d)
	}
	compareAllKeywords(t, got.imap, want.imap)
	if len(got.pop3) != len(want.pop3) {
		t.Fatalf("POP3: %d messages, want %d", len(got.pop3), len(want.pop3))
	}
	for i, m := range got.pop3 {
		if m != want.pop3[i] {
			t.Errorf("POP3: message %d: got %+v, want %+v", i+1, m, want.pop3[i])
		}
	}
}

// compareAllKeywords compares the FLAGS of all mailboxes. Dovecot shows a
// keyword of dovecot-keywords only once a message has it, though it keeps its
// letter.
func compareAllKeywords(t *testing.T, got, want *dovecottest.Dump) {
	t.Helper()
	for i, box := range got.Mailboxes {
		if other := want.Mailbox(box.Name); other != nil && other.Error == "" {
			compareKeywords(t, &got.Mailboxes[i], other)
		}
	}
}

func compareKeywords(t *testing.T, got, want *dovecottest.Mailbox) {
	t.Helper()
	used := slices.DeleteFunc(slices.Clone(want.Keywords), func(k string) bool {
		return !slices.ContainsFunc(want.Messages, func(m dovecottest.Message) bool { return slices.Contains(m.Flags, k) })
	})
	if !slices.Equal(got.Keywords, used) {
		t.Errorf("%s: keywords: got %q, want %q", got.Name, got.Keywords, used)
	}
}

// sameToClients converts an mbox after Dovecot has served it, as the spool of
// a live server has been, and demands that Dovecot serves the Maildir alike.
func sameToClients(t *testing.T, path, zone string) (r *Report, refused string) {
	t.Helper()
	before := serveMbox(t, path, zone)
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, path, "dovecot")
	o.Scan.Zone = loc
	r, err = Convert(context.Background(), o)
	if reason := before.imap.Mailbox("INBOX").Error; reason != "" {
		var format *mbox.FormatError
		if !errors.As(err, &format) {
			t.Errorf("Dovecot refuses it (%s); the conversion says %v", reason, err)
		}
		return nil, reason
	}
	if err != nil {
		t.Fatalf("Dovecot shows %d messages; the conversion says %v", len(before.pop3), err)
	}
	compare(t, serveMaildir(t, o.Dest, zone), before)
	return r, ""
}
