package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// nobody is whom the Dovecot of the tests works as.
const nobody = 65534

// servedPlace is one user, whose mail a real Dovecot serves: a spool, and a tree of
// folders with names of all kinds.
func servedPlace(t *testing.T, seed uint64) (*place, account.Account) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailferry-served-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(home, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := mailgen.Tree(home, seed); err != nil {
		t.Fatal(err)
	}
	// Gone is what can't be the same: names that Maildir++ has not, names that
	// Dovecot reads in no mbox, keywords beyond the letters, and the UIDVALIDITY
	// of an empty mbox, which only an index holds.
	for _, name := range []string{"with.dot", "lists/v1.2", "Müll", "R&D", "notes.txt", "Archive/2023/Jan", "empty"} {
		if err := os.RemoveAll(filepath.Join(home, "mail", name)); err != nil {
			t.Fatal(err)
		}
	}
	err = filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &place{SiteSummary: &mailgen.SiteSummary{Dir: dir}}
	p.site = Site{
		Scan: mbox.Options{Profile: mbox.Dovecot, Zone: time.UTC}, Folders: maildir.Folders{Layout: maildir.MaildirPP},
		Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, State: filepath.Join(dir, "state"), MinUID: 1000,
	}
	a := p.account(t, mailgen.SiteUser{Name: "nobody", UID: nobody, GID: nobody, Home: home, Spool: filepath.Join(home, "INBOX")})
	return p, a
}

// Real sessions read, flag, expunge, copy and append between the rounds and
// before the cutover; what Dovecot serves from the Maildir in the end is what
// it served from the mboxes.
func TestWhatDovecotDidIsServedAfterTheCutover(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p, a := servedPlace(t, 300+seed)
			live := dovecottest.Location{Mail: "mbox:" + a.Folders[0] + ":INBOX=" + a.Spool}
			g := mustOpen(t, p, a)
			random := rand.New(rand.NewPCG(seed, 1))
			for range 5 {
				g.mustFill(t)
				if _, err := g.verify(context.Background(), Pace{}); err != nil {
					t.Fatal(err)
				}
				work(t, live, random)
			}
			before := served{imap: dovecottest.DumpIMAP(t, live), pop3: dovecottest.DumpPOP3(t, live)}
			if err := g.close(); err != nil {
				t.Fatal(err)
			}
			// The last delta finds what the session of the dump wrote.
			c := ready(t, p, a)
			if cut, err := c.do(context.Background()); err != nil || len(cut.Warnings) > 0 {
				t.Fatal(err, cut)
			}
			if authority, _ := stateOf(t, a); authority != semaphore.Maildir {
				t.Error(authority)
			}
			after := dovecottest.Location{Mail: "maildir:" + a.Maildir}
			compare(t, served{imap: dovecottest.DumpIMAP(t, after), pop3: dovecottest.DumpPOP3(t, after)}, before)
		})
	}
}

// work is a session of a user with time.
func work(t *testing.T, at dovecottest.Location, random *rand.Rand) {
	t.Helper()
	s := dovecottest.Start(t, at)
	defer s.Close()
	boxes := []string{"INBOX", "Sent", "Archive/2023/Feb", "lists/golang-nuts"}
	for range 6 {
		from, to := boxes[random.IntN(len(boxes))], boxes[random.IntN(len(boxes))]
		s.Command("SELECT %s", dovecottest.Quote(from))
		n := 1 + random.IntN(4)
		switch random.IntN(5) {
		case 0:
			s.Command(`STORE %d +FLAGS.SILENT (\Deleted)`, n)
			s.Command("EXPUNGE")
		case 1:
			s.Command(`STORE %d:* FLAGS.SILENT (\Answered $Forwarded)`, n)
		case 2:
			s.Command(`COPY %d %s`, n, dovecottest.Quote(to))
		case 3:
			s.Command(`STORE %d -FLAGS.SILENT (\Seen \Answered)`, n)
		case 4:
			text := fmt.Sprintf("From: a@example.org\r\nSubject: %d\r\n\r\nFrom here on\r\n", random.Int())
			s.Command("APPEND %s (\\Flagged) {%d+}\r\n%s", dovecottest.Quote(to), len(text), text)
		}
		s.Command("CHECK")
	}
}
