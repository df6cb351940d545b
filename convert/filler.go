package convert

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// filler is a round at one mailbox: it walks the mbox and the manifest in step.
type filler struct {
	*round
	src    source
	in     *input
	folder *maildir.Folder
	was    *mailboxState // nil: the folder is empty
	base   time.Time     // of the names, if none is to be continued
	from   *mark         // behind which the round begins; nil: at the start
	report *MailboxRound

	at      reach  // in the lists
	reached *reach // behind the last message at which a later round can begin
	closed  bool   // no round can: the letters of keywords depend on all messages

	old      *manifest
	guid     [16]byte
	validity uint32
	keywords *keywords
	uids     *maildir.UIDListWriter
	uidList  *maildir.Revision
	records  *bufio.Writer
	recList  *maildir.Revision
	stamp    time.Time // of the next name
	namer    *maildir.Namer
	line     []byte
	state    mailboxState
}

// run fills the folder. In the end it is equal to the mbox; after an error it
// has no state, and the next round begins it anew.
func (f *filler) run(ctx context.Context) (state *mailboxState, err error) {
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.begin(); err != nil {
		return nil, err
	}
	for {
		e, err := f.in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, failed(f.src, err)
		}
		if err := f.entry(e); err != nil {
			return nil, fmt.Errorf("%s: message at offset %d: %w", f.src.path, e.Offset, err)
		}
		f.mark()
		if err := f.wait(ctx, e.Next()-e.Offset); err != nil {
			return nil, err
		}
	}
	if err := f.lists(); err != nil { // of an empty mailbox
		return nil, err
	}
	if err := f.expungeRest(); err != nil {
		return nil, err
	}
	return f.end()
}

// begin takes the folder out of accord, and up where the last round ended.
func (f *filler) begin() (err error) {
	if err := f.folder.RemoveList(mailboxName); err != nil {
		return err
	}
	f.state = mailboxState{Version: manifestVersion, Settings: f.settings, Source: f.src.path, Stat: statOf(f.in.before), Scanned: f.start.UnixNano()}
	if f.from != nil {
		f.at = f.from.reach
		f.state.Messages, f.state.Bytes, f.state.Quarantined = f.at.messages, f.at.bytes, slices.Clone(f.was.Quarantined[:f.at.quarantined])
	}
	if f.old, err = openManifest(f.folder, f.was, f.at.manifest); err != nil {
		return err
	}
	f.stamp = f.base
	if f.was != nil {
		// Names go on behind the last one, or behind all that the last round
		// could have given, whichever is later.
		f.state.Unchecked = f.was.Unchecked
		if last := time.UnixMicro(f.was.Stamp); f.base.UnixNano() < f.was.Scanned {
			f.stamp = last
		}
	}
	f.namer = maildir.NewNamer(f.stamp, os.Getpid(), f.host)
	return nil
}

// wait tells who watches, and keeps to the pace.
func (f *filler) wait(ctx context.Context, bytes int64) error {
	if f.pace.Progress != nil {
		f.pace.Progress(bytes)
	}
	if f.pace.Throttle != nil && !f.held {
		return f.pace.Throttle(ctx, bytes)
	}
	if err := f.show(); err != nil {
		return err
	}
	return ctx.Err()
}

// lists begins the lists, once the first message has told the mailbox's state.
func (f *filler) lists() (err error) {
	if f.keywords != nil {
		return nil
	}
	if err := f.identity(); err != nil {
		return err
	}
	if f.from != nil {
		return f.listsFrom()
	}
	f.closed = len(f.in.Keywords()) > maildir.MaxKeywords
	if f.keywords, err = newKeywords(f.src, f.in.Keywords(), f.Scan); err != nil {
		return err
	}
	if f.recList, err = f.folder.Revise(manifestName); err != nil {
		return err
	}
	f.records = bufio.NewWriterSize(f.recList, 1<<16)
	next := uint32(0)
	if f.was != nil {
		next = f.was.NextUID
	}
	f.uids, f.uidList, err = f.folder.ReviseUIDs(f.validity, f.guid, next)
	return err
}

