package convert

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/semaphore"
)

const strayMail = "From a@example.org Sat Nov 21 01:30:00 2026\nSubject: stray\n\nstray\n\n"

// killedBack is a user in the hold of a rollback that was killed when the mbox of
// INBOX had its name.
func killedBack(t *testing.T, content string) (*stand, journal.Rollback) {
	t.Helper()
	s, _ := backUser(t)
	s.put(s.a.Spool, content)
	maildir, err := os.Stat(s.a.Maildir)
	s.check(err)
	way := journal.Rollback{
		User: s.a.Name, Run: deadRun, Time: time.Now(), Seen: time.Now(), Aside: s.a.Maildir + ".mailferry-20261121T000000Z",
		Maildir: journal.Aside{Path: s.a.Maildir, Dev: idOf(maildir).dev, Ino: idOf(maildir).ino},
		Files:   []journal.RollbackFile{s.made(s.a.Spool)},
	}
	way.BootID, err = journal.BootID()
	s.check(errors.Join(err, journal.WriteRollback(s.site.State, way)))
	s.hold(semaphore.Maildir)
	return s, way
}

// made is what a rollback records of a file.
func (s *stand) made(path string) journal.RollbackFile {
	s.Helper()
	f, err := os.Open(path)
	s.check(err)
	defer f.Close()
	info, err := f.Stat()
	s.check(err)
	id := idOf(info)
	return journal.RollbackFile{Live: path, Temp: ".INBOX.mailferry-0123456789abcdef", Dev: id.dev, Ino: id.ino, Born: bornOf(f), Size: info.Size()}
}

func (s *stand) add(path, text string) {
	s.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	s.check(err)
	_, err = f.WriteString(text)
	s.check(errors.Join(err, f.Close()))
}

// A recovery that is killed anywhere is done again, and once more: mail that came
// to the mbox, of whatever length, is found once under its name, and taken into
// the Maildir once.
func TestMailThatCameToAnMboxThatIsTakenBackIsTakenOnceWhateverIsKilled(t *testing.T) {
	for name, at := range map[string]struct{ size, kills int }{"the mbox is as long": {2, 5}, "it is longer": {3, 1}, "it is shorter": {1, 1}, "it is empty": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			for steps := range at.kills {
				s, way := killedBack(t, strings.Repeat(late, at.size))
				s.add(s.a.Spool, strings.Repeat(strayMail, 2))
				s.killedTakingBack(way.Files[0], steps)
				for range 2 {
					s.recoverMaildir()
				}
				if content, err := os.ReadFile(s.a.Spool); err != nil || string(content) != strings.Repeat(strayMail, 2) {
					t.Errorf("killed behind step %d: %q, %v", steps, content, err)
				}
				if left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.a.Spool), ".INBOX.*")); len(left) > 0 {
					t.Errorf("killed behind step %d: left %q", steps, left)
				}
				s.sweptStrays(2)
			}
		})
	}
}

func (s *stand) recoverMaildir() {
	s.Helper()
	if done := s.site.Recover(s.a, journal.Staging{}); done.Err != nil {
		s.Error(done.Err)
	}
	if state, err := s.semaphore().Get(); err != nil || state != semaphore.Maildir {
		s.Errorf("semaphore %v, %v", state, err)
	}
}

// sweptStrays sweeps, and counts what is in the Maildir then.
func (s *stand) sweptStrays(want int) {
	s.Helper()
	if _, err := s.site.Sweep(s.Context(), s.a, SweepOptions{Alone: true}); err != nil {
		s.Error(err)
	}
	n := 0
	list, err := filepath.Glob(s.inMaildir("*", "*"))
	s.check(err)
	for _, path := range list {
		if content, err := os.ReadFile(path); err == nil && strings.Contains(string(content), "Subject: stray\n") {
			n++
		}
	}
	if n != want {
		s.Errorf("%d strays are in the Maildir, not %d", n, want)
	}
}

// killedTakingBack does so many steps of it.
func (s *stand) killedTakingBack(f journal.RollbackFile, steps int) {
	s.Helper()
	dir, err := safefs.OpenDir(filepath.Dir(f.Live))
	s.check(err)
	defer dir.Close()
	temp, tail := filepath.Join(dir.Path(), f.Temp), filepath.Join(dir.Path(), tailName(f.Temp))
	if steps > 0 {
		s.check(os.Rename(f.Live, temp))
	}
	if steps == 2 {
		s.put(tail, strayMail[:len(strayMail)/2]) // not whole
	}
	if steps > 2 {
		s.check(cutTail(dir, f))
	}
	if steps > 3 {
		s.check(nameTail(dir, f))
	}
}

