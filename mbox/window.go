package mbox

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrShrunk is returned when a file ends before the size that it had at the
// start: somebody cut it meanwhile. Scan it again.
var ErrShrunk = errors.New("the mailbox became shorter while it was read")

// windowSize bounds what is held of a file. A message that fits is written
// from memory; a longer one is read again. 1 MiB holds nearly every message
// and lets 64 users be in flight below 256 MiB.
const windowSize = 1 << 20

// lookBehind is how many bytes before an offset a window keeps: enough to see
// an empty line.
const lookBehind = 4

// window is a sliding view of a file.
type window struct {
	r    io.ReaderAt
	size int64
	keep int64  // the window does not slide past it, if it can help it
	off  int64  // where in the file data begins
	data []byte // len is what is valid, cap the most
	err  error  // the first failure; sticky

	peeked []byte
}

// spare holds windows of full size that no scan needs any more: a tree has
// thousands of mailboxes, and as many megabytes would wait for the collector.
var spare sync.Pool

func newWindow(r io.ReaderAt, size int64, capacity int) *window {
	if capacity == windowSize && size+lookBehind >= windowSize {
		if data, ok := spare.Get().(*[]byte); ok {
			return &window{r: r, size: size, data: *data}
		}
	}
	return &window{r: r, size: size, data: make([]byte, 0, min(int64(capacity), size+lookBehind))}
}

// release gives the window's memory back; nothing that it held may be used
// afterwards.
func (w *window) release() {
	if cap(w.data) == windowSize {
		data := w.data[:0]
		w.data = nil
		spare.Put(&data)
	}
}

// from returns what the window holds from off on: at least n bytes, unless the
// file ends before. It is valid until the next call. n and lookBehind must fit
// into the capacity.
func (w *window) from(off int64, n int) []byte {
	if off >= w.off && off <= w.end() && (w.end()-off >= int64(n) || w.end() == w.size) {
		return w.data[off-w.off:]
	}
	if off >= w.size || w.err != nil {
		return nil
	}
	w.slide(off, n)
	if w.err != nil || off > w.end() {
		return nil
	}
	return w.data[off-w.off:]
}

// before returns up to lookBehind bytes that stand before off, where from(off)
// was the last call; nothing if that failed.
func (w *window) before(off int64) []byte {
	i := off - w.off
	if w.err != nil || i > int64(len(w.data)) {
		return nil
	}
	return w.data[max(0, i-lookBehind):i]
}

func (w *window) end() int64 { return w.off + int64(len(w.data)) }

// slide moves the window so that it begins at keep, or else close to off, and
// fills it.
func (w *window) slide(off int64, n int) {
	n = int(min(int64(n), w.size-off))
	start := max(0, off-lookBehind)
	if w.keep <= start && off+int64(n)-w.keep <= int64(cap(w.data)) {
		start = max(0, w.keep-lookBehind)
		if off+int64(n)-start > int64(cap(w.data)) {
			start = w.keep
		}
	}
	held := 0
	if start >= w.off && start < w.end() {
		held = copy(w.data[:cap(w.data)], w.data[start-w.off:])
	}
	w.off, w.data = start, w.data[:held]
	want := min(int64(cap(w.data)), w.size-start)
	if int64(held) >= want {
		return
	}
	got, err := w.r.ReadAt(w.data[held:want], start+int64(held))
	w.data = w.data[:held+got]
	if int64(held+got) < want {
		w.fail(err, w.end())
	}
}

// peek returns up to n bytes at off without moving the window; fewer only at
// the end of the file. It is valid until the next call.
func (w *window) peek(off int64, n int) []byte {
	n = int(min(int64(n), max(0, w.size-off)))
	if off >= w.off && off+int64(n) <= w.end() {
		return w.data[off-w.off:][:n]
	}
	if w.err != nil {
		return nil
	}
	if cap(w.peeked) < n {
		w.peeked = make([]byte, n, max(n, lookAhead))
	}
	got, err := w.r.ReadAt(w.peeked[:n], off)
	if got < n {
		w.fail(err, off+int64(got))
	}
	return w.peeked[:got]
}

// fail keeps the first error; a file that ends early has been cut.
func (w *window) fail(err error, end int64) {
	if err == nil || err == io.EOF {
		err = fmt.Errorf("%w: %d bytes at the start, %d now", ErrShrunk, w.size, end)
	}
	w.err = err
}
