package powerloss

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func always(int) bool { return true }

// each runs a test on a disk of each filesystem.
func each(t *testing.T, test func(*testing.T, *Disk)) {
	if os.Geteuid() != 0 {
		t.Log("only root can make a disk")
		return
	}
	for _, f := range Filesystems {
		t.Run(f.Name, func(t *testing.T) {
			d, err := New(f, t.TempDir())
			must(t, err)
			t.Cleanup(func() { must(t, d.Close()) })
			test(t, d)
		})
	}
}

const files = 8

func content(i int) []byte { return bytes.Repeat([]byte{'a' + byte(i)}, 3000*(i+1)) }

// record makes files one after the other, and promises each.
func record(t *testing.T, d *Disk, durable func(f, dir *os.File) error) *Tape {
	t.Helper()
	d.Record()
	must(t, d.Mount())
	dir, err := os.Open(d.Dir)
	must(t, err)
	for i := range files {
		f, err := os.Create(filepath.Join(d.Dir, fmt.Sprint(i)))
		must(t, err)
		_, err = f.Write(content(i))
		must(t, err, durable(f, dir), f.Close())
		d.Mark(fmt.Sprint(i))
	}
	must(t, dir.Close(), d.Unmount())
	return d.Stop()
}

// broken counts the cuts after which a file that was promised is not as it was.
func broken(t *testing.T, d *Disk, tape *Tape, cuts []Cut) (n int) {
	t.Helper()
	start := time.Now()
	for _, c := range cuts {
		must(t, d.Lose(tape, c))
		if err := d.Mount(); err != nil {
			t.Errorf("%s: %v", c, err)
			continue
		}
		whole := true
		for _, name := range tape.Marks(c) {
			got, err := os.ReadFile(filepath.Join(d.Dir, name))
			whole = whole && err == nil && bytes.Equal(got, content(int(name[0]-'0')))
		}
		if !whole {
			n++
		}
		must(t, d.Unmount())
	}
	t.Logf("%d of %d cuts break a promise; %v each", n, len(cuts), time.Since(start)/time.Duration(len(cuts)))
	return n
}

// What was made durable as it has to be is there after each cut; without a sync
// it is not, and without that of the file, or of the directory where the
// filesystem needs it, neither.
func TestWhatIsSyncedSurvives(t *testing.T) {
	each(t, func(t *testing.T, d *Disk) {
		tape := record(t, d, func(f, dir *os.File) error { return errors.Join(f.Sync(), dir.Sync()) })
		if n := broken(t, d, tape, tape.Cuts(60, 1, always)); n > 0 {
			t.Errorf("%d cuts of those who sync break a promise", n)
		}
	})
}

func TestWhatIsNotSyncedDoesNot(t *testing.T) {
	each(t, func(t *testing.T, d *Disk) {
		tape := record(t, d, func(*os.File, *os.File) error { return nil })
		if n := broken(t, d, tape, tape.Cuts(40, 1, always)); n == 0 {
			t.Error("nothing was lost")
		}
	})
}

func TestAStateCanBeHadAgain(t *testing.T) {
	each(t, func(t *testing.T, d *Disk) {
		tape := record(t, d, func(f, dir *os.File) error { return f.Sync() })
		cuts := tape.Cuts(30, 7, always)
		if !slices.Equal(cuts, tape.Cuts(30, 7, always)) {
			t.Error("the same seed gives other cuts")
		}
		for _, c := range cuts {
			one, two := tape.at(c, d.Grain), tape.at(c, d.Grain)
			for n := range one.pages {
				if !bytes.Equal(one.page(n), two.page(n)) {
					t.Fatalf("%s: page %d differs", c, n)
				}
			}
		}
	})
}

func TestCuts(t *testing.T) {
	block := func(c byte) []byte { return bytes.Repeat([]byte{c}, pageSize) }
	from := over(nil)
	from.write(block('0'), 0)
	from.write(block('0'), pageSize)
	tape := &Tape{from: from, Events: []Event{
		{Data: block('1')}, {Mark: "first"}, {}, {At: pageSize, Data: block('2')}, {At: pageSize / 2, Data: block('3')}, {},
	}}
	for _, test := range []struct {
		name  string
		cut   Cut
		want  string // the first octet of each half page
		marks []string
	}{
		{"nothing came", Cut{}, "0000", nil},
		{"a write that was not flushed is there", Cut{Events: 1}, "1100", nil},
		{"a write that was not flushed is lost", Cut{Events: 1, Loss: All}, "0000", nil},
		{"a mark is no flush", Cut{Events: 2, Loss: All}, "0000", []string{"first"}},
		{"what was flushed is there", Cut{Events: 3, Loss: All}, "1100", []string{"first"}},
		{"so when others are lost", Cut{Events: 5, Loss: All}, "1100", []string{"first"}},
		{"the last of two writes to one place counts", Cut{Events: 5}, "1332", []string{"first"}},
		{"flushed as well", Cut{Events: 6, Loss: All}, "1332", []string{"first"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			held := make([]byte, 2*pageSize)
			tape.at(test.cut, 512).read(held, 0)
			got := string([]byte{held[0], held[pageSize/2], held[pageSize], held[pageSize*3/2]})
			if got != test.want || !slices.Equal(tape.Marks(test.cut), test.marks) {
				t.Errorf("%s, %q; want %s, %q", got, tape.Marks(test.cut), test.want, test.marks)
			}
		})
	}
	for seed := range uint64(50) {
		held := make([]byte, 2*pageSize)
		tape.at(Cut{Events: 1, Loss: Torn, Seed: seed}, 512).read(held, 0)
		for i := 0; i < len(held); i += 512 {
			if sector := held[i : i+512]; !bytes.Equal(sector, block(sector[0])[:512]) {
				t.Errorf("seed %d: sector %d was torn", seed, i/512)
			}
		}
	}
}
