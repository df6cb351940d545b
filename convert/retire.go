package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// Retirement ends the soak of a user: what was parked or set aside is deleted,
// after a fresh audit, and with it the cheap way back. The way back that remains
// makes From_ lines of those that were written down before.
//
//	semaphore maildir, soak over → sweep left nothing → nobody has it open → audit
//	→ From_ lines kept → looked at once more → delete
//
// While it is at work, nobody else can change the user's semaphore.
type retirement struct {
	Site
	account account.Account
	age     time.Duration // that what is deleted must have
	dry     bool

	soak journal.Soak
	sem  *semaphore.Semaphore
	list []retired
	done Retired
}

// Unready says why the soak of a user can't end yet. He is left as he was.
type Unready struct{ Why string }

func (e *Unready) Error() string { return e.Why }

func unready(format string, args ...any) error { return &Unready{fmt.Sprintf(format, args...)} }

// Retired tells what was deleted, or in a dry run would be.
type Retired struct {
	Paths   []string
	Bytes   int64 // of disk space that it frees
	Deleted int   // messages of the parked mboxes that lie in no folder: their user deleted them since
}

// Retire deletes what was parked so long ago, if the user's Maildir holds
// everything that is not explained by his use of it; else the error is an
// *Unready, and nothing was deleted. With any other error something may be. A
// cutover, rollback or admin at work is semaphore.ErrBusy.
func (s Site) Retire(ctx context.Context, a account.Account, age time.Duration, dry bool) (*Retired, error) {
	r := &retirement{Site: s, account: a, age: age, dry: dry}
	free, err := r.begin()
	if err != nil {
		return &r.done, err
	}
	err = r.do(ctx)
	return &r.done, errors.Join(err, free())
}

// begin keeps everybody else from changing the user's semaphore.
func (r *retirement) begin() (free func() error, err error) {
	switch a := r.account; {
	case a.Problem != nil:
		return nil, a.Problem
	case a.UID == 0 || a.UID < r.MinUID:
		return nil, fmt.Errorf("uid %d is below min-uid, %d: left alone", a.UID, r.MinUID)
	}
	if r.sem, err = semaphore.For(r.account.Semaphore); err != nil {
		return nil, err
	}
	return exclude(r.sem)
}

func (r *retirement) do(ctx context.Context) error {
	if err := r.state(); err != nil {
		return err
	}
	if err := r.old(); err != nil {
		return err
	}
	if err := r.look(); err != nil {
		return err
	}
	if len(r.list) > 0 {
		if err := r.audit(ctx); err != nil {
			return err
		}
	}
	if r.dry {
		for _, t := range r.list {
			r.done.add(t)
		}
		return nil
	}
	if len(r.list) > 0 {
		if err := r.keepFromLines(ctx); err != nil {
			return fmt.Errorf("writing From_ lines down, before which nothing is deleted: %w", err)
		}
		if err := r.look(); err != nil { // the audit took its time
			return err
		}
	}
	return r.removeAll(ctx)
}

func (d *Retired) add(t retired) {
	d.Paths = append(d.Paths, t.path)
	d.Bytes += t.bytes
}

