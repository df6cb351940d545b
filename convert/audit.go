package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"

	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// audit compares one folder of a Maildir with its mbox. What is in the Maildir
// is read by go-maildir and from Dovecot's lists, not by what wrote it. The mbox
// and the list of UIDs are walked in step: UIDs rise in both, and say which
// message belongs to which file even where one is missing.
type audit struct {
	mailbox string
	dir     string
	in      *input

	folder   *liveDir // nil: there is none
	files    *files
	uids     maildir.UIDListHeader
	keywords *maildir.KeywordTable
	reader   *reader
	head     *mbox.Entry // the next message of the mbox; nil at the end
	state    mbox.State  // of the same
	report   *MailboxReport
	progress func(int64)
	diffs    []Difference
}

// verifyMailbox audits the folder of one source.
func verifyMailbox(ctx context.Context, src source, o Options) (result, []Difference, error) {
	in, err := open(src, o.Scan)
	if isSkippable(err) {
		return result{skipped: err}, nil, nil
	}
	if err != nil {
		return result{}, nil, failed(src, err)
	}
	defer in.Close()
	rel, err := o.Folders.Dir(src.parts)
	if err != nil {
		return result{skipped: err}, nil, nil
	}
	r := MailboxReport{Name: src.name(), Path: src.path}
	a := &audit{mailbox: r.Name, dir: filepath.Join(o.Dest, rel), in: in, reader: newReader(), report: &r, progress: o.Progress}
	defer a.close()
	if err := errors.Join(a.loadFiles(), a.loadKeywords()); err != nil {
		return result{}, nil, err
	}
	if err := a.messages(ctx); err != nil {
		return result{}, nil, failed(src, err)
	}
	if err := a.leftovers(); err != nil {
		return result{}, nil, err
	}
	r.Careful, r.Oddities = in.CarefulCount(), in.Oddities()
	return result{report: r}, a.diffs, in.unchanged(src.path)
}

func (a *audit) close() {
	if a.folder != nil {
		a.folder.close()
	}
}

// loadFiles lists the messages. A folder that is missing is a difference, not
// an error.
func (a *audit) loadFiles() error {
	a.files = &files{}
	root, err := safefs.OpenDir(a.dir)
	if err == nil {
		a.folder, err = openLive(root, ".")
		root.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.differ(-1, a.dir, "folder", "present", "absent")
		return nil
	case isNoDir(err):
		a.differ(-1, a.dir, "folder", "directories", err.Error())
		return nil
	case err != nil:
		return err
	}
	if a.uids.UIDValidity, err = readValidity(a.folder.dir); err != nil {
		return err
	}
	if a.files, err = a.folder.scan(); err != nil {
		return err
	}
	err = a.folder.doubles(a.files, func(place, first string) {
		a.differ(-1, a.path(place), "message", "one file", "two files of one name, with "+first)
	})
	return errors.Join(err, a.strays())
}

// strays reports files that go-maildir does not list and a server shows all
// the same: those in new, and those in cur whose names hold no flags.
func (a *audit) strays() error {
	report := func(sub string, state fileState) func(string) error {
		return func(name string) error {
			if f := a.files.find(keyOf(uniqueOf(name))); f != nil && f.state&state != 0 && name[0] != '.' {
				a.differ(-1, a.path(sub, name), "message", "absent", "present")
			}
			return nil
		}
	}
	err := a.folder.cur.Names(report("cur", unread))
	if a.folder.new != nil {
		err = errors.Join(err, a.folder.new.Names(report("new", inNew)))
	}
	return err
}

func (a *audit) path(parts ...string) string {
	return filepath.Join(append([]string{a.dir}, parts...)...)
}

// loadKeywords reads what the letters stand for. A folder without keywords has
// no list of them; one that can't be read is a difference.
func (a *audit) loadKeywords() error {
	a.keywords = &maildir.KeywordTable{}
	f, err := a.list("dovecot-keywords")
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	table, err := maildir.ParseKeywords(f)
	if err != nil {
		a.differ(-1, a.path("dovecot-keywords"), "list", "readable", err.Error())
		return nil
	}
	a.keywords = table
	return nil
}

