package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// mailboxAudit compares one parked mbox with its folder.
type mailboxAudit struct {
	*accountAudit
	src      source
	rel      string // where its folder lay after the flip
	flip     int64  // when it was parked, in seconds since 1970
	validity uint32 // UIDVALIDITY that it records; 0: none
	index    int32
	report   *MailboxAudit

	converted, taken int64 // up to here it was converted, and swept

	folder *auditFolder // nil: gone

	in       *input
	dir      *liveDir
	keywords audit     // for the letters of the folder
	head     *expected // the next message of the mbox; nil at the end
	next     expected
	used     maildir.Flags // letters of the messages that were kept
	later    []expected    // whose file had gone when it was to be opened
	nextUID  uint32        // of the mbox
}

// expected is what the mbox says of one message.
type expected struct {
	offset, size int64
	date         int64 // mtime in seconds; noDate if nothing tells
	digest       message.Digest
	uid          uint32
	flags        maildir.Flags
	keywords     string
	uidl         string

	unique string // of its file, by the list of UIDs
	listed string // UIDL there
}

const noDate = -1 << 63

// run walks the mbox and the list of UIDs in step.
func (b *mailboxAudit) run(ctx context.Context) (err error) {
	if b.in, err = open(b.src, b.Scan); err != nil {
		return failed(b.src, err)
	}
	defer b.in.Close()
	err = b.openFolder(ctx)
	if b.dir != nil {
		defer b.dir.close()
	}
	if err != nil {
		return err
	}
	if err := b.advance(); err != nil {
		return err
	}
	if err := b.walk(ctx); err != nil {
		return err
	}
	for b.head != nil {
		b.lose(b.head)
		if err := errors.Join(b.advance(), ctx.Err()); err != nil {
			return err
		}
	}
	b.nextUID = b.in.NextUID()
	if b.dir == nil {
		return nil
	}
	if err := b.lookAgain(ctx); err != nil {
		return err
	}
	return b.checkKeywords()
}

