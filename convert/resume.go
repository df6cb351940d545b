package convert

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"mailferry/mbox"
)

// begin begins to read an mbox, which it closes if there is an error: behind the
// mark that an earlier round left, if what lies before is as it was in mbox and
// staging, or else at its start.
func (r *round) begin(ctx context.Context, src source, file *os.File, anew bool) (*input, error) {
	if r.recall == nil {
		return scanBy(file, r.watch(ctx, file), r.Scan)
	}
	leaveAtime(file)
	m := r.recall.marks[src.path]
	delete(r.recall.marks, src.path)
	dir, err := r.Folders.Dir(src.parts)
	if err != nil || anew || m == nil || r.trusted[dir] == nil {
		return r.fromStart(ctx, file)
	}
	start := time.Now()
	info, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	seen, err := m.resumes(ctx, file, statOf(info), r.show)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if seen == nil {
		return r.fromStart(ctx, file)
	}
	s, t, err := mbox.Resume(r.watch(ctx, hashedReader{file, seen}), info.Size(), r.Scan, &m.scan)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	r.resumed[dir] = m
	return &input{File: file, Scanner: s, Tracker: t, before: info, opened: start, hash: seen, from: m}, nil
}

// watched is a file of which the reading ends with the time for it, and shows that
// the reader lives: a single message may be all of a mailbox, and a file with a hole
// costs its owner nothing.
type watched struct {
	io.ReaderAt
	check func() error
}

func (w watched) ReadAt(b []byte, off int64) (int, error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	return w.ReaderAt.ReadAt(b, off)
}

func (r *round) watch(ctx context.Context, file io.ReaderAt) io.ReaderAt {
	return watched{file, within(ctx, r.show)}
}

// within is a check that fails when a context has ended, with its cause, or show does.
func within(ctx context.Context, show func() error) func() error {
	return func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return show()
	}
}

// nowAndThen calls show as often as gate and locks have to be refreshed.
func nowAndThen(show func() error) func() error {
	shown := time.Now()
	return func() error {
		if time.Since(shown) < refreshEvery {
			return nil
		}
		shown = time.Now()
		return show()
	}
}

// fromStart reads all of an mbox, and hashes it on the way.
func (r *round) fromStart(ctx context.Context, file *os.File) (*input, error) {
	if r.held { // no round comes after it
		return scanBy(file, r.watch(ctx, file), r.Scan)
	}
	hash := newPrefix()
	in, err := scanBy(file, r.watch(ctx, hashedReader{file, hash}), r.Scan)
	if err == nil {
		in.hash = hash
	}
	return in, err
}

// settlePatience is how long a round waits, at most, to be able to tell a change
// of an mbox by its times.
const settlePatience = time.Second + 2*clockTick

// settle waits until every change of an mbox from now on gives it other times.
func (r *round) settle(ctx context.Context, file *os.File) error {
	if !r.patient {
		return nil
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if wait := time.Until(statOf(info).settledAt()); 0 < wait && wait < settlePatience {
		return pause(ctx, wait)
	}
	return nil
}

// remember leaves a mark for the next round. What was hashed is what was scanned
// only if the mbox was not written to from before its start until now: else the
// mark that this round itself began at holds on.
func (r *round) remember(ctx context.Context, src source, in *input, reached *reach) error {
	if r.recall == nil || r.held {
		return nil
	}
	before := statOf(in.before)
	if in.from != nil {
		r.recall.marks[src.path] = in.from
	}
	settled := before.settledAt().Before(in.opened)
	r.recall.see(src.path, before, settled)
	if reached == nil || !settled {
		return nil
	}
	if err := in.hash.upTo(ctx, in.File, before.Size, r.show); err != nil {
		return opened(src, err)
	}
	if in.unchanged(src.path) == nil {
		r.recall.marks[src.path] = &mark{id: idOf(in.before), size: before.Size, sum: in.hash.hash.Sum64(), reach: *reached}
	}
	return nil
}
