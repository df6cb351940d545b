package convert

import (
	"strings"
	"testing"
	"time"
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
