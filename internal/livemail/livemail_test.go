package livemail

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// newSite makes a site in a directory that everybody gets through.
func newSite(t *testing.T, users int) *Site {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailferry-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return NewSite(t, filepath.Join(dir, "site"), users)
}

// A server whose users are left where they are keeps all promises.
func TestAServerAtRestHasNothingWrong(t *testing.T) {
	l := NewLoad(t, newSite(t, 4), Options{Seed: 1, Clients: 2, Keep: 10, Append: true, Rest: 2 * time.Millisecond})
	l.Agents = []Agent{Honest{}, Procmail, Maildrop}
	l.Start()
	time.Sleep(3 * time.Second)
	l.Stop()
	for _, wrong := range l.Account() {
		t.Error(wrong)
	}
	t.Logf("\n%s", l.Figures)
	for _, line := range append(l.Server.Errors(), l.Notes()...) {
		t.Error(line)
	}
}
