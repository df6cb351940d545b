package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/quotafs"
	"mailferry/semaphore"
)

// A user whose quota a Maildir would exceed stays on his mbox, wherever on the
// way that happens, and the others go on.
func TestAFullQuotaLeavesTheUserOnMbox(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 3, Seed: 51, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 4 + r.IntN(4) },
		Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(2000) },
	}})
	u, a := p.Users[1], p.accounts[1]
	q := quotaHome(t, a.Home)
	used := q.Used(a.UID)
	before, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	others := []account.Account{p.accounts[0], p.accounts[2]}
	for room := int64(0); ; room += 1 + u.Bytes/12 {
		q.Limit(a.UID, used+room)
		summary, w := doRun(t, p, Migrate, a, others[0])
		others = others[1:]
		if len(others) == 0 {
			others = p.accounts[:1] // moved already
		}
		if w.users[a.Name].Outcome == journal.Done {
			if room == 0 {
				t.Error("nothing was used")
			}
			break
		}
		if room > 8*u.Bytes+1<<20 {
			t.Fatalf("%+v with %d bytes of room", w.users[a.Name], room)
		}
		w.mustBe(t, a.Name, journal.Failed, "quota")
		if summary.Users.Failed != 1 || summary.Users.Done != 1 {
			t.Errorf("%d bytes of room: %+v", room, summary.Users)
		}
		mustBeUnmoved(t, u, a, before)
		if t.Failed() {
			t.Fatalf("with %d bytes of room", room)
		}
	}
	mustBeMoved(t, p, a)
}

// quotaHome puts a home on a filesystem with quota.
func quotaHome(t *testing.T, home string) *quotafs.FS {
	t.Helper()
	behind := home + "-behind"
	if err := errors.Join(os.Rename(home, behind), os.Mkdir(home, 0o700)); err != nil {
		t.Fatal(err)
	}
	q, err := quotafs.Mount(behind, home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// A quota that is used up between the precopy and the hold, or in the hold,
// does not leave the user in the hold, nor staging in the way of his mail.
func TestAQuotaUsedUpAtTheCutover(t *testing.T) {
	for room := range int64(12) {
		t.Run(fmt.Sprintf("%d bytes left", 8*room), func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 53, Load: mailgen.Load{
				Messages: func(r *rand.Rand) int { return 2 }, Size: func(r *rand.Rand) int { return mailgen.MinSize },
			}})
			u, a := p.Users[0], p.accounts[0]
			q := quotaHome(t, a.Home)
			before, err := u.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			doRun(t, p, Precopy, a)
			q.Limit(a.UID, q.Used(a.UID)+8*room)
			_, w := doRun(t, p, Cutover, a)
			if w.users[a.Name].Outcome == journal.Done {
				mustBeMoved(t, p, a)
				return
			}
			w.mustBe(t, a.Name, journal.Failed, "quota")
			mustBeUnmoved(t, u, a, before)
		})
	}
}

// A filesystem that fills up during the run leaves its user on his mbox.
func TestADiskThatFillsUpLeavesTheUserOnMbox(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 55, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 6 }, Size: func(r *rand.Rand) int { return 20_000 },
	}})
	u, a := p.Users[0], p.accounts[0]
	disk := tmpfsHome(t, a, "4m")
	before, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r, w := newTestRun(t, p, Migrate)
	r.Jobs = 1 // the first progress is alice's, in her thread
	var once sync.Once
	w.progress = func(int64) { once.Do(func() { fillUp(t, disk) }) }
	summary := finish(t, r, p.accounts)
	w.mustBe(t, a.Name, journal.Failed, "space")
	if summary.Users.Failed != 1 || summary.Users.Done != 1 || summary.End != EndDone {
		t.Errorf("%+v", summary)
	}
	if err := os.Remove(filepath.Join(disk, "ballast")); err != nil {
		t.Fatal(err)
	}
	mustBeUnmoved(t, u, a, before)
	mustBeMoved(t, p, p.accounts[1])

	// With less room than he needs from the start, the check refuses.
	var st unix.Statfs_t
	if err := unix.Statfs(disk, &st); err != nil {
		t.Fatal(err)
	}
	full := (int64(st.Blocks-st.Bfree))*st.Bsize + u.Bytes/2
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", full)); err != nil {
		t.Fatal(err)
	}
	if before, err = u.Snapshot(); err != nil {
		t.Fatal(err)
	}
	_, w = doRun(t, p, Migrate, a)
	w.mustBe(t, a.Name, journal.Skipped, "space")
	mustBeUnmoved(t, u, a, before)
}

