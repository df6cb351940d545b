package convert

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
)

// benchHome is a user with mailboxes of 500 messages, half of real mail's sizes.
type benchHome struct {
	*testing.B
	site  Site
	a     account.Account
	bytes int64
}

func newBenchHome(b *testing.B) *benchHome {
	b.Helper()
	dir := b.TempDir()
	h := &benchHome{B: b, site: Site{Scan: mbox.Options{Profile: mbox.Dovecot}, State: filepath.Join(dir, "state")}}
	home := filepath.Join(dir, "home")
	h.a = account.Account{
		User:  account.User{Name: "alice", UID: aliceID, GID: aliceID, Home: home},
		Spool: filepath.Join(home, "inbox"), Folders: []string{filepath.Join(home, "mail")}, Maildir: filepath.Join(home, "Maildir"),
	}
	h.check(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	for _, d := range []string{home, h.a.Folders[0]} {
		h.check(os.Mkdir(d, 0o700), os.Chown(d, aliceID, aliceID))
	}
	for i, path := range h.mboxes() {
		h.append(path, uint64(i), 500)
	}
	old := time.Now().Add(-time.Hour)
	for _, path := range h.mboxes() {
		h.check(os.Chtimes(path, old, old))
	}
	time.Sleep(time.Duration(racy) + 100*time.Millisecond) // their ctime can't be set
	return h
}

func (h *benchHome) mboxes() []string {
	return []string{h.a.Spool, filepath.Join(h.a.Folders[0], "Sent"), filepath.Join(h.a.Folders[0], "Archive")}
}

func (h *benchHome) check(errs ...error) {
	h.Helper()
	for _, err := range errs {
		if err != nil {
			h.Fatal(err)
		}
	}
}

// append adds n messages to an mbox.
func (h *benchHome) append(path string, seed uint64, n int) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	h.check(err)
	sum, err := mailgen.Generate(f, mailgen.Options{Seed: seed, Messages: n, Dialects: []mailgen.Dialect{mailgen.Mboxrd},
		Size: func(r *rand.Rand) int { return min(mailgen.MailSize(r)/2+mailgen.MinSize, 64<<10) }})
	h.check(err, f.Chown(aliceID, aliceID), f.Close())
	h.bytes += sum.Bytes
}

// pass fills staging and reads it back, and wants so many messages written.
func (h *benchHome) pass(g *stage, written int) {
	round, err := g.fill(h.Context(), Pace{})
	h.check(err)
	if _, err := g.verify(h.Context(), Pace{}); err != nil {
		h.Fatal(err)
	}
	if round.Written != written {
		h.Fatalf("%d messages written, not %d", round.Written, written)
	}
}

func (h *benchHome) stage() (*stage, func()) {
	syncs := new(syncSet)
	g, err := openStage(h.site, h.a, "20261121T013000Z-precopy-ab12", syncs)
	h.check(err)
	return g, syncs.close
}

// What the passes of a precopy cost, without its syncs.
func BenchmarkPrecopy(b *testing.B) {
	b.Run("first pass", func(b *testing.B) {
		h := newBenchHome(b)
		b.SetBytes(h.bytes)
		b.ReportAllocs()
		for b.Loop() {
			g, end := h.stage()
			h.pass(g, 3*500)
			b.StopTimer()
			h.check(g.discard())
			end()
			b.StartTimer()
		}
	})
	b.Run("nothing changed", func(b *testing.B) {
		h := newBenchHome(b)
		g, end := h.stage()
		defer end()
		h.pass(g, 3*500)
		b.SetBytes(h.bytes)
		b.ReportAllocs()
		for b.Loop() {
			h.pass(g, 0)
		}
	})
	b.Run("a message appended to each mailbox", func(b *testing.B) {
		h := newBenchHome(b)
		g, end := h.stage()
		defer end()
		h.pass(g, 3*500)
		b.SetBytes(h.bytes)
		b.ReportAllocs()
		seed := uint64(100)
		for b.Loop() {
			b.StopTimer()
			for _, path := range h.mboxes() {
				h.append(path, seed, 1)
				seed++
			}
			b.StartTimer()
			h.pass(g, 3)
		}
	})
}
