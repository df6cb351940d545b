package convert

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// backList is the list of subscriptions that the tree of mboxes is to get.
type backList struct {
	path    string
	temp    string
	mode    fs.FileMode
	content []byte
	stat    stat // of the file, once it is made
}

// planList brings the subscriptions of the first tree up to date: those of the
// Maildir, and those that it could not hold. If that changes nothing, the list
// stays as it is.
func (w *wayBack) planList() error {
	f, err := w.root.OpenRegular("subscriptions")
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) || len(w.account.Folders) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := maildir.ParseSubscriptions(f, w.Folders)
	if err != nil {
		w.doubt("the subscriptions of the Maildir can't be read, and those of the mboxes stay as they were: %v", err)
		return nil
	}
	dir, err := safefs.OpenFor(w.account.Folders[0], w.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	old := &tree{}
	if err := old.readSubscriptions(dir, filepath.Base(dir.Path())); err != nil {
		return err
	}
	if list := w.merge(old.subscribed, names); !slices.EqualFunc(list, old.subscribed, slices.Equal) {
		return w.writeList(dir, list)
	}
	return nil
}

// merge keeps the order of the old list, and what the Maildir has no name for.
func (w *wayBack) merge(old, now [][]string) (list [][]string) {
	has := func(list [][]string, name []string) bool {
		return slices.ContainsFunc(list, func(n []string) bool { return slices.Equal(n, name) })
	}
	for _, name := range old {
		if _, err := w.Folders.Dir(name); err != nil && !isInbox(name) || has(now, name) {
			list = append(list, name)
		}
	}
	for _, name := range now {
		if !has(list, name) {
			list = append(list, name)
		}
	}
	return list
}

func isInbox(name []string) bool { return len(name) == 1 && strings.EqualFold(name[0], "INBOX") }

// writeList writes the list in the form that the tree has one: Dovecot's, or
// that of UW and Pine.
func (w *wayBack) writeList(dir *safefs.Dir, list [][]string) error {
	const ours, theirs = ".subscriptions", ".mailboxlist"
	l := &backList{path: filepath.Join(dir.Path(), ours), mode: 0o600}
	if info, err := dir.LstatRegular(ours); err == nil {
		l.mode = info.Mode().Perm()
	} else if info, err := dir.LstatRegular(theirs); err == nil {
		l.path, l.mode = filepath.Join(dir.Path(), theirs), info.Mode().Perm()
		l.content, err = mailboxList(dir, theirs, list)
		w.list = l
		return err
	}
	var b bytes.Buffer
	refused, err := maildir.WriteSubscriptions(&b, list, maildir.Folders{Layout: maildir.FS})
	for _, r := range refused {
		w.doubt("%v", r)
	}
	l.content = b.Bytes()
	w.list = l
	return err
}

// mailboxList writes names as the list before had them: below the name of the
// tree, or not.
func mailboxList(dir *safefs.Dir, name string, list [][]string) ([]byte, error) {
	f, err := dir.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var was bytes.Buffer
	if _, err := was.ReadFrom(f); err != nil {
		return nil, err
	}
	prefix := filepath.Base(dir.Path()) + "/"
	if !bytes.Contains(append([]byte("\n"), was.Bytes()...), []byte("\n"+prefix)) {
		prefix = ""
	}
	var b bytes.Buffer
	for _, parts := range list {
		if !isInbox(parts) {
			b.WriteString(prefix)
		}
		b.WriteString(strings.Join(parts, "/") + "\n")
	}
	return b.Bytes(), nil
}

// create writes the list beside the one that it will replace.
func (l *backList) create(uid int) error {
	dir, err := safefs.OpenFor(filepath.Dir(l.path), uid)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Create(l.temp, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(l.content)
	err = errors.Join(err, f.Chmod(l.mode), f.Sync())
	if info, serr := f.Stat(); serr == nil {
		l.stat = statOf(info)
	}
	return errors.Join(err, f.Close())
}