// listsFrom takes the lists up behind the mark.
func (f *filler) listsFrom() (err error) {
	table := f.at.table
	f.keywords = &keywords{table: &table, left: map[string]*uidSet{}}
	if f.recList, err = f.folder.ReviseFrom(manifestName, f.at.manifest); err == nil {
		f.records = bufio.NewWriterSize(f.recList, 1<<16)
		f.uids, f.uidList, err = f.folder.ReviseUIDsFrom(f.at.uids, f.validity)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errAltered, err)
	}
	return nil
}

// mark remembers how far the round has come, if another can begin there.
func (f *filler) mark() {
	if f.in.hash == nil || f.closed || len(f.keywords.order) > 0 {
		return
	}
	scan, ok := f.in.Mark(f.in.Tracker)
	if !ok {
		return
	}
	f.at.scan, f.at.uids, f.at.table = scan, f.uids.Place(), *f.keywords.table
	f.at.messages, f.at.bytes, f.at.quarantined = f.state.Messages, f.state.Bytes, len(f.state.Quarantined)
	if f.reached == nil {
		f.reached = &reach{}
	}
	*f.reached = f.at
}

// identity settles the UIDVALIDITY and the GUID, which outlive a round.
func (f *filler) identity() error {
	f.validity = f.in.UIDValidity()
	if f.state.Guessed = f.validity == 0; f.state.Guessed {
		f.validity = f.guess()
	}
	if f.was == nil {
		rand.Read(f.guid[:])
		return nil
	}
	if _, err := hex.Decode(f.guid[:], []byte(f.was.GUID)); err != nil || len(f.was.GUID) != 2*len(f.guid) {
		return fmt.Errorf("%s: %w", mailboxName, errAltered)
	}
	return nil
}

// guess is a UIDVALIDITY for an mbox that records none. One that it had recorded
// is not kept: the UIDs that went with it are lost, and a client must not take a
// new message for an old one.
func (f *filler) guess() uint32 {
	fresh := freshValidity(f.start)
	switch {
	case f.was == nil:
		return fresh
	case f.was.Guessed:
		return f.was.UIDValidity
	}
	return max(fresh, f.was.UIDValidity+1)
}

// freshValidity is a UIDVALIDITY that no server has ever given. They take the time
// at which a mailbox is first opened, which Dovecot may keep in its index alone:
// that lies a year behind this one. The same would make clients take new messages
// for old ones that were expunged.
func freshValidity(start time.Time) uint32 { return uint32(start.AddDate(1, 0, 0).Unix()) }

// entry brings one message up to date.
func (f *filler) entry(e *mbox.Entry) error {
	state := f.in.State(e)
	if err := f.lists(); err != nil || state.Pseudo {
		return err
	}
	f.state.Messages++
	at, err := f.old.find(e.Digest)
	if err != nil {
		return fmt.Errorf("%w: %w", errAltered, err)
	}
	flags := systemFlags(state.Flags) | f.keywords.flags(state)
	r := record{offset: e.Offset, length: e.Next() - e.Offset, uid: state.UID, digest: e.Digest}
	if !e.Date.IsZero() {
		r.date = e.Date.Unix()
	}
	if at < 0 {
		err = f.write(e, flags, &r)
	} else {
		err = f.keep(e, flags, &r, at)
	}
	if err == nil {
		err = f.note(e, &r)
	}
	if reason := unrepresentable(err); reason != "" {
		return f.quarantine(e, &r, reason)
	}
	f.state.Bytes += e.Size
	return err
}

// note enters a message into the lists.
func (f *filler) note(e *mbox.Entry, r *record) error {
	entry := maildir.UIDEntry{UID: r.uid, Name: r.unique(), UIDL: uidl(f.in.Scanner, e, r.uid, f.validity)}
	if err := f.uids.Add(entry); err != nil {
		return err
	}
	f.line = r.append(f.line[:0])
	f.at.manifest += int64(len(f.line))
	f.at.entries++
	_, err := f.records.Write(f.line)
	return err
}

