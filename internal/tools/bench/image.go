package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// image is a fresh ext4 filesystem in a file, mounted.
type image struct {
	file string
	dir  string // mount point
}

// mkfsOptions: nothing is left to the kernel's background threads, which would
// run into the measurement, and the blocks that fallocate reserved stay reserved.
var mkfsOptions = []string{"-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}

// newImage makes and mounts an image of so many octets and inodes whose root
// directory belongs to uid.
func newImage(scratch string, size, inodes int64, uid int) (_ *image, err error) {
	im := &image{file: filepath.Join(scratch, "image"), dir: filepath.Join(scratch, "mnt")}
	defer func() {
		if err != nil {
			im.close()
		}
	}()
	if err := os.MkdirAll(im.dir, 0o755); err != nil {
		return nil, err
	}
	if err := allocate(im.file, size); err != nil {
		return nil, err
	}
	for _, argv := range [][]string{
		append(append([]string{"mkfs.ext4"}, mkfsOptions...), "-N", fmt.Sprint(inodes), im.file),
		{"mount", "-o", "loop,noatime", im.file, im.dir},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", argv[0], err, out)
		}
	}
	// The loop device keeps it; nothing stays behind even after a kill.
	if err := os.Remove(im.file); err != nil {
		return nil, err
	}
	if err := os.Chown(im.dir, uid, uid); err != nil {
		return nil, err
	}
	// What mkfs wrote is on disk before the clock starts.
	unix.Sync()
	return im, nil
}

func allocate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("fallocate %d octets: %w", size, err)
	}
	return f.Close()
}

// written is how many octets the image's device has written since it was made:
// content, directories, inodes and journal, all that reached it.
func (im *image) written() (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(im.dir, &st); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text)) // Documentation/block/stat.rst of Linux
	if len(fields) < 7 {
		return 0, fmt.Errorf("statistics of the device: %q", text)
	}
	sectors, err := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512, err
}

// close unmounts, which frees the loop device and with it the file. It may be
// called on what newImage left half-made.
func (im *image) close() error {
	err := unix.Unmount(im.dir, 0)
	if errors.Is(err, syscall.EBUSY) { // a killed contender may still be dying
		err = unix.Unmount(im.dir, unix.MNT_DETACH)
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		err = nil // not mounted
	}
	if gone := os.Remove(im.file); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}
