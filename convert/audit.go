package convert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	gomaildir "github.com/emersion/go-maildir"

	"mailferry/internal/message"
	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// audit compares one folder of a Maildir with its mbox. What is in the Maildir
// is read by go-maildir and from Dovecot's lists, not by what wrote it.
type audit struct {
	mailbox  string
	dir      string
	in       *input
	uids     *maildir.UIDList
	keywords *maildir.KeywordTable
	files    map[string]*gomaildir.Message // by unique name; what was compared is deleted
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
	a := &audit{mailbox: src.name(), dir: filepath.Join(o.Dest, rel), in: in}
	if err := a.load(); err != nil {
		return result{}, nil, err
	}
	r := MailboxReport{Name: a.mailbox, Path: src.path}
	if err := a.messages(ctx, &r, o.Progress); err != nil {
		return result{}, nil, failed(src, err)
	}
	a.leftovers()
	r.Careful, r.Oddities = in.CarefulCount(), in.Oddities()
	return result{report: r}, a.diffs, in.unchanged(src.path)
}

// load reads what the folder holds. A folder or list that is missing is a
// difference, not an error.
func (a *audit) load() error { return errors.Join(a.loadLists(), a.loadFiles()) }

// loadFiles lists the messages.
func (a *audit) loadFiles() error {
	a.files = map[string]*gomaildir.Message{}
	listed := map[string]bool{}
	err := gomaildir.Dir(a.dir).Walk(func(m *gomaildir.Message) error {
		listed[m.Filename()] = true
		if other := a.files[m.Key()]; other != nil {
			a.differ(-1, m.Filename(), "message", "one file", "two files of one name, with "+filepath.Base(other.Filename()))
		}
		a.files[m.Key()] = m
		return nil
	})
	var odd *gomaildir.MailfileError
	var flag *gomaildir.FlagError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.differ(-1, a.dir, "folder", "present", "absent")
	case err != nil && !errors.As(err, &odd) && !errors.As(err, &flag):
		return err
	}
	return errors.Join(a.strays("cur", listed), a.strays("new", nil))
}