// tmpfsHome moves a home onto a filesystem of its own.
func tmpfsHome(t *testing.T, a account.Account, size string) string {
	t.Helper()
	kept := t.TempDir()
	if err := os.CopyFS(filepath.Join(kept, "home"), os.DirFS(a.Home)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", a.Home, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(a.Home, unix.MNT_DETACH) })
	if err := os.CopyFS(a.Home, os.DirFS(filepath.Join(kept, "home"))); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(a.Home, func(path string, e fs.DirEntry, err error) error {
		mode := fs.FileMode(0o600)
		if e.IsDir() {
			mode = 0o700
		}
		return errors.Join(err, os.Lchown(path, a.UID, a.GID), os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
	return a.Home
}

// fillUp leaves no free block.
func fillUp(t *testing.T, dir string) {
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
}

// smallFiles is a filesystem that takes no files above maxSmall bytes, as FAT
// takes none above 4 GiB.
type smallFiles struct{ fusefs.LoopbackNode }

const maxSmall = 32 << 10

func (n *smallFiles) Create(ctx context.Context, name string, flags uint32, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	inode, handle, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return inode, &smallFile{handle.(loopbackFile)}, fuseFlags, 0
}

// loopbackFile is what an open file of the filesystem behind can do.
type loopbackFile interface {
	fusefs.FileReader
	fusefs.FileWriter
	fusefs.FileGetattrer
	fusefs.FileSetattrer
	fusefs.FileFlusher
	fusefs.FileFsyncer
	fusefs.FileReleaser
}

type smallFile struct{ loopbackFile }

func (f *smallFile) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if off+int64(len(data)) > maxSmall {
		return 0, syscall.EFBIG
	}
	return f.loopbackFile.Write(ctx, data, off)
}

// smallHome puts a home on such a filesystem.
func smallHome(t *testing.T, home string) {
	t.Helper()
	behind := home + "-behind"
	if err := errors.Join(os.Rename(home, behind), os.Mkdir(home, 0o700)); err != nil {
		t.Fatal(err)
	}
	root := &fusefs.LoopbackRoot{Path: behind}
	root.NewNode = func(root *fusefs.LoopbackRoot, _ *fusefs.Inode, _ string, _ *syscall.Stat_t) fusefs.InodeEmbedder {
		return &smallFiles{fusefs.LoopbackNode{RootData: root}}
	}
	top := root.NewNode(root, nil, "", nil)
	root.RootNode = top
	server, err := fusefs.Mount(home, top, &fusefs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, Name: "smallfiles", FsName: behind, Options: []string{"default_permissions"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
}

// big appends a message that no file of a small home holds.
func big(t *testing.T, a account.Account, id string) (raw []byte) {
	t.Helper()
	raw = []byte("From a@example.org Mon Jan  2 03:04:05 2023\nSubject: big\n\nId: " + id + "\n" + strings.Repeat("All work and no play.\n", 2*maxSmall/22) + "\n")
	f, err := os.OpenFile(a.Spool, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

// quarantined demands that the quarantine of a run holds the raw messages of a
// user, and reasons.
func mustBeQuarantined(t *testing.T, p *place, run string, a account.Account, want ...[]byte) {
	t.Helper()
	dir := filepath.Join(p.site.State, "runs", run, "quarantine", a.Name)
	for i, raw := range want {
		content, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%06d.raw", i+1)))
		if err != nil || !bytes.Equal(content, raw) {
			t.Errorf("%s: quarantined message %d of run %s: %d bytes, want %d; %v", a.Name, i+1, run, len(content), len(raw), err)
		}
		var why journal.Quarantined
		content, err = os.ReadFile(filepath.Join(dir, fmt.Sprintf("%06d.json", i+1)))
		if err = errors.Join(err, json.Unmarshal(content, &why)); err != nil || why.User != a.Name || why.Length != int64(len(raw)) || why.Reason == "" {
			t.Errorf("%s: reason %d: %s, %v", a.Name, i+1, content, err)
		}
	}
	if list, _ := filepath.Glob(filepath.Join(dir, "*.raw")); len(list) != len(want) {
		t.Errorf("%s: quarantine of run %s: %q, want %d messages", a.Name, run, list, len(want))
	}
}

// withStaging takes staging over from how it is now.
func withStaging(t *testing.T, u mailgen.SiteUser, before mailgen.SnapshotTree) mailgen.SnapshotTree {
	t.Helper()
	after, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	all := mailgen.SnapshotTree{}
	for path, e := range before {
		all[path] = e
	}
	for path, e := range after {
		if strings.HasPrefix(path, "home/.Maildir.mailferry-") {
			all[path] = e
		}
	}
	return all
}

// A message that no Maildir holds keeps its user on mbox, unless the admin
// allows it; its bytes are kept by each run that leaves it out, and the counts
// add up.
func TestAMessageInQuarantine(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 61})
	u, a := p.Users[0], p.accounts[0]
	smallHome(t, a.Home)
	raw := big(t, a, "gen-b-0")
	before, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(racy) + 50*time.Millisecond) // from now on the mailboxes are at rest
	r, w := newTestRun(t, p, Migrate)
	first := finish(t, r, p.accounts)
	w.mustBe(t, a.Name, journal.Failed, "quarantine")
	if first.Users.Failed != 1 || first.Users.Done != 1 {
		t.Errorf("first run: %+v", first)
	}
	mustBeUnmoved(t, u, a, withStaging(t, u, before))
	mustBeQuarantined(t, p, r.Journal.ID(), a, raw)

	r, w = newTestRun(t, p, Precopy)
	second := finish(t, r, p.accounts[:1])
	w.mustBe(t, a.Name, journal.Done, "")
	if m := second.Messages; m.In != u.Messages+1 || m.Quarantined != 1 || m.Converted != u.Messages {
		t.Errorf("precopy: %+v", m)
	}
	mustBeQuarantined(t, p, r.Journal.ID(), a, raw) // though the mailbox was not read

	live, err := u.Mailboxes[1].Live(3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := live.Deliver(); err != nil {
		t.Fatal(err)
	}
	r, w = newTestRun(t, p, Migrate)
	r.AllowQuarantine = true
	third := finish(t, r, p.accounts[:1])
	w.mustBe(t, a.Name, journal.Done, "")
	if m := third.Messages; m.In != u.Messages+2 || m.Quarantined != 1 || m.Converted != u.Messages+1 {
		t.Errorf("allowed: %+v", m)
	}
	mustBeQuarantined(t, p, r.Journal.ID(), a, raw)
	unpark(t, a)
	o := Options{Source: a.Folders[0], Inbox: a.Spool, Dest: a.Maildir, Folders: p.site.Folders, Scan: p.site.Scan, Jobs: 1, Progress: func(int64) {}, Total: func(int64) {}}
	report, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if d := report.Differences; len(d) != 1 || d[0].Field != "message" || d[0].Got != "absent" {
		t.Errorf("beside the one in quarantine: %v", d)
	}
}

// What comes into quarantine in the hold stops the cutover, and is allowed by
// the next run like any other.
func TestAMessageForTheQuarantineInTheHold(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 63})
	u, a := p.Users[0], p.accounts[0]
	smallHome(t, a.Home)
	raw := big(t, a, "gen-b-0")
	before, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	r, w := newTestRun(t, p, Migrate)
	r.AllowQuarantine = true
	var late []byte
	betweenPrecopyAndHold(t, r, w, func() { late = big(t, a, "gen-b-1") })
	finish(t, r, p.accounts)
	if late == nil {
		t.Fatal("there was no cutover")
	}
	if w.users[a.Name].Outcome != journal.Failed {
		t.Errorf("%+v", w.users[a.Name])
	}
	t.Log(w.users[a.Name].Reason, w.users[a.Name].Text)
	now, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	before["spool/"+a.Name] = now["spool/"+a.Name]
	mustBeUnmoved(t, u, a, withStaging(t, u, before))

	r, w = newTestRun(t, p, Migrate)
	r.AllowQuarantine = true
	again := finish(t, r, p.accounts)
	w.mustBe(t, a.Name, journal.Done, "")
	if m := again.Messages; m.In != u.Messages+2 || m.Quarantined != 2 || m.Converted != u.Messages {
		t.Errorf("%+v", m)
	}
	mustBeQuarantined(t, p, r.Journal.ID(), a, raw, late)
}

// A state directory that fills up stops the run, and nobody is left in the
// middle: who was begun with is on mbox, and the next run goes on.
func TestAStateDirectoryThatFillsUp(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 9, Seed: 57})
	if err := unix.Mount("tmpfs", p.site.State, "tmpfs", 0, "size=2500k,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(p.site.State, unix.MNT_DETACH) })
	before := map[string]mailgen.SnapshotTree{}
	for _, u := range p.Users {
		tree, err := u.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		before[u.Name] = tree
	}
	r, w := newTestRun(t, p, Migrate)
	r.Chunk = 3
	betweenPrecopyAndHold(t, r, w, func() { fillUp(t, p.site.State) })
	summary, err := r.Do(context.Background(), slices.Clone(p.accounts))
	t.Logf("%+v, %v", summary, err)
	for name, u := range w.users {
		t.Logf("%s: %s %s: %s", name, u.Outcome, u.Reason, u.Text)
	}
	if err := r.Journal.Finish(*summary); err != nil {
		t.Errorf("the summary: %v", err)
	}
	moved := map[string]bool{}
	for i, a := range p.accounts {
		if state, err := semaphore.Get(filepath.Dir(a.Semaphore), a.Name); err == nil && state == semaphore.Maildir {
			moved[a.Name] = true
			continue
		}
		mustBeUnmoved(t, p.Users[i], a, withStaging(t, p.Users[i], before[a.Name]))
	}
	if err := os.Remove(filepath.Join(p.site.State, "ballast")); err != nil {
		t.Fatal(err)
	}
	_, w = doRun(t, p, Migrate, p.accounts...)
	for _, a := range p.accounts {
		if w.users[a.Name].Outcome != journal.Done || w.users[a.Name].Already != moved[a.Name] {
			t.Errorf("%s: moved %t, then %+v", a.Name, moved[a.Name], w.users[a.Name])
		}
		mustBeMoved(t, p, a)
	}
}

// The Maildir takes the place of an empty directory with its permissions; when
// the cutover is undone, the directory is there as before.
func TestAnEmptyDirectoryInTheMaildirsPlace(t *testing.T) {
	for _, undone := range []bool{false, true} {
		p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 59})
		a := p.accounts[0]
		if err := errors.Join(os.Mkdir(a.Maildir, 0o700), os.Chown(a.Maildir, a.UID, a.GID), os.Chmod(a.Maildir, 0o750)); err != nil {
			t.Fatal(err)
		}
		c := ready(t, p, a)
		if undone {
			c.limit = time.Nanosecond // over at once
		}
		_, err := c.do(context.Background())
		if undone != (err != nil) {
			t.Errorf("undone %t: %v", undone, err)
		}
		if info, err := os.Stat(a.Maildir); err != nil || info.Mode() != fs.ModeDir|0o750 {
			t.Errorf("undone %t: %v, %v", undone, info, err)
		}
	}
}
