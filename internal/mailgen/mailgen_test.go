package mailgen

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// everything has all dialects, oddities of single messages and state.
func everything(seed uint64) Options {
	return Options{
		Seed: seed, Messages: 300, Odd: AllOdd, State: true, Fresh: 5,
		Size: func(r *rand.Rand) int { return MinSize + r.IntN(6000) },
	}
}

func generate(t *testing.T, o Options) ([]byte, []Message, Summary) {
	t.Helper()
	var b bytes.Buffer
	var all []Message
	o.Each = func(m Message) { all = append(all, m) }
	s, err := Generate(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), all, s
}

func TestSameSeedGivesSameBytes(t *testing.T) {
	for name, o := range map[string]Options{
		"everything": everything(1),
		"CRLF file":  {Seed: 2, Messages: 50, Odd: AllOdd | CRLFFile | NoFinalNewline},
		"pseudo":     {Seed: 3, Bytes: 1 << 20, State: true, Odd: PseudoMessage},
	} {
		t.Run(name, func(t *testing.T) {
			first, _, _ := generate(t, o)
			again, _, _ := generate(t, o)
			if !bytes.Equal(first, again) {
				t.Error("the same seed gave other bytes")
			}
			unwatched := new(bytes.Buffer)
			if _, err := Generate(unwatched, o); err != nil || !bytes.Equal(first, unwatched.Bytes()) {
				t.Errorf("without Each: other bytes, error %v", err)
			}
			o.Seed += 100
			if other, _, _ := generate(t, o); bytes.Equal(first, other) {
				t.Error("another seed gave the same bytes")
			}
		})
	}
}

// TestGoldenDigest keeps the bytes of a seed the same from one version to the next.
func TestGoldenDigest(t *testing.T) {
	mbox, _, _ := generate(t, everything(42))
	const want = "73540cdd7b5fa69cc2f4a17859472214f01eccded9e0393fe388e75210819bd8"
	if got := fmt.Sprintf("%x", sha256.Sum256(mbox)); got != want {
		t.Errorf("seed 42 gives digest %s, want %s", got, want)
	}
}

func TestMessagesTileTheFile(t *testing.T) {
	for name, o := range map[string]Options{
		"everything":       everything(5),
		"CRLF file":        {Seed: 6, Messages: 100, Odd: AllOdd | CRLFFile},
		"no final newline": {Seed: 7, Messages: 100, Odd: AllOdd | NoFinalNewline},
		"by bytes":         {Seed: 8, Bytes: 3 << 20, Odd: AllOdd | NoFinalNewline},
	} {
		t.Run(name, func(t *testing.T) {
			mbox, all, sum := generate(t, o)
			var next int64
			for _, m := range all {
				if m.Offset != next {
					t.Fatalf("%s begins at %d, want %d", m.ID, m.Offset, next)
				}
				if from := string(mbox[m.Offset:m.Header]); strings.TrimRight(from, "\r\n") != m.FromLine {
					t.Fatalf("%s: From_ line %q, want %q", m.ID, from, m.FromLine)
				}
				next = m.End
			}
			if next != int64(len(mbox)) || sum.Bytes != next || sum.Messages != len(all) {
				t.Errorf("messages end at %d of %d, summary %+v, %d reported", next, len(mbox), sum, len(all))
			}
			if last := mbox[len(mbox)-1]; (last == '\n') == (o.Odd&NoFinalNewline != 0) {
				t.Errorf("last octet is %q", last)
			}
		})
	}
}

// content cuts a message out by its offsets, as Message.Content describes it.
func content(mbox []byte, m Message) []byte {
	hidden := []string{"X-IMAPbase:", "X-UID:", "Status:", "X-Status:", "X-Keywords:", "Content-Length:"}
	var b []byte
lines:
	for line := range bytes.Lines(mbox[m.Header:m.Body]) {
		for _, h := range hidden {
			if bytes.HasPrefix(line, []byte(h)) {
				continue lines
			}
		}
		b = append(b, bytes.ReplaceAll(line, []byte("\r\n"), []byte("\n"))...)
	}
	return append(b, mbox[m.Body:m.End]...)
}

