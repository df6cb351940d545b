package convert

import (
	"context"
	"hash/maphash"
	"io"
	"os"
	"time"

	"mailferry/maildir"
	"mailferry/mbox"
)

// recall is what the rounds of one process remember of a staging Maildir, so
// that the last of them, under the locks, need not find it out again. None of it
// is written down, and none of it is believed by itself:
//
//   - that the mbox begins with the bytes that a round read tells a hash of them,
//     with a key that this process alone has (mark);
//   - that a folder is as it was proved tell the ctimes of its directory and of
//     its lists (proof). Staging is the user's own, in a directory that nobody
//     else may enter: who could alter a file there without those is he alone,
//     within the few seconds since it was read back, and to his own harm.
type recall struct {
	marks  map[string]*mark   // by path of the mbox
	proofs map[string]*proof  // by directory of the folder
	seen   map[string]glimpse // by path of the mbox
}

// glimpse is how a round saw an mbox.
type glimpse struct {
	stat
	settled bool // a change behind it would have other times
}

func newRecall() *recall {
	return &recall{marks: map[string]*mark{}, proofs: map[string]*proof{}, seen: map[string]glimpse{}}
}

// see notes how an mbox was when a round read it.
func (r *recall) see(path string, now stat, settled bool) {
	if r != nil {
		r.seen[path] = glimpse{now, settled}
	}
}

// covers reports whether an mbox is what a round of this process saw, which
// knows that the clock had ticked on since the last change, where the state
// alone has to allow for a clock that ticks once a second.
func (r *recall) covers(path string, was *mailboxState, now stat) bool {
	return r != nil && was.Stat == now && r.seen[path] == glimpse{now, true}
}

// hashKey makes the hashes of this process unlike those of any other.
var hashKey = maphash.MakeSeed()

// prefix hashes the beginning of an mbox.
type prefix struct {
	hash maphash.Hash
	size int64 // hashed so far, in bytes
}

func newPrefix() *prefix {
	p := &prefix{}
	p.hash.SetSeed(hashKey)
	return p
}

// hashedReader hashes the beginning of a file while it is read, most of it in
// order and some of it twice.
type hashedReader struct {
	*os.File
	*prefix
}

func (r hashedReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := r.File.ReadAt(b, off)
	if end := off + int64(n); off <= r.size && r.size < end {
		r.hash.Write(b[r.size-off : n])
		r.size = end
	}
	return n, err
}

// hashBuffer is as much as stays in the cache of a processor, in bytes.
const hashBuffer = 256 << 10

// upTo hashes on to a size. The file must not end before.
func (p *prefix) upTo(ctx context.Context, f *os.File, size int64, alive func() error) error {
	if p.size >= size {
		return nil
	}
	buffer := make([]byte, min(hashBuffer, size-p.size))
	for p.size < size {
		n, err := f.ReadAt(buffer[:min(int64(len(buffer)), size-p.size)], p.size)
		p.hash.Write(buffer[:n])
		p.size += int64(n)
		if n == 0 && err == io.EOF {
			return mbox.ErrShrunk
		}
		if err != nil && err != io.EOF {
			return err
		}
		if err := alive(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// mark is where a round can be taken up again at an mbox that begins as it did.
type mark struct {
	id   fileID
	size int64  // of the mbox
	sum  uint64 // of all of its bytes
	reach
}

// reach is how far a round has come at a mailbox.
type reach struct {
	scan        mbox.Mark
	manifest    int64 // of its bytes
	uids        maildir.UIDListPlace
	table       maildir.KeywordTable
	entries     int // in the lists
	messages    int
	bytes       int64
	quarantined int
}

// resumes tells whether an mbox begins with what the mark was made from, and
// returns the hash to go on with.
func (m *mark) resumes(ctx context.Context, f *os.File, now stat, alive func() error) (*prefix, error) {
	if m.id != (fileID{now.Dev, now.Ino}) || !m.scan.Fits(now.Size) {
		return nil, nil
	}
	p := newPrefix()
	if err := p.upTo(ctx, f, m.size, alive); err != nil {
		return nil, err
	}
	if p.hash.Sum64() != m.sum {
		return nil, nil
	}
	return p, nil
}

// proof is a folder as it was when readback had proved it.
type proof struct {
	state *mailboxState
	files int
	footprint
}

// look is what tells whether a folder was altered since.
type footprint struct {
	cur   [2]int64
	lists [4]maildir.FileID
}

func footprintOf(folder *maildir.Folder) (l footprint, err error) {
	if l.cur, err = folder.Stamp(); err != nil {
		return l, err
	}
	for i, name := range [len(l.lists)]string{mailboxName, manifestName, maildir.UIDListName, maildir.KeywordsName} {
		if l.lists[i], err = folder.ListID(name); err != nil {
			return l, err
		}
	}
	return l, nil
}

// prove notes that a folder is what its lists say.
func (r *recall) prove(dir string, folder *maildir.Folder, state *mailboxState, files int) error {
	if r == nil {
		return nil
	}
	l, err := footprintOf(folder)
	if err == nil {
		r.proofs[dir] = &proof{state, files, l}
	}
	return err
}

// proved returns the proof of a folder that is as it was; else nil.
func (r *recall) proved(dir string, folder *maildir.Folder, settings string) (*proof, error) {
	if r == nil || r.proofs[dir] == nil {
		return nil, nil
	}
	now, err := footprintOf(folder)
	if p := r.proofs[dir]; err == nil && now == p.footprint && p.state.Settings == settings {
		return p, nil
	}
	delete(r.proofs, dir)
	return nil, err
}

// settledAt is from when on another change of a file would give it other times.
func (s stat) settledAt() time.Time { return stamp{cur: [2]int64{s.Mtime, s.Ctime}}.settledAt() }
