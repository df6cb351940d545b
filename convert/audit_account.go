package convert

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// The audit of a user who was converted
//
// The parked mboxes say what there was at the flip. The Maildir has been in use
// since, and is while it is looked at. What a server or a client may do with
// mail is counted; what neither does is a Difference:
//
//	kept        lies in its folder under its UID: bytes, sizes in the name, date and
//	            UIDL must be the same. Flags and keywords may be others (reflagged).
//	moved       is gone from its folder, and another has a file with its bytes
//	returned    lies in its folder under a UID that was given since, as what was
//	            moved away and back does
//	deleted     lies nowhere. A server leaves no trace of it that lasts (Dovecot's
//	            list of UIDs may name it for days), so that a file lost otherwise
//	            counts here, too, and so does one that was left in quarantine: a
//	            number to look at.
//	astray      lies in its folder under another UID, and was not moved: a Difference
//	came        is in no parked mbox
//
// Mail that came to a parked mbox after the flip was swept, as new mail, and is
// passed over; if it was not, that is a Difference.
//
// A folder that has another name now is known by its UIDVALIDITY. One that is
// gone was deleted, if its messages lie elsewhere, if Dovecot's log of folders
// says so, or if no log can say anything because nothing of Dovecot's lies in
// the Maildir. Otherwise, or if its list of UIDs was left behind, it is a
// Difference. So is another UIDVALIDITY, but for a folder that holds nothing of
// the mbox: that was deleted and made anew.
//
// Memory: 24 bytes for each file, and 40 for each message that is not found in
// its folder. mbox and list of UIDs are walked in step, since UIDs rise in both.

// Audit compares the Maildir of a user with the mboxes that were parked when he
// was converted, and allows for what happened since. It changes nothing. For a
// user who is not on his Maildir, or whose mboxes are no longer there, it says
// so in Note. A folder that is never at rest, or a semaphore that changes
// meanwhile, is a *Busy.
func (s Site) Audit(ctx context.Context, a account.Account) (*AuditReport, error) {
	start := time.Now()
	s.Scan.Digest = true
	c := &accountAudit{Site: s, account: a, report: &AuditReport{User: a.Name}, reader: newReader()}
	state, err := c.state()
	if err != nil || state != semaphore.Maildir {
		return c.report, err
	}
	if c.soak, err = journal.ReadSoak(s.State, a.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := asUser(a, func() error { return c.run(ctx) }); err != nil {
		return nil, err
	}
	if again, err := c.state(); err != nil || again != state {
		return nil, errors.Join(err, &Busy{a.Semaphore})
	}
	c.report.Took = time.Since(start)
	return c.report, nil
}

// accountAudit is the work at one account.
type accountAudit struct {
	Site
	account account.Account
	report  *AuditReport
	reader  *reader
	root    *safefs.Dir     // the Maildir
	soak    journal.Soak    // zero if there is none
	folders []*auditFolder  // that are there
	boxes   []*mailboxAudit // by parked mbox
	lost    []lost          // messages that are not in their folder
}

// auditFolder is a folder of the Maildir.
type auditFolder struct {
	rel      string        // its place below the root
	validity uint32        // of its list of UIDs; 0: it has none
	nextUID  uint32        // of the same; 0: not read
	box      *mailboxAudit // of the mbox that it was made of; nil: it is new
	report   *MailboxAudit // nil: there is nothing to say of it yet
	files    *files        // nil: not listed yet
}

// state asks the semaphore, and says why there is nothing to audit.
func (c *accountAudit) state() (semaphore.State, error) {
	sem, err := semaphore.For(c.account.Semaphore)
	if err != nil {
		return semaphore.Hold, err
	}
	state, err := sem.Get()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.report.Note = "is not enrolled"
		return state, nil
	case err != nil:
		return state, err
	case state == semaphore.Mbox:
		c.report.Note = "is on his mbox, which is what counts: nothing to audit"
	case state == semaphore.Hold:
		c.report.Note = "is held: nothing to audit now"
	}
	c.report.State = state.String()
	return state, nil
}

// run is the audit; it runs as the user.
func (c *accountAudit) run(ctx context.Context) error {
	found, err := findParked(c.account)
	if err != nil {
		return err
	}
	defer found.close()
	c.report.Skips = slices.DeleteFunc(found.skips, func(s Skip) bool { return s.Path == c.account.Maildir })
	if err := c.findUnparked(); err != nil {
		return err
	}
	if len(found.sources) == 0 {
		c.report.Note = "has no parked mbox any more: nothing to compare with"
		return nil
	}
	c.root, err = safefs.OpenFor(c.account.Maildir, c.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		c.differ(&MailboxAudit{Name: "INBOX"}, -1, c.account.Maildir, "Maildir", "present", "absent")
		c.report.Differing = 1
		return nil
	}
	if err != nil {
		return err
	}
	defer c.root.Close()
	if err := errors.Join(c.listFolders(), c.begin(found)); err != nil {
		return err
	}
	c.assign()
	for _, b := range c.boxes {
		if err := b.run(ctx); err != nil {
			return err
		}
	}
	if err := c.searchAll(ctx); err != nil {
		return err
	}
	for _, b := range c.boxes {
		if err := b.judge(); err != nil {
			return err
		}
	}
	return c.report.total()
}

