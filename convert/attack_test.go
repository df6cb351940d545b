package convert

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/attack"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// raidTime is how long a user rages: MAILFERRY_TEST_RAID, 5 s if it is not set.
func raidTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("MAILFERRY_TEST_RAID")
	if text == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// runLimit is how long a run over a handful of small mailboxes may take, with a
// hostile user in it; a run that takes longer hangs.
const runLimit = 40 * time.Second

// Users who swap, plant, move and destroy all that they can in their homes and
// at their spool files, from any moment of a run on, harm nobody: nothing is
// made, changed or read outside their own trees, and the others are moved as if
// they were not there.
func TestHostileUsersHarmNobody(t *testing.T) {
	for name, destroy := range map[string]bool{"swapping": false, "destroying": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 12, Seed: 81, Sticky: true, Load: mailgen.Load{
				Messages: func(r *rand.Rand) int { return 1 + r.IntN(12) },
				Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
			}})
			bait, err := attack.Lay(filepath.Dir(p.Dir), 61999, 61999)
			if err != nil {
				t.Fatal(err)
			}
			defer bait.Close()
			c := &raided{place: p, bait: bait, hostile: p.accounts[:9], honest: p.accounts[9:], tally: attack.Tally{}, outcomes: map[string]int{}}
			for i := range c.hostile[:6] {
				inHome(t, &c.hostile[i])
			}
			c.outside = c.others(t)
			runs := c.run(t, raidTime(t)/2, destroy)
			t.Logf("%d runs, outcomes %v; attacks %v", runs, c.outcomes, c.tally)
			harm, err := bait.Harm(filepath.Join(p.Dir, "home"), filepath.Join(p.Dir, "spool"))
			if err != nil {
				t.Fatal(err)
			}
			if harm = slices.DeleteFunc(harm, isHisRight); len(harm) > 0 {
				t.Errorf("harm: %q", harm)
			}
			for _, diff := range c.outside.Diff(c.others(t)) {
				t.Errorf("outside: %s", diff)
			}
			for _, a := range c.hostile {
				mustOwnAll(t, a)
			}
			_, w := doRun(t, p, Migrate, c.honest...)
			for _, a := range c.honest {
				w.mustBe(t, a.Name, journal.Done, "")
				mustBeMoved(t, p, a)
			}
		})
	}
}

// isHisRight is no harm: what everybody may read and write was looked at by the
// user's identity through a hard link of his, to find that it is no dotlock and
// no list. Had any of it come into his Maildir, it would be told as copied.
func isHisRight(harm string) bool { return strings.HasPrefix(harm, "open/shared was read ") }

// inHome moves a user's INBOX into his home, where all names are his.
func inHome(t *testing.T, a *account.Account) {
	t.Helper()
	spool := filepath.Join(a.Home, "mbox")
	if err := os.Rename(a.Spool, spool); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	a.Spool = spool
}

// raided is a place with hostile users.
type raided struct {
	*place
	bait            *attack.Bait
	hostile, honest []account.Account
	outside         mailgen.SnapshotTree
	outcomes        map[string]int // of the hostile, by verb and reason
	tally           attack.Tally
}

