package convert

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// place is a made-up server with its users enrolled.
type place struct {
	*mailgen.SiteSummary
	site     Site
	accounts []account.Account
}

// newPlace makes users up, whose ids need no entry anywhere. Their homes lie
// where every uid gets through.
func newPlace(t *testing.T, o mailgen.SiteOptions) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailferry-place-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := mailgen.Site(filepath.Join(dir, "site"), o)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{SiteSummary: sum}
	p.site = Site{
		Scan: mbox.Options{Profile: mbox.Dovecot}, Folders: maildir.Folders{Layout: maildir.MaildirPP, Escape: true},
		Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, State: filepath.Join(sum.Dir, "state"), MinUID: 1000,
	}
	for _, u := range sum.Users {
		p.accounts = append(p.accounts, p.account(t, u))
	}
	return p
}

func (p *place) account(t *testing.T, u mailgen.SiteUser) account.Account {
	t.Helper()
	a := account.Account{
		User:  account.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home},
		Spool: u.Spool, Folders: []string{filepath.Join(u.Home, "mail")}, Maildir: filepath.Join(u.Home, "Maildir"),
		Semaphore: filepath.Join(p.Dir, "semaphores", u.Name), Mirror: filepath.Join(u.Home, ".mailstate"), Gate: filepath.Join(u.Home, ".mailstate.lock"),
	}
	if err := os.MkdirAll(filepath.Dir(a.Semaphore), 0o755); err != nil {
		t.Fatal(err)
	}
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	if err := sem.Enroll(semaphore.Meta{Epoch: 1}); err != nil && !errors.Is(err, semaphore.ErrEnrolled) {
		t.Fatal(err)
	}
	return a
}

// compare holds a Maildir against an account's mailboxes by the other way of
// package convert, that of Verify.
func (p *place) compare(t *testing.T, a account.Account, dest string) {
	t.Helper()
	o := Options{Source: a.Folders[0], Inbox: a.Spool, Dest: dest, Folders: p.site.Folders, Scan: p.site.Scan, Jobs: 1, Progress: func(int64) {}, Total: func(int64) {}}
	report, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Differences {
		t.Error(d)
	}
	if report.Messages == 0 {
		t.Error("no message was compared")
	}
}

