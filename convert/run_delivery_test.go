package convert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// agent delivers to one user as an honest delivery agent does: it takes the
// gate, reads the semaphore, delivers where that says or defers.
type agent struct {
	a     account.Account
	inbox *mailgen.Live
	home  *os.File

	accepted []string // ids that went into Maildir/new
	deferred int
	moved    bool // the semaphore has said maildir
}

func newAgent(t *testing.T, u mailgen.SiteUser, a account.Account, seed uint64) *agent {
	t.Helper()
	home, err := os.Open(a.Home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	inbox, err := u.Mailboxes[0].Live(seed)
	if err != nil {
		t.Fatal(err)
	}
	return &agent{a: a, inbox: inbox, home: home}
}

// deliver delivers one message; deferred reports that it has to be tried again.
func (g *agent) deliver(ctx context.Context) (deferred bool, err error) {
	gate, err := semaphore.TakeGate(ctx, int(g.home.Fd()), filepath.Base(g.a.Gate), semaphore.GateOptions{Timeout: 20 * time.Second})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, gate.Release()) }()
	sem, err := semaphore.For(g.a.Semaphore)
	if err != nil {
		return false, err
	}
	switch state, err := sem.Get(); {
	case err != nil:
		return false, err
	case state == semaphore.Hold:
		g.deferred++
		return true, nil
	case state == semaphore.Maildir:
		g.moved = true
		return false, g.intoMaildir()
	case g.moved:
		return false, errors.New("the semaphore says mbox again")
	}
	_, err = g.inbox.Deliver()
	return false, err
}

// intoMaildir delivers as maildir(5) says, as the user.
func (g *agent) intoMaildir() error {
	id := fmt.Sprintf("gen-aaaa-%d", len(g.accepted))
	name := fmt.Sprintf("%d.M%dP%dQ%d.agent", time.Now().Unix(), time.Now().Nanosecond()/1000, os.Getpid(), len(g.accepted))
	err := safefs.AsUser(safefs.Identity{UID: g.a.UID, GID: g.a.GID}, func() error {
		tmp := filepath.Join(g.a.Maildir, "tmp", name)
		if err := os.WriteFile(tmp, []byte("Subject: new\n\nId: "+id+"\n"), 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(g.a.Maildir, "new", name))
	})
	if err == nil {
		g.accepted = append(g.accepted, id)
	}
	return err
}

// Every message that an agent accepted while its user was being moved is in
// his Maildir once: in cur if it was in the mbox, in new if it came behind.
func TestDeliveriesGoOnDuringARun(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 16, Seed: 41, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 1 + r.IntN(30) },
		Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
	}})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var agents []*agent
	var work sync.WaitGroup
	for i, u := range p.Users {
		if len(u.Mailboxes) == 0 || u.Mailboxes[0].Name != "INBOX" {
			continue
		}
		g := newAgent(t, u, p.accounts[i], uint64(i))
		agents = append(agents, g)
		random := rand.New(rand.NewPCG(41, uint64(i)))
		work.Go(func() {
			for ctx.Err() == nil {
				if _, err := g.deliver(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("%s: delivery: %v", g.a.Name, err)
					return
				}
				time.Sleep(time.Duration(1+random.IntN(30)) * time.Millisecond)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	doRun(t, p, Precopy, p.accounts...)
	for try := 0; ; try++ {
		summary, w := doRun(t, p, Migrate, p.accounts...)
		if summary.Users.Done == len(p.accounts) {
			break
		}
		for name, u := range w.users {
			if u.Outcome != journal.Done {
				t.Logf("%s: %s: %s", name, u.Reason, u.Text)
			}
		}
		if try == 4 {
			t.Fatalf("after %d runs %+v", try+1, summary.Users)
		}
	}
	time.Sleep(100 * time.Millisecond)
	stop()
	work.Wait()
	fresh, deferred := 0, 0
	for _, g := range agents {
		if !g.moved {
			t.Errorf("%s: no delivery saw the Maildir", g.a.Name)
		}
		g.mustHaveAll(t, p)
		fresh += len(g.inbox.Messages)
		deferred += g.deferred
	}
	t.Logf("%d messages went through INBOXes, %d deliveries were deferred", fresh, deferred)
}

// mustHaveAll accounts for every message of INBOX.
func (g *agent) mustHaveAll(t *testing.T, p *place) {
	t.Helper()
	count := map[string]int{}
	for path, id := range allIDs(t, g.a.Maildir) {
		if filepath.Base(filepath.Dir(filepath.Dir(path))) != filepath.Base(g.a.Maildir) {
			continue // a folder
		}
		sub := filepath.Base(filepath.Dir(path))
		count[sub+" "+id]++
		if sub == "new" {
			if err := os.Remove(path); err != nil { // for compare
				t.Fatal(err)
			}
		}
	}
	want := map[string]int{}
	for _, m := range g.inbox.Messages {
		want["cur "+m.ID]++
	}
	for _, id := range g.accepted {
		want["new "+id]++
	}
	for id := range maps.Keys(want) {
		if count[id] != 1 {
			t.Errorf("%s: %s is there %d times", g.a.Name, id, count[id])
		}
		delete(count, id)
	}
	if len(count) > 0 {
		t.Errorf("%s: unknown messages %v", g.a.Name, count)
	}
	mustBeMoved(t, p, g.a)
}

// allIDs finds the ids of the messages of a Maildir, by file.
func allIDs(t *testing.T, root string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	dirs, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(root, ".*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, hidden...) {
		if base := filepath.Base(dir); base != "cur" && base != "new" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			ids[path] = idOfMessage(string(content))
			if ids[path] == "" {
				t.Errorf("%s has no id", path)
			}
		}
	}
	return ids
}

// idOfMessage is the line that begins the text; of a text that is encoded, the
// Message-ID.
func idOfMessage(content string) string {
	for _, line := range []*regexp.Regexp{textID, headerID} {
		if found := line.FindStringSubmatch(content); found != nil {
			return found[1]
		}
	}
	return ""
}

var (
	textID   = regexp.MustCompile(`(?m)^Id: (gen-[0-9a-f]+-\d+)`)
	headerID = regexp.MustCompile(`(?m)^Message-ID: <(gen-[0-9a-f]+-\d+)@`)
)
