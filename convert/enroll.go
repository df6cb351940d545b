package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

// Enrollment tells what Enroll did for a user.
type Enrollment struct {
	User     string    `json:"user"`
	Outcome  string    `json:"outcome"`            // see below
	Moved    bool      `json:"moved,omitempty"`    // his semaphore says maildir: he had lost it, and the soak record tells
	Mirrored bool      `json:"mirrored,omitempty"` // the mirror was written
	Reason   string    `json:"reason,omitempty"`   // the code of the first finding, or an error
	Findings []Finding `json:"findings,omitempty"` // why he was skipped
}

// The outcomes of Enroll beside journal.Skipped (the account is not fit, nothing
// was written), Failed (see the reason; it may be tried again) and Untouched
// (ctx was done first).
const (
	Enrolled = "enrolled" // he had no semaphore, and has one that says mbox; or maildir, see Moved
	Already  = "already"  // he had one, and it is as it was
)

// enrollJobs is how many users are enrolled at a time. They wait for the disk,
// which syncs the files of several at once.
const enrollJobs = 32

// Enroll writes a semaphore that says mbox for those who have none, the
// authority and then the mirror; maildir, if they were moved and have lost it.
// Who has one keeps it; his mirror is put right if it differs. The directory of the authority is made if it is missing. done
// is called after each user, by several goroutines.
//
// The result is in the order of the list. The error is what concerns all users,
// or that of ctx; users have their own.
func (s Site) Enroll(ctx context.Context, list []account.Account, done func()) ([]Enrollment, error) {
	if err := makeDirectories(list); err != nil {
		return nil, err
	}
	results := make([]Enrollment, len(list))
	in := NewInspector(s, nil)
	var jobs errgroup.Group
	jobs.SetLimit(enrollJobs)
	for i, a := range list {
		results[i] = Enrollment{User: a.Name, Outcome: journal.Untouched}
		jobs.Go(func() error {
			if ctx.Err() == nil {
				enroll(in, a, &results[i])
			}
			done()
			return nil
		})
	}
	jobs.Wait()
	return results, ctx.Err()
}

// makeDirectories makes the directories of the authorities: one, normally.
func makeDirectories(list []account.Account) error {
	seen := map[string]bool{}
	for _, a := range list {
		dir := filepath.Dir(a.Semaphore)
		if a.Problem != nil || seen[dir] {
			continue
		}
		seen[dir] = true
		if err := makeDirectory(dir); err != nil {
			return err
		}
	}
	return nil
}

// makeDirectory makes a directory for semaphores, durably, and checks that
// this process is the one who may write it.
func makeDirectory(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeAbove(filepath.Dir(path)); err == nil {
			err = mkdir(path, 0o755) // agents read it, as the users
		}
		if err == nil {
			info, err = os.Stat(path)
		}
	}
	if err != nil {
		return fmt.Errorf("the directory of the semaphores: %w", err)
	}
	switch owner := ownerOf(info); {
	case !info.IsDir():
		err = fmt.Errorf("%q is no directory", path)
	case info.Mode()&0o022 != 0:
		err = fmt.Errorf("%q can be written by others than its owner, mode %04o", path, info.Mode().Perm())
	case owner != 0 && owner != os.Geteuid():
		err = fmt.Errorf("%q belongs to uid %d, who could forge all that it says", path, owner)
	default:
		if err = unix.Access(path, unix.W_OK|unix.X_OK); err != nil {
			err = fmt.Errorf("%q can't be written by uid %d, it is for root: %w", path, os.Geteuid(), err)
		}
	}
	if err != nil {
		return fmt.Errorf("the directory of the semaphores: %w", err)
	}
	return nil
}

// makeAbove makes what is missing above a directory of semaphores: the state
// directory, normally, with the mode that a run gives it.
func makeAbove(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeAbove(filepath.Dir(path)); err != nil {
		return err
	}
	return mkdir(path, 0o711)
}

func mkdir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil // somebody was faster
	}
	if err == nil {
		err = os.Chmod(path, mode) // whatever the umask
	}
	if err != nil {
		return err
	}
	parent, err := safefs.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// enroll does what Enroll does for one user.
