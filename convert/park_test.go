package convert

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

func TestNamesOfParkedMboxes(t *testing.T) {
	flip := time.Date(2026, 11, 21, 1, 30, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, live string
		late, ok   bool
	}{
		{parkedName("alice", flip), "alice", false, true},
		{lateName("alice", flip, 0), "alice", true, true},
		{lateName("alice", flip, 17), "alice", true, true},
		{parkedName("/var/mail/alice", flip), "/var/mail/alice", false, true},
		{parkedName(parkedName("alice", flip), flip), "alice.mailferry-20261121T013000Z", false, true},
		{"alice", "", false, false},
		{".mailferry-20261121T013000Z", "", false, false},
		{"alice.mailferry-20261121T013000Z-late", "", false, false},
		{"alice.mailferry-20261121T013000Z-late007", "", false, false},
		{"alice.mailferry-20261121T013000Z-later1", "", false, false},
		{"alice.mailferry-0123456789abcdef", "", false, false},
	} {
		p, ok := parseParked(tt.name)
		if ok != tt.ok || ok && (p.live != tt.live || p.late != tt.late || !p.flip.Equal(flip)) {
			t.Errorf("%q: %+v, %t", tt.name, p, ok)
		}
	}
}

func FuzzParseParked(f *testing.F) {
	f.Add("alice.mailferry-20261121T013000Z")
	f.Add("alice.mailferry-20261121T013000Z-late3")
	f.Add(".mailferry-.mailferry-20261121T013000Z-late")
	f.Fuzz(func(t *testing.T, name string) {
		p, ok := parseParked(name)
		if !ok {
			return
		}
		again := parkedName(p.live, p.flip)
		if !p.late && again != name || p.late && !strings.HasPrefix(name, again+lateMark) {
			t.Errorf("%q is read as %+v", name, p)
		}
	})
}

// Every parked mbox of a mailbox has a time of its own, and the last that was
// parked is the newest, whatever the clock said.
func TestTheTimeOfAFlipIsBehindAllForWhichAnythingIsParked(t *testing.T) {
	flip := time.Date(2026, 11, 21, 1, 30, 0, 5e8, time.UTC)
	second := flip.Truncate(time.Second)
	for _, tt := range []struct {
		name   string
		parked map[string]time.Time // the flip, by name of a mailbox
		want   time.Time
	}{
		{"nothing is parked", nil, flip},
		{"parked a minute ago", map[string]time.Time{"box": flip.Add(-time.Minute)}, flip},
		{"parked in this second", map[string]time.Time{"box": flip}, second.Add(time.Second)},
		{"parked in a future that is none", map[string]time.Time{"box": flip.AddDate(70, 0, 0)}, second.AddDate(70, 0, 0).Add(time.Second)},
		{"behind that of each mailbox", map[string]time.Time{"box": flip.AddDate(1, 0, 0), "other": flip.AddDate(2, 0, 0)}, second.AddDate(2, 0, 0).Add(time.Second)},
		{"somebody else's", map[string]time.Time{"boxes": flip.AddDate(1, 0, 0)}, flip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			dir, err := safefs.OpenDir(root)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			for name, at := range tt.parked {
				if err := os.WriteFile(filepath.Join(root, parkedName(name, at)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := &cutover{flipped: flip}
			list := []converted{{locked: locked{dir: dir, src: source{file: "box"}}}, {locked: locked{dir: dir, src: source{file: "other"}}}}
			if err := c.freeTime(list); err != nil || !c.flipped.Equal(tt.want) {
				t.Errorf("%v, %v; want %v", c.flipped, err, tt.want)
			}
		})
	}
}

// The clock is set back between two moves: what the second one parked is what the
// way back is built on.
func TestAClockThatWasSetBackMisleadsNoRollback(t *testing.T) {
	s, back := backUser(t)
	wentBack(t, s.place, back(), s.a)
	s.appendTo(s.a.Spool, late)
	want, err := os.ReadFile(s.a.Spool)
	s.check(err)

	now, ahead := s.parkedAs(s.a.Spool), s.a.Spool+parkedMark+"20991231T000000Z"
	s.check(os.Rename(now, ahead))
	soak := s.soak()
	for i := range soak.Parked {
		if soak.Parked[i].Path == now {
			soak.Parked[i].Path = ahead
		}
	}
	for i := range soak.Aside {
		if soak.Aside[i].Path == now {
			soak.Aside[i].Path = ahead
		}
	}
	s.check(journal.WriteSoak(s.site.State, soak))

	s.migrated()
	behind := time.Date(2099, 12, 31, 0, 0, 1, 0, time.UTC)
	if flip := s.soak().Flipped; !flip.Equal(behind) {
		t.Errorf("the flip is recorded as %v, want %v", flip, behind)
	}
	if content, err := os.ReadFile(parkedName(s.a.Spool, behind)); err != nil || !bytes.Equal(content, want) {
		t.Errorf("parked are %d bytes, of %d: %v", len(content), len(want), err)
	}
	wentBack(t, s.place, back(), s.a)
	if content, err := os.ReadFile(s.a.Spool); err != nil || !bytes.Equal(content, want) {
		t.Errorf("the mbox is not what it was: %d bytes, of %d: %v", len(content), len(want), err)
	}
}
