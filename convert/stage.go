package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// stage is the staging Maildir of one account, open for the length of a chunk.
type stage struct {
	Site
	account account.Account
	parent  *safefs.Dir // that the Maildir is to lie in
	staging *maildir.Staging
	record  journal.Staging
	fresh   bool // made by this run, and not continued

	quarantine *journal.Quarantine // of the run; nil: only counted
	recall     *recall             // of this process; nil: nothing is remembered
}

// openStage opens the staging of an account: the recorded one, if it can be
// trusted, or a new one. Nothing is recorded yet.
func openStage(s Site, a account.Account, run string, syncs *syncSet) (*stage, error) {
	record, err := journal.ReadStaging(s.State, a.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	boot, err := journal.BootID()
	if err != nil {
		return nil, err
	}
	g := &stage{Site: s, account: a, record: record}
	err = asUser(a, func() error { return g.open(boot, syncs) })
	if err != nil {
		return nil, errors.Join(err, g.close())
	}
	g.record.Run, g.record.Time, g.record.BootID, g.record.Synced = run, time.Now(), boot, false
	return g, nil
}

func (g *stage) open(boot string, syncs *syncSet) (err error) {
	if g.parent, err = safefs.OpenFor(filepath.Dir(g.account.Maildir), g.account.UID); err != nil {
		return fmt.Errorf("the directory that the Maildir is to lie in: %w", err)
	}
	if err := syncs.enlist(g.parent); err != nil {
		return err
	}
	final := filepath.Base(g.account.Maildir)
	if place, ok := g.recorded(boot, final); ok {
		g.record.Dev = place.Dev
		g.staging, err = maildir.OpenStaging(g.parent, place, final, g.Folders)
		if err == nil && g.record.Layout != g.layout() { // its folders lie elsewhere
			if err := g.staging.Discard(); err != nil {
				return err
			}
		} else if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, maildir.ErrOtherStaging) {
			return err
		}
	}
	if err := g.dropLost(boot, final); err != nil {
		return err
	}
	name := g.record.Name
	if !isPromise(g.record) {
		name = maildir.StagingName(final) // the one that was recorded is gone, or not to be trusted
	}
	if g.staging, err = maildir.NewStagingAs(g.parent, name, final, g.Folders); err != nil {
		return err
	}
	g.fresh = true
	place, err := g.staging.Place()
	g.record = journal.Staging{
		User: g.account.Name, Parent: filepath.Dir(g.account.Maildir), Final: final,
		Name: place.Name, Dev: place.Dev, Ino: place.Ino, Layout: g.layout(),
	}
	return err
}

// layout is how folders lie in staging.
func (g *stage) layout() string { return fmt.Sprintf("%d %t", g.Folders.Layout, g.Folders.Escape) }

// promise is the record of a staging directory that is going to be made. Without
// it nobody would know whose a directory is of which the maker was killed before
// he could record it.
func promise(a account.Account, run, boot string) journal.Staging {
	final := filepath.Base(a.Maildir)
	return journal.Staging{
		User: a.Name, Parent: filepath.Dir(a.Maildir), Final: final, Name: maildir.StagingName(final),
		BootID: boot, Run: run, Time: time.Now(),
	}
}

func isPromise(r journal.Staging) bool { return r.Name != "" && r.Ino == 0 }

// dropLost removes the staging directory of an earlier run that was not synced
// when the host went down: it is worth nothing, and ours by its inode.
func (g *stage) dropLost(boot, final string) error {
	r := g.record
	if r.Name == "" || isPromise(r) || r.Final != final || r.Parent != filepath.Dir(g.account.Maildir) || r.Synced || r.BootID == boot {
		return nil
	}
	info, err := g.parent.Lstat(r.Name)
	if err != nil || !info.IsDir() || idOf(info).ino != r.Ino {
		return nil
	}
	return g.parent.RemoveAll(r.Name)
}

// recorded is the staging directory of an earlier run. What was not synced is
// worth nothing after a reboot.
func (g *stage) recorded(boot, final string) (maildir.Place, bool) {
	r := g.record
	place := maildir.Place{Name: r.Name, Dev: r.Dev, Ino: r.Ino}
	if r.Name == "" || isPromise(r) || r.Final != final || r.Parent != filepath.Dir(g.account.Maildir) || !r.Synced && r.BootID != boot {
		return place, false
	}
	if info, err := g.parent.Stat(); err == nil { // the device may have another number now, that of btrfs after each mount
		place.Dev = uint64(info.Sys().(*syscall.Stat_t).Dev)
	}
	return place, true
}

// busyTries is how often a round begins anew when a mailbox shrinks under it.
const busyTries = 3

// fill brings staging up to date with the live mailboxes.
func (g *stage) fill(ctx context.Context, pace Pace) (report *Round, err error) {
	err = asUser(g.account, func() error {
		pace.beNice()
		for try := 1; ; try++ {
			report, err = g.round(pace).live(ctx)
			var busy *Busy
			if try == busyTries || !errors.As(err, &busy) {
				return err
			}
		}
	})
	return report, err
}

func (g *stage) round(pace Pace) *round {
	r := newRound(g.Site, g.account, g.staging, pace)
	r.quarantine, r.recall = g.quarantine, g.recall
	return r
}

// live is a round over whatever mailboxes there are now.
func (r *round) live(ctx context.Context) (*Round, error) {
	found, err := findAccount(r.account)
	if err != nil {
		return nil, err
	}
	defer found.close()
	return r.run(ctx, found)
}

// verify reads back what was written, when it is durable, and counts the files.
func (g *stage) verify(ctx context.Context, pace Pace) (files int, err error) {
	err = asUser(g.account, func() (err error) {
		pace.beNice()
		files, err = g.round(pace).verify(ctx)
		return err
	})
	return files, err
}

// close leaves staging for another run.
func (g *stage) close() (err error) {
	if g.staging != nil {
		err = g.staging.Close()
	}
	if g.parent != nil {
		err = errors.Join(err, g.parent.Close())
	}
	return err
}

// discard throws staging away, and the record of it.
func (g *stage) discard() error {
	err := asUser(g.account, g.staging.Discard)
	if err == nil {
		err = journal.RemoveStaging(g.State, g.account.Name)
	}
	return errors.Join(err, g.parent.Close())
}

// syncSet syncs each filesystem that a chunk of users writes to, once. Its
// descriptors are older than the first write, so that no error is missed.
type syncSet struct {
	mu   sync.Mutex
	dirs map[uint64]*safefs.Dir // by device
}

// enlist is called before anything is written below dir.
func (s *syncSet) enlist(dir *safefs.Dir) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Dev)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirs[dev] != nil {
		return nil
	}
	own, err := dir.Again()
	if err != nil {
		return err
	}
	if s.dirs == nil {
		s.dirs = map[uint64]*safefs.Dir{}
	}
	s.dirs[dev] = own
	return nil
}

// sync makes everything durable, and returns the errors by device. A filesystem
// with an error lost something; whose it was is not known.
func (s *syncSet) sync() map[uint64]error {
	failed := map[uint64]error{}
	for dev, dir := range s.dirs {
		if err := dir.SyncFS(); err != nil {
			failed[dev] = err
		}
	}
	return failed
}

func (s *syncSet) close() {
	for _, dir := range s.dirs {
		dir.Close()
	}
}

// hostname is this host's name in locks and names; the users of it have a word
// for none.
func hostname() string {
	name, _ := os.Hostname()
	return name
}
