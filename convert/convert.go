package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// Options of Convert and Verify.
type Options struct {
	Source  string // a mailbox file, or a folder tree
	Dest    string // the Maildir
	Inbox   string // INBOX of a folder tree, if it is not in it
	Folders maildir.Folders
	Scan    mbox.Options
	Jobs    int // mailboxes at a time

	// Progress is told of each message: how many bytes of its mailbox it took.
	// It is called from several goroutines.
	Progress func(bytes int64)
	// Total is told once how many bytes there are.
	Total func(bytes int64)
}

// Busy says that a mailbox changed while it was read: try again.
type Busy struct{ Path string }

func (e *Busy) Error() string {
	return fmt.Sprintf("%s changed while it was read; run it again when the mailbox is at rest", e.Path)
}

// Convert makes a new Maildir, o.Dest, of the mailboxes of o.Source. Its
// messages are durable when it returns nil. After an error, or when ctx ends,
// o.Dest is as it was.
func Convert(ctx context.Context, o Options) (*Report, error) {
	start := time.Now()
	found, err := find(o)
	if err != nil {
		return nil, err
	}
	defer found.close()
	o.Total(found.bytes())

	dest, err := filepath.Abs(o.Dest)
	if err != nil {
		return nil, err
	}
	parent, err := safefs.OpenDir(filepath.Dir(dest))
	if err != nil {
		return nil, fmt.Errorf("the directory that DST is to lie in: %w", err)
	}
	defer parent.Close()
	staging, err := maildir.NewStaging(parent, filepath.Base(dest), o.Folders)
	if err != nil {
		return nil, advised(err)
	}
	c := &conversion{Options: o, staging: staging, start: start}
	report, err := c.write(ctx, found, parent)
	if err == nil {
		err = staging.Publish()
	}
	if err != nil {
		return nil, errors.Join(advised(err), staging.Discard())
	}
	report.Took = time.Since(start)
	return report, staging.Close()
}

// advised says what to do about a Dest that something is using.
func advised(err error) error {
	if !errors.Is(err, maildir.ErrNotEmpty) {
		return err
	}
	return fmt.Errorf("%w; it was not touched: name a new directory, or move this one away", err)
}

// conversion is one run of Convert.
type conversion struct {
	Options
	staging *maildir.Staging
	start   time.Time
	host    string
}

// write fills the staging Maildir, and has the disk busy meanwhile.
func (c *conversion) write(ctx context.Context, found *tree, parent *safefs.Dir) (*Report, error) {
	stop, err := flush(parent)
	if err != nil {
		return nil, err
	}
	defer stop()
	return c.run(ctx, found)
}

// run writes all mailboxes and the lists into the staging Maildir.
func (c *conversion) run(ctx context.Context, found *tree) (*Report, error) {
	c.host, _ = os.Hostname() // the Namer has a word for none
	base := c.start.Add(-nameSpan(found.bytes()) - time.Duration(len(found.sources))*time.Microsecond)

	results := make([]result, len(found.sources))
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(c.Jobs) // one writer a mailbox: more of them only wait for the directory
	for i, src := range found.sources {
		namer := maildir.NewNamer(base, os.Getpid(), c.host)
		base = base.Add(nameSpan(src.size) + time.Microsecond)
		jobs.Go(func() error {
			var err error
			results[i], err = c.mailbox(ctx, src, namer)
			return err
		})
	}
	if err := jobs.Wait(); err != nil {
		return nil, err
	}
	if err := atRest(found, results); err != nil {
		return nil, err
	}
	report := &Report{Skips: found.skips}
	if err := report.collect(found, results); err != nil {
		return nil, err
	}
	return report, c.lists(found, report)
}

// nameSpan is the time that the names of a mailbox's messages may span, one
// microsecond each. No message takes less than "From " and an LF of an mbox. Spans lie
// one after the other before the start of the run: so every name is unique in
// the whole Maildir, and sorts before mail that is delivered later.
func nameSpan(size int64) time.Duration { return time.Duration(size/6) * time.Microsecond }

// result is what became of a source: a report, or the reason for a skip.
type result struct {
	report  MailboxReport
	before  os.FileInfo // the mbox, when it was opened
	skipped error
}

// collect turns results into the report. A reason to skip what the admin named
// is an error.
func (r *Report) collect(found *tree, results []result) error {
	for i, res := range results {
		switch {
		case res.skipped == nil:
			r.Mailboxes = append(r.Mailboxes, res.report)
		case found.sources[i].named:
			return fmt.Errorf("%s: %w", found.sources[i].path, res.skipped)
		default:
			r.Skips = append(r.Skips, skipOf(found.sources[i].path, res.skipped))
		}
	}
	r.total()
	return nil
}

// lists writes what belongs to the Maildir as a whole: INBOX, which every
// Maildir has, and the subscriptions.
func (c *conversion) lists(found *tree, report *Report) error {
	if len(report.Mailboxes) == 0 || report.Mailboxes[0].Name != "INBOX" {
		if err := c.emptyInbox(); err != nil {
			return err
		}
	}
	if !found.hasList {
		return nil
	}
	refused, err := c.staging.Subscribe(found.subscribed)
	for _, r := range refused {
		report.Skips = append(report.Skips, skipSubscription(r))
	}
	return err
}

func (c *conversion) emptyInbox() error {
	folder, err := c.staging.Folder(nil)
	if err != nil {
		return err
	}
	return folder.Close()
}