// others looks at all that is not the hostile users': at the mail of the honest
// and at everything beside the homes.
func (c *raided) others(t *testing.T) mailgen.SnapshotTree {
	t.Helper()
	all, err := mailgen.Snapshot(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	kept := mailgen.SnapshotTree{}
	for path, e := range all {
		ours := isOurs(path) || strings.HasPrefix(path, "semaphores/") || strings.HasPrefix(path, "spool/.attack-")
		for _, a := range c.hostile {
			ours = ours || strings.HasPrefix(path, "home/"+a.Name) || strings.HasPrefix(path, "spool/"+a.Name)
		}
		if e.Mode.IsDir() { // staging came and went
			e.MTime, e.Links, e.Size = time.Time{}, 0, 0
		}
		if !ours {
			kept[path] = e
		}
	}
	return kept
}

// run lets the hostile users rage in turn, while precopies and migrations go
// over them and precopies over the honest. It returns the number of runs.
func (c *raided) run(t *testing.T, long time.Duration, destroy bool) (runs int) {
	t.Helper()
	random := rand.New(rand.NewPCG(81, 0))
	for deadline := time.Now().Add(long); time.Now().Before(deadline); runs++ {
		a := c.hostile[runs%len(c.hostile)]
		delay := time.Duration(random.IntN(60)-10) * time.Millisecond
		raid := func() *attack.Attack { return c.raid(a, destroy, uint64(runs)) }
		if runs/len(c.hostile)%2 == 0 {
			c.once(t, Precopy, append([]account.Account{a}, c.honest...), delay, raid)
		} else {
			c.once(t, Migrate, []account.Account{a}, delay, raid)
		}
		c.back(t, a)
	}
	return runs
}

// back puts a user who was moved back to mbox, with as much of his mail as he
// has left, to be moved once more.
func (c *raided) back(t *testing.T, a account.Account) {
	t.Helper()
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := sem.Meta()
	if state, serr := sem.Get(); err != nil || serr != nil || state != semaphore.Maildir {
		return
	}
	if err := errors.Join(sem.Set(semaphore.Mbox, semaphore.Meta{Epoch: meta.Epoch + 1}), os.RemoveAll(a.Maildir)); err != nil {
		t.Fatal(err)
	}
	journal.RemoveStaging(c.site.State, a.Name)
	for _, path := range []string{a.Spool, filepath.Join(a.Folders[0], "*")} {
		list, _ := filepath.Glob(path + ".mailferry-*")
		for _, parked := range list {
			if live, ok := unparked(parked); ok {
				os.Rename(parked, live)
			}
		}
	}
}

// raid begins an attack. In a sticky directory nobody can remove his hard link
// to what is another's, so that none is planted there.
func (c *raided) raid(a account.Account, destroy bool, seed uint64) *attack.Attack {
	target := attack.Target{
		UID: a.UID, GID: a.GID, Roots: []string{a.Home, a.Folders[0]}, Bait: c.bait, Destroy: destroy, Seed: seed,
		Plant: []string{".mailstate", ".mailstate.lock", "Maildir", "mbox", "mbox.lock", "Sent.lock", "cur", manifestName, mailboxName, "dovecot-uidlist"},
	}
	if filepath.Dir(a.Spool) != a.Home {
		target.Roots, target.Plant, target.Threads = append(target.Roots, filepath.Dir(a.Spool)), nil, 1
	}
	return attack.Start(target)
}

// once is a run, in which a raid begins after some time. It must end without a
// fault that concerns all.
func (c *raided) once(t *testing.T, verb Verb, accounts []account.Account, delay time.Duration, raid func() *attack.Attack) {
	t.Helper()
	r, w := newTestRun(t, c.place, verb)
	r.HoldLimit = time.Second
	ended := make(chan error, 1)
	go func() {
		summary, err := r.Do(context.Background(), accounts)
		ended <- errors.Join(err, r.Journal.Finish(*summary))
	}()
	time.Sleep(delay)
	begun := raid()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	case <-time.After(runLimit):
		panic("a run hangs")
	}
	tally, err := begun.Stop()
	if err != nil {
		t.Error(err)
	}
	for move, n := range tally {
		c.tally[move] += n
	}
	for i, a := range accounts {
		u := w.users[a.Name]
		if i == 0 {
			c.outcomes[string(verb)+" "+u.Outcome+" "+u.Reason]++
			if strings.Contains(u.Text, "bug:") {
				t.Errorf("%s: %s", a.Name, u.Text)
			}
			continue
		}
		if u.Outcome != journal.Done {
			t.Errorf("%s: %s: %s, %q: %s", verb, a.Name, u.Outcome, u.Reason, u.Text)
		}
	}
}

// mustOwnAll demands that root has made nothing in a user's home.
func mustOwnAll(t *testing.T, a account.Account) {
	t.Helper()
	err := filepath.WalkDir(a.Home, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); st.Uid == 0 {
			t.Errorf("%s belongs to root, mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Hard links to files of others, which the owner of staging can put there,
// are neither written nor taken for ours.
func TestHardLinksInStagingAreNotUsed(t *testing.T) {
	for _, name := range []string{manifestName, mailboxName, "dovecot-uidlist", "dovecot-keywords", "subscriptions", "cur"} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 83, Load: mailgen.Load{
				Messages: func(r *rand.Rand) int { return 3 }, Size: func(r *rand.Rand) int { return mailgen.MinSize },
			}})
			a := p.accounts[0]
			doRun(t, p, Precopy, a)
			foreign := filepath.Join(filepath.Dir(p.Dir), "foreign")
			if err := errors.Join(os.WriteFile(foreign, nil, 0o600), os.Chown(foreign, 61999, 61999), os.Chmod(foreign, 0o666)); err != nil {
				t.Fatal(err)
			}
			target := filepath.Join(stagingOf(t, a), name)
			if name == "cur" { // a message
				entries, err := os.ReadDir(target)
				if err != nil || len(entries) == 0 {
					t.Fatal(err)
				}
				target = filepath.Join(target, entries[0].Name())
			}
			os.Remove(target)
			if err := os.Link(foreign, target); err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(foreign)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range use(t, p.Users[0], 5) {
				if _, err := l.Deliver(); err != nil {
					t.Fatal(err)
				}
			}
			_, w := doRun(t, p, Precopy, a)
			t.Log(w.users[a.Name].Outcome, w.users[a.Name].Reason, w.users[a.Name].Text)
			after, err := os.Stat(foreign)
			if err != nil || after.Size() != 0 || !after.ModTime().Equal(before.ModTime()) || after.Mode() != before.Mode() {
				t.Errorf("the foreign file has %d bytes, mode %v, %v", after.Size(), after.Mode(), err)
			}
			_, w = doRun(t, p, Migrate, a)
			w.mustBe(t, a.Name, journal.Done, "")
			mustBeMoved(t, p, a)
		})
	}
}
