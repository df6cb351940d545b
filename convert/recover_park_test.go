package convert

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/semaphore"
)

// flipped is a user whose run was killed between the flip and the parking: INBOX,
// and folders, of which one is "Sent".
func flipped(t *testing.T) *stand {
	t.Helper()
	p, a := servedPlace(t, 700)
	s := &stand{t, p, a}
	s.mirror(semaphore.Mbox)
	s.published()
	s.hold(semaphore.Mbox)
	s.flip()
	return s
}

// mailboxes are the paths of the user's live mboxes, and of whatever else lies
// among them.
func (s *stand) mailboxes() (paths []string) {
	s.Helper()
	s.check(asUser(s.a, func() error {
		found, err := findAccount(s.a)
		if err != nil {
			return err
		}
		defer found.close()
		for _, src := range found.sources {
			paths = append(paths, src.path)
		}
		return nil
	}))
	return paths
}

// recordParks writes the soak record that a run writes before it parks, and
// parks some of the mailboxes.
func (s *stand) recordParks(done ...string) {
	s.Helper()
	staging, err := journal.ReadStaging(s.site.State, s.a.Name)
	s.check(err)
	flip := time.Date(2026, 11, 21, 1, 30, 0, 0, time.UTC)
	soak := journal.Soak{User: s.a.Name, Run: staging.Run, Flipped: flip, BootID: staging.BootID, Maildir: s.a.Maildir}
	for _, path := range s.mailboxes() {
		info, err := os.Stat(path)
		s.check(err)
		id := idOf(info)
		soak.Parked = append(soak.Parked, journal.Parked{
			Mailbox: filepath.Base(path), Live: path, Path: parkedName(path, flip),
			Dev: id.dev, Ino: id.ino, Mode: 0o600, Size: info.Size(), Taken: info.Size(),
		})
	}
	s.check(journal.WriteSoak(s.site.State, soak))
	for _, path := range done {
		s.check(os.Rename(path, parkedName(path, flip)))
	}
}

// replace puts a copy of an mbox in its place, as a client does that rewrites it.
func (s *stand) replace(path string) {
	s.Helper()
	content, err := os.ReadFile(path)
	s.check(err)
	s.put(path+".tmp", string(content))
	s.check(os.Rename(path+".tmp", path))
}

// messages are those of the Maildir, by path.
func (s *stand) messages() map[string]string {
	s.Helper()
	content := map[string]string{}
	for _, sub := range []string{"cur", "new", "*/cur", "*/new"} {
		list, err := filepath.Glob(s.inMaildir(sub, "*"))
		s.check(err)
		for _, path := range list {
			text, err := os.ReadFile(path)
			s.check(err)
			content[path] = string(text)
		}
	}
	return content
}

// homeNow is what lies in the home, but for the mirror.
func (s *stand) homeNow() mailgen.SnapshotTree {
	s.Helper()
	all, err := mailgen.Snapshot(s.a.Home)
	s.check(err)
	delete(all, filepath.Base(s.a.Mirror))
	return withoutTimes(all)
}

