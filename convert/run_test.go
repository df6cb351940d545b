package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/internal/quotafs"
	"mailferry/internal/safefs"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// told is a Watch that remembers.
type told struct {
	mu       sync.Mutex
	users    map[string]User
	notes    []string
	progress func(int64) // of each message; may be nil
}

func (w *told) User(u User) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users == nil {
		w.users = map[string]User{}
	}
	w.users[u.Name] = u
}

func (w *told) Note(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes = append(w.notes, text)
}

func (w *told) Wait(string)      {}
func (w *told) Begin(int, int64) {}

func (w *told) Progress(bytes int64) {
	if w.progress != nil {
		w.progress(bytes)
	}
}

// newTestRun is a run over accounts of a place, with the options of a short
// night; it holds the lock until finish.
func newTestRun(t *testing.T, p *place, verb Verb) (*Run, *told) {
	t.Helper()
	log, err := journal.Begin(p.site.State, string(verb))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	w := &told{}
	r := &Run{
		Site: p.site, Inspector: NewInspector(p.site, nil), Journal: log, Watch: w,
		Verb: verb, Chunk: 7, Jobs: 2, CutoverJobs: 2, HoldLimit: 10 * time.Second,
	}
	return r, w
}

// finish does the run, writes its summary, and demands that what it says of
// itself adds up.
func finish(t *testing.T, r *Run, accounts []account.Account) *journal.Summary {
	t.Helper()
	summary, err := r.Do(context.Background(), slices.Clone(accounts))
	if err != nil {
		t.Errorf("%s: %v", r.Verb, err)
	}
	if err := r.Journal.Finish(*summary); err != nil {
		t.Errorf("%s: summary: %v", r.Verb, err)
	}
	return summary
}

// doRun is newTestRun and finish.
func doRun(t *testing.T, p *place, verb Verb, accounts ...account.Account) (*journal.Summary, *told) {
	t.Helper()
	r, w := newTestRun(t, p, verb)
	return finish(t, r, accounts), w
}

// mustBe demands an outcome of a user.
func (w *told) mustBe(t *testing.T, name, outcome, reason string) {
	t.Helper()
	if u := w.users[name]; u.Outcome != outcome || u.Reason != reason {
		t.Errorf("%s: %s, %q (%s); want %s, %q", name, u.Outcome, u.Reason, u.Text, outcome, reason)
	}
}

