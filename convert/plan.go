package convert

import (
	"cmp"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/mbox"
)

// Plan is what a migration would do, and how long it would take. Making it
// changes nothing.
type Plan struct {
	Accounts []AccountPlan `json:"accounts"` // as they were listed
	Total    PlanTotal     `json:"total"`
	Rate     Rate          `json:"rate"`
	Volumes  []Volume      `json:"volumes"`
}

// AccountPlan is the part of one account.
type AccountPlan struct {
	Inspection
	Mailboxes []MailboxPlan `json:"mailboxes"`
	Sums
	Precopy Seconds `json:"precopy_seconds"`
	Hold    Seconds `json:"hold_seconds"`

	took time.Duration // to look at it
}

// MailboxPlan is the part of one mailbox.
type MailboxPlan struct {
	Name       string        `json:"name"` // of the folder, "INBOX" or "A/B"
	Path       string        `json:"path"`
	Messages   int           `json:"messages"`
	Careful    int           `json:"careful_messages"` // by the careful reading
	Bytes      int64         `json:"bytes"`            // of the mbox
	Oddities   Odd           `json:"oddities,omitempty"`
	Quarantine []Quarantined `json:"quarantine,omitempty"` // messages that a Maildir can't hold

	entries int // messages and the pseudo-message
}

// Sums are what mailboxes come to.
type Sums struct {
	Messages   int   `json:"messages"`
	Bytes      int64 `json:"bytes"`        // of the mboxes
	NeedBytes  int64 `json:"needs_bytes"`  // of disk, for the second copy
	NeedInodes int64 `json:"needs_inodes"` // likewise
	Oddities   int   `json:"oddities"`
	Quarantine int   `json:"quarantine"`
}

func (s *Sums) add(other Sums) {
	s.Messages += other.Messages
	s.Bytes += other.Bytes
	s.NeedBytes += other.NeedBytes
	s.NeedInodes += other.NeedInodes
	s.Oddities += other.Oddities
	s.Quarantine += other.Quarantine
}

// PlanTotal is what the accounts come to that a migration would take. The
// others are counted, and their mail is not.
type PlanTotal struct {
	Users     int `json:"users"`
	Ready     int `json:"ready"`
	Refused   int `json:"refused"`
	Migrated  int `json:"migrated"` // already
	Mailboxes int `json:"mailboxes"`
	Sums
	Precopy Seconds        `json:"precopy_seconds"`  // with so many users at a time as there are processors
	Hold    Seconds        `json:"hold_seconds"`     // the longest of a user
	Codes   map[string]int `json:"findings_by_code"` // of all users
}

// Volume is a filesystem on which Maildirs will lie.
type Volume struct {
	Path       string `json:"path"` // of a directory in it
	Users      int    `json:"users"`
	NeedBytes  int64  `json:"needs_bytes"`
	FreeBytes  int64  `json:"free_bytes"` // less what must stay free
	NeedInodes int64  `json:"needs_inodes"`
	FreeInodes int64  `json:"free_inodes"`
	Enough     bool   `json:"enough"` // for all users together
}

// PlanOptions say how a plan is made.
type PlanOptions struct {
	Jobs int                // accounts at a time, at least 1
	Done func(*AccountPlan) // told of each account, by several goroutines; may be nil
}

// Plan looks at accounts and reads all their mailboxes, to say what a migration
// would do with them. The error is ctx's: whatever is wrong with an account is
// among its findings.
func (in *Inspector) Plan(ctx context.Context, accounts []account.Account, o PlanOptions) (*Plan, error) {
	p := &Plan{Accounts: make([]AccountPlan, len(accounts))}
	var err error
	if p.Rate, err = MeasureRate(ctx, in.site.State); err != nil {
		return nil, err
	}
	rehearsals, _ := journal.ListRehearsal(in.site.State) // what can't be read was not rehearsed
	p.Rate = p.Rate.rehearsed(rehearsals)
	var jobs errgroup.Group
	jobs.SetLimit(max(o.Jobs, 1))
	for i, a := range accounts {
		jobs.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.Accounts[i] = in.account(ctx, a)
			if o.Done != nil {
				o.Done(&p.Accounts[i])
			}
			return nil
		})
	}
	if err := cmp.Or(jobs.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	p.foretell()
	p.total()
	p.volumes(in.FreeFloor)
	return p, nil
}

