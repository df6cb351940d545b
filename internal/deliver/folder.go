package deliver

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// folder is the name of the folder, in modified UTF-7, that mail with an
// extension goes to; "" for INBOX. Senders choose extensions: one that is no
// plain name means nothing.
func (d *delivery) folder() string {
	e := d.envelope.Extension
	if !d.Folders || e == "" || len(e) > 200 || e[0] == '.' || e[0] == '-' || !utf8.ValidString(e) {
		return ""
	}
	if strings.ContainsFunc(e, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`/\*%`, r) }) {
		return ""
	}
	name, err := maildir.EncodeMUTF7(e)
	if err != nil || strings.EqualFold(name, "INBOX") || strings.HasSuffix(name, ".lock") {
		return ""
	}
	return name
}

// errNoFolder says that there is no such mbox. Nothing was written.
var errNoFolder = errors.New("no mailbox")

// toMboxFolder delivers to the folder of the extension, if there is one.
func (d *delivery) toMboxFolder(ctx context.Context, m *draft) (delivered bool, err error) {
	name := d.folder()
	if name == "" {
		return false, nil
	}
	for _, path := range d.account.Folders {
		delivered, err = d.appendIn(ctx, path, name, m)
		if delivered || err != nil {
			return delivered, err
		}
	}
	return false, nil
}

// appendIn appends to an mbox in a directory of folders. Only what is an mbox
// is one.
func (d *delivery) appendIn(ctx context.Context, path, name string, m *draft) (bool, error) {
	dir, err := safefs.OpenFor(path, d.account.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dir.Close()
	if _, err := dir.LstatRegular(name); err != nil {
		return false, nil // a directory is no mailbox, a symlink is not followed
	}
	t := &target{delivery: d, dir: dir, name: name, folder: true}
	if err = t.append(ctx, m); err == errNoFolder {
		return false, nil
	}
	return err == nil, err
}

// toMaildirFolder delivers to the folder of the extension, if there is one.
func (d *delivery) toMaildirFolder(ctx context.Context, root *safefs.Dir, m *draft) (delivered bool, err error) {
	name := d.folder()
	if name == "" {
		return false, nil
	}
	path, err := d.Layout.Dir([]string{name})
	if err != nil || filepath.Base(path) != path {
		return false, nil // the layout can't hold it
	}
	dir, err := root.Sub(path)
	if err != nil {
		return false, nil // there is no such folder
	}
	defer dir.Close()
	if _, err := dir.Lstat("cur"); err != nil {
		return false, nil
	}
	return true, d.into(ctx, dir, m)
}
