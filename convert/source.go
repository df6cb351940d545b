package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// source is a mailbox file that was found.
type source struct {
	path  string      // for messages
	root  *safefs.Dir // a directory that is trusted
	dirs  []string    // from there to the mailbox, each opened when it is needed
	file  string      // its name in the last of them
	id    fileID
	parts []string // of the folder that it becomes; none for INBOX
	size  int64    // bytes, when it was found
	named bool     // by the admin: if it can't be converted, the run fails
	owner int      // uid that must own the file, which then must have one link; 0: any
}

// fileID tells whether two names are one file.
type fileID struct{ dev, ino uint64 }

func idOf(info fs.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(st.Dev), st.Ino}
}

// dir opens the directory of the file, following nothing below the root.
func (s source) dir() (*safefs.Dir, error) {
	dir, err := s.root.Again()
	if err != nil {
		return nil, err
	}
	for _, name := range s.dirs {
		next, err := dir.Sub(name)
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = next
	}
	return dir, nil
}

// open opens the file.
func (s source) open() (*os.File, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.OpenRegular(s.file)
	if err != nil || s.owner == 0 {
		return f, err
	}
	info, err := f.Stat()
	if err == nil {
		err = fit(info, s.path, s.owner)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Unfit says that a file can't be a user's mailbox, whatever is in it.
type Unfit struct {
	Path string
	Code string // of the finding
	Text string
}

func (e *Unfit) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Text) }

// fit checks that a file is its user's alone: a second link may lead from
// anywhere, and another's file is another's mail.
func fit(info fs.FileInfo, path string, owner int) error {
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case int(st.Uid) != owner:
		return &Unfit{path, "mbox-owner", fmt.Sprintf("belongs to uid %d, not to uid %d", st.Uid, owner)}
	case st.Nlink > 1:
		return &Unfit{path, "mbox-hardlink", fmt.Sprintf("has %d hard links", st.Nlink)}
	}
	return nil
}

// name is the folder's name as people read it.
func (s source) name() string { return folderName(s.parts) }

func folderName(parts []string) string {
	if len(parts) == 0 {
		return "INBOX"
	}
	names := make([]string, len(parts))
	for i, part := range parts {
		var err error
		if names[i], err = maildir.DecodeMUTF7(part); err != nil {
			names[i] = part
		}
	}
	return strings.Join(names, "/")
}

// Skip is a file that was left alone, and why.
type Skip struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
	code   string // of the finding that it is among a user's mail
}

// tree is all that was found under SRC.
type tree struct {
	sources    []source
	skips      []Skip
	subscribed [][]string
	hasList    bool // SRC has a list of subscriptions
	roots      []*safefs.Dir
	owner      int    // uid that must own the mailboxes; 0: any
	parked     bool   // look for the parked mboxes, not for live ones
	dest       fileID // DST, which may lie in the tree; zero if it does not exist
}

func (t *tree) close() {
	for _, d := range t.roots {
		d.Close()
	}
}

// skipSubscription is for a subscription that the layout can't spell: nothing
// is lost by it but a mark in a list.
func skipSubscription(err error) Skip { return Skip{"subscription", err.Error(), "subscription"} }

func (t *tree) skip(path string, err error) { t.skips = append(t.skips, skipOf(path, err)) }

// skipAs skips under a finding's code.
func (t *tree) skipAs(code, path string, err error) {
	t.skips = append(t.skips, Skip{path, err.Error(), code})
}

// skipOf leaves out of the reason the path that stands beside it.
func skipOf(path string, err error) Skip {
	var (
		irregular *safefs.Irregular
		unfit     *Unfit
		format    *mbox.FormatError
		name      *maildir.FolderError
		failed    *fs.PathError
	)
	switch {
	case errors.As(err, &irregular):
		code := "mbox-irregular"
		if irregular.What == "symlink" {
			code = "mbox-symlink"
		}
		return Skip{path, "is a " + irregular.What + ", not a regular file", code}
	case errors.As(err, &unfit):
		return Skip{path, unfit.Text, unfit.Code}
	case errors.As(err, &format):
		return Skip{path, err.Error(), "not-mailbox"}
	case errors.As(err, &name):
		return Skip{path, err.Error(), "folder-name"}
	case errors.As(err, &failed):
		return Skip{path, failed.Op + ": " + failed.Err.Error(), "mbox-unreadable"}
	}
	return Skip{path, err.Error(), "not-mailbox"}
}

func (t *tree) bytes() (n int64) {
	for _, s := range t.sources {
		n = plus(n, s.size)
	}
	return n
}

