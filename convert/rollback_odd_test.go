package convert

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/mbox"
)

// oddBack migrates a user with such a spool and takes him back. Untouched, it is
// to the byte what it was; used, it passes the verification, which reads all of
// it as the server will. It reports false if the file is no mailbox to the
// profile.
func oddBack(t *testing.T, profile string, content []byte) bool {
	t.Helper()
	p, a := servedPlaceWith(t, content)
	var err error
	if p.site.Scan.Profile, err = mbox.ProfileByName(profile); err != nil {
		t.Fatal(err)
	}
	_, w := doRun(t, p, Migrate, a)
	if w.users[a.Name].Outcome != journal.Done {
		return false
	}
	_, w = doRun(t, p, Rollback, a)
	w.mustBe(t, a.Name, journal.Done, "")
	if t.Failed() {
		t.Log(w.users[a.Name].Text)
		return true
	}
	if now, err := os.ReadFile(a.Spool); err != nil || !bytes.Equal(now, content) {
		t.Errorf("%s: untouched, and other bytes: %d, were %d, %v; %s", profile, len(now), len(content), err, w.users[a.Name].Text)
	}
	clearAside(t, a)
	s := &stand{t, p, a}
	s.remove(s.parkedAs(a.Spool)) // its name may be that of the next one: both have the same second
	doRun(t, p, Migrate, a)
	list, err := filepath.Glob(s.inMaildir("cur", "*"))
	s.check(err)
	for i, path := range list {
		switch base, _, _ := strings.Cut(path, maildir.InfoPrefix); i % 4 {
		case 0:
			s.check(os.Rename(path, base+maildir.InfoPrefix+"DT"))
		case 2:
			s.check(os.Remove(path))
		}
	}
	for i, text := range []string{"Return-Path: <>\r\nSubject: bounce\r\n\r\nFrom a Mon Jan  1 00:00:00 2024\r\n", "Status: RO\n\nno newline", "\n", "Content-Length: 3\n\nFrom here on\n"} {
		s.put(s.inMaildir("new", fmt.Sprintf("170000000%d.M1P1.host", i)), text)
	}
	_, w = doRun(t, p, Rollback, a)
	w.mustBe(t, a.Name, journal.Done, "")
	if t.Failed() {
		t.Logf("%s: %s", profile, w.users[a.Name].Text)
	}
	return true
}

// servedPlaceWith is one user with nothing but a spool.
func servedPlaceWith(t *testing.T, spool []byte) (*place, account.Account) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailferry-odd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "home")
	s := &stand{T: t}
	s.check(os.Chmod(dir, 0o755))
	s.check(os.Mkdir(home, 0o755))
	s.check(os.WriteFile(filepath.Join(home, "INBOX"), spool, 0o600))
	s.check(os.Chown(home, nobody, nobody))
	s.check(os.Chown(filepath.Join(home, "INBOX"), nobody, nobody))
	p := &place{SiteSummary: &mailgen.SiteSummary{Dir: dir}}
	p.site = Site{
		Scan: mbox.Options{Profile: mbox.Dovecot, Zone: time.UTC}, Folders: maildir.Folders{Layout: maildir.MaildirPP},
		Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, State: filepath.Join(dir, "state"), MinUID: 1000,
	}
	return p, p.account(t, mailgen.SiteUser{Name: "nobody", UID: nobody, GID: nobody, Home: home, Spool: filepath.Join(home, "INBOX")})
}

func TestMboxesWithEveryOddityComeBack(t *testing.T) {
	for name, o := range map[string]mailgen.Options{
		"plain":            {},
		"state":            {State: true},
		"state, and fresh": {State: true, Fresh: 3},
		"all oddities":     {Odd: mailgen.AllOdd},
		"all, with state":  {Odd: mailgen.AllOdd | mailgen.PseudoMessage, State: true, Fresh: 2},
		"CRLF file":        {Odd: mailgen.AllOdd | mailgen.CRLFFile},
		"no final newline": {Odd: mailgen.AllOdd | mailgen.NoFinalNewline, State: true},
		"many keywords":    {State: true, Keywords: 40},
	} {
		for _, profile := range mbox.ProfileNames() {
			t.Run(name+", "+profile, func(t *testing.T) {
				o.Seed, o.Messages = 77, 25
				o.Size = nil
				var b bytes.Buffer
				if _, err := mailgen.Generate(&b, o); err != nil {
					t.Fatal(err)
				}
				oddBack(t, profile, b.Bytes())
			})
		}
	}
}

func TestRealMboxesComeBack(t *testing.T) {
	for _, s := range specimens(t) {
		content, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		if len(content) > 1<<20 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			for _, profile := range []string{"dovecot", "uw"} {
				oddBack(t, profile, content)
			}
		})
	}
}
