package quotafs

import (
	"context"
	"path/filepath"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or directory; what is not here is as it is behind.
type node struct {
	fusefs.LoopbackNode
	quota *FS
}

func (n *node) path(name string) string {
	return filepath.Join(n.RootData.Path, n.Path(n.Root()), name)
}

// Create makes a file and opens it.
func (n *node) Create(ctx context.Context, name string, flags uint32, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	inode, handle, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	// The owner was set after what out describes.
	var st syscall.Stat_t
	if err := syscall.Lstat(n.path(name), &st); err != nil {
		return nil, nil, 0, fusefs.ToErrno(err)
	}
	out.FromStat(&st)
	return inode, n.quota.wrap(handle), fuseFlags, 0
}

// Open opens a file.
func (n *node) Open(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	handle, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_TRUNC)
	if errno != 0 {
		return nil, 0, errno
	}
	return n.quota.wrap(handle), fuseFlags, 0
}

// Unlink gives back what a file's last name held.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	n.quota.mu.Lock()
	defer n.quota.mu.Unlock()
	gone := n.last(name)
	errno := n.LoopbackNode.Unlink(ctx, name)
	if errno == 0 {
		n.quota.used[gone.Uid] -= gone.Size
	}
	return errno
}

// last describes a file that has no other name; else it is empty.
func (n *node) last(name string) (st syscall.Stat_t) {
	if err := syscall.Lstat(n.path(name), &st); err != nil || st.Nlink != 1 || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return syscall.Stat_t{}
	}
	return st
}

// Rename obeys all flags, which the loopback filesystem does not.
func (n *node) Rename(_ context.Context, name string, newParent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*node)
	if !ok {
		return syscall.EXDEV
	}
	n.quota.mu.Lock()
	defer n.quota.mu.Unlock()
	gone := to.last(newName)
	err := unix.Renameat2(unix.AT_FDCWD, n.path(name), unix.AT_FDCWD, to.path(newName), uint(flags))
	if err == nil && flags&unix.RENAME_EXCHANGE == 0 {
		n.quota.used[gone.Uid] -= gone.Size
	}
	return fusefs.ToErrno(err)
}

// Setattr changes size and owner among others.
func (n *node) Setattr(ctx context.Context, handle fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.quota.mu.Lock()
	defer n.quota.mu.Unlock()
	var before fuse.AttrOut
	if errno := n.Getattr(ctx, handle, &before); errno != 0 {
		return errno
	}
	errno := n.LoopbackNode.Setattr(ctx, handle, in, out)
	if errno == 0 && before.Mode&syscall.S_IFMT == syscall.S_IFREG {
		n.quota.used[before.Uid] -= int64(before.Size)
		n.quota.used[out.Uid] += int64(out.Size)
	}
	return errno
}

// loopback is what an open file of the filesystem behind can do.
type loopback interface {
	fusefs.FileReader
	fusefs.FileWriter
	fusefs.FileGetattrer
	fusefs.FileSetattrer
	fusefs.FileFlusher
	fusefs.FileFsyncer
	fusefs.FileReleaser
	fusefs.FileLseeker
}

// file is an open file.
type file struct {
	loopback
	quota *FS
}

func (q *FS) wrap(handle fusefs.FileHandle) fusefs.FileHandle {
	return &file{handle.(loopback), q}
}

// Write writes as much as the owner of the file may still have. The kernel
// sends each write at once, with the uid of whom the writing thread is.
func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	f.quota.mu.Lock()
	defer f.quota.mu.Unlock()
	var attr fuse.AttrOut
	if errno := f.Getattr(ctx, &attr); errno != 0 {
		return 0, errno
	}
	caller, ok := fuse.FromContext(ctx)
	if !ok {
		return 0, syscall.EIO
	}
	more := max(0, off+int64(len(data))-int64(attr.Size))
	if lack := more - f.quota.room(caller.Uid, attr.Uid, more); lack > 0 {
		if lack >= int64(len(data)) {
			return 0, syscall.EDQUOT
		}
		data = data[:int64(len(data))-lack]
	}
	written, errno := f.loopback.Write(ctx, data, off)
	if end := off + int64(written); errno == 0 && end > int64(attr.Size) {
		f.quota.used[attr.Uid] += end - int64(attr.Size)
	}
	return written, errno
}
