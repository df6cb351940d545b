package convert

import (
	"errors"
	"fmt"
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

func (t *tree) skip(path string, err error) {
	t.skips = append(t.skips, Skip{path, err.Error()})
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
		err = t.addFile(o.Source, nil)
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

func (t *tree) addInbox(o Options) error {
	if info, err := os.Stat(o.Source); err == nil && !info.IsDir() {
		return fmt.Errorf("--inbox %s: %s is a single mailbox and becomes INBOX already", o.Inbox, o.Source)
	}
	for i, s := range t.sources {
		if len(s.parts) == 0 {
			t.skip(s.path, fmt.Errorf("--inbox names another INBOX, %s", o.Inbox))
			t.sources = slices.Delete(t.sources, i, i+1)
			break
		}
	}
	return t.addFile(o.Inbox, nil)
}

// addFile adds a file that the admin named: its directory is trusted, and so
// is a symlink there.
func (t *tree) addFile(path string, parts []string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	dir, err := safefs.OpenDir(filepath.Dir(real))
	if err != nil {
		return err
	}
	t.dirs = append(t.dirs, dir)
	return t.add(dir, filepath.Base(real), path, parts)
}

func (t *tree) add(dir *safefs.Dir, file, path string, parts []string) error {
	info, err := dir.Lstat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		_, err := dir.OpenRegular(file) // says what it is
		return errors.Join(err)
	}
	t.sources = append(t.sources, source{path: path, dir: dir, file: file, parts: parts, size: info.Size()})
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
		return t.add(dir, name, filepath.Join(dir.Path(), name), parts)
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
	case ".imap", ".subscriptions", "subscriptions", ".mailboxlist", "dovecot-uidvalidity":
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
	f, err := root.OpenRegular(".subscriptions")
	if err == nil {
		defer f.Close()
		t.hasList = true
		t.subscribed, err = maildir.ParseSubscriptions(f, maildir.Folders{Layout: maildir.FS})
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err = root.OpenRegular(".mailboxlist")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	t.hasList = true
	t.subscribed, err = maildir.ParseMailboxList(f, base+"/")
	return err
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
