package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// Recovered tells what was done for a user whom a run had left in the middle of
// something.
type Recovered struct {
	User string
	Did  string // "" if there was nothing to do
	Held bool   // the dead run had held him: the host is to be told how that ended, if it did
	Err  error  // what could not be done; everything is as it was found
}

// Recover finishes or undoes what a killed run has left of an account's cutover,
// rollback, sweep or sweep back: see State of a user in doc.go. A mirror that still
// says hold is made to say what the semaphore says. The caller holds the run lock,
// so that no other run is at work.
func (s Site) Recover(a account.Account, record journal.Staging) Recovered {
	r := &recovery{Site: s, account: a, record: record}
	ctx := context.Background() // once begun, it goes to its end: in the middle, mail waits
	swept, unswept := s.recoverSweep(ctx, a)
	did, err := r.do()
	late, unbrought := s.recoverBack(ctx, a)
	if swept == "" {
		swept = late
	}
	if did == "" {
		did, swept = swept, ""
	}
	if swept != "" {
		did += "; " + swept
	}
	return Recovered{a.Name, did, r.held, errors.Join(unswept, err, unbrought)}
}

type recovery struct {
	Site
	account account.Account
	record  journal.Staging // zero if there is none
	sem     *semaphore.Semaphore
	held    bool             // by the dead run
	born    map[string]int64 // of the mboxes that are recorded as parked, by the path that they had; 0: unknown
}

func (r *recovery) do() (did string, err error) {
	if r.sem, err = semaphore.For(r.account.Semaphore); err != nil {
		return "", err
	}
	state, err := r.sem.Get()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // not enrolled
	}
	if err != nil {
		return "", err
	}
	meta, err := r.sem.Meta()
	if err != nil {
		return "", err
	}
	if isPromise(r.record) {
		if err := r.breakPromise(); err != nil {
			return "", err
		}
		r.record = journal.Staging{}
	}
	switch {
	case state == semaphore.Hold && meta.Run == "":
		return "", nil // an admin's
	case state == semaphore.Hold && meta.Host != hostname() && !meta.Expired(time.Now()):
		return "", fmt.Errorf("he is held by run %s, of host %q, until %s: left alone until then; run mailferry recover again", meta.Run, meta.Host, meta.Deadline.Local().Format(time.DateTime))
	}
	r.held = r.wasHeld(state, meta)
	if err := r.isInTable(state, meta); err != nil {
		return "", err
	}
	if did, handled, err := r.undoRollback(state, meta); handled || err != nil {
		return did, err
	}
	switch {
	case state == semaphore.Hold:
		return r.undo()
	case r.record.Name != "" && state == semaphore.Maildir:
		if err := r.forth(); err != nil {
			return "", err
		}
		err := errors.Join(r.unprepare(meta), journal.RemoveStaging(r.State, r.account.Name))
		return "his cutover was finished", errors.Join(err, r.sweepLate())
	}
	return "", asUser(r.account, func() error { return r.mirror(state) })
}

// isInTable refuses what no step of ours leaves: somebody has moved mail by hand,
// or it was lost.
func (r *recovery) isInTable(state semaphore.State, meta semaphore.Meta) error {
	if state == semaphore.Mbox {
		return nil
	}
	t := trace{}
	if err := asUser(r.account, func() error { return t.maildirOf(r.account, r.record) }); err != nil {
		return err
	}
	fits := !t.maildir || t.published
	if state == semaphore.Maildir || meta.Before() == semaphore.Maildir {
		fits = t.maildir
	}
	if fits {
		return nil
	}
	if err := asUser(r.account, func() error { return t.mailOf(r.account) }); err != nil {
		return err
	}
	return fmt.Errorf("no step of mailferry leaves a user like this: the semaphore %q says %s, before that %s; %v (Maildir %q, spool %q). Nothing was touched; put his mail where it belongs, and say where: mailferry semaphore set %s mbox, or maildir",
		r.account.Semaphore, state, meta.Before(), t, r.account.Maildir, r.account.Spool, r.account.Name)
}

