package convert

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"mailferry/internal/safefs"
)

// scratchRoom deals the free room of the state directory's filesystem out to the
// rehearsals that are at work at one time.
type scratchRoom struct {
	state string
	floor int64 // bytes that must stay free

	mu    sync.Mutex
	freed *sync.Cond
	taken map[*member]need
}

// take waits until there is room for the mail of a user, and returns the device
// that it is on. It fails if there is none though nobody else is at work.
func (s *scratchRoom) take(m *member, in *Inspector, mailboxes []MailboxPlan) (dev uint64, err error) {
	want := rehearsalNeed(mailboxes)
	dir, err := safefs.OpenDir(s.state)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	l := &look{in: in, a: m.account, i: &Inspection{User: m.Name}}
	if l.quota(dir, want); l.i.Refused {
		f := l.i.reason()
		return 0, &Unfit{dir.Path(), f.Code, f.Text}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		left, err := dir.Statfs()
		if err != nil {
			return 0, err
		}
		all := want
		for _, other := range s.taken { // of which some is in use already
			all.bytes = plus(all.bytes, other.bytes)
			all.inodes += other.inodes
		}
		if plus(all.bytes, s.floor) <= left.Bytes && all.inodes <= left.Inodes {
			s.taken[m] = want
			return left.Dev, nil
		}
		if len(s.taken) == 0 {
			return 0, tooSmall(dir, want, left, s.floor)
		}
		s.freed.Wait()
	}
}

func tooSmall(dir *safefs.Dir, want need, left safefs.Room, floor int64) error {
	if plus(want.bytes, floor) > left.Bytes {
		return &Unfit{dir.Path(), "space", fmt.Sprintf("has %d bytes free; a rehearsal needs %d, and %d must stay free", left.Bytes, want.bytes, floor)}
	}
	return &Unfit{dir.Path(), "inodes", fmt.Sprintf("has %d inodes free; a rehearsal needs %d", left.Inodes, want.inodes)}
}

// free gives the room of a user back.
func (s *scratchRoom) free(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, m)
	s.freed.Broadcast()
}

// rehearsalNeed is what Maildir and side-cars take, and the largest mailbox
// beside them.
func rehearsalNeed(mailboxes []MailboxPlan) need {
	const (
		fromLine = 128 // bytes of a side-car for a message, about
		dirs     = 8   // and files of the scratch directory itself
	)
	n := needOf(mailboxes)
	largest := int64(0)
	for _, m := range mailboxes {
		n.bytes = plus(n.bytes, fromLine*int64(m.Messages))
		largest = max(largest, plus(m.Bytes, extraPerMessage*int64(m.Messages)))
	}
	n.bytes = plus(n.bytes, plus(largest, dirs*bytesPerMessage))
	n.inodes += int64(len(mailboxes)) + dirs
	return n
}

// diskUse is what a directory and all below it take, in bytes.
func diskUse(dir *safefs.Dir) (bytes int64, err error) {
	info, err := dir.Stat()
	if err != nil {
		return 0, err
	}
	bytes = blocksOf(info.Sys())
	err = dir.Names(func(name string) error {
		info, err := dir.Lstat(name)
		if err != nil || !info.IsDir() {
			if err == nil {
				bytes += blocksOf(info.Sys())
			}
			return err
		}
		sub, err := dir.Sub(name)
		if err != nil {
			return err
		}
		below, err := diskUse(sub)
		bytes += below
		return errors.Join(err, sub.Close())
	})
	return bytes, err
}

// blocksOf is what a file takes, in bytes: st_blocks counts 512 (stat(2)).
func blocksOf(sys any) int64 { return sys.(*syscall.Stat_t).Blocks * 512 }
