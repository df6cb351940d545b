package convert

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/semaphore"
)

func TestStatusOfAll(t *testing.T) {
	h := newHouse(t)
	list := append(h.many(6), account.Account{User: account.User{Name: "ghost", Problem: account.ErrUnknown}})
	run, err := journal.Begin(h.site.State, "migrate")
	h.check(err)
	set := func(i int, to semaphore.State, m semaphore.Meta) {
		t.Helper()
		sem, err := semaphore.For(list[i].Semaphore)
		h.check(err)
		h.check(sem.Set(to, m))
	}
	later := time.Now().Add(time.Hour)
	set(0, semaphore.Mbox, semaphore.Meta{Epoch: 1})
	set(1, semaphore.Hold, semaphore.Meta{Epoch: 4, Run: run.ID(), Deadline: later})
	set(2, semaphore.Hold, semaphore.Meta{Epoch: 5, Run: "another", Deadline: time.Now().Add(-time.Hour)})
	set(3, semaphore.Maildir, semaphore.Meta{Epoch: 6, Run: run.ID()})
	h.write(list[4].Semaphore, "nonsense\n", 0)
	h.check(run.Log(journal.Event{User: "user0", Phase: "migrate", Outcome: journal.Failed, Reason: "quota"}))
	h.check(run.Log(journal.Event{User: "user3", Phase: "precopy", Outcome: journal.Begun}))
	h.check(run.Log(journal.Event{User: "user3", Phase: "migrate", Outcome: journal.Done}))
	h.check(run.Log(journal.Event{User: "ghost", Phase: "migrate", Outcome: journal.Skipped, Reason: "no-user"}))
	h.check(run.Log(journal.Event{User: "another", Phase: "migrate", Outcome: journal.Done}))

	got, err := h.site.Status(list)
	h.check(err)
	want := StatusTotal{
		Users: 7, Mbox: 1, Hold: 3, Maildir: 1, NotEnrolled: 1, Unknown: 1,
		Expired: 1, Unreadable: 1, Done: 1, Skipped: 1, Failed: 1,
	}
	if got.Total != want {
		t.Errorf("got %+v, want %+v", got.Total, want)
	}
	if got.Active == nil || got.Active.Run != run.ID() || got.Active.PID != os.Getpid() {
		t.Errorf("at work: %+v", got.Active)
	}
	for i, a := range list {
		if got.Users[i].User != a.Name {
			t.Errorf("line %d is of %s, want %s", i, got.Users[i].User, a.Name)
		}
	}
	if u := got.Users[0]; u.State != "mbox" || u.Last == nil || u.Last.Reason != "quota" {
		t.Errorf("%+v", u)
	}
	if u := got.Users[1]; u.State != "hold" || u.Expired || u.Run != run.ID() || !u.Deadline.Equal(later) || u.Last != nil {
		t.Errorf("%+v", u)
	}
	if u := got.Users[2]; !u.Expired || u.Abandoned || u.Run != "another" {
		t.Errorf("%+v", u)
	}
	if u := got.Users[3]; u.State != "maildir" || u.Epoch != 6 || u.Last.Outcome != journal.Done {
		t.Errorf("%+v", u)
	}
	if u := got.Users[4]; u.State != "hold" || !strings.Contains(u.Problem, "nonsense") {
		t.Errorf("%+v", u)
	}
	if u := got.Users[5]; !u.NotEnrolled() {
		t.Errorf("%+v", u)
	}
	h.check(run.Close())
}

// A hold is abandoned if recover would take it for a dead run's.
func TestAHoldIsAbandonedWhenNoRunIsAtWork(t *testing.T) {
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name   string
		active bool
		meta   semaphore.Meta
		want   bool
	}{
		{"its run was killed", false, semaphore.Meta{Run: "r", Deadline: later}, true},
		{"its run was killed, and it is past its deadline", false, semaphore.Meta{Run: "r", Deadline: before}, true},
		{"a run is at work", true, semaphore.Meta{Run: "r", Deadline: before}, false},
		{"of another host, in time", false, semaphore.Meta{Run: "r", Host: "elsewhere", Deadline: later}, false},
		{"of another host, past its deadline", false, semaphore.Meta{Run: "r", Host: "elsewhere", Deadline: before}, true},
		{"by hand", false, semaphore.Meta{Deadline: before}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			run, err := journal.Begin(h.site.State, "migrate")
			h.check(err)
			if tt.active {
				defer run.Close()
			} else {
				h.check(run.Close())
			}
			sem, err := semaphore.For(h.a.Semaphore)
			h.check(err)
			tt.meta.Epoch = 2
			h.check(sem.Hold(tt.meta))
			report, err := h.site.Status([]account.Account{h.a})
			h.check(err)
			if got := report.Users[0]; got.Abandoned != tt.want {
				t.Errorf("status: %+v", got)
			}
			if got := h.site.ReadSemaphore(h.a); got.Abandoned != tt.want {
				t.Errorf("semaphore get: %+v", got)
			}
		})
	}
	h := newHouse(t) // with a state directory in which no run has been: another's is at work, or was
	h.semaphore(semaphore.Hold)
	h.site.State = h.path("nowhere")
	if got := h.site.ReadSemaphore(h.a); got.Abandoned {
		t.Errorf("%+v", got)
	}
}

