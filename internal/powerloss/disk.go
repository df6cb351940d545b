// Package powerloss tells what a disk holds after a loss of power, for tests:
// a disk in memory that records what is written to it and when it was told to
// flush, and can be put into each state in which a real one might be left.
//
// A file of a FUSE filesystem lies under a loop device; the kernel's flushes
// come as its fsync. It is read and written directly, so that no page cache
// stands between the two. What a device may do, as far as block layer and
// filesystems rely on it: a write that it was not told to flush is there
// later or is not, whatever the order of writes; a flushed one is. Only root
// can make a disk.
//
// A tape that was recorded once gives any number of states:
//
//	disk, err := powerloss.New(powerloss.Filesystems[0], dir)
//	...                           // put something on it; Unmount
//	disk.Record()
//	err = disk.Mount()
//	...                           // the workload; disk.Mark what it has promised
//	err = disk.Unmount()
//	tape := disk.Stop()
//	for _, cut := range tape.Cuts(1000, seed, always) {
//		err = disk.Lose(tape, cut)
//		err = disk.Mount()        // as after a reboot
//		...                       // examine; tape.Marks(cut) was promised
//		err = disk.Unmount()
//	}
package powerloss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Filesystem is what a disk is formatted with.
type Filesystem struct {
	Name    string
	Size    int64    // of the disk, bytes
	Make    []string // mkfs and its flags
	Options string   // of mount(8)
	Grain   int      // of a torn write, bytes: what the filesystem takes as written or not
}

// Filesystems are those that mail servers lie on. They write blocks of metadata, and
// ext4 the checksummed head of its journal, that they can't repair if half of one
// is written: they demand of the disk that it is not.
var Filesystems = []Filesystem{
	{"ext4", 64 << 20, []string{"mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"}, "", 4096},
	{"xfs", 320 << 20, []string{"mkfs.xfs", "-q", "-f", "-K"}, "", 4096},
	{"btrfs", 160 << 20, []string{"mkfs.btrfs", "-q", "-f", "-K"}, "nodiscard", 4096},
}

// Disk is one, and the place where it is mounted.
type Disk struct {
	Filesystem
	Dir string // where it is mounted, if it is

	shared string // what has been made a mount of its own; "" if not yet
	server *fuse.Server
	guards *exec.Cmd
	loop   *os.File
	device string

	mu   sync.Mutex // guards what follows
	held *image
	tape *Tape // nil: nothing is recorded
}

// New formats a disk. It needs the directory for itself: the disk is going to be
// mounted below it.
func New(f Filesystem, dir string) (made *Disk, err error) {
	d := &Disk{Filesystem: f, Dir: filepath.Join(dir, "mnt"), held: over(nil)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := share(dir); err != nil {
		return nil, err
	}
	d.shared = dir
	behind := filepath.Join(dir, "disk")
	if err := errors.Join(os.Mkdir(behind, 0o700), os.Mkdir(d.Dir, 0o755)); err != nil {
		return nil, err
	}
	if err := d.serve(behind); err != nil {
		return nil, err
	}
	if err := d.guard(behind); err != nil {
		return nil, err
	}
	if err := d.attach(filepath.Join(behind, fileName)); err != nil {
		return nil, err
	}
	mkfs := exec.Command(f.Make[0], append(f.Make[1:], d.device)...)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", mkfs, err, out)
	}
	return d, nil
}

