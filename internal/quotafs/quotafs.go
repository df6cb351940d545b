// Package quotafs gives users a disk quota where the kernel has none, for
// tests: a directory mounted again through FUSE, in which a write of a user
// beyond his limit fails with EDQUOT. As on a disk, the files of a user are
// charged to him whoever writes, and root may exceed every limit
// (capabilities(7), CAP_SYS_RESOURCE). Root alone can mount it.
//
// It charges sizes, not blocks, and no inodes. The filesystem behind it must
// not be changed directly while it is mounted; flushing is the kernel's
// business, and syncfs(2) does nothing.
package quotafs

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted filesystem with quota.
type FS struct {
	server *fuse.Server

	mu    sync.Mutex // of what follows, and across each change of a size
	limit map[uint32]int64
	used  map[uint32]int64
}

// Mount shows the directory behind at the directory dir, with nobody limited.
// What is there already is charged.
func Mount(behind, dir string) (*FS, error) {
	q := &FS{limit: map[uint32]int64{}, used: map[uint32]int64{}}
	if err := q.count(behind); err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(behind, &st); err != nil {
		return nil, fmt.Errorf("stat %q: %w", behind, err)
	}
	root := &fusefs.LoopbackRoot{Path: behind, Dev: st.Dev}
	root.NewNode = func(root *fusefs.LoopbackRoot, _ *fusefs.Inode, _ string, _ *syscall.Stat_t) fusefs.InodeEmbedder {
		return &node{fusefs.LoopbackNode{RootData: root}, q}
	}
	top := root.NewNode(root, nil, "", &st)
	root.RootNode = top
	cached := time.Hour // nobody else changes anything
	server, err := fusefs.Mount(dir, top, &fusefs.Options{
		EntryTimeout: &cached, AttrTimeout: &cached,
		MountOptions: fuse.MountOptions{
			DirectMountStrict: true, AllowOther: true, Name: "quotafs", FsName: behind,
			Options: []string{"default_permissions"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("mounting %q: %w", dir, err)
	}
	q.server = server
	return q, nil
}

// Close unmounts it; an open file there is an error.
func (q *FS) Close() error { return q.server.Unmount() }

// Limit sets how many bytes a user may have.
func (q *FS) Limit(uid int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit[uint32(uid)] = bytes
}

// Used returns how many bytes a user has.
func (q *FS) Used(uid int) int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used[uint32(uid)]
}

// count charges all that is below a directory.
func (q *FS) count(behind string) error {
	return filepath.WalkDir(behind, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			q.used[info.Sys().(*syscall.Stat_t).Uid] += info.Size()
		}
		return err
	})
}

// room is how much of some bytes a caller may add to what a user has.
func (q *FS) room(caller, owner uint32, bytes int64) int64 {
	limit, limited := q.limit[owner]
	if caller == 0 || !limited {
		return bytes
	}
	return max(0, min(bytes, limit-q.used[owner]))
}
