package quotafs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/safefs"
)

var (
	alice = safefs.Identity{UID: 40001, GID: 40001}
	bob   = safefs.Identity{UID: 40002, GID: 40002}
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// site mounts a directory with a home for each user; q is nil where the test
// may not.
func site(t *testing.T) (q *FS, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can mount a filesystem")
		return nil, ""
	}
	behind, dir := t.TempDir(), t.TempDir()
	for _, path := range []string{filepath.Dir(dir), dir, behind} {
		must(t, os.Chmod(path, 0o755))
	}
	for name, id := range map[string]safefs.Identity{"alice": alice, "bob": bob} {
		home := filepath.Join(behind, name)
		mail := filepath.Join(home, "mail")
		must(t, os.Mkdir(home, 0o700), os.WriteFile(mail, make([]byte, 1000), 0o600), os.Chown(home, id.UID, id.GID), os.Chown(mail, id.UID, id.GID))
	}
	q, err := Mount(behind, dir)
	must(t, err)
	t.Cleanup(func() { must(t, q.Close()) })
	return q, dir
}

// write makes a file of so many bytes as a user.
func write(id safefs.Identity, path string, size int) error {
	return safefs.AsUser(id, func() error {
		d, err := safefs.OpenFor(filepath.Dir(path), id.UID)
		if err != nil {
			return err
		}
		defer d.Close()
		f, err := d.Create(filepath.Base(path), 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(bytes.Repeat([]byte("x"), size))
		return errors.Join(err, f.Sync(), f.Close())
	})
}

func TestTheLimitIsTheUsers(t *testing.T) {
	q, dir := site(t)
	if q == nil {
		return
	}
	q.Limit(alice.UID, 100_000)
	hers := filepath.Join(dir, "alice")
	must(t, write(alice, hers+"/1", 90_000))
	if err := write(alice, hers+"/2", 200_000); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("beyond the limit: %v", err)
	}
	if used := q.Used(alice.UID); used != 100_000 {
		t.Errorf("%d bytes are used, want all 100000", used)
	}
	info, err := os.Stat(hers + "/2")
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); info.Size() != 9_000 || int(st.Uid) != alice.UID || int(st.Gid) != alice.GID || info.Mode() != 0o600 {
		t.Errorf("what had room: %v of %d:%d, %d bytes", info.Mode(), st.Uid, st.Gid, info.Size())
	}
	if err := write(alice, hers+"/3", 1); !errors.Is(err, unix.EDQUOT) {
		t.Errorf("one byte more: %v", err)
	}
	must(t, write(bob, filepath.Join(dir, "bob", "1"), 300_000)) // is not limited
	err = safefs.AsUser(bob, func() error { return os.WriteFile(hers+"/4", nil, 0o600) })
	if !errors.Is(err, unix.EACCES) {
		t.Errorf("the other user in her home: %v", err)
	}
	f, err := os.OpenFile(hers+"/1", os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.Write(make([]byte, 5000)) // what create-then-chown would do
	must(t, err, f.Close())
	if used := q.Used(alice.UID); used != 105_000 {
		t.Errorf("root wrote into her file, and %d bytes are used", used)
	}
}

func TestRoomComesBack(t *testing.T) {
	for name, free := range map[string]func(d *safefs.Dir) error{
		"by unlink":   func(d *safefs.Dir) error { return d.Unlink("full") },
		"by truncate": func(d *safefs.Dir) error { return os.Truncate(d.Path()+"/full", 0) },
		"by O_TRUNC":  func(d *safefs.Dir) error { return os.WriteFile(d.Path()+"/full", nil, 0o600) },
		"by rename":   func(d *safefs.Dir) error { return d.Rename("mail", "full", true) },
		"with a tree": func(d *safefs.Dir) error {
			sub, err := d.Mkdir("sub", 0o700)
			if err != nil {
				return err
			}
			return errors.Join(sub.Close(), os.Rename(d.Path()+"/full", d.Path()+"/sub/full"), d.RemoveAll("sub"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			q, dir := site(t)
			if q == nil {
				return
			}
			q.Limit(alice.UID, 50_000)
			home := filepath.Join(dir, "alice")
			must(t, write(alice, home+"/full", 49_000))
			if err := write(alice, home+"/none", 1); !errors.Is(err, unix.EDQUOT) {
				t.Fatal(err)
			}
			must(t, safefs.AsUser(alice, func() error {
				d, err := safefs.OpenFor(home, alice.UID)
				if err != nil {
					return err
				}
				defer d.Close()
				return free(d)
			}))
			if used := q.Used(alice.UID); used != 1000 {
				t.Errorf("%d bytes are used", used)
			}
			must(t, write(alice, home+"/again", 49_000))
		})
	}
}

func TestSafefsFindsAFilesystemLikeOthers(t *testing.T) {
	q, dir := site(t)
	if q == nil {
		return
	}
	home := filepath.Join(dir, "alice")
	must(t, safefs.AsUser(alice, func() error {
		d, err := safefs.OpenFor(home, alice.UID)
		if err != nil {
			return err
		}
		defer d.Close()
		for _, name := range []string{"staging", "taken"} {
			sub, err := d.Mkdir(name, 0o700)
			if err != nil {
				return err
			}
			defer sub.Close()
			f, err := sub.Create("file", 0o600)
			if err != nil {
				return err
			}
			if err := errors.Join(f.Close(), sub.Sync(), sub.SyncFS()); err != nil {
				return err
			}
		}
		if err := d.Rename("staging", "taken", false); !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("RENAME_NOREPLACE over something: %w", err)
		}
		if _, err := d.Create("mail", 0o600); !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("O_EXCL over something: %w", err)
		}
		if err := unix.Renameat2(d.Fd(), "staging", d.Fd(), "mail", unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("RENAME_EXCHANGE: %w", err)
		}
		if _, err := d.OpenRegular("mail"); !errors.As(err, new(*safefs.Irregular)) {
			return fmt.Errorf("a directory for a file: %w", err)
		}
		room, err := d.Statfs()
		if err != nil || room.Bytes == 0 {
			return fmt.Errorf("%+v: %w", room, err)
		}
		return errors.Join(d.RemoveAll("mail"), d.RemoveAll("taken"), d.Sync())
	}))
}