func enroll(in *Inspector, a account.Account, e *Enrollment) {
	mirror, findings := in.fit(a)
	if len(findings) > 0 {
		e.Outcome, e.Reason, e.Findings = journal.Skipped, findings[0].Code, findings
		return
	}
	if err := mirror.enroll(in.site, e); err != nil {
		e.Outcome, e.Reason = journal.Failed, err.Error()
	}
}

// fit makes the checks of an account without which nothing is written for it:
// who the user is, and whether his home is his. What else keeps him from being
// moved does not keep mail from being delivered to his mbox, and without a
// semaphore it would wait.
func (in *Inspector) fit(a account.Account) (seenMirror, []Finding) {
	a.Collisions = slices.DeleteFunc(slices.Clone(a.Collisions), func(c account.Collision) bool { return !overWritten(a, c) })
	m := seenMirror{account: a}
	i := &Inspection{User: a.Name}
	if in.identify(a, i) {
		in.above(a, i)
		if err := asUser(a, func() error {
			(&look{in: in, a: a, i: i}).home()
			m.read()
			return nil
		}); err != nil {
			i.add("inspection-failed", "", "%v", err)
		}
	}
	i.end()
	return m, slices.DeleteFunc(i.Findings, func(f Finding) bool { return f.Severity != Refuse || f.Code == "home-writable" })
}

// overWritten reports whether a collision is over what Enroll writes for a user.
func overWritten(a account.Account, c account.Collision) bool {
	for i, user := range c.Users {
		if user == a.Name && slices.Contains([]string{"semaphore", "semaphore's meta", "mirror"}, c.What[i]) {
			return true
		}
	}
	return false
}

// seenMirror is an account, and what its mirror said when it was looked at.
type seenMirror struct {
	account account.Account
	state   semaphore.State
	err     error // fs.ErrNotExist if there is none
}

// read runs as the user.
func (m *seenMirror) read() {
	if m.account.Mirror != "" {
		m.state, m.err = readMirror(m.account)
	}
}

// says reports whether the mirror says so. Where there is to be none, it does.
func (m *seenMirror) says(state semaphore.State) bool {
	return m.account.Mirror == "" || m.err == nil && m.state == state
}

// enroll writes what is missing or wrong.
func (m *seenMirror) enroll(s Site, e *Enrollment) error {
	sem, err := semaphore.For(m.account.Semaphore)
	if err != nil {
		return err
	}
	to, err := sem.Get()
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err == nil && m.says(to):
		e.Outcome = Already
		return nil
	case missing:
		to, err = m.lost(s)
	}
	if err != nil {
		return err
	}
	free, busy := exclude(sem)
	switch {
	case !missing && errors.Is(busy, semaphore.ErrBusy):
		e.Outcome = Already // a cutover is at work, and the mirror is its business
		return nil
	case busy != nil:
		return busy
	}
	return errors.Join(m.write(sem, to, e), free())
}

// lost tells what the semaphore of a user has to say who has none: mbox, or
// maildir if he was moved. A record of that counts if all else agrees with it.
func (m *seenMirror) lost(s Site) (semaphore.State, error) {
	a := m.account
	move, err := s.moveOf(a.Name)
	switch {
	case err != nil:
		return semaphore.Hold, fmt.Errorf("there is no semaphore, and whether he was moved can't be told: %w", err)
	case move.says != "":
		return semaphore.Maildir, m.agrees(s, move)
	case a.Mirror != "" && m.says(semaphore.Maildir):
		return semaphore.Hold, fmt.Errorf("there is no semaphore, but the mirror %q says maildir; if he was moved, run: mailferry semaphore set %s maildir; if not, remove the mirror", a.Mirror, a.Name)
	}
	return semaphore.Mbox, m.notPublished(s)
}