// sweepLate takes what came to the old places since a dead run flipped.
func (r *recovery) sweepLate() error {
	ctx := context.Background() // as in Recover; locks are waited for unlockLimit
	swept, err := r.Sweep(ctx, r.account, SweepOptions{Run: r.record.Run, Alone: true, Wait: unlockLimit})
	if err != nil {
		return fmt.Errorf("mail that came to the old place is still there: %w", err)
	}
	for _, d := range swept.Differences {
		err = errors.Join(err, fmt.Errorf("%q %s", d.Path, d.Reason))
	}
	return err
}

// breakPromise removes a staging directory of which the maker was killed before
// he knew its inode.
func (r *recovery) breakPromise() error {
	err := asUser(r.account, func() error {
		parent, err := safefs.OpenFor(r.record.Parent, r.account.UID)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer parent.Close()
		return parent.RemoveAll(r.record.Name)
	})
	if err != nil {
		return err
	}
	return journal.RemoveStaging(r.State, r.account.Name)
}

// started is when this process was: what is older is no live run's.
var started = time.Now()

// undo brings a held user back to mbox, unless the cutover lives: a run with
// another state directory may have set the hold. While it does, nobody else can
// prepare what it has prepared.
func (r *recovery) undo() (did string, err error) {
	free, err := exclude(r.sem)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, free()) }()
	state, err := r.sem.Get()
	if err != nil || state != semaphore.Hold {
		return "", err // it has come to its end meanwhile
	}
	meta, err := r.sem.Meta()
	if err != nil {
		return "", err
	}
	return "his cutover was undone", r.back(meta)
}