// Recovery parks what the dead run converted. What can't be told from that is
// left where it is, all of it, and nothing is delivered twice.
func TestRecoveryParksWhatWasConverted(t *testing.T) {
	const rewritten = "was rewritten behind the flip"
	for _, tt := range []struct {
		name    string
		make    func(s *stand)
		refused string
		late    int // messages that are delivered
	}{
		{"nothing came", func(*stand) {}, "", 0},
		{"mail came behind what was converted", func(s *stand) { s.appendTo(s.a.Spool, late) }, "", 1},
		{"INBOX was replaced by a copy", func(s *stand) { s.replace(s.a.Spool) }, rewritten, 0},
		{"INBOX was replaced by a copy, with its soak recorded", func(s *stand) { s.recordParks(); s.replace(s.a.Spool) }, rewritten, 0},
		{"INBOX was replaced by new mail", func(s *stand) { s.remove(s.a.Spool); s.put(s.a.Spool, late) }, rewritten, 0},
		{"a folder is shorter", func(s *stand) { s.check(os.Truncate(s.sent(), 10)) }, rewritten, 0},
		{"INBOX is parked", func(s *stand) { s.recordParks(s.a.Spool) }, "", 0},
		{"INBOX is parked, and mail came to its old path", func(s *stand) { s.recordParks(s.a.Spool); s.put(s.a.Spool, late) }, "", 1},
		{"all is parked, and mail came to an old path", func(s *stand) { s.recordParks(s.mailboxes()...); s.put(s.sent(), late) }, "", 1},
		{"INBOX is parked, and a folder was replaced", func(s *stand) { s.recordParks(s.a.Spool); s.replace(s.sent()) }, rewritten, 0},
		{"a folder's list is gone", func(s *stand) { s.remove(s.inMaildir(".Sent", mailboxName)) }, "the list that says of which mbox the folder was made is gone", 0},
		{"the list of INBOX is gone", func(s *stand) { s.remove(s.inMaildir(mailboxName)) }, "the list that says of which mbox the folder was made is gone", 0},
		{"a client made a folder, without a list", func(s *stand) { s.folder(".Made") }, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := flipped(t)
			paths := s.mailboxes()
			tt.make(s)
			home, before := s.homeNow(), s.messages()
			for again := range 2 {
				record, err := journal.ReadStaging(s.site.State, s.a.Name)
				if tt.refused != "" || again == 0 {
					s.check(err)
				}
				done := s.site.Recover(s.a, record)
				if tt.refused == "" {
					if done.Err != nil || (done.Did == "") != (again > 0) {
						t.Errorf("%+v", done)
					}
					s.parkedAll(paths, before, tt.late)
					continue
				}
				if done.Err == nil || !strings.Contains(done.Err.Error(), tt.refused) {
					t.Errorf("%+v", done)
				}
				for _, diff := range home.Diff(s.homeNow()) {
					t.Error(diff)
				}
			}
			if state, err := s.semaphore().Get(); err != nil || state != semaphore.Maildir {
				t.Errorf("the semaphore says %s, %v", state, err)
			}
		})
	}
}

func (s *stand) sent() string { return filepath.Join(s.a.Folders[0], "Sent") }

// parkedAll demands that nothing has an old name, and that the Maildir holds what
// it held, and so many late messages.
func (s *stand) parkedAll(paths []string, before map[string]string, came int) {
	s.Helper()
	for _, path := range paths {
		if exists(s.T, path) {
			s.Errorf("%s is not parked", path)
		}
	}
	after := s.messages()
	for path, text := range before {
		if after[path] != text {
			s.Errorf("%s was %q, is %q", path, text, after[path])
		}
	}
	maps.DeleteFunc(after, func(path, _ string) bool { _, was := before[path]; return was })
	if len(after) != came || slices.ContainsFunc(slices.Collect(maps.Values(after)), func(text string) bool { return !strings.HasSuffix(text, "Subject: late\n\nlate\n") }) {
		s.Errorf("delivered %q", after)
	}
}

// Users make directories in their Maildirs, and root does, of which the conversion knows
// nothing: they keep no recovery from its end.
func TestADirectoryThatCanNotBeOpenedKeepsNoRecoveryFromItsEnd(t *testing.T) {
	for _, parked := range []bool{false, true} {
		s := flipped(t)
		if parked {
			s.recordParks(s.a.Spool)
		}
		s.check(os.Mkdir(s.inMaildir(".Odd"), 0o700))
		record, err := journal.ReadStaging(s.site.State, s.a.Name)
		s.check(err)
		if done := s.site.Recover(s.a, record); done.Err != nil {
			t.Errorf("INBOX parked %t: %v", parked, done.Err)
		}
		if exists(t, s.a.Spool) {
			t.Errorf("INBOX parked %t: it is at its old path", parked)
		}
		if _, err := s.site.Sweep(t.Context(), s.a, SweepOptions{}); err != nil {
			t.Errorf("INBOX parked %t: %v", parked, err)
		}
	}
}
