package convert

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"mailferry/internal/account"
	"mailferry/internal/safefs"
)

// findAccount lists the mailboxes of an account: its spool as INBOX, and what
// is in its folder trees. It is called as the user, and fails where an
// account's mail can't be told from somebody else's. An account may have no
// mail at all.
func findAccount(a account.Account) (*tree, error) { return findMail(a, false) }

// findParked lists the mailboxes that were parked when the account was flipped.
func findParked(a account.Account) (*tree, error) { return findMail(a, true) }

func findMail(a account.Account, parked bool) (*tree, error) {
	t := &tree{owner: a.UID, parked: parked}
	err := t.addSpool(a)
	for _, path := range a.Folders {
		if err != nil {
			break
		}
		err = t.addTree(safefs.OpenFor(path, a.UID))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // no folders, only INBOX
		}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	if parked {
		t.keepNewest()
	}
	t.dropSpoolAgain()
	t.arrange()
	return t, nil
}

// keepNewest skips the mboxes that were parked before the last flip: those of a
// mailbox differ in the time alone, and times sort as text.
func (t *tree) keepNewest() {
	newest := map[string]string{}
	for _, s := range t.sources {
		live, _ := unparked(s.path)
		newest[live] = max(newest[live], s.path)
	}
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool {
		live, _ := unparked(s.path)
		if newest[live] == s.path {
			return false
		}
		t.skipAs("parked-left", s.path, errors.New("was parked by an earlier migration"))
		return true
	})
}

// dropSpoolAgain drops the spool from the folders, where Dovecot allows it to
// lie.
func (t *tree) dropSpoolAgain() {
	if len(t.sources) == 0 || !t.sources[0].named {
		return
	}
	spool := t.sources[0]
	t.sources = slices.DeleteFunc(t.sources, func(s source) bool { return s.id == spool.id && !s.named })
}

// addSpool adds INBOX, if there is mail.
func (t *tree) addSpool(a account.Account) error {
	dir, err := safefs.OpenFor(filepath.Dir(a.Spool), a.UID)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t.roots = append(t.roots, dir)
	name := filepath.Base(a.Spool)
	if t.parked {
		if name, err = newestParked(dir, name); name == "" || err != nil {
			return err
		}
	}
	err = t.add(dir, source{path: filepath.Join(dir.Path(), name), root: dir, file: name, named: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// newestParked finds the parked mbox of the last flip; "" if there is none.
func newestParked(dir *safefs.Dir, live string) (newest string, err error) {
	err = dir.Names(func(name string) error {
		if p, parked := parseParked(name); parked && p.live == live && !p.late && name > newest {
			newest = name
		}
		return nil
	})
	return newest, err
}
