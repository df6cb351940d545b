package convert

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// The user of these tests, and somebody else.
const (
	aliceID = 61001
	malloID = 61002
)

const letter = "From bob@example.org Mon Jan  2 03:04:05 2023\nFrom: bob@example.org\nSubject: hello\n\nhello\n\n"

// house is a host with one user, whose mail is in order.
type house struct {
	*testing.T
	dir  string
	a    account.Account
	site Site
	in   *Inspector
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t, dir: t.TempDir()}
	h.chmod(filepath.Dir(h.dir), 0o755)
	h.chmod(h.dir, 0o755)
	h.a = account.Places{
		Spool: h.path("spool/{user}"), Folders: []string{"{home}/mail"}, Maildir: "{home}/Maildir",
		Semaphore: h.path("semaphores/{user}"), Mirror: "{home}/.mailstate", Gate: "{home}/.mailstate.lock",
	}.Account(account.User{Name: "alice", UID: aliceID, GID: aliceID, Home: h.path("home/alice")})
	for _, dir := range []string{"spool", "home", "semaphores", "state"} {
		h.mkdir(h.path(dir), 0o755, 0)
	}
	h.chmod(h.path("spool"), 0o777|fs.ModeSticky)
	h.mkdir(h.a.Home, 0o700, aliceID)
	h.mkdir(h.home("mail"), 0o700, aliceID)
	h.write(h.a.Spool, strings.Repeat(letter, 3), aliceID)
	h.write(h.home("mail/Sent"), letter, aliceID)
	sem, err := semaphore.For(h.a.Semaphore)
	h.check(err)
	h.check(sem.Enroll(semaphore.Meta{Epoch: 1}))
	h.site = Site{
		Scan: mbox.Options{Profile: mbox.Dovecot}, Locks: mbox.LockOptions{Dotlock: true, Fcntl: true},
		State: h.path("state"), MinUID: 1000,
	}
	h.in = NewInspector(h.site, []account.User{h.a.User, {Name: "mallo", UID: malloID, GID: malloID}})
	return h
}

func (h *house) check(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) path(rel string) string { return filepath.Join(h.dir, rel) }
func (h *house) home(rel string) string { return filepath.Join(h.a.Home, rel) }

func (h *house) chmod(path string, mode fs.FileMode) { h.Helper(); h.check(os.Chmod(path, mode)) }
func (h *house) chown(path string, uid int)          { h.Helper(); h.check(os.Lchown(path, uid, uid)) }
func (h *house) remove(path string)                  { h.Helper(); h.check(os.RemoveAll(path)) }

func (h *house) mkdir(path string, mode fs.FileMode, uid int) {
	h.Helper()
	h.check(os.Mkdir(path, 0o700))
	h.chown(path, uid)
	h.chmod(path, mode)
}

func (h *house) write(path, content string, uid int) {
	h.Helper()
	h.check(os.WriteFile(path, []byte(content), 0o600))
	h.chown(path, uid)
}

func (h *house) symlink(target, path string) {
	h.Helper()
	h.check(os.Symlink(target, path))
	h.chown(path, aliceID)
}

// tmpfs mounts an empty filesystem.
func (h *house) tmpfs(path, options string) {
	h.Helper()
	h.check(unix.Mount("tmpfs", path, "tmpfs", 0, options))
	h.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			h.Error(err)
		}
	})
}

// smallHome puts the home on a filesystem of its own.
func (h *house) smallHome(options string) {
	h.Helper()
	h.tmpfs(h.a.Home, options)
	h.chown(h.a.Home, aliceID)
	h.chmod(h.a.Home, 0o700)
}

// semaphore sets what the authority says.
func (h *house) semaphore(state semaphore.State) {
	h.Helper()
	sem, err := semaphore.For(h.a.Semaphore)
	h.check(err)
	m := semaphore.Meta{Epoch: 2, Run: "20261121T013000Z-cutover-ab12"}
	if state == semaphore.Hold {
		m.Deadline = time.Now().Add(time.Hour)
		h.check(sem.Hold(m))
		return
	}
	h.check(sem.Set(state, m))
}