// find lists the mailboxes of o.Source and o.Inbox. What is no mailbox is
// found out when it is scanned; what can't be reached or named is skipped.
func find(o Options) (*tree, error) {
	t := &tree{}
	info, err := os.Stat(o.Source)
	if err != nil {
		return nil, err
	}
	if dest, err := os.Stat(o.Dest); err == nil {
		t.dest = idOf(dest)
		if info.IsDir() && t.dest == idOf(info) {
			return nil, fmt.Errorf("SRC and DST are one and the same, %s", o.Source)
		}
	}
	if info.IsDir() {
		err = t.addTree(safefs.OpenDir(o.Source))
	} else {
		err = t.addFile(o.Source)
	}
	if err == nil && o.Inbox != "" {
		err = t.addInbox(o)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	t.arrange()
	return t, nil
}

// arrange brings the sources into the order of their folders, each once.
func (t *tree) arrange() {
	slices.SortStableFunc(t.sources, func(a, b source) int { return slices.Compare(a.parts, b.parts) })
	t.dropDoubles()
}

// ErrTwoInboxes is returned for Options.Inbox beside a Source that is a file.
var ErrTwoInboxes = errors.New("--inbox is for a folder tree; SRC is a single mailbox and becomes INBOX itself")

func (t *tree) addInbox(o Options) error {
	if info, err := os.Stat(o.Source); err == nil && !info.IsDir() {
		return ErrTwoInboxes
	}
	others := t.sources
	t.sources = nil
	if err := t.addFile(o.Inbox); err != nil {
		return err
	}
	for _, s := range others {
		switch {
		case s.id == t.sources[0].id: // INBOX lies in the tree, as Dovecot allows
		case len(s.parts) == 0:
			t.skip(s.path, fmt.Errorf("--inbox names another INBOX, %s", o.Inbox))
		default:
			t.sources = append(t.sources, s)
		}
	}
	return nil
}

// addFile adds an INBOX that the admin named: its directory is trusted, and so
// is a symlink there.
func (t *tree) addFile(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	dir, err := safefs.OpenDir(filepath.Dir(real))
	if err != nil {
		return err
	}
	t.roots = append(t.roots, dir)
	return t.add(dir, source{path: path, root: dir, file: filepath.Base(real), named: true})
}

func (t *tree) add(dir *safefs.Dir, s source) error {
	info, err := dir.LstatRegular(s.file)
	if err != nil {
		return err
	}
	s.size, s.id, s.owner = info.Size(), idOf(info), t.owner
	if t.owner != 0 {
		if err := fit(info, s.path, t.owner); err != nil {
			return err
		}
	}
	t.sources = append(t.sources, s)
	return nil
}

// addTree adds the mailboxes below a directory, which the tree closes.
func (t *tree) addTree(root *safefs.Dir, err error) error {
	if err != nil {
		return err
	}
	t.roots = append(t.roots, root)
	if err := t.readSubscriptions(root, filepath.Base(root.Path())); err != nil {
		return err
	}
	return t.walk(root, source{root: root})
}

// walk takes the entries of a directory of the tree, at, in order of name.
func (t *tree) walk(dir *safefs.Dir, at source) error {
	var names []string
	if err := dir.Names(func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil {
		return err
	}
	if isMaildir(names) {
		t.skipAs("maildir-inside", dir.Path(), errors.New("is a Maildir already"))
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		if isMetadata(name) && !isMbox(dir, name) {
			continue
		}
		// Only what is wrong with the entry is a reason to leave it out. A disk
		// that fails must not make a Maildir that lacks half of the mail.
		if err := t.entry(dir, name, at); isSkippable(err) {
			t.skip(filepath.Join(dir.Path(), name), err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) entry(dir *safefs.Dir, name string, at source) error {
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	path, file := filepath.Join(dir.Path(), name), name
	if info.IsDir() && (idOf(info) == t.dest || maildir.IsStaging(name)) {
		if idOf(info) != t.dest {
			t.skipAs("staging-left", path, errors.New("was left by an interrupted run and can be deleted"))
		}
		return nil
	}
	if as, parked := parseParked(name); !info.IsDir() && (parked || t.parked) {
		switch {
		case !parked:
			return nil
		case !t.parked:
			t.skipAs("parked-left", path, errors.New("was parked by an earlier migration"))
			return nil
		case as.late:
			t.skipAs("parked-left", path, errors.New("came after the flip, and was swept into the Maildir"))
			return nil
		}
		name = as.live
	}
	part, err := maildir.DiskName(name)
	if err != nil {
		t.skipAs("folder-name", path, fmt.Errorf("%w; rename it", err))
		return nil
	}
	parts := append(slices.Clone(at.parts), part)
	if !info.IsDir() {
		if len(at.parts) == 0 && strings.EqualFold(part, "INBOX") {
			parts = nil
		}
		return t.add(dir, source{path: path, root: at.root, dirs: at.dirs, file: file, parts: parts})
	}
	sub, err := dir.Sub(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return t.walk(sub, source{root: at.root, dirs: append(slices.Clone(at.dirs), name), parts: parts})
}

// isMbox reports whether a file begins as an mbox: a name alone does not make
// metadata of it.
func isMbox(dir *safefs.Dir, name string) bool {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return false
	}
	defer f.Close()
	leaveAtime(f)
	start := make([]byte, len("From "))
	_, err = io.ReadFull(f, start)
	return err == nil && string(start) == "From "
}

// isMetadata reports whether a name is a server's own: Dovecot's indexes and
// lists, c-client's list of subscriptions, and dotlocks.
func isMetadata(name string) bool {
	switch name {
	case ".imap", ".subscriptions", ".mailboxlist", "dovecot-uidvalidity":
		return true
	}
	return strings.HasPrefix(name, "dovecot.index") || strings.HasPrefix(name, "dovecot.list.index") ||
		strings.HasPrefix(name, "dovecot.mailbox.log") || strings.HasPrefix(name, "dovecot-uidvalidity.") ||
		strings.HasPrefix(name, ".nfs") || strings.HasSuffix(name, ".lock")
}

func isMaildir(names []string) bool {
	return slices.Contains(names, "cur") && slices.Contains(names, "new") && slices.Contains(names, "tmp")
}
