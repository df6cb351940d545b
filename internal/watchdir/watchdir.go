// Package watchdir tells which names in directories were made or written to, by
// inotify(7). It knows of what this kernel does: changes that another host makes
// over NFS it does not see.
package watchdir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch is a directory that is watched.
type Watch int

// Event tells of a change.
type Event struct {
	Watch Watch
	Name  string // in the directory
	Lost  bool   // events were lost: everything may have changed; the rest is unset
}

// Watcher watches directories: one inotify instance, of which a user may have
// 128 by default (fs.inotify.max_user_instances). Its methods may be called by
// several goroutines.
type Watcher struct {
	file   *os.File
	events chan Event
	stop   chan struct{}
	closed sync.Once

	mu   sync.Mutex
	uses map[Watch]int
}

// New begins with nothing to watch. The error is EMFILE when there are too many
// instances.
func New() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &Watcher{file: os.NewFile(uintptr(fd), "inotify"), events: make(chan Event), stop: make(chan struct{}), uses: map[Watch]int{}}
	go w.read()
	return w, nil
}

const mask = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ONLYDIR

// Add watches the directory that is open as dir, which may be closed then. The
// same directory is the same Watch, and has to be removed as often as it was
// added. The error is ENOSPC when there are too many
// (fs.inotify.max_user_watches). No path is followed.
func (w *Watcher) Add(dir int) (Watch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var wd int
	err := w.control(func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(fd, fmt.Sprintf("/proc/self/fd/%d", dir), mask)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("inotify: %w", err)
	}
	w.uses[Watch(wd)]++
	return Watch(wd), nil
}

// Remove undoes an Add. Events that were on their way may still come.
func (w *Watcher) Remove(watch Watch) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.uses[watch] == 0 {
		return nil
	}
	if w.uses[watch]--; w.uses[watch] > 0 {
		return nil
	}
	delete(w.uses, watch)
	err := w.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(watch))
		return err
	})
	if errors.Is(err, unix.EINVAL) { // the directory is gone, and its watch with it
		return nil
	}
	return err
}

func (w *Watcher) control(call func(fd int) error) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = call(int(fd)) })
	return errors.Join(err, result)
}

// Events is where they come from, until Close.
func (w *Watcher) Events() <-chan Event { return w.events }

// Close ends the watch. A second Close does nothing.
func (w *Watcher) Close() (err error) {
	w.closed.Do(func() {
		close(w.stop)
		err = w.file.Close()
	})
	return err
}

// read hands over events until the instance is closed.
func (w *Watcher) read() {
	defer close(w.events)
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		if err != nil {
			return
		}
		for _, e := range parse(buffer[:n]) {
			select {
			case w.events <- e:
			case <-w.stop:
				return
			}
		}
	}
}

// parse takes events apart: wd, mask, cookie, length of the name, the name
// filled up with NUL.
func parse(b []byte) (events []Event) {
	for len(b) >= unix.SizeofInotifyEvent {
		wd, bits := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
		length := int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if length < 0 || length > len(b) {
			return append(events, Event{Lost: true})
		}
		name, _, _ := bytes.Cut(b[:length], []byte{0})
		b = b[length:]
		switch {
		case bits&unix.IN_Q_OVERFLOW != 0:
			events = append(events, Event{Lost: true})
		case bits&unix.IN_IGNORED == 0 && len(name) > 0:
			events = append(events, Event{Watch: Watch(wd), Name: string(name)})
		}
	}
	return events
}