func (h *house) mirror(line string) { h.write(h.a.Mirror, line, aliceID) }

// staging makes a staging directory, recorded or not.
func (h *house) staging(name string, record bool) {
	h.Helper()
	h.mkdir(h.home(name), 0o700, aliceID)
	h.write(h.home(name+"/x"), "x", aliceID)
	if !record {
		return
	}
	info, err := os.Stat(h.home(name))
	h.check(err)
	boot, err := journal.BootID()
	h.check(err)
	id := idOf(info)
	h.check(journal.WriteStaging(h.site.State, journal.Staging{
		User: "alice", Parent: h.a.Home, Name: ".Maildir.mailferry-0123456789abcdef", Final: "Maildir", Dev: id.dev, Ino: id.ino, BootID: boot,
	}))
}

// dotlock makes a lock of the spool.
func (h *house) dotlock(content string, uid int) { h.write(h.a.Spool+".lock", content, uid) }

func (h *house) collide(what, path string) {
	h.a.Collisions = []account.Collision{{Users: [2]string{"mallo", "alice"}, What: [2]string{what, what}, Path: path}}
}

// limit gives the user a quota; the kernels of tests have none.
func (h *house) limit(q dqblk) {
	h.in.quota = func(_, kind, id int) (dqblk, error) {
		if kind != userQuota || id != aliceID {
			return dqblk{}, unix.ESRCH
		}
		return q, nil
	}
}

// same checks that a look brought up one code, or nothing.
func (h *house) same(i *Inspection, code string) {
	h.Helper()
	var want []string
	if code != "" {
		want = []string{code}
	}
	var got []string
	for _, f := range i.Findings {
		got = append(got, f.Code)
		c := codes[f.Code]
		if f.Severity != c.severity || f.Text == "" || f.Advice == "" || i.Refused != (c.severity == Refuse) {
			h.Errorf("%+v, refused: %t", f, i.Refused)
		}
	}
	if got = slices.Compact(got); !slices.Equal(got, want) {
		h.Errorf("found %q, want %q:", got, want)
		for _, f := range i.Findings {
			h.Logf("%+v", f)
		}
	}
}

// snapshot is what a look must leave as it is.
func (h *house) snapshot() map[string]string {
	h.Helper()
	long := unix.NsecToTimespec(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	contents := map[string]string{}
	h.walk(func(path string, info fs.FileInfo) {
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			h.check(err)
			contents[path] = fmt.Sprintf(" %x", sha256.Sum256(b))
			// Older than the mtime, so that reading would set it (relatime).
			h.check(unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{long, {Nsec: unix.UTIME_OMIT}}, 0))
		}
	})
	h.walk(func(path string, info fs.FileInfo) { contents[path] += h.describe(path, info) })
	return contents
}

func (h *house) describe(path string, info fs.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf(" %v %d:%d %d %d", info.Mode(), st.Uid, st.Gid, st.Ino, st.Mtim.Nano())
	// The atime of a lock or of a semaphore means nothing to anybody.
	if mail := strings.HasPrefix(path, h.path("spool")) || strings.HasPrefix(path, h.path("home")); mail &&
		info.Mode().IsRegular() && !strings.HasSuffix(path, ".lock") && path != h.a.Mirror {
		text += fmt.Sprintf(" %d", st.Atim.Nano())
	}
	return text
}

func (h *house) unchanged(before map[string]string) {
	h.Helper()
	after := map[string]string{}
	h.walk(func(path string, info fs.FileInfo) { after[path] = h.describe(path, info) })
	for path := range after {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			h.check(err)
			after[path] = fmt.Sprintf(" %x", sha256.Sum256(b)) + after[path]
		}
	}
	for path, was := range before {
		if after[path] != was {
			h.Errorf("%s was changed:\n%s\n%s", path, was, after[path])
		}
	}
	if len(after) != len(before) {
		h.Errorf("%d files, %d before", len(after), len(before))
	}
}

func (h *house) walk(visit func(string, fs.FileInfo)) {
	h.Helper()
	h.check(filepath.Walk(h.dir, func(path string, info fs.FileInfo, err error) error {
		if err == nil {
			visit(path, info)
		}
		return err
	}))
}