// account plans one account.
func (in *Inspector) account(ctx context.Context, a account.Account) AccountPlan {
	start := time.Now()
	p := AccountPlan{Inspection: *in.inspect(a, func(f *mailboxFile) (MailboxPlan, error) { return countAll(ctx, f, in.maxFile) })}
	p.took = time.Since(start)
	p.Mailboxes = slices.Clip(p.mailboxes)
	if p.Mailboxes == nil {
		p.Mailboxes = []MailboxPlan{}
	}
	p.NeedBytes, p.NeedInodes = p.need.bytes, p.need.inodes
	for _, m := range p.Mailboxes {
		p.Messages += m.Messages
		p.Bytes += m.Bytes
		p.Quarantine += len(m.Quarantine)
		for _, places := range m.Oddities {
			p.Oddities += places.Count
		}
	}
	return p
}

// retries is how often a mailbox is read that becomes shorter meanwhile.
const retries = 3

// countAll reads a mailbox to its end. Messages beyond maxFile bytes will be
// quarantined.
func countAll(ctx context.Context, f *mailboxFile, maxFile int64) (m MailboxPlan, err error) {
	for range retries {
		if m, err = countOnce(ctx, f, maxFile); !errors.Is(err, mbox.ErrShrunk) {
			break
		}
		info, serr := f.Stat()
		if serr != nil {
			return m, serr
		}
		f.size = info.Size()
	}
	return m, err
}

func countOnce(ctx context.Context, f *mailboxFile, maxFile int64) (MailboxPlan, error) {
	m := MailboxPlan{Name: f.source.name(), Path: f.path, Bytes: f.size}
	s, err := mbox.NewScanner(f, f.size, f.scan)
	if err != nil {
		return m, err
	}
	defer s.Close()
	t := mbox.NewTracker(s)
	for {
		e, err := s.Next()
		if err != nil {
			m.take(s)
			return m, unlessEOF(err)
		}
		m.entries++
		if state := t.State(e); !state.Pseudo {
			m.Messages++
			if e.Size > maxFile {
				m.Quarantine = append(m.Quarantine, Quarantined{m.Name, e.Offset, e.Next() - e.Offset, state.UID, unrepresentable(unix.EFBIG)})
			}
		}
		if err := ctx.Err(); err != nil {
			return m, err
		}
	}
}

func unlessEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// take notes what a scan that has ended knows of the mailbox as a whole.
func (m *MailboxPlan) take(s *mbox.Scanner) {
	m.Careful = s.CarefulCount()
	m.Oddities = oddOf(s.Oddities())
}

// foretell says how long each account will take. What reading has taken here
// it will take again, if rehearsals do not know it.
func (p *Plan) foretell() {
	for i := range p.Accounts {
		a := &p.Accounts[i]
		if a.ready() {
			if a.Precopy = p.Rate.Write(a.Messages, a.Bytes); p.Rate.Rehearsed == 0 {
				a.Precopy += seconds(a.took)
			}
			a.Hold = p.Rate.Hold(a.Mailboxes)
		}
	}
}

// ready reports whether a migration would take the account.
func (a *AccountPlan) ready() bool { return !a.Refused && !a.Has("migrated") }

// total adds up.
func (p *Plan) total() {
	t := &p.Total
	t.Users, t.Codes = len(p.Accounts), map[string]int{}
	for i := range p.Accounts {
		a := &p.Accounts[i]
		for _, f := range a.Findings {
			t.Codes[f.Code]++
		}
		switch {
		case a.Refused:
			t.Refused++
			continue
		case !a.ready():
			t.Migrated++
			continue
		}
		t.Ready++
		t.Mailboxes += len(a.Mailboxes)
		t.Sums.add(a.Sums)
		t.Precopy += a.Precopy
		t.Hold = max(t.Hold, a.Hold)
	}
	t.Precopy /= Seconds(min(max(t.Ready, 1), runtime.NumCPU()))
}

// volumes adds up what the accounts take of each filesystem together. Each of
// them was found to fit alone.
func (p *Plan) volumes(floor int64) {
	at := map[uint64]int{}
	p.Volumes = []Volume{}
	for i := range p.Accounts {
		a := &p.Accounts[i]
		if !a.ready() || !a.room.known {
			continue
		}
		n, seen := at[a.room.Dev]
		if !seen {
			n = len(p.Volumes)
			at[a.room.Dev] = n
			p.Volumes = append(p.Volumes, Volume{Path: a.room.path, FreeBytes: max(a.room.Bytes-floor, 0), FreeInodes: a.room.Inodes})
		}
		v := &p.Volumes[n]
		v.Users++
		v.NeedBytes += a.NeedBytes
		v.NeedInodes += a.NeedInodes
		v.Enough = v.NeedBytes <= v.FreeBytes && v.NeedInodes <= v.FreeInodes
	}
}
