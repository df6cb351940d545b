package convert

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailferry/internal/mailgen"
	"mailferry/maildir"
)

func FuzzRecord(f *testing.F) {
	whole := record{offset: 7, length: 900, uid: 12, date: 1700000000, file: maildir.FileID{Ino: 1<<64 - 1, Ctime: 1 << 62, Size: 5}, name: "1.M000002P3Q4.host,S=5,W=6:2,RSa"}
	f.Add(string(bytes.TrimSuffix(whole.append(nil), []byte("\n"))))
	f.Add("0 0 0 0 " + strings.Repeat("0", 64) + " 00000000000000000000 00000000000000000000 ../../x,S=1:2,")
	f.Add("1 2 3")
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRecord([]byte(line))
		if err != nil {
			return
		}
		if strings.ContainsAny(r.name, "/\x00") || r.name[0] == '.' {
			t.Fatalf("%q names a file outside of its directory", r.name)
		}
		again, err := parseRecord(bytes.TrimSuffix(r.append(nil), []byte("\n")))
		if err != nil || again != r {
			t.Fatalf("%+v is written as %q and read as %+v, %v", r, r.append(nil), again, err)
		}
		at := r.markAt([]byte(line))
		if mark := string(r.appendMark(nil)); at < 0 || line[at:at+int64(len(mark))] != mark {
			t.Fatalf("the mark %q does not stand at %d of %q", mark, at, line)
		}
	})
}

// The owner of staging can write what he likes into its lists. Before his files
// were read back, he gets his mail or an error; never a Maildir that differs
// from the mbox. Afterwards he can exchange his own messages among each other,
// as he can in every Maildir of his: that is his own affair, and no crash.
func TestForgedManifestsAreNotBelieved(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 17, Load: mailgen.Load{
		Messages: func(*rand.Rand) int { return 12 }, Size: func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(200) },
	}})
	a, random := p.accounts[0], rand.New(rand.NewPCG(1, 2))
	live := use(t, p.Users[0], 5)
	for range 60 {
		g := mustOpen(t, p, a)
		g.mustFill(t)
		marked := random.IntN(2) == 0
		if marked {
			if _, err := g.verify(context.Background(), Pace{}); err != nil {
				t.Fatal(err)
			}
		}
		forge(t, filepath.Join(g.staging.Path(), manifestName), random)
		if random.IntN(2) == 0 { // else the mailbox is not looked at again
			if _, err := live[0].Deliver(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := g.fill(context.Background(), Pace{})
		if err == nil {
			_, err = g.verify(context.Background(), Pace{})
		}
		var found *Altered
		switch {
		case err == nil && marked:
		case err == nil:
			p.compare(t, a, g.staging.Path())
		case !errors.As(err, &found) && !errors.Is(err, errAltered):
			t.Error(err)
		}
		if err := g.discard(); err != nil {
			t.Fatal(err)
		}
	}
}

// forge exchanges fields between lines, doubles and drops lines.
func forge(t *testing.T, path string, random *rand.Rand) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(content), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	i, j := random.IntN(len(lines)), random.IntN(len(lines))
	switch random.IntN(4) {
	case 0:
		lines[i] = lines[j]
	case 1:
		lines[i], lines[j] = lines[j], lines[i]
	case 2:
		one, other := strings.SplitN(lines[i], " ", 8), strings.SplitN(lines[j], " ", 8)
		k := random.IntN(8)
		one[k], other[k] = other[k], one[k]
		lines[i], lines[j] = strings.Join(one, " "), strings.Join(other, " ")
	case 3:
		b := []byte(lines[i])
		b[random.IntN(len(b)-1)] ^= byte(1 << random.IntN(7))
		lines[i] = string(b)
	}
	forged := strings.Join(lines, "")
	if len(forged) > len(content) { // its size is known, too
		forged = forged[:len(content)]
	}
	forged += strings.Repeat("\n", len(content)-len(forged))
	if err := os.WriteFile(path, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
}
