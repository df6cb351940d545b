package convert

import (
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// listFolders finds the folders that there are now, and forgets none: what was
// found out of one that has gone since is still true. A symlink is no folder.
func (c *accountAudit) listFolders() error {
	add := func(dir *safefs.Dir, rel string) (err error) {
		if c.at(rel) == nil {
			f := &auditFolder{rel: rel}
			f.validity, err = readValidity(dir)
			c.folders = append(c.folders, f)
		}
		return err
	}
	return c.eachFolder(c.root, ".", 0, add)
}

// foldersOf lists the folders of a Maildir, by their places below it.
func (s Site) foldersOf(root *safefs.Dir) (rels []string, err error) {
	c := &accountAudit{Site: s}
	err = c.eachFolder(root, ".", 0, func(_ *safefs.Dir, rel string) error {
		rels = append(rels, rel)
		return nil
	})
	return rels, err
}

// maxFolderDepth is deeper than mail clients go, and far less than what would
// use up the descriptors of the process.
const maxFolderDepth = 64

// eachFolder calls add for each directory that has a cur.
func (c *accountAudit) eachFolder(dir *safefs.Dir, at string, depth int, add func(dir *safefs.Dir, rel string) error) error {
	var below []string
	err := dir.Names(func(name string) error {
		if c.mayBeFolder(name, depth) {
			below = append(below, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	info, err := dir.Lstat("cur")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil && info.IsDir() {
		err = add(dir, at)
	}
	slices.Sort(below)
	for _, name := range below {
		if err == nil {
			err = c.enterFolder(dir, path.Join(at, name), depth, add)
		}
	}
	return err
}

// mayBeFolder tells by its name what can't be a folder. Dovecot deletes folders
// by way of "..DOVECOT-TRASHED".
func (c *accountAudit) mayBeFolder(name string, depth int) bool {
	if c.Folders.Layout == maildir.MaildirPP {
		return depth == 0 && name[0] == '.' && !strings.HasPrefix(name, "..")
	}
	return depth < maxFolderDepth && name != "cur" && name != "new" && name != "tmp" && !strings.HasPrefix(name, "dovecot")
}

func (c *accountAudit) enterFolder(dir *safefs.Dir, rel string, depth int, add func(dir *safefs.Dir, rel string) error) error {
	info, err := dir.Lstat(path.Base(rel))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	sub, err := dir.Sub(path.Base(rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	return c.eachFolder(sub, rel, depth+1, add)
}

// readValidity reads the UIDVALIDITY of a folder, 0 if it has none that can be
// read.
func readValidity(dir *safefs.Dir) (uint32, error) {
	f, err := dir.OpenRegular(maildir.UIDListName)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	read := errors.New("read")
	header, err := maildir.ScanUIDList(f, func(maildir.UIDEntry) error { return read })
	if err != nil && err != read {
		return 0, nil // reported when the list is walked
	}
	return header.UIDValidity, nil
}

// judge settles, when all messages have been looked for, what is wrong with a
// folder as a whole.
func (b *mailboxAudit) judge() error {
	m := b.report
	if b.folder == nil {
		m.Gone, m.Folder = true, ""
		return b.judgeGone()
	}
	list := b.path(b.folder.rel, maildir.UIDListName)
	switch {
	case b.folder.nextUID == 0: // there is no list
	case b.differs() && b.rel != "." && m.Kept+m.Astray == 0:
		m.Remade = true
	case b.differs():
		b.differ(m, -1, list, "UIDVALIDITY", fmt.Sprint(b.validity), fmt.Sprint(b.folder.validity))
	case b.nextUID > b.folder.nextUID:
		b.differ(m, -1, list, "next UID", fmt.Sprintf("at least %d", b.nextUID), fmt.Sprint(b.folder.nextUID))
	}
	return nil
}

// judgeGone tells a folder that was deleted from one that was lost.
func (b *mailboxAudit) judgeGone() error {
	got, err := b.remains()
	if got == "" && b.rel == "." {
		got = "absent"
	}
	if got == "" && b.report.Deleted > 0 && err == nil {
		var told bool
		if told, err = b.deletionTold(); !told {
			got = fmt.Sprintf("absent; %d of its messages are nowhere, and Dovecot's log tells of no deletion", b.report.Deleted)
		}
	}
	if got != "" && err == nil {
		b.differ(b.report, -1, b.path(b.rel), "folder", "a folder, or deleted", got)
	}
	return err
}

// remains tells what is left at the place of a folder that is none: "" if a
// server that deletes it may leave that.
func (b *mailboxAudit) remains() (string, error) {
	if b.at(b.rel) != nil {
		return "", nil // another was renamed to its name
	}
	dir, err := subDir(b.root, b.rel)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case isNoDir(err):
		return "a symlink or file, which is not followed", nil
	case err != nil:
		return "", err
	}
	defer dir.Close()
	there, err := exist(dir, maildir.UIDListName)
	if there && err == nil {
		return "a list of UIDs without cur", nil
	}
	return "", err
}

// isNoDir is about something that should be a directory and is none.
func isNoDir(err error) bool { return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) }

// Dovecot logs the folders that it deletes and renames in records of 24 bytes:
// what, 3 bytes unused, SHA-1 of the name (its first 16 bytes), time (dovecot
// mailbox-log.c). A log that grew too long goes on in a new file.
const (
	folderLog       = "dovecot.mailbox.log"
	folderLogRecord = 24
	logDeleted      = 1
	logDeletedDir   = 2
	logRenamed      = 3
)

// deletionTold reports whether Dovecot's log says that the folder was deleted,
// or can't say that it was not: because there is nothing of Dovecot's in the
// Maildir, the log has begun anew, or the folder was renamed before.
func (b *mailboxAudit) deletionTold() (bool, error) {
	if there, err := exist(b.root, folderLog+".2"); there || err != nil {
		return true, err
	}
	f, err := b.root.OpenRegular(folderLog)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		index, err := exist(b.root, "dovecot.list.index.log")
		if !index && err == nil {
			index, err = exist(b.root, "dovecot.index.log")
		}
		return !index, err
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	hashes := b.nameHashes()
	parent, err := b.isParent()
	var record [folderLogRecord]byte
	for err == nil {
		if _, err := io.ReadFull(f, record[:]); err != nil {
			return false, nil // the end
		}
		if int64(binary.BigEndian.Uint32(record[20:])) < b.flip {
			continue
		}
		switch record[0] {
		case logRenamed:
			return true, nil
		case logDeleted: // by an id that was in the folder
			if parent {
				return true, nil
			}
		case logDeletedDir:
			if slices.Contains(hashes, [16]byte(record[4:20])) {
				return true, nil
			}
		}
	}
	return false, err
}

// isParent reports whether the folder's directory is there for other folders,
// as in layout fs: then its deletion is not logged by name.
func (b *mailboxAudit) isParent() (bool, error) {
	dir, err := subDir(b.root, b.rel)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, dir.Close()
}

func exist(dir *safefs.Dir, name string) (bool, error) {
	_, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// nameHashes are those of the names that a folder can have in Dovecot's log: the
// separator and the prefix of the namespace are the server's, and layout fs has
// the name as on disk.
func (b *mailboxAudit) nameHashes() (hashes [][16]byte) {
	for _, name := range []string{b.src.name(), b.rel, strings.Join(b.src.parts, "/")} {
		for _, separator := range []string{"/", "."} {
			name := strings.ReplaceAll(name, "/", separator)
			for _, prefix := range []string{"", "INBOX" + separator} {
				sum := sha1.Sum([]byte(prefix + name))
				hashes = append(hashes, [16]byte(sum[:16]))
			}
		}
	}
	return hashes
}
