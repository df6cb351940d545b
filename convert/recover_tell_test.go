package convert

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// logged enters a step into the journal of a run that is killed then.
func (s *stand) logged(phase, outcome string) {
	s.Helper()
	r, _ := newTestRun(s.T, s.place, Migrate)
	s.check(r.Journal.Log(journal.Event{User: s.a.Name, Phase: phase, Outcome: outcome}))
	s.check(r.Journal.Close())
}

// recoverWith is mailferry recover on a host.
func (s *stand) recoverWith(h Host) (*Run, *told) {
	s.Helper()
	r, w := newTestRun(s.T, s.place, Precopy)
	r.Around = h
	summary, err := r.DoRecover(s.Context(), []account.Account{s.a})
	if err != nil || summary.End != EndDone {
		s.Errorf("%+v, %v", summary, err)
	}
	s.check(r.Journal.Close())
	return r, w
}

// What a killed run could not tell the host, its recovery does, once.
func TestRecoveryTellsTheHostHowAHoldEnded(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(*stand)
		told string
	}{
		{"killed behind the flip", func(s *stand) { s.published(); s.hold(semaphore.Mbox); s.flip() }, "flip maildir"},
		{"killed in a hold", func(s *stand) { s.precopied(); s.hold(semaphore.Mbox) }, "abort mbox"},
		{"killed in the hold of a rollback", func(s *stand) { s.migrated(); s.hold(semaphore.Maildir) }, "abort maildir"},
		{"killed in the hold of another host, which is over", func(s *stand) {
			m := s.meta(semaphore.Mbox)
			m.Host, m.Deadline = "elsewhere", time.Now().Add(-time.Second)
			s.check(s.semaphore().Hold(m))
		}, "abort mbox"},
		{"killed when a cutover was undone", func(s *stand) {
			s.logged("hold", journal.Begun)
			s.check(s.semaphore().Set(semaphore.Mbox, s.meta(semaphore.Mbox)))
		}, "abort mbox"},
		{"killed when a rollback was finished", func(s *stand) {
			s.logged("hold", journal.Begun)
			s.check(s.semaphore().Set(semaphore.Mbox, s.meta(semaphore.Maildir)))
		}, "flip mbox"},
		{"killed when a rollback was undone", func(s *stand) {
			s.migrated()
			s.logged("hold", journal.Begun)
			s.check(s.semaphore().Set(semaphore.Maildir, s.meta(semaphore.Maildir)))
		}, "abort maildir"},
		{"killed when the host had been told of the flip", func(s *stand) {
			s.published()
			s.hold(semaphore.Mbox)
			s.flip()
			s.logged("flip", journal.Done)
		}, ""},
		{"precopied", func(s *stand) { s.precopied() }, ""},
		{"moved", func(s *stand) { s.migrated() }, ""},
		{"not enrolled any more", func(s *stand) {
			s.logged("hold", journal.Begun)
			s.remove(s.a.Semaphore)
			s.remove(s.a.Semaphore + ".meta")
		}, ""},
		{"held by hand", func(s *stand) {
			s.logged("hold", journal.Begun)
			s.check(s.site.HoldSemaphore(s.a, time.Hour))
		}, ""},
		{"held by another host, in time", func(s *stand) {
			m := s.meta(semaphore.Mbox)
			m.Host = "elsewhere"
			s.check(s.semaphore().Hold(m))
		}, ""},
		{"held, and can't be resolved", func(s *stand) {
			s.check(errors.Join(os.MkdirAll(s.a.Maildir+"/cur", 0o700), os.Chown(s.a.Maildir, s.a.UID, s.a.GID)))
			s.hold(semaphore.Mbox)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
			s := &stand{t, p, p.accounts[0]}
			s.mirror(semaphore.Mbox)
			tt.make(s)
			h := &hooked{}
			_, w := s.recoverWith(h)
			if told := strings.Join(h.told, ", "); told != tt.told {
				t.Errorf("told %q, want %q; notes %q", told, tt.told, w.notes)
			}
			if tt.told != "" && len(w.notes) != 1 {
				t.Errorf("notes %q", w.notes)
			}
			again := &hooked{}
			if _, w := s.recoverWith(again); len(again.told) > 0 {
				t.Errorf("told %q again; notes %q", again.told, w.notes)
			}
		})
	}
}

