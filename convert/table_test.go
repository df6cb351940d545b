package convert

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// stand is a user whose state on disk is made by hand.
type stand struct {
	*testing.T
	*place
	a account.Account
}

const deadRun = "20261121T013000Z-migrate-dead"

func (s *stand) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *stand) semaphore() *semaphore.Semaphore {
	s.Helper()
	sem, err := semaphore.For(s.a.Semaphore)
	s.check(err)
	return sem
}

// meta is that of the next change by a run that is dead now.
func (s *stand) meta(from semaphore.State) semaphore.Meta {
	s.Helper()
	last, err := s.semaphore().Meta()
	s.check(err)
	return semaphore.Meta{Epoch: last.Epoch + 1, Run: deadRun, From: from, Deadline: time.Now().Add(time.Hour)}
}

func (s *stand) hold(from semaphore.State) {
	s.Helper()
	s.check(s.semaphore().Hold(s.meta(from)))
	s.mirror(semaphore.Hold)
}

func (s *stand) flip() {
	s.Helper()
	s.check(s.semaphore().Set(semaphore.Maildir, s.meta(semaphore.Mbox)))
}

func (s *stand) mirror(state semaphore.State) {
	s.Helper()
	s.check(errors.Join(os.WriteFile(s.a.Mirror, []byte(state.Line()), 0o644), os.Chown(s.a.Mirror, s.a.UID, s.a.GID)))
}

// precopied leaves a staging Maildir, recorded.
func (s *stand) precopied() { s.Helper(); doRun(s.T, s.place, Precopy, s.a) }

// published gives it its name.
func (s *stand) published() {
	s.Helper()
	s.precopied()
	s.check(os.Rename(stagingOf(s.T, s.a), s.a.Maildir))
}

// parkByHand parks the mbox of a path, and records all, as the run that staged
// would.
func (s *stand) parkByHand(path string) {
	s.Helper()
	staging, err := journal.ReadStaging(s.site.State, s.a.Name)
	s.check(err)
	soak := journal.Soak{User: s.a.Name, Run: staging.Run, Flipped: time.Now().UTC(), BootID: staging.BootID, Maildir: s.a.Maildir}
	for _, m := range s.Users[0].Mailboxes {
		info, err := os.Stat(m.Path)
		s.check(err)
		id := idOf(info)
		soak.Parked = append(soak.Parked, journal.Parked{
			Mailbox: m.Name, Live: m.Path, Path: parkedName(m.Path, soak.Flipped), Dev: id.dev, Ino: id.ino, Mode: 0o600, Size: info.Size(), Taken: info.Size(),
		})
	}
	s.check(journal.WriteSoak(s.site.State, soak))
	s.check(os.Rename(path, parkedName(path, soak.Flipped)))
}

func (s *stand) migrated() { s.Helper(); doRun(s.T, s.place, Migrate, s.a) }

func (s *stand) remove(path string) { s.Helper(); s.check(os.RemoveAll(path)) }

