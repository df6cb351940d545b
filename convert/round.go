package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/maildir"
	"mailferry/semaphore"
)

// A round makes a staging Maildir equal to an account's mailboxes as they are
// now. The first writes every message (precopy); later ones write what came,
// remove what went, rename what was flagged (delta). A round always reads a
// mailbox that was changed from its start to its end, by the same rules: what
// an earlier one saw only tells which messages are there already, byte for
// byte. A mailbox that was not changed is not read.
//
// A round runs as the user, in one thread.
type round struct {
	Site
	account  account.Account
	staging  *maildir.Staging
	pace     Pace
	start    time.Time
	host     string
	settings string
	held     bool         // the mailboxes are locked: speed counts more than the page cache
	alive    func() error // while they are, called every refreshEvery
	shown    time.Time    // when it was last called
	remade   bool         // a folder was begun, removed or made anew
	listed   bool         // the list of subscriptions was changed
	staged   []string     // folders that are there from earlier rounds

	recall  *recall           // nil: nothing is remembered
	touched map[string]bool   // folders that the round worked at
	trusted map[string]*proof // folders that were as they were proved when the round came to them
	resumed map[string]*mark  // those of which only what lies behind was made anew
	patient bool              // waits until a change of an mbox can be told by its times
	tracked bool              // fresh files are noted

	quarantine *journal.Quarantine // nil: only counted
}

// Round tells what a round found and did.
type Round struct {
	Mailboxes   []MailboxRound `json:"mailboxes"`
	Skips       []Skip         `json:"skips,omitempty"`
	Quarantined []Quarantined  `json:"quarantined,omitempty"`
	Messages    int            `json:"messages"` // in the mboxes; those in quarantine too
	Bytes       int64          `json:"bytes"`    // of the messages in staging
	Changes
}

// Changes counts what a round changed in staging.
type Changes struct {
	Written      int   `json:"written"`
	WrittenBytes int64 `json:"written_bytes"`
	Removed      int   `json:"removed"`
	Reflagged    int   `json:"reflagged"`
}

// MailboxRound is the part of one mailbox.
type MailboxRound struct {
	Name     string        `json:"name"`
	Path     string        `json:"path"`
	Messages int           `json:"messages"`
	Bytes    int64         `json:"bytes"`
	Careful  int           `json:"careful"` // messages by the careful reading
	Differs  int           `json:"differs"` // places where it differs
	Oddities int           `json:"oddities"`
	Odd      Odd           `json:"odd,omitempty"` // these, by kind
	Left     []LeftKeyword `json:"left,omitempty"`
	Changes

	dir   string   // of the folder, in staging
	stat  stat     // of the mbox that the round read
	fresh []string // files of cur that are new or have a new name, up to manyFiles+1
	lists bool     // a list was changed
}

func (m *MailboxRound) changed() bool { return len(m.fresh) > 0 || m.lists || m.Changes != Changes{} }

// newRound begins a round at an account's staging.
func newRound(s Site, a account.Account, staging *maildir.Staging, pace Pace) *round {
	s.Scan.Digest = true
	return &round{Site: s, account: a, staging: staging, pace: pace, start: time.Now(), shown: time.Now(), host: hostname(), settings: s.settings(),
		touched: map[string]bool{}, trusted: map[string]*proof{}, resumed: map[string]*mark{}}
}

// refreshEvery is shorter than all of the times after which an agent takes an
// untouched dotlock or gate for stale.
const refreshEvery = semaphore.RefreshEvery / 2

// show keeps gate and locks alive.
func (r *round) show() error {
	if r.alive == nil || time.Since(r.shown) < refreshEvery {
		return nil
	}
	r.shown = time.Now()
	return r.alive()
}

// settings are what decides the content of files beside the mbox.
func (s Site) settings() string {
	zone := time.Local
	if s.Scan.Zone != nil {
		zone = s.Scan.Zone
	}
	return fmt.Sprintf("%s quoting=%d eol=%d zone=%s correct=%t", s.Scan.Profile.Name, s.Scan.Quoting, s.Scan.EOL, zone, s.Scan.CorrectDates)
}