// openFolder lists the folder. One that went a moment ago was renamed or
// deleted: its messages are searched.
func (b *mailboxAudit) openFolder(ctx context.Context) (err error) {
	if b.folder == nil {
		return nil
	}
	b.dir, err = openLive(b.root, b.folder.rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if isNoDir(err) {
		b.differ(b.report, -1, b.path(b.folder.rel), "folder", "directories", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if b.folder.files, err = b.dir.list(ctx); err != nil {
		return err
	}
	return errors.Join(b.readKeywords(), b.dir.doubles(b.folder.files, func(place, first string) {
		b.differ(b.report, -1, b.path(b.folder.rel, place), "message", "one file of its name", "another is "+first)
	}))
}

// file is the path of a message.
func (b *mailboxAudit) file(s fileState, name string) string {
	sub := "cur"
	if s&inNew != 0 {
		sub = "new"
	}
	return b.path(b.folder.rel, sub, name)
}

// advance reads the next message of the mbox.
func (b *mailboxAudit) advance() error {
	for {
		e, err := b.in.Next()
		if err == io.EOF {
			b.head = nil
			return nil
		}
		if err != nil {
			return failed(b.src, err)
		}
		if e.Offset >= b.converted {
			if e.Offset < b.taken {
				continue
			}
			b.differ(b.report, e.Offset, b.src.path, "mbox", "no mail since the flip", "mail that is not in the Maildir: run mailferry sweep")
			b.head = nil
			return nil
		}
		state := b.in.State(e)
		if state.Pseudo {
			continue
		}
		b.report.Messages++
		b.expect(e, state)
		return nil
	}
}

func (b *mailboxAudit) expect(e *mbox.Entry, state mbox.State) {
	b.head = &b.next
	b.next = expected{
		offset: e.Offset, size: e.Size, date: noDate, digest: e.Digest,
		uid: state.UID, flags: systemFlags(state.Flags), keywords: b.keywords.wantKeywords(state),
	}
	if !e.Date.IsZero() {
		b.next.date = e.Date.Unix()
	}
	validity := b.in.UIDValidity()
	if validity == 0 && b.folder != nil {
		validity = b.folder.validity
	}
	b.next.uidl = uidl(b.in.Scanner, e, state.UID, validity)
}

// walk reads the list of UIDs. One that servers would throw away, and with it
// all UIDs, is a difference.
func (b *mailboxAudit) walk(ctx context.Context) error {
	if b.dir == nil {
		return nil
	}
	f, err := b.dir.dir.OpenRegular(maildir.UIDListName)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		b.differ(b.report, -1, b.path(b.folder.rel, maildir.UIDListName), "list of UIDs", "present", "absent")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var failed error
	header, err := maildir.ScanUIDList(f, func(u maildir.UIDEntry) error {
		failed = errors.Join(b.line(u), ctx.Err())
		return failed
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		b.differ(b.report, -1, b.path(b.folder.rel, maildir.UIDListName), "list of UIDs", "readable", err.Error())
		return nil
	}
	b.folder.validity, b.folder.nextUID = header.UIDValidity, header.NextUID
	return nil
}

// line takes a line of the list of UIDs, after all messages of the mbox that
// have lower UIDs.
func (b *mailboxAudit) line(u maildir.UIDEntry) error {
	for b.head != nil && b.head.uid < u.UID {
		b.lose(b.head)
		if err := b.advance(); err != nil {
			return err
		}
	}
	f := b.folder.files.find(keyOf(u.Name))
	if f != nil {
		if f.uid != 0 {
			b.differ(b.report, -1, b.file(f.state, b.folder.files.name(f, u.Name)), "UID", fmt.Sprint(f.uid), fmt.Sprintf("%d as well", u.UID))
		}
		f.uid = u.UID
		if u.UIDL != "" {
			f.state |= hasUIDL
		}
	}
	if b.head == nil || b.head.uid != u.UID || !b.isOurs(u) {
		return nil
	}
	x := b.head
	x.unique, x.listed = u.Name, u.UIDL
	var err error
	if f == nil {
		b.lose(x)
	} else {
		err = b.compare(x, f)
	}
	return errors.Join(err, b.advance())
}

// isOurs reports whether a line may be one that the conversion wrote. Under
// another UIDVALIDITY UIDs mean something else; only the UIDLs of conversion
// show that the list is the same and its header was altered.
func (b *mailboxAudit) isOurs(u maildir.UIDEntry) bool { return !b.differs() || u.UIDL != "" }

// differs reports whether the folder has another UIDVALIDITY than the mbox.
func (b *mailboxAudit) differs() bool {
	return b.validity != 0 && b.folder != nil && b.folder.validity != b.validity
}

// lose notes a message that its folder does not have under its UID.
func (b *mailboxAudit) lose(x *expected) {
	b.lost = append(b.lost, lost{size: x.size, offset: x.offset, digest: [16]byte(x.digest[:16]), uid: x.uid, box: b.index})
}

// compare compares a message with its file.
func (b *mailboxAudit) compare(x *expected, f *file) error {
	name := b.folder.files.name(f, x.unique)
	path := b.file(f.state, name)
	got, err := b.reader.read(b.dir.in(f.state), name, nil)
	if errors.Is(err, fs.ErrNotExist) {
		b.later = append(b.later, *x) // flagged, moved or deleted a moment ago
		return nil
	}
	f.state |= taken
	b.report.Kept++
	if isIrregular(err) || errors.Is(err, fs.ErrPermission) {
		b.differ(b.report, x.offset, path, "message", "a readable file", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	b.check(x, path, "digest", fmt.Sprintf("%x", x.digest), fmt.Sprintf("%x", got.digest))
	b.check(x, path, "size", strconv.FormatInt(x.size, 10), strconv.FormatInt(got.size, 10))
	b.check(x, path, "S=", strconv.FormatInt(got.size, 10), nameField(x.unique, ",S="))
	b.check(x, path, "W=", strconv.FormatInt(got.vsize, 10), nameField(x.unique, ",W="))
	b.check(x, path, "UIDL", x.uidl, x.listed)
	if x.date != noDate {
		b.check(x, path, "date", strconv.FormatInt(x.date, 10), strconv.FormatInt(got.date, 10))
	}
	b.compareFlags(x, f.flags)
	return nil
}

func (b *mailboxAudit) check(x *expected, path, field, want, got string) {
	if want != got {
		b.differ(b.report, x.offset, path, field, want, got)
	}
}

// compareFlags counts messages with other flags or keywords.
func (b *mailboxAudit) compareFlags(x *expected, flags maildir.Flags) {
	b.used |= flags
	var names []string
	for i := range maildir.MaxKeywords {
		if flags&maildir.Keyword(i) != 0 {
			names = append(names, b.keywords.keyword(i))
		}
	}
	if flags&^keywordLetters != x.flags || joinKeywords(names) != x.keywords {
		b.report.Reflagged++
	}
}

// maxLooks is how often a file is looked for that has another name each time.
const maxLooks = 20

// lookAgain finds the files that had gone when they were to be opened.
func (b *mailboxAudit) lookAgain(ctx context.Context) error {
	for look := 0; len(b.later) > 0; look++ {
		if look == maxLooks {
			return &Busy{b.dir.dir.Path()}
		}
		fresh, err := b.dir.list(ctx)
		if err != nil {
			return err
		}
		fresh.inherit(b.folder.files)
		b.folder.files = fresh
		again := b.later
		b.later = nil
		for i := range again {
			x := &again[i]
			if f := fresh.find(keyOf(x.unique)); f == nil {
				b.lose(x)
			} else if err := b.compare(x, f); err != nil {
				return err
			}
		}
	}
	return nil
}
