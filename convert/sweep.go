package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// Sweep
//
// An agent that read "mbox" before the flip and writes after it writes to the
// wrong place: into the parked inode, if it had opened that and waited for the
// lock (Postfix local), or into a new file at the old path (procmail, Exim,
// LMTP). A session that goes on, or a rule of procmail's, makes new mailboxes, which
// become folders. A sweep takes that mail into the Maildir as new mail, or with the
// flags that a session gave it, once only:
//
//	record, not ready   durable: where the staging directory is going to be
//	gate, locks         of the source, which is looked at again
//	in use?             who has the source open could be in the midst of a message: later
//	write               the messages, under the names that they will have; synced
//	record, ready       durable: from here on all of it is delivered, whatever happens
//	deliver             each renamed into new, or with flags into cur; synced
//	soak record         durable: up to here the source is in the Maildir
//	park                a new file at the old path, so that the next agent makes another
//	unlock, staging and record removed
//
// What a kill leaves, the record tells: not ready, and nothing was delivered;
// ready, and what is still in staging was not. A client may read, move and
// expunge meanwhile what was delivered: nobody looks for it again.

// sweepPhase is that of events in the journal.
const sweepPhase = "sweep"

// SweepOptions are those of a sweep of one user.
type SweepOptions struct {
	Run  string        // that it belongs to; "" for none
	Wait time.Duration // for gate and locks; 0: defaultSweepWait

	// Alone says that no run is at work: what dead processes left is removed.
	Alone bool

	settled bool // the run that cut him over says that there is nothing to recover
}

// defaultSweepWait is longer than an agent takes to write a message, and
// shorter than one waits for a gate.
const defaultSweepWait = 5 * time.Second

// Swept tells what a sweep found and did.
type Swept struct {
	User        string  `json:"user"`
	Note        string  `json:"note,omitempty"`        // why there was nothing to look at
	Recovered   string  `json:"recovered,omitempty"`   // what a killed sweep had left, and what became of it
	Taken       []Taken `json:"taken,omitempty"`       // mail that came to the old place
	Differences []Skip  `json:"differences,omitempty"` // what is not as it was left, and was not touched
}

// Taken is mail of one file that was delivered to the Maildir.
type Taken struct {
	Mailbox  string `json:"mailbox"`          // folder that it was meant for
	Folder   string `json:"folder,omitempty"` // folder that got it, if that one is gone
	Path     string `json:"path"`             // where it was found
	From     int64  `json:"from"`             // offset, in bytes
	To       int64  `json:"to"`
	Messages int    `json:"messages"`
	Bytes    int64  `json:"bytes"`            // of the messages, as delivered
	Agent    string `json:"agent"`            // who wrote it, as far as it could be told; "unknown"
	Parked   string `json:"parked,omitempty"` // where the file lies now, if it was moved
	Warning  string `json:"warning,omitempty"`
}

// Messages counts those that were taken.
func (s *Swept) Messages() (n int) {
	for _, t := range s.Taken {
		n += t.Messages
	}
	return n
}

// Sweep takes the mail that came to the old place of a user since his flip into
// his Maildir. The caller holds the run lock. What is not as it was left is
// told and not touched. An error leaves all mail where it is, or the record by
// which the next sweep or recovery goes on; busy locks are a *Busy or a
// *mbox.LockError, a cutover or rollback at work is semaphore.ErrBusy.
//
// Of a user who is on mbox again it takes the mail that came to his Maildir since
// into his mboxes.
func (s Site) Sweep(ctx context.Context, a account.Account, o SweepOptions) (*Swept, error) {
	w, err := s.newSweep(a, o)
	if err != nil {
		return nil, err
	}
	sem, err := w.begin()
	if err != nil || w.report.Note != "" && !w.dueBack() {
		return w.report, err
	}
	work := w.sweepBack
	if !w.dueBack() {
		strays, err := w.look()
		if err != nil || len(strays) == 0 && !w.unfinished {
			return w.report, err
		}
		work = w.sweep
	}
	free, err := exclude(sem)
	if err != nil {
		return w.report, err
	}
	return w.report, errors.Join(work(ctx), free())
}

// SweepDue reports whether Sweep would find something, without taking a lock.
func (s Site) SweepDue(a account.Account) (bool, error) {
	w, err := s.newSweep(a, SweepOptions{})
	if err != nil {
		return false, err
	}
	_, err = w.begin()
	if errors.Is(err, errUnsettled) || errors.Is(err, errUnsettledBack) {
		return true, nil // a run is at work, or was killed: who takes the lock will know
	}
	if err != nil || w.report.Note != "" {
		return len(w.report.Differences) > 0 || w.dueBack(), err
	}
	strays, err := w.look()
	return len(strays) > 0 || w.unfinished || len(w.report.Differences) > 0, err
}