// run brings all mailboxes and lists of the account up to date.
func (r *round) run(ctx context.Context, found *tree) (_ *Round, err error) {
	report := &Round{Skips: found.skips}
	if r.staged, err = r.staging.Dirs(); err != nil {
		return nil, err
	}
	base := r.start.Add(-nameSpan(found.bytes()) - time.Duration(len(found.sources))*time.Microsecond)
	wanted := map[string]bool{".": true}
	for _, src := range found.sources {
		m, err := r.mailbox(ctx, src, base, report)
		base = base.Add(nameSpan(src.size) + time.Microsecond)
		var name *maildir.FolderError
		if (isSkippable(err) || errors.As(err, &name)) && !src.named {
			report.Skips = append(report.Skips, skipOf(src.path, err))
			continue
		}
		if err != nil {
			return nil, err
		}
		report.add(m)
		dir, err := r.Folders.Dir(src.parts)
		if err != nil {
			return nil, err
		}
		wanted[dir] = true
	}
	return report, errors.Join(r.inbox(found), r.dropOthers(wanted), r.subscribe(found, report))
}

func (r *Round) add(m MailboxRound) {
	r.Mailboxes = append(r.Mailboxes, m)
	r.Messages += m.Messages
	r.Bytes += m.Bytes
	r.Changes.add(m.Changes)
}

func (c *Changes) add(other Changes) {
	c.Written += other.Written
	c.WrittenBytes += other.WrittenBytes
	c.Removed += other.Removed
	c.Reflagged += other.Reflagged
}

// inbox makes an empty INBOX for an account that has no spool.
func (r *round) inbox(found *tree) error {
	if len(found.sources) > 0 && len(found.sources[0].parts) == 0 {
		return nil
	}
	folder, err := r.staging.Folder(nil)
	if err != nil {
		return err
	}
	return errors.Join(folder.Clear(manifestName, mailboxName), folder.Close())
}

// dropOthers removes folders whose mailboxes are gone.
func (r *round) dropOthers(wanted map[string]bool) error {
	dirs, err := r.staging.Dirs()
	for _, dir := range dirs {
		if !wanted[dir] && err == nil {
			r.remade = true
			err = r.staging.RemoveDir(dir)
		}
	}
	return err
}

func (r *round) subscribe(found *tree, report *Round) error {
	if !found.hasList {
		changed, err := r.staging.Unsubscribe()
		r.listed = changed
		return err
	}
	changed, refused, err := r.staging.Resubscribe(found.subscribed)
	r.listed = changed
	for _, f := range refused {
		report.Skips = append(report.Skips, skipSubscription(f))
	}
	return err
}

// errAltered says that a staging folder is not what its manifest says. Nothing
// is lost by it, for the mbox is what counts: the folder is begun anew.
var errAltered = errors.New("staging was altered by somebody else")

// mailbox brings the folder of one mailbox up to date.
func (r *round) mailbox(ctx context.Context, src source, base time.Time, report *Round) (m MailboxRound, err error) {
	m, err = r.attempt(ctx, src, base, report, false)
	if errors.Is(err, errAltered) {
		m, err = r.attempt(ctx, src, base, report, true)
	}
	return m, err
}

func (r *round) attempt(ctx context.Context, src source, base time.Time, report *Round, anew bool) (m MailboxRound, err error) {
	m = MailboxRound{Name: src.name(), Path: src.path}
	file, err := src.open()
	if err != nil {
		return m, opened(src, err)
	}
	if same, err := r.asItWas(src, file); err != nil {
		return m, errors.Join(err, file.Close())
	} else if same != nil && !anew {
		m.fill(same, report)
		m.stat = same.Stat
		return m, file.Close()
	}
	if err := r.settle(ctx, file); err != nil {
		return m, errors.Join(err, file.Close())
	}
	keep := r.cacheOf(file)
	in, err := r.begin(ctx, src, file, anew)
	if err != nil {
		return m, opened(src, err)
	}
	defer in.Close()
	defer keep.restore()
	dir, err := r.Folders.Dir(src.parts)
	if err != nil {
		return m, err // not before: a name matters if it is a mailbox's
	}
	m.dir = dir
	folder, err := r.staging.Folder(src.parts)
	if err != nil {
		return m, err
	}
	defer folder.Close()
	was, err := r.stateOf(dir, folder)
	if err != nil {
		return m, err
	}
	if in.from != nil && r.trusted[dir] == nil {
		return m, errAltered // just now
	}
	if was == nil || anew {
		was, r.remade = nil, true
		delete(r.trusted, dir)
		delete(r.resumed, dir)
		if err := folder.Clear(manifestName, mailboxName); err != nil {
			return m, err
		}
	}
	r.touched[dir] = true
	f := &filler{round: r, src: src, in: in, folder: folder, was: was, base: base, report: &m, from: in.from}
	state, err := f.run(ctx)
	if err != nil {
		return m, err
	}
	m.fill(state, report)
	m.stat = statOf(in.before)
	return m, r.remember(ctx, src, in, f.reached)
}

