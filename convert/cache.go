package convert

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The page cache belongs to the live server: what it had not read, and we
// alone have, is given back.

// cacheBlock is the unit in which that is told, in bytes.
const cacheBlock = 1 << 20

// cached remembers which blocks of a file were in the page cache.
type cached struct {
	file   *os.File
	blocks []bool // that were, even in part; nil: nothing is known or to be done
}

// cacheOf looks before the file is read. Under locks it does not: every
// millisecond counts.
func (r *round) cacheOf(f *os.File) *cached {
	c := &cached{file: f}
	info, err := f.Stat()
	if r.held || err != nil {
		return c
	}
	for at := int64(0); at < info.Size(); at += cacheBlock {
		pages, err := cachestat(int(f.Fd()), at, cacheBlock)
		if err != nil { // before Linux 6.5
			c.blocks = nil
			return c
		}
		c.blocks = append(c.blocks, pages > 0)
	}
	return c
}

// restore drops the other blocks.
func (c *cached) restore() {
	for i, was := range c.blocks {
		if !was {
			unix.Fadvise(int(c.file.Fd()), int64(i)*cacheBlock, cacheBlock, unix.FADV_DONTNEED) // advice only
		}
	}
}

// sysCachestat has one number on all architectures (Linux 6.5).
const sysCachestat = 451

// cachestat counts the pages of a range that are in the page cache.
func cachestat(fd int, offset, length int64) (pages uint64, err error) {
	asked := [2]uint64{uint64(offset), uint64(length)}
	var told [5]uint64 // cached, dirty, under writeback, evicted, recently evicted
	_, _, errno := unix.Syscall6(sysCachestat, uintptr(fd), uintptr(unsafe.Pointer(&asked)), uintptr(unsafe.Pointer(&told)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return told[0], nil
}