// strays reports files that go-maildir does not list and a server shows all
// the same: those in new, and those in cur whose names hold no flags.
func (a *audit) strays(sub string, listed map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(a.dir, sub))
	for _, e := range entries {
		file := filepath.Join(a.dir, sub, e.Name())
		if !listed[file] && !strings.HasPrefix(e.Name(), ".") {
			a.differ(-1, file, "message", "absent", "present")
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// loadLists reads Dovecot's lists. One that Dovecot would throw away is a
// difference; a folder without keywords has no list of them.
func (a *audit) loadLists() error {
	a.uids, a.keywords = &maildir.UIDList{}, &maildir.KeywordTable{}
	err := a.list("dovecot-uidlist", func(r io.Reader) error {
		list, err := maildir.ParseUIDList(r)
		if err == nil {
			a.uids = list
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		a.differ(-1, filepath.Join(a.dir, "dovecot-uidlist"), "list of UIDs", "present", "absent")
		err = nil
	}
	if err != nil {
		return err
	}
	err = a.list("dovecot-keywords", func(r io.Reader) error {
		table, err := maildir.ParseKeywords(r)
		if err == nil {
			a.keywords = table
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// list reads a list; one that can't be parsed is a difference.
func (a *audit) list(name string, parse func(io.Reader) error) error {
	f, err := os.Open(filepath.Join(a.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := parse(f); err != nil {
		a.differ(-1, f.Name(), "list", "readable", err.Error())
	}
	return nil
}

func (a *audit) differ(offset int64, file, field, want, got string) {
	a.diffs = append(a.diffs, Difference{a.mailbox, offset, file, field, want, got})
}

// check notes a difference of two values of one message.
func check[T comparable](a *audit, e *mbox.Entry, file, field string, want, got T) {
	if want != got {
		a.differ(e.Offset, file, field, fmt.Sprint(want), fmt.Sprint(got))
	}
}

// messages walks both sides in step. UIDs rise on both, and say which message
// belongs to which file even where one is missing.
func (a *audit) messages(ctx context.Context, r *MailboxReport, progress func(int64)) error {
	entries := a.uids.Entries
	for {
		e, err := a.in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		state := a.in.State(e)
		progress(e.Next() - e.Offset)
		if err := ctx.Err(); err != nil {
			return err
		}
		if state.Pseudo {
			continue
		}
		r.Messages++
		r.Bytes += e.Size
		for len(entries) > 0 && entries[0].UID < state.UID {
			a.extra(entries[0])
			entries = entries[1:]
		}
		if len(entries) == 0 || entries[0].UID != state.UID {
			a.differ(e.Offset, "", "message", fmt.Sprintf("present with UID %d", state.UID), "absent")
			continue
		}
		if err := a.message(e, state, entries[0]); err != nil {
			return err
		}
		entries = entries[1:]
	}
	for _, u := range entries {
		a.extra(u)
	}
	a.header()
	return nil
}

// extra reports a message that the mbox does not explain. A line without a
// file is none: servers tolerate those.
func (a *audit) extra(u maildir.UIDEntry) {
	if m := a.files[u.Name]; m != nil {
		a.differ(-1, m.Filename(), "message", "absent", fmt.Sprintf("present with UID %d", u.UID))
		delete(a.files, u.Name)
	}
}

// header compares what the folder's list says of the mailbox as a whole.
func (a *audit) header() {
	list := filepath.Join(a.dir, "dovecot-uidlist")
	if want := a.in.UIDValidity(); want != 0 && want != a.uids.UIDValidity {
		a.differ(-1, list, "UIDVALIDITY", fmt.Sprint(want), fmt.Sprint(a.uids.UIDValidity))
	}
	if want := a.in.NextUID(); want > a.uids.NextUID {
		a.differ(-1, list, "next UID", fmt.Sprintf("at least %d", want), fmt.Sprint(a.uids.NextUID))
	}
}

// leftovers reports files that no list names.
func (a *audit) leftovers() {
	for _, key := range slices.Sorted(maps.Keys(a.files)) {
		a.differ(-1, a.files[key].Filename(), "message", "absent", "present without a UID")
	}
}

// message compares one message with its file.
func (a *audit) message(e *mbox.Entry, state mbox.State, u maildir.UIDEntry) error {
	m := a.files[u.Name]
	if m == nil {
		a.differ(e.Offset, filepath.Join(a.dir, "cur", u.Name), "message", fmt.Sprintf("present with UID %d", state.UID), "absent")
		return nil
	}
	delete(a.files, u.Name)
	file := m.Filename()
	read, mtime, err := measure(file)
	if isIrregular(err) {
		a.differ(e.Offset, file, "message", "a regular file", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	check(a, e, file, "digest", fmt.Sprintf("%x", e.Digest), fmt.Sprintf("%x", read.Digest()))
	check(a, e, file, "size", e.Size, read.Size)
	check(a, e, file, "S=", strconv.FormatInt(read.Size, 10), nameField(u.Name, ",S="))
	check(a, e, file, "W=", strconv.FormatInt(read.VSize, 10), nameField(u.Name, ",W="))
	if !e.Date.IsZero() {
		check(a, e, file, "date", e.Date.Unix(), mtime)
	}
	flags, keywords := a.flags(m)
	check(a, e, file, "flags", systemFlags(state.Flags).String(), flags)
	check(a, e, file, "keywords", a.wantKeywords(state), keywords)
	validity := a.in.UIDValidity()
	if validity == 0 {
		validity = a.uids.UIDValidity
	}
	check(a, e, file, "UIDL", uidl(a.in.Scanner, e, state.UID, validity), u.UIDL)
	return nil
}

// measure reads a file of cur. It is opened by safefs: the owner of a Maildir
// may have put a FIFO there, or a symlink to somebody else's message.
func measure(file string) (*message.Measure, int64, error) {
	dir, err := safefs.OpenDir(filepath.Dir(file))
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	f, err := dir.OpenRegular(filepath.Base(file))
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	measure := message.NewMeasure()
	if _, err := io.Copy(measure, f); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return measure, info.ModTime().Unix(), nil
}

func isIrregular(err error) bool {
	var irregular *safefs.Irregular
	return errors.As(err, &irregular)
}

// nameField returns the digits behind a field of a file name.
func nameField(name, field string) string {
	_, value, ok := strings.Cut(name, field)
	if !ok {
		return "absent"
	}
	value, _, _ = strings.Cut(value, ",")
	return value
}

// flags splits the letters of a file name into system flags and the keywords
// that the small letters stand for.
func (a *audit) flags(m *gomaildir.Message) (system, keywords string) {
	var names []string
	for _, f := range m.Flags() {
		if 'a' <= f && f <= 'z' {
			names = append(names, a.keyword(int(f-'a')))
		} else {
			system += string(rune(f))
		}
	}
	return system, joinKeywords(names)
}

// keyword names a letter as Dovecot does.
func (a *audit) keyword(index int) string {
	if name := a.keywords.Name(index); name != "" {
		return name
	}
	return fmt.Sprintf("unknown-%d", index)
}

// wantKeywords lists the keywords of a message that the folder can hold: no
// names that servers refuse, and where all letters are taken, none but theirs;
// the others live in the server's index.
func (a *audit) wantKeywords(s mbox.State) string {
	full := a.keywords.Len() == maildir.MaxKeywords
	var names []string
	for _, name := range s.Keywords {
		if maildir.CheckKeyword(name) == nil && (!full || a.hasLetter(name)) {
			names = append(names, name)
		}
	}
	return joinKeywords(names)
}

func (a *audit) hasLetter(name string) bool {
	for i := range maildir.MaxKeywords {
		if strings.EqualFold(a.keywords.Name(i), name) {
			return true
		}
	}
	return false
}

func joinKeywords(names []string) string {
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}
