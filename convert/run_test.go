package convert

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// told is a Watch that remembers.
type told struct {
	mu       sync.Mutex
	users    map[string]User
	notes    []string
	progress func(int64) // of each message; may be nil
	wait     func()      // when it begins to wait; may be nil
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

func (w *told) Begin(int, int64) {}

func (w *told) Wait(reason string) {
	if w.wait != nil && reason != "" {
		w.wait()
	}
}

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

// betweenPrecopyAndHold does something when the precopy of a run's first chunk
// is over and no cutover has begun: the run is made to pause there.
func betweenPrecopyAndHold(t *testing.T, r *Run, w *told, do func()) {
	t.Helper()
	pause := filepath.Join(r.State, pauseFile)
	var begin, end sync.Once
	w.progress = func(int64) {
		begin.Do(func() {
			written := make(chan error)
			go func() { written <- os.WriteFile(pause, nil, 0o600) }() // this thread works as the user
			if err := <-written; err != nil {
				t.Error(err)
			}
		})
	}
	w.wait = func() {
		end.Do(func() {
			do()
			if err := os.Remove(pause); err != nil {
				t.Error(err)
			}
		})
	}
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
	mustBeEqual(t, p, a)
}

// mustBeEqual holds a Maildir against the mboxes, which bear their old names.
func mustBeEqual(t *testing.T, p *place, a account.Account) {
	t.Helper()
	if err := os.MkdirAll(a.Folders[0], 0o700); err != nil { // Verify wants a tree
		t.Fatal(err)
	}
	o := Options{Source: a.Folders[0], Inbox: a.Spool, Dest: a.Maildir, Folders: p.site.Folders, Scan: p.site.Scan, Jobs: 1, Progress: func(int64) {}, Total: func(int64) {}}
	if !exists(t, a.Spool) {
		o.Inbox = ""
	}
	report, err := Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Differences {
		t.Errorf("%s: %s", a.Name, d)
	}
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

// Who waits in vain for a gate or a lock has lost nothing by it: he is told as
// busy, and the next run goes on with his staging.
func TestABusyUserKeepsHisStaging(t *testing.T) {
	for name, occupy := range map[string]func(*testing.T, account.Account) (free func()){
		"the gate": func(t *testing.T, a account.Account) func() {
			if err := errors.Join(os.WriteFile(a.Gate, []byte("1"), 0o600), os.Chown(a.Gate, a.UID, a.GID)); err != nil {
				t.Fatal(err)
			}
			return func() { os.Remove(a.Gate) }
		},
		"a lock": func(t *testing.T, a account.Account) func() {
			dir, err := os.Open(filepath.Dir(a.Spool))
			if err != nil {
				t.Fatal(err)
			}
			held, err := mbox.Lock(context.Background(), int(dir.Fd()), filepath.Base(a.Spool), mbox.LockOptions{Fcntl: true})
			if err != nil {
				t.Fatal(err)
			}
			return func() { held.Release(); dir.Close() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 37})
			a := p.accounts[0]
			free := occupy(t, a)
			r, w := newTestRun(t, p, Migrate)
			r.HoldLimit = 300 * time.Millisecond
			finish(t, r, p.accounts)
			w.mustBe(t, a.Name, journal.Failed, reasonBusy)
			before, err := journal.ReadStaging(p.site.State, a.Name)
			if err != nil || !before.Synced {
				t.Errorf("staging: %+v, %v", before, err)
			}
			free()
			_, w = doRun(t, p, Migrate, a)
			w.mustBe(t, a.Name, journal.Done, "")
			if u := w.users[a.Name]; u.Round == nil || u.Round.Written > 0 {
				t.Errorf("written again: %+v", u.Round)
			}
			mustBeMoved(t, p, a)
		})
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

// A file among the folders that is no mailbox stays where it is, whether its
// user is moved in one go or a killed run is finished.
func TestFilesThatAreNoMailboxesStay(t *testing.T) {
	for _, killed := range []bool{false, true} {
		p := newPlace(t, mailgen.SiteOptions{Users: 4, Seed: 37, Problems: 0.25, Codes: []string{"not-mailbox"}})
		at := slices.IndexFunc(p.Users, func(u mailgen.SiteUser) bool { return u.Code == "not-mailbox" })
		u, a := p.Users[at], p.accounts[at]
		notes := filepath.Join(u.Home, "mail", "notes.txt")
		if killed {
			killBehindTheFlip(t, p, a)
		}
		_, w := doRun(t, p, Migrate, a)
		if w.users[a.Name].Outcome != journal.Done || len(w.notes) > 1 {
			t.Errorf("killed %t: %+v, notes %q", killed, w.users[a.Name], w.notes)
		}
		if !exists(t, notes) {
			t.Errorf("killed %t: the notes are gone", killed)
		}
		if records, err := journal.ListStaging(p.site.State); err != nil || len(records) > 0 {
			t.Errorf("killed %t: staging records %+v, %v", killed, records, err)
		}
		mustBeMoved(t, p, a)
	}
}

// killBehindTheFlip leaves what a run leaves that is killed between the flip
// and the parking: the Maildir is published and recorded, the semaphore says
// maildir and the mirror still hold.
func killBehindTheFlip(t *testing.T, p *place, a account.Account) {
	t.Helper()
	doRun(t, p, Precopy, a)
	sem, err := semaphore.For(a.Semaphore)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		sem.Hold(semaphore.Meta{Epoch: 2, Run: "killed", Deadline: time.Now().Add(time.Minute)}),
		os.Rename(stagingOf(t, a), a.Maildir),
		sem.Set(semaphore.Maildir, semaphore.Meta{Epoch: 3, Run: "killed"}),
		os.WriteFile(a.Mirror, []byte(semaphore.Hold.Line()), 0o644),
		os.Chown(a.Mirror, a.UID, a.GID),
	)
	if err != nil {
		t.Fatal(err)
	}
}

// A run over thousands must not run out of descriptors, however it ends for
// each user.
func TestRunsLeaveNoDescriptorsOpen(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 60, Seed: 39, Problems: 0.6})
	r, w := newTestRun(t, p, Migrate)
	r.HoldLimit = 200 * time.Millisecond
	if err := errors.Join( // busy at its lock; altered in staging; no gate
		os.WriteFile(p.accounts[1].Spool+".lock", []byte("1"), 0o600),
		os.WriteFile(p.accounts[2].Gate, []byte("1:another.host"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	before := descriptors(t)
	if _, err := r.Do(context.Background(), slices.Clone(p.accounts)); err != nil {
		t.Error(err)
	}
	after := descriptors(t)
	for fd, what := range after {
		if before[fd] != what && !strings.HasPrefix(what, "/dev/") {
			t.Errorf("descriptor %s: %s", fd, what)
		}
	}
	outcomes := map[string]int{}
	for _, u := range w.users {
		outcomes[u.Outcome]++
	}
	t.Log(outcomes)
}

// descriptors lists what files are open.
func descriptors(t *testing.T) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{}
	for _, e := range entries {
		if what, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(what, "/") {
			open[e.Name()] = what
		}
	}
	return open
}
