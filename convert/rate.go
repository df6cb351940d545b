package convert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailferry/internal/safefs"
	"mailferry/mbox"
)

// Seconds is a length of time.
type Seconds float64

// seconds leaves out what no estimate knows.
func seconds(d time.Duration) Seconds { return Seconds(d.Round(time.Microsecond).Seconds()) }

// Rate is how fast this machine is at what a migration does, measured on
// scratch mailboxes, or by rehearsals if there were any. It knows nothing of
// other load in the night of the run, nor of filesystems that are slower than the
// one it was measured on.
type Rate struct {
	Where      string  `json:"where"`                   // directory in which it was measured
	PerMessage Seconds `json:"seconds_per_message"`     // to write it, durably
	PerByte    Seconds `json:"seconds_per_byte"`        // likewise
	Digest     Seconds `json:"digest_seconds_per_byte"` // to read an mbox and compute digests
	Commit     Seconds `json:"commit_seconds"`          // to replace one small file, durably
	Rehearsed  int     `json:"rehearsed_users"`         // whose rehearsals the rate is of; 0: of scratch mailboxes
	Problem    string  `json:"problem,omitempty"`       // why it could not be measured: all the rest is 0
}

// A flip replaces about so many small files and directory entries, each
// durably: semaphore and mirror twice, lists, the Maildir's name, the mbox's.
const commitsPerFlip = 8

// Write is how long it takes to write messages of so many bytes, and to read
// them back, once; by rehearsals, to read the mailboxes, too.
func (r Rate) Write(messages int, bytes int64) Seconds {
	perByte := r.PerByte
	if r.Rehearsed == 0 {
		perByte += 2 * r.Digest
	}
	return Seconds(messages)*r.PerMessage + Seconds(bytes)*perByte
}

// Hold is how long deliveries wait while an account is flipped: INBOX, to which
// mail has come since the precopy, is read again under its locks.
func (r Rate) Hold(mailboxes []MailboxPlan) Seconds {
	hold := commitsPerFlip * r.Commit
	for _, m := range mailboxes {
		if m.Name == "INBOX" {
			hold += Seconds(m.Bytes) * r.Digest
		}
	}
	return hold
}

// MeasureRate converts two small mailboxes in a scratch directory of dir, or of
// os.TempDir where dir can't be written, and removes it. A full disk is no
// error, but a Problem of the rate. The error is ctx's.
func MeasureRate(ctx context.Context, dir string) (Rate, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	scratch, err := os.MkdirTemp(dir, "mailferry-rate-")
	if err != nil {
		dir = os.TempDir()
		scratch, err = os.MkdirTemp(dir, "mailferry-rate-")
	}
	var r Rate
	if err == nil {
		r, err = measureRate(ctx, scratch)
		err = errors.Join(err, os.RemoveAll(scratch))
	}
	r.Where = dir
	if err != nil {
		r = Rate{Where: dir, Problem: err.Error()}
	}
	return r, ctx.Err()
}

// The scratch mailboxes: one is all messages, the other all bytes.
var scratches = [2]struct{ messages, size int }{{600, 1 << 10}, {12, 512 << 10}}

func measureRate(ctx context.Context, dir string) (r Rate, err error) {
	var took [2]float64
	var sizes [2]float64
	for i, s := range scratches {
		box := scratchMailbox(s.messages, s.size)
		sizes[i] = float64(len(box))
		if took[i], err = timeConversion(ctx, dir, box); err != nil {
			return r, err
		}
		if r.Digest, err = timeDigest(box); err != nil { // that of the last one counts: its messages are long
			return r, err
		}
	}
	n, m := float64(scratches[0].messages), float64(scratches[1].messages)
	perByte := (took[1]*n - took[0]*m) / (sizes[1]*n - sizes[0]*m)
	r.PerByte = Seconds(max(perByte, 0))
	r.PerMessage = Seconds(max(took[0]-float64(r.PerByte)*sizes[0], 0) / n)
	r.Commit, err = timeCommit(dir)
	return r, err
}

func scratchMailbox(messages, size int) []byte {
	var b bytes.Buffer
	line := strings.Repeat("mailferry measures. ", 3) + "\n"
	for i := range messages {
		fmt.Fprintf(&b, "From rate@localhost Thu Jan  1 00:00:00 2026\nSubject: %d\n\n", i)
		b.WriteString(strings.Repeat(line, size/len(line)))
		b.WriteString("\n")
	}
	return b.Bytes()
}

// timeConversion is the shortest of two runs, in seconds: a disk that is busy
// with something else makes one longer.
func timeConversion(ctx context.Context, dir string, box []byte) (float64, error) {
	src := filepath.Join(dir, "mbox")
	if err := os.WriteFile(src, box, 0o600); err != nil {
		return 0, err
	}
	best := math.MaxFloat64
	for range 2 {
		o := Options{
			Source: src, Dest: filepath.Join(dir, "Maildir"), Jobs: 1, Scan: mbox.Options{Profile: mbox.Careful},
			Progress: func(int64) {}, Total: func(int64) {},
		}
		report, err := Convert(ctx, o)
		if err != nil {
			return 0, err
		}
		best = min(best, report.Took.Seconds())
		if err := os.RemoveAll(o.Dest); err != nil {
			return 0, err
		}
	}
	return best, nil
}

func timeDigest(box []byte) (perByte Seconds, err error) {
	start := time.Now()
	s, err := mbox.NewScanner(bytes.NewReader(box), int64(len(box)), mbox.Options{Profile: mbox.Careful, Digest: true})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for err == nil {
		_, err = s.Next()
	}
	if err != io.EOF {
		return 0, err
	}
	return Seconds(time.Since(start).Seconds() / float64(len(box))), nil
}

// timeCommit replaces a small file a few times: write, fsync, rename, fsync of
// the directory.
func timeCommit(path string) (Seconds, error) {
	const times = 5
	dir, err := safefs.OpenDir(path)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	start := time.Now()
	for range times {
		f, err := dir.Create("next", 0o600)
		if err != nil {
			return 0, err
		}
		_, err = f.WriteString("MAILSTATE=maildir\n")
		err = errors.Join(err, f.Sync(), f.Close())
		if err == nil {
			err = dir.Rename("next", "now", true)
		}
		if err := errors.Join(err, dir.Sync()); err != nil {
			return 0, err
		}
	}
	return Seconds(time.Since(start).Seconds() / times), nil
}