// list opens a list; nil if there is none.
func (a *audit) list(name string) (io.ReadCloser, error) {
	if a.folder == nil {
		return nil, nil
	}
	f, err := a.folder.dir.OpenRegular(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (a *audit) differ(offset int64, file, field, want, got string) {
	a.diffs = append(a.diffs, Difference{a.mailbox, offset, file, field, want, got})
}

// check notes a difference of two values of the next message.
func check[T comparable](a *audit, file, field string, want, got T) {
	if want != got {
		a.differ(a.head.Offset, file, field, fmt.Sprint(want), fmt.Sprint(got))
	}
}

// messages walks both sides.
func (a *audit) messages(ctx context.Context) error {
	if err := a.advance(); err != nil {
		return err
	}
	if err := a.walk(ctx); err != nil {
		return err
	}
	for a.head != nil {
		a.absent("")
		if err := errors.Join(a.advance(), ctx.Err()); err != nil {
			return err
		}
	}
	a.header()
	return nil
}

// walk takes the list of UIDs line by line. One that Dovecot would throw away is
// a difference.
func (a *audit) walk(ctx context.Context) error {
	list, err := a.list(maildir.UIDListName)
	if err != nil {
		return err
	}
	if list == nil {
		a.differ(-1, a.path(maildir.UIDListName), "list of UIDs", "present", "absent")
		return nil
	}
	defer list.Close()
	var failed error
	header, err := maildir.ScanUIDList(list, func(u maildir.UIDEntry) error {
		failed = errors.Join(a.line(u), ctx.Err())
		return failed
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		a.differ(-1, a.path(maildir.UIDListName), "list", "readable", err.Error())
		return nil
	}
	a.uids = header
	return nil
}

// advance reads the next message of the mbox.
func (a *audit) advance() error {
	for {
		e, err := a.in.Next()
		if err == io.EOF {
			a.head = nil
			return nil
		}
		if err != nil {
			return err
		}
		a.head, a.state = e, a.in.State(e)
		a.progress(e.Next() - e.Offset)
		if !a.state.Pseudo {
			a.report.Messages++
			a.report.Bytes += e.Size
			return nil
		}
	}
}

// line takes a line of the list, after the messages that have lower UIDs.
func (a *audit) line(u maildir.UIDEntry) error {
	for a.head != nil && a.state.UID < u.UID {
		a.absent("")
		if err := a.advance(); err != nil {
			return err
		}
	}
	f := a.files.find(keyOf(u.Name))
	if f != nil && f.state&taken != 0 {
		a.differ(-1, a.path("cur", a.files.name(f, u.Name)), "UID", "one", fmt.Sprintf("%d as well", u.UID))
	}
	if f != nil && f.state&(inNew|unread|taken) != 0 {
		f = nil
	}
	if f != nil {
		f.state |= taken
	}
	if a.head == nil || a.state.UID != u.UID {
		if f != nil { // a line without a file is no message: servers tolerate those
			a.differ(-1, a.path("cur", a.files.name(f, u.Name)), "message", "absent", fmt.Sprintf("present with UID %d", u.UID))
		}
		return nil
	}
	var err error
	if f == nil {
		a.absent(a.path("cur", u.Name))
	} else {
		err = a.message(u, f)
	}
	return errors.Join(err, a.advance())
}

// absent reports that the next message is not there.
func (a *audit) absent(file string) {
	a.differ(a.head.Offset, file, "message", fmt.Sprintf("present with UID %d", a.state.UID), "absent")
}

// header compares what the folder's list says of the mailbox as a whole.
func (a *audit) header() {
	list := a.path(maildir.UIDListName)
	if want := a.in.UIDValidity(); want != 0 && want != a.uids.UIDValidity {
		a.differ(-1, list, "UIDVALIDITY", fmt.Sprint(want), fmt.Sprint(a.uids.UIDValidity))
	}
	if want := a.in.NextUID(); want > a.uids.NextUID {
		a.differ(-1, list, "next UID", fmt.Sprintf("at least %d", want), fmt.Sprint(a.uids.NextUID))
	}
}

// leftovers reports files that no list names.
func (a *audit) leftovers() error {
	if a.folder == nil {
		return nil
	}
	return a.folder.cur.Names(func(name string) error {
		f := a.files.find(keyOf(uniqueOf(name)))
		if f != nil && f.state&(taken|unread|inNew) == 0 {
			a.differ(-1, a.path("cur", name), "message", "absent", "present without a UID")
		}
		return nil
	})
}

// message compares the next message with its file.
func (a *audit) message(u maildir.UIDEntry, f *file) error {
	e, name := a.head, a.files.name(f, u.Name)
	file := a.path("cur", name)
	read, err := a.reader.read(a.folder.cur, name, nil)
	if isIrregular(err) {
		a.differ(e.Offset, file, "message", "a regular file", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	check(a, file, "digest", fmt.Sprintf("%x", e.Digest), fmt.Sprintf("%x", read.digest))
	check(a, file, "size", e.Size, read.size)
	check(a, file, "S=", strconv.FormatInt(read.size, 10), nameField(u.Name, ",S="))
	check(a, file, "W=", strconv.FormatInt(read.vsize, 10), nameField(u.Name, ",W="))
	if !e.Date.IsZero() {
		check(a, file, "date", e.Date.Unix(), read.date)
	}
	system, keywords := a.flags(name)
	check(a, file, "flags", systemFlags(a.state.Flags).String(), system)
	check(a, file, "keywords", a.wantKeywords(a.state), keywords)
	validity := a.in.UIDValidity()
	if validity == 0 {
		validity = a.uids.UIDValidity
	}
	check(a, file, "UIDL", uidl(a.in.Scanner, e, a.state.UID, validity), u.UIDL)
	return nil
}

func isIrregular(err error) bool {
	var irregular *safefs.Irregular
	return errors.As(err, &irregular)
}