// write makes the file of a message that is not there yet.
func (f *filler) write(e *mbox.Entry, flags maildir.Flags, r *record) error {
	name := f.namer.Append(f.line[:0], e.Size, e.VSize)
	f.stamp = f.stamp.Add(time.Microsecond)
	r.name = string(flags.Append(append(name, maildir.InfoPrefix...)))
	m := maildir.Message{Size: e.Size, VSize: e.VSize, Date: e.Date, Flags: flags}
	f.state.Unchecked++
	if err := f.folder.Create(r.name, m, f.content(e)); err != nil {
		return err
	}
	f.report.Written++
	f.report.WrittenBytes += e.Size
	f.touched(r.name)
	return nil
}

// content writes a message. One that is read from the mbox again, since it is
// too long for the memory, may have changed meanwhile.
func (f *filler) content(e *mbox.Entry) func(io.Writer) error {
	if !f.in.ReadsAgain() {
		return f.in.WriteContent
	}
	return func(w io.Writer) error {
		written := message.NewMeasure()
		err := f.in.WriteContent(io.MultiWriter(written, w))
		if err == nil && written.Digest() != e.Digest || errors.Is(err, mbox.ErrShrunk) {
			return &Busy{f.src.path}
		}
		return err
	}
}

// keep takes over the file of a message, which at others of the manifest come
// before: those are in the mbox no more.
func (f *filler) keep(e *mbox.Entry, flags maildir.Flags, r *record, at int) error {
	for range at {
		if err := f.expunge(); err != nil {
			return err
		}
	}
	was := f.old.ahead[0]
	f.old.drop()
	r.file, r.name = was.file, string(flags.Append([]byte(was.unique()+maildir.InfoPrefix)))
	if r.name == was.name && r.date == was.date {
		return nil
	}
	return f.alter(e, &was, r)
}

// alter gives a file its new flags and date. It must be the file that was read
// back, if it was.
func (f *filler) alter(e *mbox.Entry, was, r *record) error {
	if was.file.Ino != 0 {
		if now, err := f.folder.Identify(was.name); err != nil || now != was.file {
			return altered(err)
		}
	}
	if r.name != was.name {
		if err := f.folder.Rename(was.name, r.name); err != nil {
			return altered(err)
		}
		f.report.Reflagged++
	}
	if r.date != was.date && !e.Date.IsZero() {
		if err := f.folder.SetDate(r.name, e.Date); err != nil {
			return altered(err)
		}
	}
	f.touched(r.name)
	if was.file.Ino == 0 {
		return nil
	}
	now, err := f.folder.Identify(r.name)
	r.file = now
	if err != nil {
		return altered(err)
	}
	return nil
}

// touched remembers a file that a cutover has to sync by itself, while they are
// few enough to do so.
func (f *filler) touched(name string) {
	if f.tracked && len(f.report.fresh) <= manyFiles {
		f.report.fresh = append(f.report.fresh, name)
	}
}

// end writes the lists, and the state last.
func (f *filler) end() (*mailboxState, error) {
	if err := errors.Join(f.records.Flush(), f.uids.Close(f.in.NextUID())); err != nil {
		return nil, err
	}
	f.state.Manifest = f.recList.Size()
	for _, list := range []*maildir.Revision{f.recList, f.uidList} {
		changed, err := list.Commit()
		if err != nil {
			return nil, err
		}
		f.report.lists = f.report.lists || changed
	}
	changed, err := f.folder.ReviseKeywords(f.keywords.table)
	if err != nil {
		return nil, err
	}
	f.report.lists = f.report.lists || changed
	if err := f.in.unchanged(f.src.path); err != nil && f.held {
		return nil, err
	}
	f.state.UIDValidity, f.state.NextUID, f.state.GUID = f.validity, f.in.NextUID(), hex.EncodeToString(f.guid[:])
	f.state.Stamp = f.stamp.UnixMicro()
	odd := f.in.Oddities()
	f.state.Careful, f.state.Differs = f.in.CarefulCount(), odd.Of(mbox.ProfileDiffers).Count
	f.state.Oddities, f.state.Odd = odd.Total(), oddOf(odd)
	f.state.Left = f.keywords.leftovers()
	return &f.state, writeState(f.folder, &f.state)
}

// close releases what an error left open.
func (f *filler) close() error {
	var err error
	if f.old != nil {
		err = f.old.close()
	}
	for _, list := range []*maildir.Revision{f.recList, f.uidList} {
		if list != nil {
			err = errors.Join(err, list.Close())
		}
	}
	return err
}