func TestStatusBeforeTheFirstRun(t *testing.T) {
	h := newHouse(t)
	h.site.State = h.path("nowhere")
	got, err := h.site.Status([]account.Account{h.a})
	if err != nil || got.Total.Mbox != 1 || got.Active != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := h.site.Status(nil); err != nil || got.Total != (StatusTotal{}) {
		t.Errorf("of nobody: %+v, %v", got, err)
	}
}

func TestStatusGoesOnWithoutTheJournal(t *testing.T) {
	h := newHouse(t)
	h.chmod(h.site.State, 0o777)
	got, err := h.site.Status([]account.Account{h.a})
	if err == nil || got.Total.Mbox != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A change that was announced and did not happen is told.
func TestStandingTellsOfTornChanges(t *testing.T) {
	h := newHouse(t)
	h.semaphore(semaphore.Hold)
	h.check(os.WriteFile(h.a.Semaphore, []byte("MAILSTATE=mbox\n"), 0o644))
	if s := standingOf(h.a, time.Now()); s.State != "mbox" || s.Announced != "hold" {
		t.Errorf("a torn hold: %+v", s)
	}
	h.semaphoreMeta(`{"epoch":7,"state":"maildir","run":"x"}`)
	h.check(os.WriteFile(h.a.Semaphore, []byte("MAILSTATE=hold\n"), 0o644))
	if s := standingOf(h.a, time.Now()); s.State != "hold" || s.Announced != "maildir" || !s.Expired {
		t.Errorf("a torn flip: %+v", s)
	}
	h.remove(h.a.Semaphore)
	if s := standingOf(h.a, time.Now()); !s.NotEnrolled() || s.Announced != "maildir" || s.Epoch != 7 {
		t.Errorf("a lost semaphore: %+v", s)
	}
	h.semaphoreMeta("{")
	h.check(os.WriteFile(h.a.Semaphore, []byte("MAILSTATE=mbox\n"), 0o644))
	if s := standingOf(h.a, time.Now()); s.State != "mbox" || s.Problem == "" {
		t.Errorf("a broken meta: %+v", s)
	}
}

func (h *house) semaphoreMeta(content string) { h.write(h.a.Semaphore+".meta", content, 0) }

func TestReadSemaphoreComparesTheMirror(t *testing.T) {
	for _, tt := range []struct {
		name    string
		arrange func(*house)
		want    Mirror // without Path; a Problem stands for any
	}{
		{"the same", func(h *house) { h.mirror("MAILSTATE=mbox\n") }, Mirror{State: "mbox"}},
		{"another", func(h *house) { h.mirror("MAILSTATE=maildir\n") }, Mirror{State: "maildir", Differs: true}},
		{"missing", func(*house) {}, Mirror{Differs: true, Problem: "no such file"}},
		{"a symlink", func(h *house) { h.symlink("/etc/passwd", h.a.Mirror) }, Mirror{Differs: true, Problem: "too many levels"}},
		{"none", func(h *house) { h.a.Mirror = "" }, Mirror{}},
		{"nobody can look", func(h *house) { h.mirror("MAILSTATE=mbox\n"); h.a.GID = 0 }, Mirror{Problem: "refused"}},
		{"not enrolled", func(h *house) { h.remove(h.a.Semaphore) }, Mirror{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			tt.arrange(h)
			got := h.site.ReadSemaphore(h.a).Mirror
			if got.State != tt.want.State || got.Differs != tt.want.Differs || (got.Problem == "") != (tt.want.Problem == "") ||
				!strings.Contains(got.Problem, tt.want.Problem) || got.Path != h.a.Mirror {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// A status of thousands reads all semaphores and one journal.
func BenchmarkStatus(b *testing.B) {
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	var list []account.Account
	var events []journal.Event
	places := account.Places{Spool: dir + "/{user}.spool", Maildir: "{home}/Maildir", Semaphore: dir + "/{user}"}
	for i := range 1000 {
		u := account.User{Name: fmt.Sprintf("user%d", i), UID: 62000 + i, GID: 62000 + i, Home: dir}
		a := places.Account(u)
		list = append(list, a)
		events = append(events, journal.Event{User: u.Name, Phase: "migrate", Outcome: journal.Done})
		meta := `{"epoch":1,"state":"mbox","host":"x","pid":1,"time":"2026-11-21T01:30:00Z"}`
		if err := os.WriteFile(a.Semaphore, []byte("MAILSTATE=mbox\n"), 0o644); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(a.Semaphore+".meta", []byte(meta), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	site := Site{State: filepath.Join(dir, "state")}
	run, err := journal.Begin(site.State, "migrate")
	if err != nil {
		b.Fatal(err)
	}
	defer run.Close()
	if err := run.LogAll(events); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := site.Status(list)
		if err != nil || r.Total.Mbox != 1000 || r.Total.Done != 1000 {
			b.Fatal(r.Total, err)
		}
	}
}