// use puts the mailboxes of a user to use.
func use(t *testing.T, u mailgen.SiteUser, seed uint64) (live []*mailgen.Live) {
	t.Helper()
	for i, m := range u.Mailboxes {
		l, err := m.Live(seed + uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		live = append(live, l)
	}
	return live
}

func (g *stage) mustFill(t *testing.T) *Round {
	t.Helper()
	r, err := g.fill(context.Background(), Pace{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustOpen(t *testing.T, p *place, a account.Account) *stage {
	t.Helper()
	g, err := openStage(p.site, a, "run", &syncSet{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close() })
	return g
}

// names lists the messages of a Maildir with what tells whether they are the
// same files.
func names(t *testing.T, root string) map[string]uint64 {
	t.Helper()
	list := map[string]uint64{}
	dirs, err := listFolders(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(root, dir, "cur"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			n, err := maildir.ParseName(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			list[filepath.Join(dir, n.Unique)] = idOf(info).ino
		}
	}
	return list
}

// Whatever happens to the mailboxes between two rounds, staging is equal to
// them after the second, and no message that stayed was written again.
func TestRoundsFollowTheMailboxes(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 5, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 5 + r.IntN(40) },
		Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
	}})
	for i, a := range p.accounts {
		t.Run(a.Name, func(t *testing.T) {
			g := mustOpen(t, p, a)
			live := use(t, p.Users[i], uint64(100*i))
			total := 0
			for _, l := range live {
				total += len(l.Messages)
			}
			if first := g.mustFill(t); first.Written != total || first.Messages != total {
				t.Errorf("first round: %d of %d messages written", first.Written, total)
			}
			random := rand.New(rand.NewPCG(7, uint64(i)))
			for range 12 {
				if random.IntN(2) == 0 {
					if _, err := g.verify(context.Background(), Pace{}); err != nil {
						t.Fatal(err)
					}
				}
				before := names(t, g.staging.Path())
				came, went := change(t, live, random)
				r := g.mustFill(t)
				if r.Written != came || r.Removed != went {
					t.Errorf("%d came and %d went: written %d, removed %d", came, went, r.Written, r.Removed)
				}
				p.compare(t, a, g.staging.Path())
				if _, err := g.verify(context.Background(), Pace{}); err != nil {
					t.Fatal(err)
				}
				kept := 0
				for name, ino := range names(t, g.staging.Path()) {
					if before[name] == ino {
						kept++
					}
				}
				if kept != len(before)-went {
					t.Errorf("%d of %d files stayed, %d went", kept, len(before), went)
				}
			}
		})
	}
}

// change does to mailboxes what a day does.
func change(t *testing.T, live []*mailgen.Live, random *rand.Rand) (came, went int) {
	t.Helper()
	for _, l := range live {
		switch random.IntN(5) {
		case 0:
			for range 1 + random.IntN(4) {
				if _, err := l.Deliver(); err != nil {
					t.Fatal(err)
				}
				came++
			}
		case 1:
			gone, err := l.Expunge(1 + random.IntN(3))
			if err != nil {
				t.Fatal(err)
			}
			went += len(gone)
		case 2:
			if _, err := l.Reflag(1 + random.IntN(5)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return came, went
}

// A mailbox that is at rest is not read again, and nothing is written for it.
func TestARoundOverMailboxesAtRestChangesNothing(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 9})
	g := mustOpen(t, p, p.accounts[0])
	for _, src := range p.Users[0].Mailboxes { // long ago
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(src.Path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Duration(racy) + 50*time.Millisecond) // ctime can't be set
	g.mustFill(t)
	if _, err := g.verify(context.Background(), Pace{}); err != nil {
		t.Fatal(err)
	}
	before, err := mailgen.Snapshot(g.staging.Path())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range p.Users[0].Mailboxes {
		evict(t, m.Path)
	}
	read := 0
	r, err := g.fill(context.Background(), Pace{Progress: func(int64) { read++ }})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range p.Users[0].Mailboxes {
		if n := resident(t, m.Path); n > 0 {
			t.Errorf("%d pages of %s were read", n, m.Path)
		}
	}
	after, err := mailgen.Snapshot(g.staging.Path())
	if err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(after); len(diff) > 0 {
		t.Errorf("changed: %q", diff)
	}
	if read > 0 || r.Messages != p.Users[0].Messages || r.Changes != (Changes{}) {
		t.Errorf("%d messages read; told of %d messages, want %d; changes %+v", read, r.Messages, p.Users[0].Messages, r.Changes)
	}
}

// What an interrupted round leaves is not trusted.
func TestAFolderInTheMiddleOfARoundIsBegunAnew(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 11})
	a := p.accounts[0]
	g := mustOpen(t, p, a)
	g.mustFill(t)
	root := g.staging.Path()
	for _, spoil := range []func(cur, file string) error{
		func(cur, file string) error { return os.Remove(filepath.Join(cur, "..", mailboxName)) },
		func(cur, file string) error {
			return errors.Join(os.WriteFile(filepath.Join(cur, "..", manifestName), []byte("1 2 3\n"), 0o600))
		},
		func(cur, file string) error { return os.WriteFile(filepath.Join(cur, "..", mailboxName), nil, 0o600) },
	} {
		cur := filepath.Join(root, "cur")
		entries, err := os.ReadDir(cur)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(spoil(cur, entries[0].Name()), os.WriteFile(filepath.Join(cur, entries[0].Name()), []byte("torn"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if r := g.mustFill(t); r.Written == 0 {
			t.Error("nothing was written anew")
		}
		p.compare(t, a, root)
	}
}

// Files of staging that its owner changes are found before they are published.
func TestVerifyFindsWhatWasChangedInStaging(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 13})
	for _, read := range []bool{false, true} {
		for name, spoil := range map[string]func(cur, file string) error{
			"a byte":      func(cur, file string) error { return overwrite(filepath.Join(cur, file)) },
			"a file gone": func(cur, file string) error { return os.Remove(filepath.Join(cur, file)) },
			"a file more": func(cur, file string) error {
				return os.WriteFile(filepath.Join(cur, "1.M1P1Q1.h,S=1,W=1:2,"), []byte("x"), 0o600)
			},
			"another flag": func(cur, file string) error { return os.Rename(filepath.Join(cur, file), filepath.Join(cur, file+"Z")) },
			"a symlink": func(cur, file string) error {
				return errors.Join(os.Remove(filepath.Join(cur, file)), os.Symlink("/etc/passwd", filepath.Join(cur, file)))
			},
			"a uidlist cut": func(cur, file string) error { return os.Truncate(filepath.Join(cur, "..", "dovecot-uidlist"), 60) },
		} {
			t.Run(fmt.Sprintf("%s, read back %t", name, read), func(t *testing.T) {
				g := mustOpen(t, p, p.accounts[0])
				g.mustFill(t)
				if read {
					if _, err := g.verify(context.Background(), Pace{}); err != nil {
						t.Fatal(err)
					}
				}
				cur := filepath.Join(g.staging.Path(), "cur")
				entries, err := os.ReadDir(cur)
				if err != nil {
					t.Fatal(err)
				}
				at := slices.IndexFunc(entries, func(e os.DirEntry) bool { return true })
				if err := spoil(cur, entries[at].Name()); err != nil {
					t.Fatal(err)
				}
				if _, err := g.verify(context.Background(), Pace{}); err == nil {
					t.Error("not found")
				} else {
					t.Log(err)
				}
				if err := g.discard(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// overwrite changes the first byte and leaves the time of the file.
func overwrite(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{'#'}, 0)
	return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// Dovecot takes the time at which a mailbox is first opened, and may keep that in
// its index alone: one of ours is none of those, and never goes back.
func TestAUIDVALIDITYOfOursIsNoneOfAServer(t *testing.T) {
	start := time.Now()
	later := uint32(start.AddDate(0, 6, 0).Unix()) // so late nobody cuts over what was precopied
	for _, tt := range []struct {
		name string
		was  *mailboxState
		want func(v uint32) bool
	}{
		{"the first time", nil, func(v uint32) bool { return v > later }},
		{"kept by the next round", &mailboxState{UIDValidity: 7, Guessed: true}, func(v uint32) bool { return v == 7 }},
		{"the mbox had one and lost it", &mailboxState{UIDValidity: 7}, func(v uint32) bool { return v > later }},
		{"the mbox had one of ours and lost it", &mailboxState{UIDValidity: later + 1<<30}, func(v uint32) bool { return v == later+1<<30+1 }},
	} {
		f := &filler{was: tt.was, round: &round{start: start}}
		if v := f.guess(); !tt.want(v) {
			t.Errorf("%s: %d", tt.name, v)
		}
	}
}