// unpark gives the mboxes of a moved user their names back, so that the Maildir
// can be compared with them.
func unpark(t *testing.T, a account.Account) {
	t.Helper()
	for _, dir := range append([]string{filepath.Dir(a.Spool)}, a.Folders...) {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			live, parked := unparked(path)
			ours := dir != filepath.Dir(a.Spool) || live == a.Spool
			if err != nil || !parked || !ours {
				return err
			}
			return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, live, unix.RENAME_NOREPLACE)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// mustBeMoved demands that a user is on his Maildir, that all of his mail is
// there, and that nothing of the cutover is left. His mboxes get their names
// back for that.
func mustBeMoved(t *testing.T, p *place, a account.Account) {
	t.Helper()
	if authority, mirror := stateOf(t, a); authority != semaphore.Maildir || mirror != semaphore.Maildir {
		t.Errorf("%s: semaphore %s, mirror %s", a.Name, authority, mirror)
	}
	for _, path := range leavings(t, p) {
		if strings.Contains(path, a.Name) {
			t.Errorf("%s: left %s", a.Name, path)
		}
	}
	unpark(t, a)
	p.compare(t, a, a.Maildir)
}

// leavings lists what no run leaves when it is over: staging, dotlocks, gates,
// and files on their way to another name.
func leavings(t *testing.T, p *place) (left []string) {
	t.Helper()
	err := filepath.WalkDir(p.Dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == p.site.State {
			return fs.SkipDir
		}
		name := e.Name()
		_, parked := unparked(name)
		switch {
		case err != nil:
			return err
		case strings.HasSuffix(name, ".lock") && path != filepath.Join(p.Dir, "semaphores", ".lock"),
			strings.Contains(name, ".mailferry-") && !parked,
			strings.HasPrefix(name, ".") && filepath.Dir(path) == filepath.Join(p.Dir, "semaphores") && name != ".lock",
			name == manifestName, name == mailboxName:
			left = append(left, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// mustBeUnmoved demands that a user is on his mbox, and that his mail and his
// home are as they were.
func mustBeUnmoved(t *testing.T, u mailgen.SiteUser, a account.Account, before mailgen.SnapshotTree) {
	t.Helper()
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	if state, err := sem.Get(); err != nil || state != semaphore.Mbox {
		t.Errorf("%s: semaphore %s, %v", a.Name, state, err)
	}
	if content, err := os.ReadFile(a.Mirror); err == nil && string(content) != semaphore.Mbox.Line() {
		t.Errorf("%s: mirror says %q", a.Name, content)
	}
	after, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, diff := range withoutTimes(before).Diff(withoutTimes(after)) {
		t.Errorf("%s: %s", a.Name, diff)
	}
}

// withoutTimes leaves out what changes where names come and go, and the mirror.
func withoutTimes(all mailgen.SnapshotTree) mailgen.SnapshotTree {
	kept := mailgen.SnapshotTree{}
	for path, e := range all {
		if e.Mode.IsDir() {
			e.MTime, e.Links, e.Size = time.Time{}, 0, 0
		}
		if path != "home/.mailstate" {
			kept[path] = e
		}
	}
	return kept
}

// allIDs finds the ids of the messages of a Maildir, by file.
func allIDs(t *testing.T, root string) map[string]string {
	t.Helper()
	ids := map[string]string{}
	dirs, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(root, ".*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(dirs, hidden...) {
		if base := filepath.Base(dir); base != "cur" && base != "new" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			id := messageID.FindString(string(content))
			if id == "" {
				t.Errorf("%s has no id", path)
			}
			ids[path] = id
		}
	}
	return ids
}

var messageID = regexp.MustCompile(`gen-[0-9a-f]+-\d+`)

// A second precopy writes what changed and nothing else, and the cutover verb
// takes what came after it.
func TestPrecopyPrecopyCutover(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 12, Seed: 31, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 3 + r.IntN(20) },
		Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
	}})
	live := map[string][]*mailgen.Live{}
	for i, u := range p.Users {
		live[u.Name] = use(t, u, uint64(1000*i))
	}
	first, w := doRun(t, p, Precopy, p.accounts...)
	if first.Users.Done != len(p.Users) || first.Messages.Converted != p.Messages || first.Messages.In != p.Messages {
		t.Errorf("first precopy: %+v", first)
	}
	for _, u := range p.Users {
		w.mustBe(t, u.Name, journal.Done, "")
		if got := w.users[u.Name].Round; got.Written != u.Messages || got.Removed != 0 || got.Reflagged != 0 {
			t.Errorf("%s: first precopy %+v", u.Name, got.Changes)
		}
	}
	random := rand.New(rand.NewPCG(31, 0))
	inodes := map[string]map[string]uint64{}
	for _, a := range p.accounts {
		inodes[a.Name] = names(t, stagingOf(t, a))
	}
	came, went, messages := map[string]int{}, map[string]int{}, 0
	for name, list := range live {
		came[name], went[name] = change(t, list, random)
		for _, l := range list {
			messages += len(l.Messages)
		}
	}
	second, w := doRun(t, p, Precopy, p.accounts...)
	if second.Messages.Converted != messages {
		t.Errorf("second precopy: %+v, want %d messages", second, messages)
	}
	for _, a := range p.accounts {
		got := w.users[a.Name].Round
		if got.Written != came[a.Name] || got.Removed != went[a.Name] {
			t.Errorf("%s: second precopy %+v, want %d written, %d removed", a.Name, got.Changes, came[a.Name], went[a.Name])
		}
		kept := 0
		for name, ino := range names(t, stagingOf(t, a)) {
			if inodes[a.Name][name] == ino {
				kept++
			}
		}
		if kept != len(inodes[a.Name])-went[a.Name] {
			t.Errorf("%s: %d of %d files stayed, %d went", a.Name, kept, len(inodes[a.Name]), went[a.Name])
		}
	}
	messages = 0
	for name, list := range live {
		came[name], went[name] = change(t, list, random)
		for _, l := range list {
			messages += len(l.Messages)
		}
	}
	last, w := doRun(t, p, Cutover, p.accounts...)
	if last.Users.Done != len(p.Users) || last.Messages.Converted != messages || last.Messages.In != messages {
		t.Errorf("cutover: %+v, want %d messages", last, messages)
	}
	for _, a := range p.accounts {
		w.mustBe(t, a.Name, journal.Done, "")
		if got := w.users[a.Name].Round; got.Written != came[a.Name] || got.Removed != went[a.Name] {
			t.Errorf("%s: cutover %+v, want %d written, %d removed", a.Name, got.Changes, came[a.Name], went[a.Name])
		}
		mustBeMoved(t, p, a)
	}
	again, w := doRun(t, p, Migrate, p.accounts...)
	if again.Users.Done != len(p.Users) || again.Messages.In != 0 {
		t.Errorf("once more: %+v", again)
	}
	for _, a := range p.accounts {
		if !w.users[a.Name].Already {
			t.Errorf("%s was moved again", a.Name)
		}
	}
}