// stateOf returns the state of a folder: the one that was proved, while the
// folder is as it was then, or else what its list says; nil for none.
func (r *round) stateOf(dir string, folder *maildir.Folder) (*mailboxState, error) {
	p, err := r.recall.proved(dir, folder, r.settings)
	if err != nil {
		return nil, err
	}
	if p != nil {
		r.trusted[dir] = p
		return p.state, nil
	}
	delete(r.trusted, dir)
	return readState(folder, r.settings)
}

// asItWas returns what an earlier round left, if the mailbox was not changed
// since: nothing of it is read. It makes no folder, for the file may be no
// mailbox.
func (r *round) asItWas(src source, file *os.File) (*mailboxState, error) {
	dir, err := r.Folders.Dir(src.parts)
	if err != nil || !slices.Contains(r.staged, dir) {
		return nil, nil // the scan comes first to tell what is wrong with it
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	folder, err := r.staging.FolderAt(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // INBOX's directory is the Maildir itself
	}
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	was, err := r.stateOf(dir, folder)
	if err != nil || was == nil || !was.covers(statOf(info), r.settings) && !r.recall.covers(src.path, was, statOf(info)) {
		return nil, err
	}
	if len(was.Quarantined) > 0 && !r.held && r.quarantine != nil {
		return nil, nil // each run has its own quarantine
	}
	r.recall.see(src.path, was.Stat, true)
	return was, nil
}

// fill takes what the state of a folder says into the reports.
func (m *MailboxRound) fill(s *mailboxState, report *Round) {
	m.Messages, m.Bytes, m.Careful, m.Differs, m.Left = s.Messages, s.Bytes, s.Careful, s.Differs, s.Left
	m.Oddities, m.Odd = s.Oddities, s.Odd
	report.Quarantined = append(report.Quarantined, s.Quarantined...)
}

// opened leaves an error that is a reason to skip as it is.
func opened(src source, err error) error {
	if isSkippable(err) {
		return err
	}
	return failed(src, err)
}

// changedSince names the first mailbox that is not what the round read; it is
// called when all have been read, or under their locks.
func (m *Round) changedSince(found *tree) error {
	for _, src := range found.sources {
		i := slices.IndexFunc(m.Mailboxes, func(b MailboxRound) bool { return b.Path == src.path })
		if i < 0 {
			continue // skipped
		}
		f, err := src.open()
		if err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
		info, err := f.Stat()
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
		if statOf(info) != m.Mailboxes[i].stat {
			return &Busy{src.path}
		}
	}
	return nil
}

// atFolder does something at a folder of staging, which is there.
func (r *round) atFolder(dir string, do func(*maildir.Folder) error) error {
	folder, err := r.staging.FolderAt(dir)
	if err != nil {
		return err
	}
	return errors.Join(do(folder), folder.Close())
}

// removeManifests takes our own lists out of a Maildir.
func removeManifests(staging *maildir.Staging) error {
	dirs, err := staging.Dirs()
	for _, dir := range dirs {
		if rerr := staging.RemoveLists(dir, manifestName, mailboxName); !errors.Is(rerr, fs.ErrPermission) { // what he may not open was not ours
			err = errors.Join(err, rerr)
		}
	}
	return err
}
