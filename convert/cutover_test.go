package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// ready is an account whose staging is filled, durable and verified.
func ready(t *testing.T, p *place, a account.Account) *cutover {
	t.Helper()
	syncs := &syncSet{}
	t.Cleanup(syncs.close)
	g, err := openStage(p.site, a, "run", syncs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close() })
	g.mustFill(t)
	for _, err := range syncs.sync() {
		t.Fatal(err)
	}
	if _, err := g.verify(context.Background(), Pace{}); err != nil {
		t.Fatal(err)
	}
	// Since he was enrolled, he has a mirror.
	if err := errors.Join(os.WriteFile(a.Mirror, []byte(semaphore.Mbox.Line()), 0o644), os.Chown(a.Mirror, a.UID, a.GID)); err != nil {
		t.Fatal(err)
	}
	return &cutover{stage: g, run: "run", limit: 10 * time.Second}
}

func stateOf(t *testing.T, a account.Account) (authority, mirror semaphore.State) {
	t.Helper()
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	if authority, err = sem.Get(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(a.Mirror)
	if err != nil {
		t.Fatal(err)
	}
	if mirror, err = semaphore.Parse(content); err != nil {
		t.Fatal(err)
	}
	return authority, mirror
}

func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Lstat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestACutoverMovesTheUser(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 21})
	for i, a := range p.accounts {
		c := ready(t, p, a)
		live := use(t, p.Users[i], 3)
		messages := 0
		for _, l := range live {
			if _, err := l.Deliver(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Reflag(2); err != nil {
				t.Fatal(err)
			}
			messages += len(l.Messages)
		}
		cut, err := c.do(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(cut.Warnings) > 0 || cut.Messages != messages || cut.Written != len(live) {
			t.Errorf("warnings %v, %d messages of %d, %d written", cut.Warnings, cut.Messages, messages, cut.Written)
		}
		if authority, mirror := stateOf(t, a); authority != semaphore.Maildir || mirror != semaphore.Maildir {
			t.Errorf("semaphore %s, mirror %s", authority, mirror)
		}
		for _, m := range p.Users[i].Mailboxes {
			if exists(t, m.Path) || exists(t, m.Path+".lock") {
				t.Errorf("%s or its dotlock is still there", m.Path)
			}
		}
		if exists(t, a.Gate) || exists(t, filepath.Join(a.Maildir, manifestName)) || exists(t, filepath.Join(a.Maildir, mailboxName)) {
			t.Error("the gate or a manifest is still there")
		}
		for _, path := range cut.Parked {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o600 {
				t.Errorf("%s: mode %o", path, info.Mode())
			}
			live, ok := unparked(path)
			if !ok {
				t.Errorf("%s is no parked name", path)
			}
			if err := os.Rename(path, live); err != nil { // for compare
				t.Fatal(err)
			}
		}
		p.compare(t, a, a.Maildir)
		t.Logf("hold %v", cut.Hold)
	}
}

// Before the flip every failure leaves the user on mbox, with all as it was.
func TestAFailedCutoverIsUndone(t *testing.T) {
	busy := func(t *testing.T, c *cutover) {
		dir, err := os.Open(filepath.Dir(c.account.Spool))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		held, err := mbox.Lock(context.Background(), int(dir.Fd()), filepath.Base(c.account.Spool), mbox.LockOptions{Fcntl: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { held.Release() })
	}
	for name, spoil := range map[string]func(*testing.T, *cutover){
		"the spool is locked": busy,
		"staging was altered": func(t *testing.T, c *cutover) {
			list, err := filepath.Glob(filepath.Join(c.staging.Path(), "cur", "*"))
			if err != nil || len(list) == 0 {
				t.Fatal(err)
			}
			if err := overwrite(list[0]); err != nil {
				t.Fatal(err)
			}
		},
		"a Maildir appeared": func(t *testing.T, c *cutover) {
			if err := os.MkdirAll(filepath.Join(c.account.Maildir, "cur"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"staging was replaced": func(t *testing.T, c *cutover) {
			if err := errors.Join(os.Rename(c.staging.Path(), c.staging.Path()+"x"), os.Mkdir(c.staging.Path(), 0o700)); err != nil {
				t.Fatal(err)
			}
		},
		"the gate is taken": func(t *testing.T, c *cutover) {
			if err := os.WriteFile(c.account.Gate, []byte("1"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(c.account.Gate, c.account.UID, c.account.GID); err != nil {
				t.Fatal(err)
			}
		},
		"a folder became a symlink": func(t *testing.T, c *cutover) {
			if err := errors.Join(os.Remove(c.account.Spool), os.Symlink("/etc/passwd", c.account.Spool)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 23})
			a := p.accounts[0]
			c := ready(t, p, a)
			if name == "the spool is locked" || name == "the gate is taken" {
				c.limit = time.Second
			}
			spoil(t, c)
			before, err := mailgen.Snapshot(p.Dir)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.do(context.Background())
			if err == nil {
				t.Fatal("it went through")
			}
			t.Log(err)
			if authority, mirror := stateOf(t, a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
				t.Errorf("semaphore %s, mirror %s", authority, mirror)
			}
			after, err := mailgen.Snapshot(p.Dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range mail(before).Diff(mail(after)) {
				t.Error(d)
			}
		})
	}
}

// mail leaves out of a snapshot what a cutover may change: staging, semaphores,
// the mirror, and the times of directories in which names come and go.
func mail(all mailgen.SnapshotTree) mailgen.SnapshotTree {
	kept := mailgen.SnapshotTree{}
	for path, e := range all {
		if e.Mode.IsDir() {
			e.MTime = time.Time{}
			e.Links, e.Size = 0, 0
		}
		if ok, _ := filepath.Match("semaphores/*", path); !ok && !isOurs(path) {
			kept[path] = e
		}
	}
	return kept
}

func isOurs(path string) bool {
	for ; path != "."; path = filepath.Dir(path) {
		if base := filepath.Base(path); base == ".mailstate" || base == "state" || len(base) > 9 && base[:9] == ".Maildir." {
			return true
		}
	}
	return false
}

// giant makes a message with a hole of so many bytes the last of an mbox.
func giant(path string, bytes int64) error {
	err := appendTo(path, late)
	info, serr := os.Stat(path)
	if err := errors.Join(err, serr); err != nil {
		return err
	}
	return os.Truncate(path, info.Size()+bytes)
}

func TestTheHoldLimitEndsTheReadingInsideAMessage(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 23})
	a := p.accounts[0]
	r, w := newTestRun(t, p, Migrate)
	r.HoldLimit = 300 * time.Millisecond
	var begun, over time.Time
	r.Around = &hooked{
		drain: func() error { begun = time.Now(); return giant(a.Spool, 1<<33) },
		abort: func() error { over = time.Now(); return nil },
	}
	finish(t, r, p.accounts)
	w.mustBe(t, a.Name, journal.Failed, reasonHold)
	if text := w.users[a.Name].Text; !strings.Contains(text, a.Spool) {
		t.Errorf("the mailbox is not named: %s", text)
	}
	if held := over.Sub(begun); held > 10*r.HoldLimit {
		t.Errorf("held for %v, with a limit of %v", held, r.HoldLimit)
	}
	if authority, mirror := stateOf(t, a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
		t.Errorf("semaphore %s, mirror %s", authority, mirror)
	}
	if exists(t, a.Maildir) || exists(t, a.Gate) || exists(t, a.Spool+".lock") {
		t.Error("the Maildir, the gate or a dotlock is there")
	}
}

// Within a message as between two, agents see that gate and locks are held.
func TestGateAndLocksAreKeptAliveInsideAMessage(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 23})
	a := p.accounts[0]
	c := ready(t, p, a)
	if err := giant(a.Spool, 64<<20); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	shown := []string{a.Gate, a.Spool + ".lock"}
	long := time.Now().Add(-time.Hour)
	enough := errors.New("they were shown often enough")
	beats := 0
	var err error
	if c.spoolGroup, err = spoolGroup(a); err != nil {
		t.Fatal(err)
	}
	err = c.asUser(func() error {
		if err := errors.Join(c.takeGate(ctx), c.lockAll(ctx)); err != nil {
			return err
		}
		messages := p.Users[0].Messages + 1
		r := c.round(c.pace)
		r.held, r.shown = true, time.Time{}
		r.alive = func() error {
			r.shown = time.Time{} // the time for the next has come
			for _, path := range shown {
				if err := os.Chtimes(path, long, long); err != nil {
					return err
				}
			}
			if err := c.refresh(); err != nil {
				return err
			}
			for _, path := range shown {
				if info, err := os.Stat(path); err != nil || !info.ModTime().After(long) {
					return fmt.Errorf("%s is of %v, %w", path, info, err)
				}
			}
			if beats++; beats > 3*messages {
				return enough
			}
			return nil
		}
		_, err := r.run(ctx, c.found)
		return errors.Join(err, c.release())
	})
	if !errors.Is(err, enough) {
		t.Errorf("shown %d times: %v", beats, err)
	}
	if err := c.tidy(); err != nil {
		t.Error(err)
	}
}

// What a power loss left of a staging directory is in no later run's way, and
// what only has its name is a stranger's.
func TestStagingOfAnotherBoot(t *testing.T) {
	for _, tt := range []struct {
		name         string
		record       func(*journal.Staging)
		there, taken bool // after the next precopy
	}{
		{"synced, is continued", func(*journal.Staging) {}, true, true},
		{"not synced, is removed", func(r *journal.Staging) { r.Synced = false }, false, false},
		{"not synced, of another inode, is left", func(r *journal.Staging) { r.Synced, r.Ino = false, r.Ino+1 }, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 23})
			s := &stand{t, p, p.accounts[0]}
			s.precopied()
			old := stagingOf(t, s.a)
			record, err := journal.ReadStaging(p.site.State, s.a.Name)
			s.check(err)
			record.BootID = "00000000-0000-0000-0000-000000000000"
			tt.record(&record)
			s.check(journal.WriteStaging(p.site.State, record))
			_, w := doRun(t, p, Precopy, s.a)
			w.mustBe(t, s.a.Name, journal.Done, "")
			now, err := journal.ReadStaging(p.site.State, s.a.Name)
			s.check(err)
			path := filepath.Join(now.Parent, now.Name)
			if exists(t, old) != tt.there || (path == old) != tt.taken {
				t.Errorf("staging is %s, was %s, which is there: %t", path, old, exists(t, old))
			}
			p.compare(t, s.a, path)
		})
	}
}