// share makes a directory a mount whose changes reach all copies of it: programs
// with mounts of their own get one when they start, and our disk would be mounted
// there for as long as they run.
func share(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s on itself: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		return errors.Join(fmt.Errorf("sharing %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

// Mount mounts the disk, as after a start of the machine.
func (d *Disk) Mount() error {
	if err := unix.Mount(d.device, d.Dir, d.Name, 0, d.Options); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", d.Name, d.device, err)
	}
	return nil
}

// Unmount unmounts it; an open file there is an error.
func (d *Disk) Unmount() error {
	last := time.Now().Add(patience)
	for {
		err := unix.Unmount(d.Dir, 0)
		if err == nil {
			return d.free()
		}
		if err != unix.EBUSY || time.Now().After(last) { // who walks over /proc has hold of it for a moment
			return fmt.Errorf("unmounting %s: %w", d.Dir, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// free waits until nobody has the disk mounted: a program that wants to know nothing
// of our mounts (MS_PRIVATE) keeps its copy of ours for as long as it runs.
func (d *Disk) free() error {
	last := time.Now().Add(patience)
	for {
		fd, err := unix.Open(d.device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if time.Now().After(last) {
			return fmt.Errorf("%s is mounted elsewhere, too: %w", d.device, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// patience is how long others may keep what we want to let go of.
const patience = time.Minute

// Close takes everything away, mounted or not, in use or not.
func (d *Disk) Close() (err error) {
	if d.shared != "" {
		defer func() {
			if uerr := unix.Unmount(d.shared, unix.MNT_DETACH); uerr != nil {
				err = errors.Join(err, fmt.Errorf("unmounting %s: %w", d.shared, uerr))
			}
			d.shared = ""
		}()
	}
	if uerr := unix.Unmount(d.Dir, unix.MNT_DETACH); uerr != nil && uerr != unix.EINVAL && uerr != unix.ENOENT {
		err = fmt.Errorf("unmounting %s: %w", d.Dir, uerr)
	}
	if d.loop != nil {
		err = errors.Join(err, unix.IoctlSetInt(int(d.loop.Fd()), unix.LOOP_CLR_FD, 0), d.loop.Close())
		d.loop = nil
	}
	if d.server == nil {
		return err
	}
	last := time.Now().Add(patience)
	for {
		uerr := d.server.Unmount() // whoever had the device open last lets go of the file a little later
		if uerr == nil || time.Now().After(last) {
			return errors.Join(err, uerr, d.dismiss())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Record begins to record.
func (d *Disk) Record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tape = &Tape{from: d.held}
	d.held = over(d.held)
}

// Mark puts a mark between what was written before and what will be.
func (d *Disk) Mark(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(Event{Mark: text})
}

// Stop ends the recording, and gives the tape.
func (d *Disk) Stop() *Tape {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.tape
	d.tape = nil
	return t
}

// Lose gives the disk, which is not mounted, the content that it has after a
// cut. The tape is left as it is.
func (d *Disk) Lose(t *Tape, c Cut) error {
	held := over(t.at(c, d.Grain))
	if err := unix.IoctlSetInt(int(d.loop.Fd()), unix.BLKFLSBUF, 0); err != nil { // the device has a cache
		return fmt.Errorf("flushing %s: %w", d.device, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = held
	return nil
}

// note records; the lock is held.
func (d *Disk) note(e Event) {
	if d.tape != nil {
		d.tape.Events = append(d.tape.Events, e)
	}
}

// fileName is that of the only file.
const fileName = "disk"

// serve makes the file that lies under the loop device.
func (d *Disk) serve(dir string) error {
	ever := 24 * time.Hour // nobody else changes anything
	root := &fusefs.Inode{}
	server, err := fusefs.Mount(dir, root, &fusefs.Options{
		EntryTimeout: &ever, AttrTimeout: &ever,
		OnAdd: func(ctx context.Context) {
			root.AddChild(fileName, root.NewPersistentInode(ctx, &file{disk: d}, fusefs.StableAttr{Mode: syscall.S_IFREG}), true)
		},
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, Name: "powerloss", FsName: d.Name, MaxWrite: 1 << 20, DisableXAttrs: true,
		},
	})
	if err != nil {
		return fmt.Errorf("mounting %q: %w", dir, err)
	}
	d.server = server
	return nil
}

// file is the backing file of the loop device.
type file struct {
	fusefs.Inode
	disk *Disk
}

var _ = []any{fusefs.NodeOpener(&file{}), fusefs.NodeGetattrer(&file{}), fusefs.NodeReader(&file{}), fusefs.NodeWriter(&file{}), fusefs.NodeFsyncer(&file{})}

func (f *file) Open(context.Context, uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (f *file) Getattr(_ context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Nlink, out.Size = syscall.S_IFREG|0o600, 1, uint64(f.disk.Size)
	return 0
}

func (f *file) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	dest = dest[:max(0, min(int64(len(dest)), f.disk.Size-at))]
	f.disk.held.read(dest, at)
	return fuse.ReadResultData(dest), 0
}

func (f *file) Write(_ context.Context, _ fusefs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	data = bytes.Clone(data) // the buffer is used again
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.held.write(data, at)
	f.disk.note(Event{At: at, Data: data})
	return uint32(len(data)), 0
}

// Fsync is the flush of the device.
func (f *file) Fsync(context.Context, fusefs.FileHandle, uint32) syscall.Errno {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.note(Event{})
	return 0
}
