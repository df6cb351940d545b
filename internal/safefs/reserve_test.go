package safefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallDisk mounts an ext4 filesystem of 32 MiB, a fifth of it root's reserve.
func smallDisk(t *testing.T) string {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "image"), filepath.Join(place(t), "mnt")
	must(t, os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20), os.Mkdir(dir, 0o755))
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-F", "-m", "20", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir
}

// fill writes a file until there is an error, and returns its size.
func fill(d *Dir, name string) (size int64, err error) {
	f, err := d.Create(name, 0o600)
	if err != nil {
		return 0, err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		var n int
		n, err = f.Write(block)
		size += int64(n)
	}
	return size, errors.Join(err, f.Close())
}

// The last blocks are kept for root, and the work of a user is none of root's:
// mail servers go on when the migration has filled the disk.
func TestTheReserveOfRootIsNotUsed(t *testing.T) {
	if !asRoot(t) {
		return
	}
	disk := smallDisk(t)
	home := give(t, disk, "alice", alice.UID, alice.GID, 0o700)
	var before, after Room
	var size int64
	must(t, AsUser(alice, func() error {
		d, err := OpenFor(home, alice.UID)
		if err != nil {
			return err
		}
		defer d.Close()
		if before, err = d.Statfs(); err != nil {
			return err
		}
		if size, err = fill(d, "mail"); !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("not full: %w", err)
		}
		after, err = d.Statfs()
		return err
	}))
	if after.Bytes > 1<<20 || size > before.Bytes || size < before.Bytes-2<<20 {
		t.Errorf("%d bytes written where %d were free; %d are", size, before.Bytes, after.Bytes)
	}
	d, err := OpenDir(disk)
	must(t, err)
	defer d.Close()
	if left, err := fill(d, "roots"); !errors.Is(err, unix.ENOSPC) || left < 4<<20 {
		t.Errorf("root finds %d bytes of its reserve, %v", left, err)
	}
}
