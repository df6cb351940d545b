package journal

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk is mounted for a test by commands, in which IMAGE and DIR stand for
// paths.
var disks = []struct {
	name  string
	mount []string
}{
	{"tmpfs", []string{"mount -t tmpfs -o size=4m,mode=0711 none DIR"}},
	{"ext4", []string{"truncate -s 16M IMAGE", "mkfs.ext4 -q -F -m 0 IMAGE", "mount -o loop IMAGE DIR"}},
}

func mount(t *testing.T, commands []string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	for _, c := range commands {
		args := strings.Fields(strings.NewReplacer("IMAGE", image, "DIR", dir).Replace(c))
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// fillUp takes all the space of a disk, in large steps and then in small ones.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	for _, size := range []int{1 << 16, 4096, 1} {
		f, err := os.CreateTemp(dir, "ballast")
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		must(t, err)
		for err == nil {
			if _, err = f.Write(make([]byte, size)); err == nil {
				err = f.Sync()
			}
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		f.Close()
	}
}

// On a full disk the lines that have been reserved land, whole and in order,
// and so does the summary; those that have not may be refused, and leave
// nothing of themselves.
func TestAFullDiskStopsNoReservedLine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount a filesystem")
		return
	}
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			state := mount(t, disk.mount)
			r := begin(t, state, "cutover")
			long := Event{User: "alice", Phase: "precopy", Reason: strings.Repeat("x", 3000)}
			reserved, err := r.Reserve(3)
			must(t, err)
			fillUp(t, state)
			want := []Event{}
			for err = r.Log(long); err == nil; err = r.Log(long) {
				want = append(want, long)
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			if _, err := r.Reserve(1000); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("reserved: %v", err)
			}
			hold := Event{User: "alice", Phase: "hold", Reason: strings.Repeat("y", 3900)}
			flip := Event{User: "alice", Phase: "flip", Outcome: Done, Messages: 7}
			huge := Event{User: strings.Repeat("a", 255), Phase: "release", Reason: strings.Repeat("\x1b", 100<<10), Findings: []byte(`["` + strings.Repeat("z", 100<<10) + `"]`)}
			for _, e := range []Event{hold, huge, flip} {
				if err := reserved.Log(e); err != nil {
					t.Errorf("%s: %v", e.Phase, err)
				}
			}
			reserved.Release()
			must(t, r.Finish(Summary{End: "no space left"}))
			got := events(t, state, r.ID())
			if s, err := ReadSummary(state, r.ID()); err != nil || s.End != "no space left" {
				t.Errorf("%+v, %v", s, err)
			}
			if len(got) != len(want)+3 {
				t.Fatalf("%d events, want %d", len(got), len(want)+3)
			}
			for i, e := range got[:len(want)] {
				if e.Reason != long.Reason {
					t.Errorf("event %d: %+v", i, e)
				}
			}
			got = got[len(want):]
			if got[0].Reason != hold.Reason || got[2].Phase != "flip" || got[2].Messages != 7 {
				t.Errorf("%+v", got)
			}
			cut, dots := strings.CutSuffix(got[1].Reason, "...")
			if got[1].User != huge.User || got[1].Findings != nil || !dots || len(cut) < 200 || !strings.HasPrefix(huge.Reason, cut) {
				t.Errorf("shortened: %+v", got[1])
			}
		})
	}
}

// What was not used may be used by others.
func TestReleasedSpaceIsFree(t *testing.T) {
	r := begin(t, newState(t), "cutover")
	for range 1000 {
		reserved, err := r.Reserve(100)
		must(t, err)
		must(t, reserved.Log(Event{Phase: "hold"}))
		reserved.Release()
		reserved.Release()
		must(t, reserved.Log(Event{Phase: "late"})) // like any other
	}
	if r.lines.promised != 0 || r.lines.space > 4*ahead {
		t.Errorf("%d bytes promised, %d allocated", r.lines.promised, r.lines.space)
	}
}

func TestARunGivesBackTheSpaceItDidNotNeed(t *testing.T) {
	state := newState(t)
	r := begin(t, state, "cutover")
	blocks := func() int64 {
		info, err := os.Stat(filepath.Join(state, "runs", r.ID(), "journal.jsonl"))
		must(t, err)
		return info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	must(t, r.Log(Event{Phase: "hold"}))
	if n := blocks(); n < firstSpace {
		t.Errorf("%d bytes at work", n)
	}
	must(t, r.Finish(Summary{}))
	if n := blocks(); n > 8192 {
		t.Errorf("%d bytes at the end", n)
	}
}

// On a full disk a batch of staging records is refused, and what was there
// stays.
func TestAFullDiskKeepsOldStagingRecords(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("only root can mount a filesystem")
		return
	}
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			state := mount(t, disk.mount)
			old := Staging{User: "alice", Name: "old"}
			must(t, WriteStaging(state, old))
			fillUp(t, state)
			var many []Staging
			for range 100 {
				many = append(many, Staging{User: "alice", Name: strings.Repeat("n", 5000)})
			}
			for i := range many[1:] {
				many[i+1].User = "user" + strings.Repeat("x", i)
			}
			if err := WriteStaging(state, many...); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%v", err)
			}
			if list, err := ListStaging(state); err != nil || len(list) != 1 || list[0] != old {
				t.Errorf("%v, %v", list, err)
			}
			if left, err := os.ReadDir(filepath.Join(state, "staging")); err != nil || len(left) != 1 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