// A user who is on his Maildir while the rest of his move can't be finished has to
// be found there all the same.
func TestTheHostIsToldOfAFlipThatCanNotBeFinished(t *testing.T) {
	s := flipped(t)
	s.replace(s.a.Spool)
	h := &hooked{}
	r, w := s.recoverWith(h)
	if told := strings.Join(h.told, ", "); told != "flip maildir" || r.Unresolved != 1 {
		t.Errorf("told %q, %d unresolved; notes %q", told, r.Unresolved, w.notes)
	}
}

// When the machine starts, neither Dovecot nor Postfix may run yet.
func TestAHostThatCanNotBeToldIsNoMatterOfRecovery(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
	s := &stand{t, p, p.accounts[0]}
	s.precopied()
	s.hold(semaphore.Mbox)
	r, w := s.recoverWith(&hooked{abort: func() error { return errors.New("nobody listens") }})
	if notes := strings.Join(w.notes, "\n"); r.Unresolved != 0 || len(w.notes) != 2 || !strings.Contains(notes, "nobody listens") || !strings.Contains(notes, "his cutover was undone") {
		t.Errorf("%d unresolved, notes %q", r.Unresolved, w.notes)
	}
	if authority, mirror := stateOf(t, s.a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
		t.Errorf("semaphore %s, mirror %s", authority, mirror)
	}
}

// A hook may deliver mail of the user, and take as long as it likes: it is told as
// root, when nothing of the user is locked, and when nobody is held any more.
func TestTheHostIsToldOutsideOfLocksWhenNobodyWaits(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 61})
	var stands []*stand
	for _, a := range p.accounts {
		s := &stand{t, p, a}
		s.precopied()
		s.hold(semaphore.Mbox)
		stands = append(stands, s)
	}
	calls := 0
	h := &hooked{abort: func() error {
		calls++
		if uid, err := unix.SetfsuidRetUid(-1); err != nil || uid != 0 || os.Geteuid() != 0 {
			t.Errorf("told as %d, %v", uid, err)
		}
		for _, s := range stands {
			if authority, mirror := stateOf(t, s.a); authority != semaphore.Mbox || mirror != semaphore.Mbox {
				t.Errorf("%s: semaphore %s, mirror %s", s.a.Name, authority, mirror)
			}
			free, err := exclude(s.semaphore())
			if err == nil {
				err = free()
			}
			if err != nil {
				t.Error(err)
			}
			locks, err := filepath.Glob(s.a.Spool + "*.lock")
			if err != nil || len(locks) > 0 || exists(t, s.a.Gate) {
				t.Errorf("locked: %q, gate: %t, %v", locks, exists(t, s.a.Gate), err)
			}
		}
		return nil
	}}
	r, w := newTestRun(t, p, Precopy)
	r.Around = h
	if _, err := r.DoRecover(t.Context(), p.accounts); err != nil || calls != 2 {
		t.Errorf("told %d times, %v; notes %q", calls, err, w.notes)
	}
}

// Who is not among the users of a run is told of as well, and a run without a host
// tells nobody.
func TestARunTellsTheHostOfUsersWhomItDoesNotMove(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
	s := &stand{t, p, p.accounts[0]}
	s.logged("hold", journal.Begun)
	h := &hooked{}
	for _, host := range []Host{nil, h} {
		r, w := newTestRun(t, p, Migrate)
		r.Around = host
		r.Find = func(name string) (account.Account, bool) { return s.a, name == s.a.Name }
		finish(t, r, nil)
		s.check(r.Journal.Close())
		if told := strings.Join(h.told, ", "); host == nil && (told != "" || len(w.notes) > 0) || host != nil && told != "abort mbox" {
			t.Errorf("told %q; notes %q", told, w.notes)
		}
	}
}
