package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// readSubscriptions reads Dovecot's list, or else c-client's, whose names may
// begin with the name of the tree.
func (t *tree) readSubscriptions(root *safefs.Dir, base string) error {
	found, err := t.readList(root, ".subscriptions", func(r io.Reader) ([][]string, error) {
		return maildir.ParseSubscriptions(r, maildir.Folders{Layout: maildir.FS})
	})
	if err != nil || found {
		return err
	}
	_, err = t.readList(root, ".mailboxlist", func(r io.Reader) ([][]string, error) {
		return maildir.ParseMailboxList(r, base+"/")
	})
	return err
}

// readList adds a list of subscriptions, if it is there and a file.
func (t *tree) readList(root *safefs.Dir, name string, parse func(io.Reader) ([][]string, error)) (found bool, err error) {
	f, err := root.OpenRegular(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case isSkippable(err):
		t.skip(filepath.Join(root.Path(), name), err)
		return false, nil
	case err != nil:
		return false, err
	}
	defer f.Close()
	t.hasList = true
	leaveAtime(f)
	list, err := parse(f)
	if err != nil {
		return true, fmt.Errorf("%s: %w", f.Name(), err)
	}
	for _, parts := range list {
		t.subscribed = append(t.subscribed, diskNames(parts))
	}
	return true, nil
}

// diskNames spells the parts of a name as folders get them: some clients write
// raw UTF-8 into a list, as they do into names of files.
func diskNames(parts []string) []string {
	for i, part := range parts {
		if name, err := maildir.DiskName(part); err == nil {
			parts[i] = name
		}
	}
	return parts
}

// dropDoubles skips second names of a file, and files whose names are two
// spellings of one folder.
func (t *tree) dropDoubles() {
	seen := map[string]string{}
	files := map[fileID]string{}
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool {
		if first, double := files[s.id]; double {
			t.skipAs("folder-double", s.path, fmt.Errorf("is the same file as %s, by a hard link", first))
			return true
		}
		files[s.id] = s.path
		first, double := seen[s.name()]
		if double {
			t.skipAs("folder-double", s.path, fmt.Errorf("is the folder %s as well, like %s", s.name(), first))
			return true
		}
		seen[s.name()] = s.path
		return false
	})
}
