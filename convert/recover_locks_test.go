package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailferry/internal/account"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// A file that nobody could lock, for its user may not write to it, is in the way
// neither of parking nor of the removal of what a dead run locked.
func TestAFileThatCanNotBeLockedKeepsNoRecoveryFromItsWork(t *testing.T) {
	for _, flipped := range []bool{false, true} {
		t.Run(fmt.Sprint("behind the flip: ", flipped), func(t *testing.T) {
			p, a := servedPlace(t, 700)
			s := &stand{t, p, a}
			s.mirror(semaphore.Mbox)
			mailboxes := s.mailboxes()
			notes := []string{filepath.Join(a.Folders[0], "0-notes"), filepath.Join(a.Folders[0], "zz-notes")}
			for _, path := range notes {
				s.put(path, "no mail\n")
				s.check(os.Chmod(path, 0o400))
			}
			s.published()
			s.hold(semaphore.Mbox)
			for _, path := range mailboxes {
				s.put(path+".lock", "4194305:"+hostname()) // above any pid_max
			}
			want := semaphore.Mbox
			if flipped {
				s.flip()
				want = semaphore.Maildir
			}
			record, err := journal.ReadStaging(p.site.State, a.Name)
			s.check(err)
			if done := p.site.Recover(a, record); done.Err != nil || done.Did == "" {
				t.Errorf("%+v", done)
			}
			if authority, mirror := stateOf(t, a); authority != want || mirror != want {
				t.Errorf("semaphore %s, mirror %s", authority, mirror)
			}
			for _, path := range mailboxes {
				if exists(t, path) == flipped || exists(t, path+".lock") {
					t.Errorf("%s is there: %t, its dotlock: %t", path, exists(t, path), exists(t, path+".lock"))
				}
			}
			for _, path := range notes {
				if content, err := os.ReadFile(path); err != nil || string(content) != "no mail\n" {
					t.Errorf("%s: %q, %v", path, content, err)
				}
			}
		})
	}
}

// Who is held and can't be recovered is named, and counted.
func TestRecoverNamesWhomItCanNotTouch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(s *stand, r *Run) (listed []account.Account)
		why   string
	}{
		{"nobody knows him", func(*stand, *Run) []account.Account { return nil }, "the user database does not know him any more"},
		{"his uid is below min-uid", func(s *stand, r *Run) []account.Account {
			r.MinUID = s.a.UID + 1
			return []account.Account{s.a}
		}, "is below min-uid"},
		{"his account is in doubt", func(s *stand, _ *Run) []account.Account {
			s.a.Problem = errors.New("has two homes")
			return []account.Account{s.a}
		}, "has two homes"},
		{"a search finds him, with a problem", func(s *stand, r *Run) []account.Account {
			s.a.Problem = errors.New("has two homes")
			r.Find = func(string) (account.Account, bool) { return s.a, true }
			return nil
		}, "has two homes"},
		{"only a sweep is recorded", func(s *stand, _ *Run) []account.Account {
			s.check(errors.Join(journal.RemoveStaging(s.site.State, s.a.Name), journal.WriteSweep(s.site.State, journal.Sweep{User: s.a.Name})))
			return nil
		}, "the user database does not know him any more"},
		{"only a rollback is recorded", func(s *stand, _ *Run) []account.Account {
			s.check(errors.Join(journal.RemoveStaging(s.site.State, s.a.Name), journal.WriteRollback(s.site.State, journal.Rollback{User: s.a.Name})))
			return nil
		}, "the user database does not know him any more"},
		{"another host holds him, in time", func(s *stand, _ *Run) []account.Account {
			m := s.meta(semaphore.Mbox)
			m.Host = "elsewhere"
			s.check(s.semaphore().Set(semaphore.Mbox, m))
			m.Epoch++
			s.check(s.semaphore().Hold(m))
			return []account.Account{s.a}
		}, `of host "elsewhere"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61})
			s := &stand{t, p, p.accounts[0]}
			s.precopied()
			s.hold(semaphore.Mbox)
			r, w := newTestRun(t, p, Precopy)
			r.Find = func(string) (account.Account, bool) { return account.Account{}, false }
			listed := tt.spoil(s, r)
			summary, err := r.DoRecover(context.Background(), listed)
			if err != nil || summary.End != EndDone {
				t.Errorf("%+v, %v", summary, err)
			}
			if r.Unresolved != 1 || len(w.notes) != 1 || !strings.HasPrefix(w.notes[0], s.a.Name+": ") || !strings.Contains(w.notes[0], tt.why) {
				t.Errorf("%d unresolved, notes %q", r.Unresolved, w.notes)
			}
			if authority, mirror := stateOf(t, s.a); authority != semaphore.Hold || mirror != semaphore.Hold {
				t.Errorf("semaphore %s, mirror %s", authority, mirror)
			}
		})
	}
}