// begin reads from the parked mboxes what tells which folder is theirs.
func (c *accountAudit) begin(found *tree) error {
	c.report.Mailboxes = make([]*MailboxAudit, 0, len(found.sources))
	for _, src := range found.sources {
		rel, err := c.Folders.Dir(src.parts)
		if err != nil {
			c.report.Skips = append(c.report.Skips, skipOf(src.path, err))
			continue
		}
		b := &mailboxAudit{accountAudit: c, src: src, rel: rel, flip: flipOf(src.file)}
		b.converted, b.taken = c.inMaildir(src)
		if b.validity, err = validityOf(src, c.Scan); isSkippable(err) && !src.named {
			c.report.Skips = append(c.report.Skips, skipOf(src.path, err))
			continue
		} else if err != nil {
			return failed(src, err)
		}
		b.report = &MailboxAudit{Name: src.name(), Path: src.path, Folder: rel}
		b.index = int32(len(c.boxes))
		c.boxes = append(c.boxes, b)
		c.report.Mailboxes = append(c.report.Mailboxes, b.report)
	}
	return nil
}

// inMaildir tells up to which byte a parked mbox was converted, and up to which
// swept.
func (c *accountAudit) inMaildir(src source) (converted, taken int64) {
	for _, p := range c.soak.Parked {
		if p.Path == src.path && p.Ino == src.id.ino {
			return p.Size, p.Taken
		}
	}
	return math.MaxInt64, math.MaxInt64
}

// flipOf is when a parked mbox was parked, in seconds since 1970.
func flipOf(parked string) int64 {
	p, ok := parseParked(parked)
	if !ok {
		return time.Now().Unix()
	}
	return p.flip.Unix()
}

// validityOf reads the UIDVALIDITY of an mbox, which its first message tells; 0
// if it records none.
func validityOf(src source, o mbox.Options) (uint32, error) {
	o.Digest = false
	in, err := open(src, o)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	e, err := in.Next()
	if err == io.EOF {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	in.State(e)
	return in.UIDValidity(), nil
}

// assign finds the folder of each mbox: the one with its name; but if that has
// another UIDVALIDITY or is gone, the only other one that has it.
func (c *accountAudit) assign() {
	var astray []*mailboxAudit
	for _, b := range c.boxes {
		f := c.at(b.rel)
		if f != nil && (b.rel == "." || b.validity == 0 || f.validity == b.validity) {
			b.take(f)
		} else {
			astray = append(astray, b)
		}
	}
	for _, b := range astray {
		b.take(c.renamed(b))
	}
	for _, b := range astray {
		if f := c.at(b.rel); b.folder == nil && f != nil && f.box == nil {
			b.take(f)
		}
	}
}

// at returns the folder at a place, nil if there is none.
func (c *accountAudit) at(rel string) *auditFolder {
	i := slices.IndexFunc(c.folders, func(f *auditFolder) bool { return f.rel == rel })
	if i < 0 {
		return nil
	}
	return c.folders[i]
}

// renamed returns the only folder that no mbox has and that has a mailbox's
// UIDVALIDITY; nil if there is none, or more.
func (c *accountAudit) renamed(b *mailboxAudit) (only *auditFolder) {
	for _, f := range c.folders {
		if f.box != nil || f.rel == "." || b.validity == 0 || f.validity != b.validity {
			continue
		}
		if only != nil {
			return nil
		}
		only = f
	}
	return only
}

func (b *mailboxAudit) take(f *auditFolder) {
	if f == nil {
		return
	}
	b.folder, f.box, f.report = f, b, b.report
	b.report.Folder = f.rel
	if f.rel != b.rel {
		b.report.Renamed = b.nameOf(f.rel)
	}
}

// path names a place in the Maildir, for messages.
func (c *accountAudit) path(parts ...string) string {
	return filepath.Join(append([]string{c.account.Maildir}, parts...)...)
}

// nameOf is the name of a folder as people read it.
func (c *accountAudit) nameOf(rel string) string {
	parts, err := c.Folders.Parts(rel)
	if err != nil {
		return rel
	}
	return folderName(parts)
}

// maxDifferences is how many differences of a mailbox are kept: a list of UIDs
// that was lost makes one of each message.
const maxDifferences = 100

func (c *accountAudit) differ(m *MailboxAudit, offset int64, file, field, want, got string) {
	m.Differing++
	if m.Differing <= maxDifferences {
		c.report.Differences = append(c.report.Differences, Difference{m.Name, offset, file, field, want, got})
	}
}

// AuditAll audits accounts, some at a time, and tells of each in their order.
// Users who can't be looked at have an error, and all that are left when ctx ends.
func AuditAll(ctx context.Context, s Site, accounts []account.Account, jobs int, tell func(account.Account, *AuditReport, error)) {
	type result struct {
		report *AuditReport
		err    error
	}
	ready := make([]chan result, len(accounts))
	for i := range ready {
		ready[i] = make(chan result, 1)
	}
	var group errgroup.Group
	group.SetLimit(max(jobs, 1) + 1) // and the one that begins them
	group.Go(func() error {
		for i, a := range accounts {
			group.Go(func() error {
				r, err := s.auditOne(ctx, a)
				ready[i] <- result{r, err}
				return nil
			})
		}
		return nil
	})
	for i, a := range accounts {
		done := <-ready[i]
		tell(a, done.report, done.err)
	}
	group.Wait()
}

func (s Site) auditOne(ctx context.Context, a account.Account) (*AuditReport, error) {
	if a.Problem != nil || ctx.Err() != nil {
		return nil, errors.Join(a.Problem, ctx.Err())
	}
	return s.Audit(ctx, a)
}