func TestSumsAreThoseOfTheFile(t *testing.T) {
	for _, crlf := range []Odd{0, CRLFFile} {
		o := everything(9)
		o.Odd |= crlf
		mbox, all, _ := generate(t, o)
		sep := map[Odd]string{0: "\n", CRLFFile: "\r\n"}[crlf]
		for _, m := range all {
			want := content(mbox, m)
			shown := bytes.TrimSuffix(want, []byte(sep))
			if m.Odd&NoBlankLine == 0 {
				want = shown
			}
			check(t, m, "Content", m.Content, want)
			check(t, m, "Dovecot", m.Dovecot, shown)
			check(t, m, "LF", m.LF, bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n")))
			if !bytes.Contains(want, []byte("Id: "+m.ID)) {
				t.Errorf("%s: its ID is not in the body", m.ID)
			}
		}
	}
}

func check(t *testing.T, m Message, what string, got Sum, want []byte) {
	t.Helper()
	if (got != Sum{int64(len(want)), sha256.Sum256(want)}) {
		t.Fatalf("%s, odd %b: %s has size %d and other bytes, want %d", m.ID, m.Odd, what, got.Size, len(want))
	}
}

func TestContentHasExactlyTheSizeAskedFor(t *testing.T) {
	for _, size := range []int{MinSize, MinSize + 1, 640, 1024, 2047, 2048, 4095, 4096, 8192, 70_000, 3 << 20} {
		for seed := range uint64(40) {
			n := max(1, 20_000/size)
			o := Options{Seed: seed, Messages: n, Odd: AllOdd, State: seed%2 == 0, Size: func(*rand.Rand) int { return size }}
			o.Each = func(m Message) {
				if m.Content.Size != int64(size) {
					t.Fatalf("seed %d, %s: size %d, want %d", seed, m.ID, m.Content.Size, size)
				}
			}
			if _, err := Generate(io.Discard, o); err != nil {
				t.Fatal(err)
			}
			if size > 1<<20 && seed > 3 {
				break
			}
		}
	}
}

func TestFixedIsTheSameForEveryMessage(t *testing.T) {
	var b bytes.Buffer
	sum, err := Fixed(&b, 1, 1000, 2048)
	if err != nil || sum.Messages != 1000 {
		t.Fatalf("got %+v, %v", sum, err)
	}
	if n := strings.Count(b.String(), "\nId: gen-1-"); n != 1000 {
		t.Errorf("%d IDs in the mailbox, want 1000", n)
	}
}

func TestRealisticSizesAreThoseOfMail(t *testing.T) {
	var sizes []int
	r := rand.New(rand.NewPCG(1, 1))
	large, total := 0, 0
	for range 20_000 {
		n := MailSize(r)
		sizes = append(sizes, n)
		total += n
		if n > 1<<20 {
			large++
		}
	}
	if mean := total / len(sizes); mean < 30_000 || mean > 70_000 {
		t.Errorf("mean size %d", mean)
	}
	if large < 40 || large > 400 {
		t.Errorf("%d of 20,000 messages exceed 1 MiB", large)
	}
	sum, err := Realistic(io.Discard, 1, 20<<20)
	if err != nil || sum.Bytes < 20<<20 || sum.Bytes > 60<<20 {
		t.Errorf("20 MiB asked for: %+v, %v", sum, err)
	}
}

func TestIDsAndUIDsAreUnique(t *testing.T) {
	_, all, sum := generate(t, everything(11))
	ids := map[string]bool{}
	var uid uint32
	for _, m := range all {
		if ids[m.ID] {
			t.Errorf("ID %s occurs twice", m.ID)
		}
		ids[m.ID] = true
		if m.UID <= uid || m.UID >= sum.UIDNext {
			t.Errorf("%s has UID %d after %d, UIDNEXT %d", m.ID, m.UID, uid, sum.UIDNext)
		}
		uid = m.UID
	}
	if used := 5; uid != sum.UIDNext-1 || all[len(all)-used].Flags != "" {
		t.Errorf("the fresh messages have UIDs to %d of %d and flags %q", uid, sum.UIDNext, all[len(all)-used].Flags)
	}
}

func TestEveryOddityAndDialectOccurs(t *testing.T) {
	_, all, _ := generate(t, everything(12))
	var odd Odd
	seen := map[Dialect]int{}
	for _, m := range all {
		odd |= m.Odd
		seen[m.Dialect]++
	}
	if odd != AllOdd || len(seen) != 4 {
		t.Errorf("oddities %b of %b, dialects %v", odd, AllOdd, seen)
	}
}

func TestRefusesWhatItCannotMake(t *testing.T) {
	for name, o := range map[string]Options{
		"no limit":  {},
		"too small": {Messages: 1, Size: func(*rand.Rand) int { return MinSize - 1 }},
	} {
		if _, err := Generate(io.Discard, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left -= len(p); d.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriteErrorEndsGeneration(t *testing.T) {
	if _, err := Realistic(&fullDisk{1 << 20}, 1, 1<<40); err != io.ErrShortWrite {
		t.Errorf("got %v, want %v", err, io.ErrShortWrite)
	}
}

func TestTreeHoldsWhatItReports(t *testing.T) {
	dir := t.TempDir()
	made, err := Tree(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	reported := map[string]bool{"mail/notes.txt": true, "mail/.subscriptions": true,
		"mail/.imap/Sent/dovecot.index.log": true, "mail/.imap/INBOX/dovecot.index": true}
	for _, f := range made {
		reported[f.Path] = true
		mbox, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.Messages {
			if !strings.HasPrefix(string(mbox[m.Offset:]), m.FromLine) {
				t.Errorf("%s: %s is not at %d", f.Name, m.ID, m.Offset)
			}
		}
		if int64(len(mbox)) != f.Summary.Bytes {
			t.Errorf("%s: %d octets, want %d", f.Name, len(mbox), f.Summary.Bytes)
		}
	}
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); err == nil && !e.IsDir() && !reported[rel] {
			t.Errorf("%s is in the tree and not reported", rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
