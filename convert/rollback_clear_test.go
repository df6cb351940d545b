package convert

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/journal"
)

// A server lists each file of a directory of mboxes: after a rollback exactly the
// folders that there were before the migration, and after a second one, too.
func TestAfterARollbackUsersSeeTheFoldersThatThereWere(t *testing.T) {
	p, a := servedPlace(t, 700)
	before := dump(t, mboxesOf(a))
	for range 2 {
		_, w := doRun(t, p, Migrate, a)
		w.mustBe(t, a.Name, journal.Done, "")
		if found := w.users[a.Name].Findings; slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Path, ".mailferry-") && filepath.Dir(f.Path) != a.Home }) {
			t.Errorf("%+v", found)
		}
		_, w = doRun(t, p, Rollback, a)
		wentBack(t, p, w, a)
		after := dump(t, mboxesOf(a))
		for _, d := range dovecottest.Diff(after.imap, before.imap, "keywords") {
			t.Error(d)
		}
		if len(w.notes) > 0 {
			t.Errorf("%q", w.notes)
		}
	}
	soak, err := journal.ReadSoak(p.site.State, a.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range soak.Parked {
		if !exists(t, p.Path) || p.From != "" || strings.HasPrefix(p.Path, a.Folders[0]+"/") {
			t.Errorf("%+v is not where it is said to be", p)
		}
	}
	for _, p := range soak.Aside {
		if !exists(t, p.Path) || p.From != "" || strings.HasPrefix(p.Path, a.Folders[0]+"/") {
			t.Errorf("%+v is not where it is said to be", p)
		}
	}
	info, err := os.Stat(clearedTo(t, a))
	if err != nil || info.Mode() != os.ModeDir|0o700 || ownerOf(info) != a.UID {
		t.Errorf("%v, %v", info, err)
	}
}

// clearedTo is a directory for what was moved out of the folders.
func clearedTo(t *testing.T, a account.Account) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(a.Home, ".mail.mailferry-*"))
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return list[0]
}

// What can't be taken out stays, is named, and is deleted from there.
func TestWhatCanNotBeTakenOutOfTheFoldersStays(t *testing.T) {
	for name, make := range map[string]func(*stand){
		"the directory is a filesystem of its own": func(s *stand) {
			root := s.a.Folders[0]
			s.check(os.Rename(root, root+"-before"))
			s.check(os.Mkdir(root, 0o755))
			s.check(unix.Mount("none", root, "tmpfs", 0, "mode=0755"))
			s.Cleanup(func() {
				if err := unix.Unmount(root, 0); err != nil {
					s.Error(err)
				}
			})
			s.check(os.CopyFS(root, os.DirFS(root+"-before")))
			s.check(filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Lchown(path, s.a.UID, s.a.GID))
			}))
		},
		"it lies where the user may make nothing": func(s *stand) { s.check(os.Chown(s.a.Home, 0, 0)) },
		"what lies above is one of mail, too":     func(s *stand) { s.a.Folders = append(s.a.Folders, s.a.Home) },
	} {
		t.Run(name, func(t *testing.T) {
			p, a := servedPlace(t, 700)
			s := &stand{t, p, a}
			if strings.HasPrefix(name, "what") {
				s.migrated()
				make(s)
			} else {
				make(s)
				if name[:2] == "it" { // nor the Maildir
					s.a.Maildir = filepath.Join(s.a.Folders[0], "..", "own", "Maildir")
					s.a.Spool = filepath.Join(s.a.Home, "own", "INBOX")
					s.a.Mirror, s.a.Gate = "", ""
					s.check(errors.Join(os.Mkdir(filepath.Join(s.a.Home, "own"), 0o755), os.Chown(filepath.Join(s.a.Home, "own"), s.a.UID, s.a.GID)))
					s.check(os.Rename(filepath.Join(s.a.Home, "INBOX"), s.a.Spool))
				}
				s.migrated()
			}
			_, w := doRun(t, s.place, Rollback, s.a)
			w.mustBe(t, s.a.Name, journal.Done, "")
			if text := strings.Join(w.notes, "\n"); !strings.Contains(text, "stays among the folders") {
				t.Errorf("told %q; %q", text, w.users[s.a.Name].Text)
			}
			soak := s.soak()
			for _, p := range soak.Parked {
				if !exists(t, p.Path) || p.From != "" {
					t.Errorf("%+v is not where it is said to be", p)
				}
			}
			if list, _ := filepath.Glob(filepath.Join(s.a.Home, ".mail.mailferry-*")); len(list) > 0 {
				t.Errorf("left %q", list)
			}
			if _, err := journal.ReadRollback(s.site.State, s.a.Name); !os.IsNotExist(err) {
				t.Errorf("the record of the rollback is left: %v", err)
			}
		})
	}
}

// A user plants something where it would go to: he gets it nowhere.
func TestWhatIsTakenOutOfTheFoldersFollowsNoSymlink(t *testing.T) {
	s, _ := backUser(t)
	elsewhere := t.TempDir()
	s.check(os.Chmod(elsewhere, 0o777))
	root := s.a.Folders[0]
	soak := s.soak()
	c := clearing{Site: s.site, account: s.a, soak: soak, way: journal.Rollback{Aside: s.a.Maildir + ".mailferry-20261121T013000Z"}}
	s.check(errors.Join(os.Symlink(elsewhere, c.beside(root)), os.Lchown(c.beside(root), s.a.UID, s.a.GID)))
	s.check(c.do())
	if list, err := os.ReadDir(elsewhere); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	if len(c.stays) < 2 {
		t.Errorf("%q", c.stays)
	}
	for _, p := range s.soak().Parked {
		if !exists(t, p.Path) {
			t.Errorf("%s is gone", p.Path)
		}
	}
}
