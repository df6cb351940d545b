package convert

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/maildir"
	"mailferry/mbox"
)

// box is the locked mbox.
func (b *bringing) box() *os.File { return b.c.locks[0].File }

// measure finds out what is going to be appended, and to what.
func (b *bringing) measure() error {
	info, err := b.box().Stat()
	if err != nil {
		return err
	}
	r := &b.record
	r.BoxIno, r.BoxBorn, r.Written, r.From = idOf(info).ino, bornOf(b.box()), statOf(info).Mtime, info.Size()
	if r.From > 0 {
		if begins(b.box()) {
			return &Busy{r.Live}
		}
		head := make([]byte, len("From "))
		if _, err := b.box().ReadAt(head, 0); err != nil && err != io.EOF {
			return err
		}
		if string(head) != "From " {
			return &Unfit{r.Live, "stray-format", "does not begin as an mbox"}
		}
		lfs, err := b.Scan.Profile.MissingLFs(b.box(), r.From)
		if err != nil {
			return err
		}
		r.LFs = uint8(lfs)
	}
	sum := sha256.New()
	if r.Bytes, err = b.writeTo(sum); err != nil {
		return err
	}
	r.Digest = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// writeTo writes what is to be appended: the same each time, as long as the message is.
func (b *bringing) writeTo(out io.Writer) (n int64, err error) {
	b.content.zeros = 0 // of one reading after the other
	to := &counted{to: out}
	if _, err := io.WriteString(to, strings.Repeat("\n", int(b.record.LFs))); err != nil {
		return to.n, err
	}
	w := mbox.NewWriter(to, mbox.WriterOptions{Profile: b.Scan.Profile, Zone: b.Scan.Zone})
	done, err := w.WriteMessage(mbox.Outgoing{
		Sender: returnPath(b.source), Date: time.Unix(b.record.Date, 0), State: b.state(), Content: b.content, Size: b.record.Size,
	})
	if err == nil {
		if err = w.Close(); err == nil {
			b.altered = !done.Exact()
		}
	}
	if err != nil && b.content.err != nil { // of which the other may be a consequence
		err = b.content.err
	}
	return to.n, err
}

// state is that of the message, by the name that it had when it was found: none in
// new, where an agent has put it.
func (b *bringing) state() *mbox.State {
	if b.record.Sub != "cur" {
		return nil
	}
	parsed, _ := maildir.ParseName(b.record.Name)
	return &mbox.State{Flags: mboxFlags(backMessage{flags: parsed.Flags})}
}

// counted is a Writer that counts.
type counted struct {
	to io.Writer
	n  int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}

// append appends to the mbox, if it is still what was locked and measured, durably.
// Who writes without a lock at the same moment finds nothing of his overwritten.
func (b *bringing) append() (n int64, err error) {
	r := b.record
	if err := b.stillBox(r.From); err != nil {
		return 0, err
	}
	if _, err := unix.FcntlInt(b.box().Fd(), unix.F_SETFL, unix.O_APPEND|unix.O_NOATIME); err != nil {
		return 0, err
	}
	if n, err = b.writeTo(b.box()); err != nil {
		return n, err
	}
	if is, err := b.holdsAll(); err != nil || !is {
		return n, errors.Join(err, &Busy{b.taken.Path})
	}
	if err := b.box().Sync(); err != nil {
		return n, err
	}
	return n, b.stillBox(r.From + r.Bytes)
}

// stillBox demands that gate and locks hold, and that the mbox ends where it did.
func (b *bringing) stillBox(size int64) error {
	if err := b.c.locks[0].Check(); err != nil {
		return err
	}
	if b.c.gate != nil {
		if err := b.c.gate.Check(); err != nil {
			return err
		}
	}
	info, err := b.box().Stat()
	if err == nil && info.Size() != size {
		err = &Busy{b.record.Live}
	}
	return err
}

// holdsAll reports whether the mbox holds the bytes at their place.
func (b *bringing) holdsAll() (bool, error) {
	sum := sha256.New()
	n, err := io.Copy(sum, io.NewSectionReader(watched{b.box(), b.check}, b.record.From, b.record.Bytes))
	return n == b.record.Bytes && hex.EncodeToString(sum.Sum(nil)) == b.record.Digest, err
}

// undo cuts off the n bytes that were appended of a message, and tells the next
// sweep so before it does. If somebody has written behind them, what was written
// stays, and the record.
func (b *bringing) undo(n int64) error {
	if n == 0 {
		return b.abandon()
	}
	b.record.Phase = journal.BackCutting
	_ = journal.WriteSweepBack(b.State, b.record) // a full disk must not keep half a message in an mbox
	if err := b.c.asUser(func() error { return b.cut(n) }); err != nil {
		return fmt.Errorf("%q: what was begun at offset %d is left for the next sweep: %w", b.record.Live, b.record.From, err)
	}
	return b.abandon()
}

func (b *bringing) cut(n int64) error {
	if err := b.c.locks[0].Check(); err != nil {
		return err // another may be writing
	}
	info, err := b.box().Stat()
	if err != nil {
		return err
	}
	if info.Size() != b.record.From+n {
		return &Busy{b.record.Live}
	}
	for {
		if err := b.box().Truncate(b.record.From); !errors.Is(err, unix.EINTR) {
			return errors.Join(err, b.box().Sync())
		}
	}
}