// Who has the mbox open writes on, whatever its name.
func TestMailThatComesWhenTheMboxHasNoNameAnyMoreIsKept(t *testing.T) {
	s, way := killedBack(t, late)
	c, err := (&recovery{Site: s.site, account: s.a}).spoolUser()
	s.check(err)
	s.check(c.takeAllBack(way))
	s.add(filepath.Join(filepath.Dir(s.a.Spool), way.Files[0].Temp), strayMail)
	s.recoverMaildir()
	s.sweptStrays(1)
}

// Mail whose name another has taken meanwhile ends the hold, and gets the name
// when that is swept.
func TestMailWhoseNameIsTakenWaitsForIt(t *testing.T) {
	s, way := killedBack(t, strings.Repeat(late, 3))
	s.add(s.a.Spool, strayMail)
	s.killedTakingBack(way.Files[0], 3)
	s.put(s.a.Spool, strayMail)
	s.recoveryTells("mailferry sweep")
	s.sweptStrays(1)
	s.recoverMaildir()
	s.sweptStrays(2)
}

// What a session has rewritten may hold what is nowhere else.
func TestAnMboxThatWasMadeShorterIsLeftToTheAdmin(t *testing.T) {
	s, way := killedBack(t, strings.Repeat(late, 3))
	s.check(os.Truncate(s.a.Spool, 0))
	s.add(s.a.Spool, strayMail)
	temp := filepath.Join(filepath.Dir(s.a.Spool), way.Files[0].Temp)
	s.recoveryTells(temp)
	if content, err := os.ReadFile(temp); err != nil || string(content) != strayMail {
		t.Errorf("%q, %v", content, err)
	}
	s.check(os.Remove(temp))
	s.recoverMaildir()
	if list, err := journal.ListRollback(s.site.State); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// recoveryTells demands an error, and that the hold ended.
func (s *stand) recoveryTells(what string) {
	s.Helper()
	if done := s.site.Recover(s.a, journal.Staging{}); done.Err == nil || !strings.Contains(done.Err.Error(), what) {
		s.Errorf("%+v", done)
	}
	if state, err := s.semaphore().Get(); err != nil || state != semaphore.Maildir {
		s.Errorf("semaphore %v, %v", state, err)
	}
}

// A file that has the number of an inode that is gone is nobody's product.
func TestAnInodeThatIsUsedAgainIsNotTakenBack(t *testing.T) {
	s, way := killedBack(t, late)
	way.Files[0].Born++
	s.check(journal.WriteRollback(s.site.State, way))
	s.recoverMaildir()
	if content, err := os.ReadFile(s.a.Spool); err != nil || string(content) != late {
		t.Errorf("%q, %v", content, err)
	}
}

// Without the record nobody knows whether a file at an old path is a copy of what
// is in the Maildir: swept, each message would be there twice.
func TestARollbackWithoutItsRecordEndsOnlyIfItNamedNothing(t *testing.T) {
	s, _ := killedBack(t, late)
	s.check(journal.RemoveRollback(s.site.State, s.a.Name))
	done := s.site.Recover(s.a, journal.Staging{})
	if done.Err == nil || !strings.Contains(done.Err.Error(), s.a.Spool) {
		t.Errorf("%+v", done)
	}
	if state, err := s.semaphore().Get(); err != nil || state != semaphore.Hold {
		t.Errorf("semaphore %v, %v", state, err)
	}
	s.check(os.Truncate(s.a.Spool, 0))
	notes := filepath.Join(s.a.Folders[0], "notes") // no mailbox
	s.put(notes, "since ever\n")
	soak := s.soak()
	time.Sleep(2 * clockTick)
	soak.Flipped = time.Now()
	s.check(journal.WriteSoak(s.site.State, soak))
	s.recoverMaildir()
}

// An admin who sets him on his Maildir in the hold gets no mailbox twice.
func TestWhoIsSetOnHisMaildirInTheHoldOfARollbackKeepsNoMboxes(t *testing.T) {
	s, _ := killedBack(t, late)
	s.check(s.semaphore().Set(semaphore.Maildir, semaphore.Meta{Epoch: 100}))
	s.recoverMaildir()
	if exists(t, s.a.Spool) {
		t.Error("the mbox that was made has its name")
	}
	swept, err := s.site.Sweep(t.Context(), s.a, SweepOptions{Alone: true})
	if err != nil || swept.Messages() > 0 {
		t.Errorf("%+v, %v", swept, err)
	}
}
