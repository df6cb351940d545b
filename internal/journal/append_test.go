package journal

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where the filesystem can't allocate, a line may get half onto a full disk.
// Nothing of it stays, so that there is no torn line but the last, and with
// space again the journal goes on.
func TestALineThatDoesNotFitLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount a filesystem")
		return
	}
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			dir := mount(t, disk.mount)
			f, err := os.Create(filepath.Join(dir, "journal"))
			must(t, err)
			a := &appender{f: f, space: math.MaxInt64}
			defer a.close()
			line, ballast := []byte(strings.Repeat("x", 4999)+"\n"), filepath.Join(dir, "ballast")
			must(t, a.append(line, 0))
			must(t, os.WriteFile(ballast, make([]byte, 1<<20), 0o600))
			fillUp(t, dir)
			want := bytes.Clone(line)
			for err = a.append(line, 0); err == nil; err = a.append(line, 0) {
				want = append(want, line...)
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Error(err)
			}
			checkFile(t, f.Name(), want)
			must(t, os.Remove(ballast))
			must(t, a.append(line, 0))
			checkFile(t, f.Name(), append(want, line...))
		})
	}
}

func checkFile(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
	}
}

// After a sync that failed nothing is said to be durable any more: a second
// sync would succeed and mean nothing.
func TestAFailedSyncIsNotTriedAgain(t *testing.T) {
	f, err := os.OpenFile("/dev/null", os.O_WRONLY, 0) // takes what is written, and can't be synced
	must(t, err)
	defer f.Close()
	a := &appender{f: f, space: math.MaxInt64}
	first := a.append([]byte("line\n"), 0)
	if !errors.Is(first, syscall.EINVAL) || !strings.HasPrefix(first.Error(), "nothing more is written there: ") {
		t.Error(first)
	}
	end := a.end
	for _, err := range []error{a.append([]byte("line\n"), 0), a.sync(end), a.promise(1)} {
		if err != first {
			t.Errorf("%v, want %v", err, first)
		}
	}
	if a.end != end {
		t.Error("another line was written")
	}
}
