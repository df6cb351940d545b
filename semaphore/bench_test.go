package semaphore

import (
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkGet(b *testing.B) {
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "alice"), []byte(Mbox.Line()), 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if s, err := Get(dir, "alice"); s != Mbox {
			b.Fatal(err)
		}
	}
}

func BenchmarkHoldAndFlip(b *testing.B) {
	s, err := For(filepath.Join(b.TempDir(), "alice"))
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Enroll(at(1)); err != nil {
		b.Fatal(err)
	}
	epoch := uint64(1)
	for b.Loop() {
		b.StopTimer()
		p, err := s.Prepare(Mbox, at(epoch+2))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := s.Hold(at(epoch + 1)); err != nil {
			b.Fatal(err)
		}
		if err := p.Flip(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Discard(); err != nil {
			b.Fatal(err)
		}
		epoch += 2
		b.StartTimer()
	}
}
