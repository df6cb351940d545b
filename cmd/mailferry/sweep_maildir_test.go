//go:build linux && amd64

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"mailferry/internal/mailgen"
)

// maildir demands all folders of a Maildir, and nothing else.
func (a *settlement) maildir(root string) {
	folders := map[string]bool{root: true}
	for _, m := range a.u.Mailboxes {
		dir := root
		if m.Path != a.u.Spool {
			rel, _ := filepath.Rel(filepath.Join(a.u.Home, "mail"), m.Path)
			dir = filepath.Join(root, "."+strings.ReplaceAll(rel, "/", "."))
		}
		folders[dir] = true
		a.folder(dir, m)
	}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && filepath.Base(path) == "cur" && !folders[filepath.Dir(path)] {
			a.tell("%s is a folder of no mailbox", filepath.Dir(path))
		}
		return err
	})
	if err != nil {
		a.tell("%v", err)
	}
}

// folder demands each message of a mailbox once, with content, flags, keywords
// and UID as they were meant.
func (a *settlement) folder(dir string, m mailgen.SiteMailbox) {
	files, err := messageFiles(dir)
	if err != nil {
		a.tell("%v", err)
		return
	}
	uids, err := readUIDs(dir, m.UIDValidity)
	if err != nil {
		a.tell("%s: %v", dir, err)
	}
	keywords, err := readKeywords(dir)
	if err != nil {
		a.tell("%s: %v", dir, err)
	}
	last := uint32(0)
	for _, want := range a.want[m.Path] {
		list := files[want.ID]
		delete(files, want.ID)
		if len(list) != 1 {
			a.tell("%s is in %s %d times", want.ID, dir, len(list))
			continue
		}
		f := list[0]
		if f.sum != want.Dovecot {
			a.tell("%s: other content, %d bytes, should be %d", f.path, f.sum.Size, want.Dovecot.Size)
		}
		base, letters, _ := strings.Cut(filepath.Base(f.path), ":2,")
		if got, want := spell(letters, keywords), strings.Join(append([]string{want.Flags}, want.Keywords...), " "); got != want {
			a.tell("%s: flags and keywords %q, should be %q", f.path, got, want)
		}
		if uid := uids[base]; want.UID > 0 && uid != want.UID || uid <= last {
			a.tell("%s: UID %d after %d, should be %d", f.path, uid, last, want.UID)
		} else {
			last = uid
		}
		delete(uids, base)
	}
	for id, list := range files {
		a.tell("%q is in %s, and was not before", id, list[0].path)
	}
	if len(uids) > 0 {
		a.tell("%s: UIDs of no message: %v", dir, uids)
	}
}

// messageFile is a file in cur, new or tmp.
type messageFile struct {
	path string
	sum  mailgen.Sum
}

// messageFiles are those of a folder by the ids of their messages; what has none
// goes by its path.
func messageFiles(dir string) (map[string][]messageFile, error) {
	files := map[string][]messageFile{}
	for _, sub := range []string{"cur", "new", "tmp"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			f := messageFile{path: filepath.Join(dir, sub, e.Name())}
			content, err := os.ReadFile(f.path)
			if err != nil {
				return nil, err
			}
			f.sum = mailgen.Sum{Size: int64(len(content)), SHA256: sha256.Sum256(content)}
			id := f.path
			if found := textID.FindSubmatch(content); found != nil && sub != "tmp" {
				id = string(found[1])
			}
			files[id] = append(files[id], f)
		}
	}
	return files, nil
}

// readUIDs reads a dovecot-uidlist: a header, then "UID fields :file".
func readUIDs(dir string, validity uint32) (map[string]uint32, error) {
	uids := map[string]uint32{}
	content, err := os.ReadFile(filepath.Join(dir, "dovecot-uidlist"))
	if err != nil {
		return nil, err
	}
	header, rest, _ := bytes.Cut(content, []byte("\n"))
	if want := fmt.Sprintf("3 V%d ", validity); validity > 0 && !strings.HasPrefix(string(header), want) {
		err = fmt.Errorf("dovecot-uidlist begins with %q, should with %q", header, want)
	}
	for line := range strings.Lines(string(rest)) {
		fields, file, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " :")
		number, _, _ := strings.Cut(fields, " ")
		uid, bad := strconv.ParseUint(number, 10, 32)
		if _, twice := uids[file]; bad != nil || !ok || twice {
			err = errors.Join(err, fmt.Errorf("dovecot-uidlist: line %q", line))
		}
		uids[file] = uint32(uid)
	}
	return uids, err
}

// readKeywords reads dovecot-keywords: "number name", 0 for the letter a.
func readKeywords(dir string) (map[rune]string, error) {
	keywords := map[rune]string{}
	content, err := os.ReadFile(filepath.Join(dir, "dovecot-keywords"))
	if errors.Is(err, fs.ErrNotExist) {
		return keywords, nil
	}
	for line := range strings.Lines(string(content)) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, bad := strconv.Atoi(number)
		err = errors.Join(err, bad)
		keywords['a'+rune(n)] = name
	}
	return keywords, err
}

// spell spells the letters of a name as flags and keywords.
func spell(letters string, keywords map[rune]string) string {
	flags, rest := "", []string{}
	for _, c := range letters {
		if c >= 'a' && c <= 'z' {
			rest = append(rest, keywords[c])
		} else {
			flags += string(c)
		}
	}
	return strings.Join(append([]string{flags}, rest...), " ")
}