// sweep is the work at one user.
type sweep struct {
	Site
	account    account.Account
	opts       SweepOptions
	boot       string
	soak       journal.Soak
	recorded   bool                // there is a soak record
	unfinished bool                // a sweep was killed
	group      int                 // that the user's threads may take; 0: none
	late       []lateMail          // of who is on mbox again
	copied     map[string]bool     // names that messages of Maildirs have which were set aside
	held       map[string]*holding // what the mboxes hold that late mail goes to, by path
	report     *Swept
}

func (s Site) newSweep(a account.Account, o SweepOptions) (*sweep, error) {
	switch {
	case a.Problem != nil:
		return nil, a.Problem
	case a.UID == 0 || a.UID < s.MinUID:
		return nil, fmt.Errorf("uid %d is below min-uid, %d: left alone", a.UID, s.MinUID)
	}
	if o.Wait == 0 {
		o.Wait = defaultSweepWait
	}
	boot, err := journal.BootID()
	if err != nil {
		return nil, err
	}
	group, err := spoolGroup(a)
	return &sweep{Site: s, account: a, opts: o, boot: boot, group: group, report: &Swept{User: a.Name}}, err
}

// begin finds out whether there is something to look at.
func (w *sweep) begin() (*semaphore.Semaphore, error) {
	sem, err := semaphore.For(w.account.Semaphore)
	if err != nil {
		return nil, err
	}
	state, err := sem.Get()
	if errors.Is(err, fs.ErrNotExist) {
		w.report.Note = "not enrolled"
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := w.readSoak(); err != nil {
		return nil, err
	}
	_, err = journal.ReadSweep(w.State, w.account.Name)
	if w.unfinished = err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	switch {
	case state == semaphore.Hold:
		w.report.Note = "held"
		return nil, nil
	case state == semaphore.Mbox && !w.soak.Back.IsZero():
		return sem, w.beginBack()
	case state == semaphore.Mbox:
		w.report.Note = "on mbox"
		return nil, nil
	}
	_, err = journal.ReadStaging(w.State, w.account.Name)
	switch {
	case w.opts.settled || errors.Is(err, fs.ErrNotExist):
		return sem, nil
	case err == nil:
		err = errUnsettled
	}
	return nil, err
}

// errUnsettled is about a user whose mboxes are not parked yet.
var errUnsettled = errors.New("his cutover waits to be finished; first run: mailferry recover")

func (w *sweep) readSoak() error {
	soak, err := journal.ReadSoak(w.State, w.account.Name)
	if w.recorded = err == nil; !w.recorded && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !w.recorded {
		soak = journal.Soak{User: w.account.Name, Run: w.opts.Run, BootID: w.boot, Maildir: w.account.Maildir}
	}
	w.soak = soak
	return nil
}

// sweep works while nobody changes the semaphore: what was read before, it reads
// again.
func (w *sweep) sweep(ctx context.Context) error {
	r := Swept{User: w.account.Name}
	*w.report = r
	if _, err := w.begin(); err != nil || w.report.Note != "" {
		return err
	}
	if w.unfinished {
		did, err := w.resume(ctx)
		if err != nil {
			return err
		}
		w.report.Recovered = did
	}
	strays, err := w.look()
	if err != nil {
		return err
	}
	for _, st := range strays { // one that is busy keeps none of the others
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		terr := w.take(ctx, st)
		err = errors.Join(err, terr)
		if _, none := journal.ReadSweep(w.State, w.account.Name); terr != nil && !errors.Is(none, fs.ErrNotExist) {
			return err // the next sweep goes on with it first
		}
	}
	return err
}

// differ notes what is not as it was left, and what to do about it.
func (w *sweep) differ(path, code, format string, args ...any) {
	w.report.Differences = append(w.report.Differences, Skip{path, fmt.Sprintf(format, args...) + advice(code, w.account.Name), code})
}

// folder is the directory of the folder that an mbox of the account became,
// relative to the Maildir, and the name of the folder. What the layout can't
// spell is INBOX.
func (w *sweep) folder(live string) (dir, name string) {
	parts := w.parts(live)
	dir, err := w.Folders.Dir(parts)
	if err != nil {
		return ".", folderName(nil)
	}
	return dir, folderName(parts)
}

// parts names the folder of an old path as walk does.
func (w *sweep) parts(live string) (parts []string) {
	if live == w.account.Spool {
		return nil
	}
	for _, root := range w.account.Folders {
		rel, err := filepath.Rel(root, live)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		for name := range strings.SplitSeq(rel, "/") {
			part, err := maildir.DiskName(name)
			if err != nil {
				return nil
			}
			parts = append(parts, part)
		}
		if len(parts) == 1 && strings.EqualFold(parts[0], "INBOX") {
			return nil
		}
		return parts
	}
	return nil
}
