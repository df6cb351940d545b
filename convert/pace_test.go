package convert

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/mailgen"
)

// resident counts the pages of a file that are in the page cache.
func resident(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pages, err := cachestat(int(f.Fd()), 0, 0) // to the end
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// evict drops a file from the page cache.
func evict(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, path); n > 0 {
		t.Fatalf("%d pages of %s stay", n, path)
	}
}

// What the live server had in memory is there after a round, and what it had
// not, is not: neither the mbox nor what was written of it.
func TestThePageCacheIsLeftToTheServer(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 31})
	u := p.Users[0]
	cold, warm := u.Mailboxes[0].Path, u.Mailboxes[1].Path
	evict(t, cold)
	before := resident(t, warm)
	if before == 0 {
		t.Fatal("nothing is in memory")
	}
	g, syncs := mustOpen(t, p, p.accounts[0]), &syncSet{}
	defer syncs.close()
	if err := syncs.enlist(g.parent); err != nil {
		t.Fatal(err)
	}
	bytes := int64(0)
	pace := Pace{Nice: true, Progress: func(n int64) { bytes += n }}
	throttled := int64(0)
	pace.Throttle = func(_ context.Context, n int64) error { throttled += n; return nil }
	if _, err := g.fill(context.Background(), pace); err != nil {
		t.Fatal(err)
	}
	for _, err := range syncs.sync() {
		t.Fatal(err)
	}
	if _, err := g.verify(context.Background(), pace); err != nil {
		t.Fatal(err)
	}
	if n := resident(t, cold); n > 0 {
		t.Errorf("%d pages of the mailbox that was not in memory are now", n)
	}
	if n := resident(t, warm); n != before {
		t.Errorf("%d pages of the mailbox that was in memory are, of %d", n, before)
	}
	for name := range names(t, g.staging.Path()) {
		list, err := filepath.Glob(filepath.Join(g.staging.Path(), filepath.Dir(name), "cur", filepath.Base(name)+"*"))
		if err != nil || len(list) != 1 {
			t.Fatal(name, list, err)
		}
		if n := resident(t, list[0]); n > 0 {
			t.Errorf("%d pages of %s are in memory", n, name)
		}
	}
	if bytes == 0 || bytes != throttled {
		t.Errorf("%d bytes were told of, and %d waited for", bytes, throttled)
	}
}