// stagingOf is the path of a user's staging directory, of which there is one.
func stagingOf(t *testing.T, a account.Account) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(filepath.Dir(a.Maildir), ".Maildir.mailferry-*"))
	if err != nil || len(list) != 1 {
		t.Fatalf("%s: staging directories %q, %v", a.Name, list, err)
	}
	return list[0]
}

// What precopy left is durable, so that a reboot does not make it worthless.
func TestAPrecopyIsRecordedAsDurable(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 33})
	doRun(t, p, Precopy, p.accounts...)
	for _, a := range p.accounts {
		record, err := journal.ReadStaging(p.site.State, a.Name)
		if err != nil || !record.Synced {
			t.Errorf("%s: %+v, %v", a.Name, record, err)
		}
	}
}

// The cutover verb leaves alone who was not precopied.
func TestCutoverNeedsAPrecopy(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 35})
	doRun(t, p, Precopy, p.accounts[0])
	before, err := p.Users[1].Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	summary, w := doRun(t, p, Cutover, p.accounts...)
	if summary.Users.Done != 1 || summary.Users.Skipped != 1 {
		t.Errorf("%+v", summary.Users)
	}
	w.mustBe(t, p.accounts[1].Name, journal.Skipped, "not-precopied")
	mustBeUnmoved(t, p.Users[1], p.accounts[1], before)
	mustBeMoved(t, p, p.accounts[0])
}

// agent delivers to one user as an honest delivery agent does: it takes the
// gate, reads the semaphore, delivers where that says or defers.
type agent struct {
	a     account.Account
	inbox *mailgen.Live
	home  *os.File

	accepted []string // ids that went into Maildir/new
	deferred int
	moved    bool // the semaphore has said maildir
}

func newAgent(t *testing.T, u mailgen.SiteUser, a account.Account, seed uint64) *agent {
	t.Helper()
	home, err := os.Open(a.Home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	inbox, err := u.Mailboxes[0].Live(seed)
	if err != nil {
		t.Fatal(err)
	}
	return &agent{a: a, inbox: inbox, home: home}
}

// deliver delivers one message; deferred reports that it has to be tried again.
func (g *agent) deliver(ctx context.Context) (deferred bool, err error) {
	gate, err := semaphore.TakeGate(ctx, int(g.home.Fd()), filepath.Base(g.a.Gate), semaphore.GateOptions{Timeout: 20 * time.Second})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, gate.Release()) }()
	sem, err := semaphore.For(g.a.Semaphore)
	if err != nil {
		return false, err
	}
	switch state, err := sem.Get(); {
	case err != nil:
		return false, err
	case state == semaphore.Hold:
		g.deferred++
		return true, nil
	case state == semaphore.Maildir:
		g.moved = true
		return false, g.intoMaildir()
	case g.moved:
		return false, errors.New("the semaphore says mbox again")
	}
	_, err = g.inbox.Deliver()
	return false, err
}

// intoMaildir delivers as maildir(5) says, as the user.
func (g *agent) intoMaildir() error {
	id := fmt.Sprintf("gen-aaaa-%d", len(g.accepted))
	name := fmt.Sprintf("%d.M%dP%dQ%d.agent", time.Now().Unix(), time.Now().Nanosecond()/1000, os.Getpid(), len(g.accepted))
	err := safefs.AsUser(safefs.Identity{UID: g.a.UID, GID: g.a.GID}, func() error {
		tmp := filepath.Join(g.a.Maildir, "tmp", name)
		if err := os.WriteFile(tmp, []byte("Subject: "+id+"\n\nnew\n"), 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, filepath.Join(g.a.Maildir, "new", name))
	})
	if err == nil {
		g.accepted = append(g.accepted, id)
	}
	return err
}

