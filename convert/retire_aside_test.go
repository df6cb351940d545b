package convert

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/journal"
)

// Mail in a Maildir that was set aside, which came there since, is nowhere else.
func TestAMaildirThatWasSetAsideAndGotMailStays(t *testing.T) {
	s, rollback := backUser(t)
	wentBack(t, s.place, rollback(), s.a)
	s.migrated()
	i := slices.IndexFunc(s.soak().Aside, func(a journal.Aside) bool { return !a.Back.IsZero() })
	path := s.soak().Aside[i].Path
	s.put(filepath.Join(path, "new", "1.2.3"), "Subject: late\n\nlate\n")
	paths := s.kept()
	w := s.retire(0, false)
	w.mustBe(t, s.a.Name, journal.Skipped, reasonUnready)
	if now := s.kept(); !slices.Equal(now, paths) || !strings.Contains(w.users[s.a.Name].Text, path) {
		t.Errorf("left %q of %q: %s", now, paths, w.users[s.a.Name].Text)
	}
}

// So is mail that somebody has put into an mbox that was set aside, who had opened it
// before it was parked.
func TestAnMboxThatWasSetAsideAndGotMailStays(t *testing.T) {
	s, rollback := backUser(t)
	wentBack(t, s.place, rollback(), s.a)
	parked := s.soak().Parked
	s.appendTo(s.parkedAs(s.a.Spool), strayMail)
	s.migrated()
	aside := s.soak().Aside
	i := slices.IndexFunc(parked, func(p journal.Parked) bool { return p.Live == s.a.Spool })
	i = slices.IndexFunc(aside, func(a journal.Aside) bool { return a.Ino == parked[i].Ino })
	paths := s.kept()
	w := s.retire(0, false)
	w.mustBe(t, s.a.Name, journal.Skipped, reasonUnready)
	if now := s.kept(); !slices.Equal(now, paths) || !strings.Contains(w.users[s.a.Name].Text, aside[i].Path) {
		t.Errorf("left %q of %q: %s", now, paths, w.users[s.a.Name].Text)
	}
}