// Each row of the table in the package's comment.
func TestEveryStateOfTheTableIsRecovered(t *testing.T) {
	const (
		none    = "none"
		mbox    = "mbox"
		maildir = "maildir"
		hold    = "hold"
	)
	for _, row := range []struct {
		name    string
		make    func(*stand)
		want    string // what the semaphore says then
		staging bool   // there still, or again
		did     bool   // recover had something to do
		refused string // what it says of a state that is in no row
	}{
		{"not enrolled", func(s *stand) { s.remove(s.a.Semaphore); s.remove(s.a.Semaphore + ".meta"); s.remove(s.a.Mirror) }, none, false, false, ""},
		{"untouched", func(*stand) {}, mbox, false, false, ""},
		{"precopied", func(s *stand) { s.precopied() }, mbox, true, false, ""},
		{"precopied, in part", func(s *stand) { s.precopied(); s.remove(stagingOf(s.T, s.a) + "/" + mailboxName) }, mbox, true, false, ""},
		{"held, nothing staged", func(s *stand) { s.hold(semaphore.Mbox) }, mbox, false, true, ""},
		{"held, and staging full", func(s *stand) { s.precopied(); s.hold(semaphore.Mbox) }, mbox, true, true, ""},
		{"held, and the mirror not told", func(s *stand) {
			s.precopied()
			s.hold(semaphore.Mbox)
			s.mirror(semaphore.Mbox)
		}, mbox, true, true, ""},
		{"published, not flipped", func(s *stand) { s.published(); s.hold(semaphore.Mbox) }, mbox, true, true, ""},
		{"back on mbox, and the mirror not told", func(s *stand) { s.mirror(semaphore.Hold) }, mbox, false, false, ""},
		{"flipped, not parked", func(s *stand) { s.published(); s.hold(semaphore.Mbox); s.flip() }, maildir, false, true, ""},
		{"flipped, and one mailbox parked", func(s *stand) {
			s.published()
			s.hold(semaphore.Mbox)
			s.flip()
			s.parkByHand(s.a.Spool)
		}, maildir, false, true, ""},
		{"soak", func(s *stand) { s.migrated() }, maildir, false, false, ""},
		{"soak, and a new file at the old path", func(s *stand) {
			s.migrated()
			s.check(errors.Join(os.WriteFile(s.a.Spool, []byte("From a@example.org Sat Nov 21 01:30:00 2026\nSubject: late\n\nlate\n"), 0o600), os.Chown(s.a.Spool, s.a.UID, s.a.GID)))
		}, maildir, false, false, ""},
		{"retired", func(s *stand) {
			s.migrated()
			unpark(s.T, s.a)
			s.remove(s.a.Spool)
			s.remove(s.a.Folders[0])
		}, maildir, false, false, ""},
		{"held by hand", func(s *stand) { s.check(s.site.HoldSemaphore(s.a, time.Hour)) }, hold, false, false, ""},
		{"held by another host, in time", func(s *stand) {
			m := s.meta(semaphore.Mbox)
			m.Host = "elsewhere"
			s.check(s.semaphore().Hold(m))
		}, hold, false, false, `of host "elsewhere"`},
		{"held by another host, too long", func(s *stand) {
			m := s.meta(semaphore.Mbox)
			m.Host, m.Deadline = "elsewhere", time.Now().Add(-time.Second)
			s.check(s.semaphore().Hold(m))
		}, mbox, false, true, ""},

		{"held for a rollback", func(s *stand) {
			s.migrated()
			s.hold(semaphore.Maildir)
		}, maildir, false, true, ""},
		{"held for a rollback, retired", func(s *stand) {
			s.migrated()
			unpark(s.T, s.a)
			s.remove(s.a.Spool)
			s.remove(s.a.Folders[0])
			s.hold(semaphore.Maildir)
		}, maildir, false, true, ""},
		{"maildir, and there is none", func(s *stand) {
			s.migrated()
			s.check(os.Rename(s.a.Maildir, s.a.Maildir+"-gone"))
		}, maildir, false, false, "no step of mailferry"},
		{"held for a rollback, and there is no Maildir", func(s *stand) {
			s.migrated()
			s.check(os.Rename(s.a.Maildir, s.a.Maildir+"-gone"))
			s.hold(semaphore.Maildir)
		}, hold, false, false, "no step of mailferry"},
		{"held, and a Maildir that is not ours", func(s *stand) {
			s.check(os.MkdirAll(s.a.Maildir+"/cur", 0o700))
			s.check(os.Chown(s.a.Maildir, s.a.UID, s.a.GID))
			s.hold(semaphore.Mbox)
		}, hold, false, false, "no step of mailferry"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
			s := &stand{t, p, p.accounts[0]}
			before, err := p.Users[0].Snapshot()
			s.check(err)
			s.mirror(semaphore.Mbox)
			row.make(s)
			for range 2 { // the second time, there is nothing left to do
				found, err := p.Users[0].Snapshot()
				s.check(err)
				s.recover(row.did, row.refused)
				row.did = false
				if row.refused == "" {
					s.stands(row.want, row.staging, before)
					continue
				}
				left, err := p.Users[0].Snapshot()
				s.check(err)
				if state, err := s.semaphore().Get(); err != nil || state.String() != row.want {
					t.Errorf("the semaphore says %s, %v", state, err)
				}
				for _, diff := range withoutTimes(found).Diff(withoutTimes(left)) {
					t.Error(diff)
				}
			}
			if row.want == maildir && row.refused == "" && !exists(t, s.a.Spool) && exists(t, s.a.Folders[0]) {
				mustBeMoved(t, p, s.a)
			}
		})
	}
}

// recover is mailferry recover.
func (s *stand) recover(did bool, refused string) {
	s.Helper()
	r, w := newTestRun(s.T, s.place, Precopy)
	if _, err := r.DoRecover(context.Background(), []account.Account{s.a}); err != nil {
		s.Error(err)
	}
	said := strings.Join(w.notes, "\n")
	s.check(r.Journal.Close())
	switch {
	case refused != "":
		if r.Unresolved != 1 || !strings.Contains(said, refused) {
			s.Errorf("%d unresolved: %s", r.Unresolved, said)
		}
	case r.Unresolved > 0, did != (said != ""):
		s.Errorf("%d unresolved, said %q", r.Unresolved, said)
	}
}

// stands demands what is true of a user in a state, however he came to it.
func (s *stand) stands(want string, staging bool, before mailgen.SnapshotTree) {
	s.Helper()
	state, err := s.semaphore().Get()
	if got := state.String(); err == nil && got != want || err != nil && want != "none" {
		s.Errorf("the semaphore says %s, %v; want %s", got, err, want)
	}
	if want == "mbox" || want == "maildir" {
		if content, err := os.ReadFile(s.a.Mirror); err != nil || string(content) != state.Line() {
			s.Errorf("the mirror says %q, %v; the semaphore %s", content, err, state)
		}
	}
	record, err := journal.ReadStaging(s.site.State, s.a.Name)
	if there := err == nil && exists(s.T, s.a.Home+"/"+record.Name); there != staging {
		s.Errorf("staging is there: %t; want %t", there, staging)
	}
	if published := exists(s.T, s.a.Maildir); published != (want == "maildir") {
		s.Errorf("the Maildir is there: %t, and the semaphore says %s", published, want)
	}
	if want == "maildir" {
		return
	}
	after, err := s.Users[0].Snapshot()
	s.check(err)
	for _, diff := range mail(before).Diff(mail(after)) {
		s.Error(diff)
	}
}