// Every message that an agent accepted while its user was being moved is in
// his Maildir once: in cur if it was in the mbox, in new if it came behind.
func TestDeliveriesGoOnDuringARun(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 16, Seed: 41, Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return 1 + r.IntN(30) },
		Size:     func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) },
	}})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var agents []*agent
	var work sync.WaitGroup
	for i, u := range p.Users {
		if len(u.Mailboxes) == 0 || u.Mailboxes[0].Name != "INBOX" {
			continue
		}
		g := newAgent(t, u, p.accounts[i], uint64(i))
		agents = append(agents, g)
		random := rand.New(rand.NewPCG(41, uint64(i)))
		work.Go(func() {
			for ctx.Err() == nil {
				if _, err := g.deliver(ctx); err != nil && ctx.Err() == nil {
					t.Errorf("%s: delivery: %v", g.a.Name, err)
					return
				}
				time.Sleep(time.Duration(1+random.IntN(30)) * time.Millisecond)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	doRun(t, p, Precopy, p.accounts...)
	for try := 0; ; try++ {
		summary, w := doRun(t, p, Migrate, p.accounts...)
		if summary.Users.Done == len(p.accounts) {
			break
		}
		for name, u := range w.users {
			if u.Outcome != journal.Done {
				t.Logf("%s: %s: %s", name, u.Reason, u.Text)
			}
		}
		if try == 4 {
			t.Fatalf("after %d runs %+v", try+1, summary.Users)
		}
	}
	time.Sleep(100 * time.Millisecond)
	stop()
	work.Wait()
	fresh, deferred := 0, 0
	for _, g := range agents {
		if !g.moved {
			t.Errorf("%s: no delivery saw the Maildir", g.a.Name)
		}
		g.mustHaveAll(t, p)
		fresh += len(g.inbox.Messages)
		deferred += g.deferred
	}
	t.Logf("%d messages went through INBOXes, %d deliveries were deferred", fresh, deferred)
}

// mustHaveAll accounts for every message of INBOX.
func (g *agent) mustHaveAll(t *testing.T, p *place) {
	t.Helper()
	count := map[string]int{}
	for path, id := range allIDs(t, g.a.Maildir) {
		if filepath.Base(filepath.Dir(filepath.Dir(path))) != filepath.Base(g.a.Maildir) {
			continue // a folder
		}
		sub := filepath.Base(filepath.Dir(path))
		count[sub+" "+id]++
		if sub == "new" {
			if err := os.Remove(path); err != nil { // for compare
				t.Fatal(err)
			}
		}
	}
	want := map[string]int{}
	for _, m := range g.inbox.Messages {
		want["cur "+m.ID]++
	}
	for _, id := range g.accepted {
		want["new "+id]++
	}
	for id := range maps.Keys(want) {
		if count[id] != 1 {
			t.Errorf("%s: %s is there %d times", g.a.Name, id, count[id])
		}
		delete(count, id)
	}
	if len(count) > 0 {
		t.Errorf("%s: unknown messages %v", g.a.Name, count)
	}
	mustBeMoved(t, p, g.a)
}

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

	small := tmpfsHome(t, a, "1200k") // now the check refuses
	if before, err = u.Snapshot(); err != nil {
		t.Fatal(err)
	}
	_, w = doRun(t, p, Migrate, a)
	w.mustBe(t, a.Name, journal.Skipped, "space")
	mustBeUnmoved(t, u, a, before)
	if list, err := os.ReadDir(small); err != nil || len(list) == 0 {
		t.Error(list, err)
	}
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

// tooHighUID is a message to which its mailbox gives a UID that no uidlist can
// hold (dovecot maildir-uidlist.c).
const tooHighUID = "From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: 7 4294967295\nX-UID: 4294967295\nMessage-ID: <gen-bbbb-0@example.org>\n\nnot to be had\n\n"

// A message that no Maildir holds keeps its user on mbox, unless the admin
// allows it; its bytes are kept, and the counts add up.
func TestAQuarantinedMessage(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 61})
	u, a := p.Users[0], p.accounts[0]
	if err := os.WriteFile(a.Spool, []byte(tooHighUID), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(a.Spool, a.UID, 8); err != nil {
		t.Fatal(err)
	}
	before, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	first, w := doRun(t, p, Migrate, p.accounts...)
	if w.users[a.Name].Outcome == journal.Done && len(w.users[a.Name].Round.Quarantined) == 0 {
		unpark(t, a)
		list, err := os.ReadFile(filepath.Join(a.Maildir, "dovecot-uidlist"))
		t.Fatalf("it was not quarantined: %s, %v", list, err)
	}
	w.mustBe(t, a.Name, journal.Failed, "quarantine")
	if first.Users.Failed != 1 || first.Users.Done != 1 {
		t.Errorf("%+v", first)
	}
	mustBeUnmoved(t, u, a, withStaging(t, u, a, before))
	_ = json.Marshal
}

// withStaging takes staging over from how it is now.
func withStaging(t *testing.T, u mailgen.SiteUser, a account.Account, before mailgen.SnapshotTree) mailgen.SnapshotTree {
	t.Helper()
	after, err := u.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(before)
	for path, e := range after {
		if strings.HasPrefix(path, "home/.Maildir.mailferry-") {
			all[path] = e
		}
	}
	_ = mbox.Dovecot
	return all
}