// notPublished fails if a cutover that was broken off has given a user's Maildir its
// name: the flip may have come, and mail to it since.
func (m *seenMirror) notPublished(s Site) error {
	a, t := m.account, trace{}
	record, err := journal.ReadStaging(s.State, a.Name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && isPromise(record) {
		return nil
	}
	if err == nil {
		err = asUser(a, func() error { return errors.Join(t.maildirOf(a, record), t.mailOf(a)) })
	}
	if err == nil && t.published {
		err = errors.New(t.String())
	}
	if err != nil {
		err = fmt.Errorf("there is no semaphore, and whether he was moved can't be told: %w. Nothing was written; look where his mail is, and say so: mailferry semaphore set %s maildir, or mbox", err, a.Name)
	}
	return err
}

// agrees fails if a user's mail, or his mirror, does not tell what the records do.
func (m *seenMirror) agrees(s Site, move move) error {
	a, t, against := m.account, trace{}, ""
	record, err := journal.ReadStaging(s.State, a.Name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = asUser(a, func() error { return errors.Join(t.maildirOf(a, record), t.mailOf(a)) })
	}
	switch {
	case err != nil:
		against = err.Error()
	case move.back:
		against = "where his mail is it does not say"
	case move.soak.Maildir != a.Maildir:
		against = fmt.Sprintf("into %q, and now his Maildir is %q", move.soak.Maildir, a.Maildir)
	case !m.says(semaphore.Maildir) && !errors.Is(m.err, fs.ErrNotExist):
		against = fmt.Sprintf("the mirror %q does not", a.Mirror)
	case !t.maildir || t.published || t.mboxes:
		against = t.String()
	default:
		return nil
	}
	return fmt.Errorf("there is no semaphore; %s, but: %s. Nothing was written; look where his mail is, and say so: mailferry semaphore set %s maildir, or mbox", move.says, against, a.Name)
}

// write writes the authority, if there is none, and the mirror. No cutover can
// come in between.
func (m *seenMirror) write(sem *semaphore.Semaphore, to semaphore.State, e *Enrollment) error {
	last, err := sem.Meta()
	if err != nil {
		return err
	}
	e.Outcome = Enrolled
	if to == semaphore.Maildir {
		err = again(sem, last)
	} else {
		err = sem.Enroll(semaphore.Meta{Epoch: last.Epoch + 1})
	}
	if errors.Is(err, semaphore.ErrEnrolled) {
		e.Outcome, err = Already, nil
	}
	if errors.Is(err, semaphore.ErrState) {
		return fmt.Errorf("%w; say what is true, with mailferry semaphore set", err)
	}
	if err != nil {
		return err
	}
	state, err := sem.Get()
	e.Moved = e.Outcome == Enrolled && state == semaphore.Maildir
	if err == nil && e.Outcome == Already { // a cutover may have ended since the mirror was read
		err = asUser(m.account, func() error { m.read(); return nil })
	}
	if err != nil || m.says(state) {
		return err
	}
	err = tellMirror(m.account, state)
	e.Mirrored = err == nil
	return err
}

// again writes maildir for a user who was moved and has lost his semaphore. Its
// meta may not say otherwise, where there is one. The caller excludes others.
func again(sem *semaphore.Semaphore, last semaphore.Meta) error {
	if _, err := sem.Get(); !errors.Is(err, fs.ErrNotExist) {
		return semaphore.ErrEnrolled
	}
	if last.Ahead(semaphore.Maildir) {
		return fmt.Errorf("%w: he was moved, but epoch %d has set it to %s", semaphore.ErrState, last.Epoch, last.State)
	}
	return sem.Set(semaphore.Maildir, semaphore.Meta{Epoch: last.Epoch + 1})
}

// tellMirror writes the mirror of an account, as its user.
func tellMirror(a account.Account, state semaphore.State) error {
	if a.Mirror == "" {
		return nil
	}
	err := asUser(a, func() error { return writeMirror(a.Mirror, a.UID, state) })
	if err != nil {
		return fmt.Errorf("the semaphore says %s, but its mirror could not be written: %w", state, err)
	}
	return nil
}

// exclude keeps cutovers away from a user, until it is undone: each of them has
// a change to mbox prepared from before its hold to after its last write, and
// only one process at a time can (ErrBusy). So does what changes the semaphore
// or its mirror beside a run.
func exclude(sem *semaphore.Semaphore) (free func() error, err error) {
	last, err := sem.Meta()
	if err != nil {
		return nil, err
	}
	p, err := sem.Prepare(semaphore.Mbox, semaphore.Meta{Epoch: last.Epoch + 1})
	if err != nil {
		return nil, err
	}
	return p.Discard, nil
}

// writeMirror copies the authority's state to the home; it runs as the user.
func writeMirror(path string, uid int, state semaphore.State) error {
	if path == "" {
		return nil
	}
	dir, err := safefs.OpenFor(filepath.Dir(path), uid)
	if err != nil {
		return err
	}
	defer dir.Close()
	return semaphore.WriteMirror(dir.Fd(), filepath.Base(path), state)
}
