package convert

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/journal"
)

func mboxesOf(a account.Account) dovecottest.Location {
	return dovecottest.Location{Mail: "mbox:" + a.Folders[0] + ":INBOX=" + a.Spool}
}

func maildirOf(a account.Account) dovecottest.Location {
	return dovecottest.Location{Mail: "maildir:" + a.Maildir}
}

func dump(t *testing.T, at dovecottest.Location) served {
	t.Helper()
	return served{imap: dovecottest.DumpIMAP(t, at), pop3: dovecottest.DumpPOP3(t, at)}
}

// What a real server serves from the mboxes after a rollback is what it served
// from the Maildir, whatever was done there; and so is it after the next
// migration.
func TestWhatDovecotServedFromTheMaildirItServesFromTheMboxes(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p, a := servedPlace(t, 500+seed)
			random := rand.New(rand.NewPCG(seed, 2))
			for range 2 {
				_, w := doRun(t, p, Migrate, a)
				w.mustBe(t, a.Name, journal.Done, "")
				s := dovecottest.Start(t, maildirOf(a))
				for _, command := range []string{"CREATE Made/Below", "CREATE Top", "DELETE dos"} {
					s.Try("%s", command) // the second time there is nothing to do
				}
				s.Command("SUBSCRIBE Made/Below")
				text := "Return-Path: <sender@example.org>\r\nSubject: made\r\n\r\nbody\r\nFrom here on\r\n"
				s.Command("APPEND Made/Below (\\Seen $Label1) {%d+}\r\n%s", len(text), text)
				s.Close()
				for range 6 {
					work(t, maildirOf(a), random)
				}
				before := dump(t, maildirOf(a))
				_, w = doRun(t, p, Rollback, a)
				wentBack(t, p, w, a)
				sameBack(t, dump(t, mboxesOf(a)), before)
				if t.Failed() {
					t.Log(w.users[a.Name].Text)
					return
				}
				clearAside(t, a)
			}
		})
	}
}

// sameBack is compare for the way back: an mbox lists all keywords that it ever
// had.
func sameBack(t *testing.T, got, want served) {
	t.Helper()
	for _, d := range dovecottest.Diff(got.imap, want.imap, "keywords") {
		t.Error("IMAP:", d)
	}
	if !slices.Equal(got.pop3, want.pop3) {
		t.Errorf("POP3: got %+v, want %+v", got.pop3, want.pop3)
	}
}

// clearAside removes what rollbacks have set aside or taken out of the folders, as
// retire does.
func clearAside(t *testing.T, a account.Account) {
	t.Helper()
	list, err := filepath.Glob(a.Maildir + ".mailferry-*")
	cleared, _ := filepath.Glob(filepath.Join(a.Home, ".mail.mailferry-*")) // a good pattern
	for _, path := range append(list, cleared...) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
