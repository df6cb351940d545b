package convert

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
)

// A user of any size, with all that mailboxes of real life have.
func TestAuditCountsExactlyWhatClientsDid(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 100 + seed, FirstUID: dovecottest.UID, Load: mailgen.Load{
				Messages: func(r *rand.Rand) int { return r.IntN(60) },
				Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
			}})
			a := p.accounts[0]
			convertNow(t, p, a)
			u := &movedUser{spot: spot{t, a.Maildir}, site: p.site, a: a, loc: locationOf(a)}
			u.expect(u.use(rand.New(rand.NewPCG(seed, 1))))
		})
	}
}

// use does to all mailboxes what clients do, and returns what the audit should
// count.
func (u *movedUser) use(random *rand.Rand) map[string]AuditCounts {
	u.Helper()
	dump := dovecottest.DumpIMAP(u, u.loc)
	s := dovecottest.Start(u, u.loc)
	s.Command("CREATE elsewhere")
	want := map[string]AuditCounts{}
	for _, box := range dump.Mailboxes {
		if !box.Selectable {
			continue
		}
		c := AuditCounts{Messages: len(box.Messages)}
		s.Command("SELECT %s", dovecottest.Quote(box.Name))
		for _, m := range box.Messages {
			switch random.IntN(8) {
			case 0:
				c.Deleted++
				s.Command(`UID STORE %d +FLAGS (\Deleted)`, m.UID)
				s.Command("UID EXPUNGE %d", m.UID)
				continue
			case 1:
				c.Moved++
				s.Command("UID MOVE %d elsewhere", m.UID)
				continue
			case 2:
				c.Reflagged++
				sign := "+"
				if slices.Contains(m.Flags, `\Flagged`) {
					sign = "-"
				}
				s.Command(`UID STORE %d %sFLAGS (\Flagged)`, m.UID, sign)
			}
			c.Kept++
		}
		for range random.IntN(4) {
			c.Came++
			s.Command("APPEND %s {6}\r\na: b\r\n", dovecottest.Quote(box.Name))
		}
		var parts []string
		if box.Name != "INBOX" {
			parts = strings.Split(box.Name, "/")
		}
		dir, err := u.site.Folders.Dir(parts)
		u.check(err)
		want[dir] = c
	}
	return want
}

// While clients flag and agents deliver, nothing that was there at the flip
// seems to be missing.
func TestAuditOfAMaildirInMotion(t *testing.T) {
	var inbox strings.Builder
	const messages = 300
	for i := range messages {
		fmt.Fprintf(&inbox, "From a@example.org Mon Jan  2 03:04:05 2023\nSubject: %d\n\nbody of %d\n\n", i, i)
	}
	u := newMovedUser(t, inbox.String())
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- u.disturb(stop) }()
	var last AuditCounts
	for range 10 {
		r := u.audit()
		for _, d := range r.Differences {
			t.Error(d)
		}
		last = r.Mailboxes[0].AuditCounts
		if last.Kept != messages || last.Came != 0 && last.Messages != messages {
			t.Errorf("counts %v", last)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if last.Came == 0 || last.Reflagged == 0 {
		t.Errorf("nothing was in motion: %v", last)
	}
}

// disturb flags, unflags and delivers in bursts, and takes in what is new.
func (u *movedUser) disturb(stop chan struct{}) error {
	cur := filepath.Join(u.root, "cur")
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		case <-time.After(30 * time.Millisecond):
		}
		entries, err := os.ReadDir(cur)
		if err != nil {
			return err
		}
		for i := range 60 {
			name := entries[(n*37+i)%len(entries)].Name()
			unique, flags, _ := strings.Cut(name, ":2,")
			to := unique + ":2,S"
			if flags != "" {
				to = unique + ":2,"
			}
			if err := os.Rename(filepath.Join(cur, name), filepath.Join(cur, to)); err != nil {
				return err
			}
		}
		fresh := fmt.Sprintf("%d.M%dP1.host", time.Now().Unix(), n)
		if err := os.WriteFile(filepath.Join(u.root, "new", fresh), []byte("a: b\n\nnew\n"), 0o644); err != nil {
			return err
		}
		if n%2 == 0 {
			continue // it stays in new
		}
		if err := os.Rename(filepath.Join(u.root, "new", fresh), filepath.Join(cur, fresh+":2,")); err != nil {
			return err
		}
	}
}