// mirror repairs a mirror that still says hold.
func (r *recovery) mirror(state semaphore.State) error {
	if r.account.Mirror == "" {
		return nil
	}
	dir, err := safefs.OpenFor(filepath.Dir(r.account.Mirror), r.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(r.account.Mirror)
	if err := semaphore.Sweep(dir.Fd(), time.Since(started), name, name+".lock"); err != nil {
		return err
	}
	now, err := semaphore.ReadMirror(dir.Fd(), name, r.account.UID, 0)
	if err != nil || now != semaphore.Hold || now == state {
		return nil // what is forged or broken is reported, and stays
	}
	return semaphore.WriteMirror(dir.Fd(), name, state)
}

// back ends a hold whose run is dead.
func (r *recovery) back(meta semaphore.Meta) error {
	if err := asUser(r.account, r.unpublish); err != nil {
		return err
	}
	// A lock that can't be had is another's by now, and no reason to hold on.
	r.unlock()
	if err := r.sem.Set(semaphore.Mbox, semaphore.Meta{Epoch: meta.Epoch + 1, Run: meta.Run}); err != nil {
		return err
	}
	return asUser(r.account, func() error { return r.mirror(semaphore.Mbox) })
}

// unprepare removes what a dead cutover had made ready for the semaphore.
func (r *recovery) unprepare(meta semaphore.Meta) (err error) {
	for _, state := range []semaphore.State{semaphore.Hold, semaphore.Mbox, semaphore.Maildir} {
		p, perr := r.sem.Prepare(state, semaphore.Meta{Epoch: meta.Epoch + 1, Run: meta.Run, Deadline: time.Now()})
		if perr == nil {
			perr = p.Discard()
		}
		err = errors.Join(err, perr)
	}
	return err
}

// place is the recorded staging directory, and the directory that it lies in.
func (r *recovery) place() (*safefs.Dir, maildir.Place, error) {
	parent, err := safefs.OpenFor(r.record.Parent, r.account.UID)
	if err != nil {
		return nil, maildir.Place{}, err
	}
	place := maildir.Place{Name: r.record.Name, Dev: r.record.Dev, Ino: r.record.Ino}
	if room, err := parent.Statfs(); err == nil {
		place.Dev = room.Dev // the device may have another number now, that of btrfs after each mount
	}
	return parent, place, nil
}

// unpublish makes a Maildir staging again that was published and not flipped
// to. Nobody used it: the semaphore never said so.
func (r *recovery) unpublish() error {
	if r.record.Name == "" {
		return nil
	}
	parent, place, err := r.place()
	if err != nil {
		return err
	}
	defer parent.Close()
	return maildir.Unpublish(parent, place, r.record.Final)
}

// DoRecover does what every run does first, and nothing else. The accounts are
// all that there may be.
func (r *Run) DoRecover(ctx context.Context, accounts []account.Account) (*journal.Summary, error) {
	r.summary = journal.Summary{End: EndDone}
	r.recover(ctx, accounts)
	r.summary.End = r.fault(ctx)
	return &r.summary, r.failure
}

// recover resolves what killed runs have left of any user, listed or not. The
// run lock is held, so that they are dead.
func (r *Run) recover(ctx context.Context, accounts []account.Account) {
	byName := map[string]account.Account{}
	for _, a := range accounts {
		byName[a.Name] = a
	}
	recorded := map[string]journal.Staging{}
	due := r.recorded(recorded)
	last := r.lastSteps()
	for _, name := range slices.Concat(due, slices.Collect(maps.Keys(last))) {
		if _, listed := byName[name]; !listed && r.Find != nil {
			if a, ok := r.Find(name); ok {
				byName[name] = a
			}
		}
	}
	var done []Recovered
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if a := byName[name]; a.Problem == nil && a.UID >= r.MinUID && ctx.Err() == nil {
			done = append(done, r.Recover(a, recorded[name]))
		}
	}
	for _, d := range done { // when nobody waits any more in a hold
		r.recovered(r.told(ctx, byName[d.User], d, last[d.User]))
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(due))) {
		switch a, found := byName[name]; {
		case !found && r.Find == nil: // nobody can tell who he is
		case !found:
			r.recovered(Recovered{User: name, Err: fmt.Errorf("the user database does not know him any more; when his mail is dealt with, remove his records below %q", r.State)})
		case a.Problem != nil:
			r.recovered(Recovered{User: name, Err: a.Problem})
		case a.UID < r.MinUID:
			r.recovered(Recovered{User: name, Err: fmt.Errorf("uid %d is below min-uid, %d", a.UID, r.MinUID)})
		}
	}
}

// recorded lists the users of whom something is recorded that has to come to an
// end, and their staging records.
func (r *Run) recorded(stagings map[string]journal.Staging) (users []string) {
	list, err := journal.ListStaging(r.State)
	for _, record := range list {
		stagings[record.User] = record
		users = append(users, record.User)
	}
	ways, werr := journal.ListRollback(r.State)
	for _, record := range ways {
		users = append(users, record.User)
	}
	sweeps, serr := journal.ListSweep(r.State)
	for _, record := range sweeps {
		users = append(users, record.User)
	}
	backs, berr := journal.ListSweepBack(r.State)
	for _, record := range backs {
		users = append(users, record.User)
	}
	if err := errors.Join(err, werr, serr, berr); err != nil {
		r.Watch.Note(fmt.Sprintf("records of what was under way: %v", err))
	}
	return users
}

// recovered tells of one.
func (r *Run) recovered(done Recovered) {
	if done.Err != nil {
		r.Watch.Note(fmt.Sprintf("%s: what an earlier run left could not be resolved: %v", done.User, done.Err))
		r.mu.Lock()
		defer r.mu.Unlock()
		r.Unresolved++
		r.fail(r.Journal.Log(journal.Event{User: done.User, Phase: "recover", Outcome: journal.Failed, Reason: done.Err.Error()}))
		return
	}
	if done.Did == "" {
		return
	}
	r.Watch.Note(fmt.Sprintf("%s: %s", done.User, done.Did))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail(r.Journal.Log(journal.Event{User: done.User, Phase: "recover", Outcome: journal.Done, Reason: done.Did}))
}