// state demands that the user is on his Maildir, and nothing half-done.
func (r *retirement) state() error {
	state, err := r.sem.Get()
	if errors.Is(err, fs.ErrNotExist) {
		return unready("is not enrolled")
	}
	if err != nil {
		return err
	}
	if state != semaphore.Maildir {
		return unready("the semaphore says %s, not maildir", state)
	}
	for _, read := range []func() error{
		func() error { _, err := journal.ReadStaging(r.State, r.account.Name); return err },
		func() error { _, err := journal.ReadRollback(r.State, r.account.Name); return err },
		func() error { _, err := journal.ReadSweep(r.State, r.account.Name); return err },
		func() error { _, err := journal.ReadSweepBack(r.State, r.account.Name); return err },
	} {
		if err := read(); err == nil {
			return unready("a cutover, rollback or sweep has not come to its end: run mailferry recover first")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.soak, err = r.soakOf(r.account)
	return err
}

// soakOf is the record of a user's soak. If it is lost, it is made of the names
// of parked mboxes, as long as nothing was written to them since: nobody knows
// what came behind the flip.
func (s Site) soakOf(a account.Account) (journal.Soak, error) {
	soak, err := journal.ReadSoak(s.State, a.Name)
	if !errors.Is(err, fs.ErrNotExist) {
		return soak, err
	}
	soak = journal.Soak{User: a.Name, Maildir: a.Maildir}
	if soak.BootID, err = journal.BootID(); err != nil {
		return soak, err
	}
	err = asUser(a, func() error {
		found, err := findParked(a)
		if err != nil {
			return err
		}
		defer found.close()
		for _, src := range found.sources {
			p, err := unrecorded(src)
			if err != nil {
				return err
			}
			soak.Parked = append(soak.Parked, p)
			if name, _ := parseParked(p.Path); name.flip.After(soak.Flipped) {
				soak.Flipped = name.flip
			}
		}
		return nil
	})
	return soak, err
}

func unrecorded(src source) (journal.Parked, error) {
	dir, err := src.dir()
	if err != nil {
		return journal.Parked{}, err
	}
	defer dir.Close()
	info, err := dir.LstatRegular(src.file)
	if err != nil {
		return journal.Parked{}, err
	}
	name, _ := parseParked(src.file)
	if info.ModTime().After(name.flip) {
		return journal.Parked{}, unready("%q was written to at %s, and no record tells whether that is in the Maildir: look, and move it away", src.path, utc(info.ModTime()))
	}
	return journal.Parked{
		Mailbox: src.name(), Live: filepath.Join(filepath.Dir(src.path), name.live), Path: src.path,
		Dev: src.id.dev, Ino: src.id.ino, Mode: 0o600, Size: info.Size(), Taken: info.Size(),
	}, nil
}

// nameSlack is how much later than it was the name of a parked mbox may say that
// it was parked: who is moved, brought back and moved again has been quick (see
// freeTime).
const nameSlack = 5 * time.Second

// old demands that all has its age: one soak ends at once, or not at all.
func (r *retirement) old() error {
	var paths []string
	for _, p := range r.soak.Parked {
		paths = append(paths, p.Path)
	}
	for _, p := range r.soak.Aside {
		paths = append(paths, p.Path)
	}
	for _, path := range paths {
		name, ok := parseParked(filepath.Base(path))
		switch ripe := name.flip.Add(r.age); {
		case !ok:
			return unready("%q has no name that says since when it is parked: move it away", path)
		case ripe.After(time.Now().Add(nameSlack)):
			return unready("%q was parked at %s, and has to be %s old: it may go from %s on",
				path, utc(name.flip), ageText(r.age), utc(ripe))
		}
	}
	return nil
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ageText is an age in days, if it is one of whole days.
func ageText(age time.Duration) string {
	const day = 24 * time.Hour
	if age >= day && age%day == 0 {
		return fmt.Sprintf("%dd", age/day)
	}
	return age.String()
}

// audit demands that the Maildir holds what was parked, but for what its user
// has done since.
func (r *retirement) audit(ctx context.Context) error {
	report, err := r.Audit(ctx, r.account)
	if err != nil {
		return err
	}
	r.done.Deleted = report.Deleted
	parked := slices.ContainsFunc(r.soak.Parked, func(p journal.Parked) bool { return !isLate(p.Path) })
	switch {
	case len(report.Unparked) > 0:
		return unready("there is what may be mail at old paths, %q: see mailferry verify %s", report.Unparked, shellWord(r.account.Name))
	case report.Differing > 0:
		return unready("the audit finds %d differences: see mailferry verify %s", report.Differing, shellWord(r.account.Name))
	case parked && report.Note != "":
		return unready("could not be audited: he %s", report.Note)
	}
	for _, t := range r.list {
		if t.audited && !slices.ContainsFunc(report.Mailboxes, func(m *MailboxAudit) bool { return m.Path == t.path }) {
			return unready("%q could not be audited: see mailferry verify %s", t.path, shellWord(r.account.Name))
		}
	}
	return nil
}

func isLate(path string) bool {
	name, _ := parseParked(filepath.Base(path))
	return name.late
}

// notRetired is the outcome of an error. What lies where mail was parked, and is
// none, is the user's to explain, and no failure of the run.
func (c *chunk) notRetired(m *member, err error) {
	c.failed(m, err)
	var (
		notYet    *Unready
		irregular *safefs.Irregular
		untrusted *safefs.Untrusted
		unfit     *Unfit
	)
	switch {
	case errors.As(err, &notYet):
		m.Text = notYet.Why
	case errors.As(err, &irregular), errors.As(err, &untrusted), errors.As(err, &unfit):
	default:
		return
	}
	m.Outcome, m.Reason = journal.Skipped, reasonUnready
}

// retire ends the soak of a user of a chunk.
func (c *chunk) retire(ctx context.Context, m *member) {
	if m.account.Problem != nil {
		f := c.Inspector.Inspect(m.account).reason()
		m.Outcome, m.Reason, m.Text = journal.Skipped, f.Code, f.sentence()+"; "+f.Advice
		return
	}
	if !c.DryRun { // what came late is mail of his Maildir
		swept, err := c.Sweep(ctx, m.account, SweepOptions{Run: c.Journal.ID()})
		if err != nil {
			c.notRetired(m, err)
			return
		}
		for _, line := range swept.Lines() {
			c.Watch.Note(line)
		}
	}
	done, err := c.Retire(ctx, m.account, c.OlderThan, c.DryRun)
	m.Retired, m.Freed, m.Dry = done.Paths, done.Bytes, c.DryRun
	switch {
	case err != nil:
		c.notRetired(m, err)
	case len(done.Paths) == 0:
		m.Outcome, m.Already, m.Reason = journal.Done, true, "retired"
	default:
		m.Outcome = journal.Done
		if done.Deleted > 0 {
			m.Text = fmt.Sprintf("%d messages of the parked mboxes lie in no folder any more: deleted since", done.Deleted)
		}
	}
}

const reasonUnready = "not-ready"
