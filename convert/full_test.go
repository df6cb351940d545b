package convert

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailferry/internal/mailgen"
)

// tinyDisk mounts an ext4 filesystem of 32 MiB with so many inodes, nil where
// the test may not.
func tinyDisk(t *testing.T, inodes string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can mount a filesystem")
		return ""
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"truncate", "-s", "32M", image},
		{"mkfs.ext4", "-q", "-F", "-N", inodes, image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// A full disk ends the run, and leaves neither a Maildir nor the rest of one.
func TestAFullDiskLeavesNothing(t *testing.T) {
	for _, tt := range []struct {
		name, inodes   string
		messages, size int
		path           string // of the file that has no room, or a part of it
	}{
		{"no bytes", "4096", 60, 1 << 20, ".Maildir.mailferry-"},
		{"no bytes for many small messages", "16384", 12000, 3000, ".Maildir.mailferry-"},
		{"no inodes", "512", 700, 500, ".Maildir.mailferry-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := tinyDisk(t, tt.inodes)
			if disk == "" {
				return
			}
			var b bytes.Buffer
			if _, err := mailgen.Fixed(&b, 1, tt.messages, tt.size); err != nil {
				t.Fatal(err)
			}
			o := options(t, writeFile(t, filepath.Join(t.TempDir(), "inbox"), b.String()), "careful")
			o.Dest = filepath.Join(disk, "Maildir")
			free := freeBlocks(t, disk)
			_, err := Convert(t.Context(), o)
			var p *fs.PathError
			if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &p) || !strings.HasPrefix(p.Path, filepath.Join(disk, tt.path)) {
				t.Errorf("%v", err)
			}
			if left, err := os.ReadDir(disk); err != nil || len(left) != 1 || left[0].Name() != "lost+found" {
				t.Errorf("left: %v, %v", left, err)
			}
			// Room again, and the same command does it.
			if now := freeBlocks(t, disk); now < free-64 {
				t.Errorf("%d blocks free, %d before", now, free)
			}
			if err := os.WriteFile(o.Source, b.Bytes()[:bytes.Index(b.Bytes(), []byte("\n\nFrom "))+2], 0o600); err != nil {
				t.Fatal(err)
			}
			if r := mustConvert(t, o); r.Messages != 1 {
				t.Errorf("%d messages", r.Messages)
			}
		})
	}
}

func freeBlocks(t *testing.T, dir string) int64 {
	t.Helper()
	syscall.Sync()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bfree)
}
