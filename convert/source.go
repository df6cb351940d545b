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

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// source is a mailbox file that was found.
type source struct {
	path  string      // for messages
	dir   *safefs.Dir // where it lies, held open
	file  string      // its name there
	parts []string    // of the folder that it becomes; none for INBOX
	size  int64       // bytes, when it was found
	named bool        // by the admin: if it can't be converted, the run fails
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
}

// tree is all that was found under SRC.
type tree struct {
	sources    []source
	skips      []Skip
	subscribed [][]string
	hasList    bool // SRC has a list of subscriptions
	dirs       []*safefs.Dir
}

func (t *tree) close() {
	for _, d := range t.dirs {
		d.Close()
	}
}

func (t *tree) skip(path string, err error) { t.skips = append(t.skips, skipOf(path, err)) }

// skipOf leaves out of the reason the path that stands beside it.
func skipOf(path string, err error) Skip {
	var irregular *safefs.Irregular
	var failed *fs.PathError
	switch {
	case errors.As(err, &irregular):
		return Skip{path, "is a " + irregular.What + ", not a regular file"}
	case errors.As(err, &failed):
		return Skip{path, failed.Op + ": " + failed.Err.Error()}
	}
	return Skip{path, err.Error()}
}

func (t *tree) bytes() (n int64) {
	for _, s := range t.sources {
		n += s.size
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
	if info.IsDir() {
		err = t.walkRoot(o)
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
	slices.SortStableFunc(t.sources, func(a, b source) int { return slices.Compare(a.parts, b.parts) })
	t.dropDoubles()
	return t, nil
}

// ErrTwoInboxes is returned for Options.Inbox beside a Source that is a file.
var ErrTwoInboxes = errors.New("--inbox is for a folder tree; SRC is a single mailbox and becomes INBOX itself")

func (t *tree) addInbox(o Options) error {
	if info, err := os.Stat(o.Source); err == nil && !info.IsDir() {
		return ErrTwoInboxes
	}
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool {
		if len(s.parts) == 0 {
			t.skip(s.path, fmt.Errorf("--inbox names another INBOX, %s", o.Inbox))
		}
		return len(s.parts) == 0
	})
	return t.addFile(o.Inbox)
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
	t.dirs = append(t.dirs, dir)
	return t.add(source{path: path, dir: dir, file: filepath.Base(real), named: true})
}

func (t *tree) add(s source) error {
	info, err := s.dir.LstatRegular(s.file)
	if err != nil {
		return err
	}
	s.size = info.Size()
	t.sources = append(t.sources, s)
	return nil
}

func (t *tree) walkRoot(o Options) error {
	root, err := safefs.OpenDir(o.Source)
	if err != nil {
		return err
	}
	t.dirs = append(t.dirs, root)
	if err := t.readSubscriptions(root, filepath.Base(filepath.Clean(o.Source))); err != nil {
		return err
	}
	return t.walk(root, nil)
}

// walk takes the entries of a directory of the tree in order of name.
func (t *tree) walk(dir *safefs.Dir, above []string) error {
	var names []string
	if err := dir.Names(func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil {
		return err
	}
	if isMaildir(names) {
		t.skip(dir.Path(), errors.New("is a Maildir already"))
		return nil
	}
	slices.Sort(names)
	for _, name := range names {
		if isMetadata(name) {
			continue
		}
		if err := t.entry(dir, name, above); err != nil {
			t.skip(filepath.Join(dir.Path(), name), err)
		}
	}
	return nil
}

func (t *tree) entry(dir *safefs.Dir, name string, above []string) error {
	info, err := dir.Lstat(name)
	if err != nil {
		return err
	}
	part, err := maildir.DiskName(name)
	if err != nil {
		return err
	}
	parts := append(slices.Clone(above), part)
	if !info.IsDir() {
		if len(above) == 0 && strings.EqualFold(part, "INBOX") {
			parts = nil
		}
		return t.add(source{path: filepath.Join(dir.Path(), name), dir: dir, file: name, parts: parts})
	}
	sub, err := dir.Sub(name)
	if err != nil {
		return err
	}
	t.dirs = append(t.dirs, sub)
	return t.walk(sub, parts)
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

// readSubscriptions reads Dovecot's list, or else c-client's, whose names may
// begin with the name of the tree.
func (t *tree) readSubscriptions(root *safefs.Dir, base string) error {
	err := t.readList(root, ".subscriptions", func(r io.Reader) ([][]string, error) {
		return maildir.ParseSubscriptions(r, maildir.Folders{Layout: maildir.FS})
	})
	if err != nil || t.hasList {
		return err
	}
	return t.readList(root, ".mailboxlist", func(r io.Reader) ([][]string, error) {
		return maildir.ParseMailboxList(r, base+"/")
	})
}

// readList reads a list of subscriptions, if it is there and a file.
func (t *tree) readList(root *safefs.Dir, name string, parse func(io.Reader) ([][]string, error)) error {
	f, err := root.OpenRegular(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case isSkippable(err):
		t.skip(filepath.Join(root.Path(), name), err)
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	t.hasList = true
	if t.subscribed, err = parse(f); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// dropDoubles skips files whose names are two spellings of one folder.
func (t *tree) dropDoubles() {
	seen := map[string]string{}
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool {
		first, double := seen[s.name()]
		if double {
			t.skip(s.path, fmt.Errorf("is the folder %s as well, like %s", s.name(), first))
			return true
		}
		seen[s.name()] = s.path
		return false
	})
}
