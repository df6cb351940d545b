package convert

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"mailferry/internal/safefs"
	"mailferry/maildir"
	"mailferry/mbox"
)

// mailbox converts one mailbox into its folder. What is no mailbox, may not be
// read, or has a name that the layout can't hold, is skipped; any other failure
// is an error.
func (c *conversion) mailbox(ctx context.Context, src source, namer *maildir.Namer) (result, error) {
	in, err := open(src, c.Scan)
	if isSkippable(err) {
		return result{skipped: err}, nil
	}
	if err != nil {
		return result{}, failed(src, err)
	}
	defer in.Close()
	if _, err := c.Folders.Dir(src.parts); err != nil {
		return result{skipped: err}, nil
	}
	folder, err := c.staging.Folder(src.parts)
	if err != nil {
		return result{}, err
	}
	w := writer{src: src, in: in, folder: folder, namer: namer, progress: c.Progress, guess: freshValidity(c.start)}
	if err := w.copy(ctx, c.Scan); err != nil {
		return result{}, errors.Join(failed(src, err), folder.Close())
	}
	return result{report: w.report(), before: in.before}, in.unchanged(src.path)
}

// isSkippable reports whether a file can be left out of a tree, and named,
// rather than fail the run.
func isSkippable(err error) bool {
	var format *mbox.FormatError
	var irregular *safefs.Irregular
	var unfit *Unfit
	return errors.As(err, &format) || errors.As(err, &irregular) || errors.As(err, &unfit) || errors.Is(err, fs.ErrPermission)
}

// failed says which mailbox could not be read, and whether to try again.
func failed(src source, err error) error {
	if errors.Is(err, mbox.ErrShrunk) {
		return &Busy{src.path}
	}
	return fmt.Errorf("%s: %w", src.path, err)
}

// input is an open mbox with the scan of it.
type input struct {
	*os.File
	*mbox.Scanner
	*mbox.Tracker
	before os.FileInfo
	opened time.Time // before that was asked for

	hash *prefix // of what was read; nil: nobody asks for it
	from *mark   // at which the scan began; nil: at the start
}

// Close ends the scan and closes the file.
func (in *input) Close() error {
	in.Scanner.Close()
	return in.File.Close()
}

// open begins the scan of a source.
func open(src source, o mbox.Options) (*input, error) {
	f, err := src.open()
	if err != nil {
		return nil, err
	}
	return scan(f, o)
}

// begins reports whether a file is the beginning of a From_ line: procmail writes
// a byte of it, and sleeps for a second, when a mailbox is new.
func begins(f *os.File) bool {
	head := make([]byte, len("From "))
	n, _ := f.ReadAt(head, 0)
	return 0 < n && n < len(head) && string(head[:n]) == "From "[:n]
}

// scan begins the scan of an open mbox, which it closes if there is an error.
func scan(f *os.File, o mbox.Options) (*input, error) { return scanBy(f, f, o) }

// scanBy is scan for a file that is read through r.
func scanBy(f *os.File, r io.ReaderAt, o mbox.Options) (*input, error) {
	leaveAtime(f)
	start := time.Now()
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s, err := mbox.NewScanner(r, info.Size(), o)
	if err != nil && begins(f) {
		err = &Busy{f.Name()}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &input{File: f, Scanner: s, Tracker: mbox.NewTracker(s), before: info, opened: start}, nil
}

// unchanged fails if the mbox was written to since it was opened.
func (in *input) unchanged(path string) error {
	after, err := in.Stat()
	if err != nil {
		return err
	}
	return compareStat(path, in.before, after)
}

func compareStat(path string, before, after os.FileInfo) error {
	b, a := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if idOf(before) != idOf(after) || b.Size != a.Size || b.Mtim != a.Mtim || b.Ctim != a.Ctim {
		return &Busy{path}
	}
	return nil
}

// atRest looks at every mailbox once more when all have been read: mail may
// have come to the first while the last was at work.
func atRest(found *tree, results []result) error {
	for i, src := range found.sources {
		if results[i].before == nil {
			continue // skipped
		}
		f, err := src.open()
		if err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
		after, err := f.Stat()
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
		if err := compareStat(src.path, results[i].before, after); err != nil {
			return err
		}
	}
	return nil
}

// writer copies one mailbox.
type writer struct {
	src      source
	in       *input
	folder   *maildir.Folder
	namer    *maildir.Namer
	progress func(int64)
	guess    uint32 // UIDVALIDITY for a mailbox that records none

	validity uint32
	keywords *keywords
	messages int
	bytes    int64
}

// copy takes the messages one after the other, then writes the folder's lists.
func (w *writer) copy(ctx context.Context, o mbox.Options) error {
	for {
		e, err := w.in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		state := w.in.State(e)
		if w.keywords == nil {
			if err := w.begin(o); err != nil {
				return err
			}
		}
		if err := w.message(e, state); err != nil {
			return err
		}
		w.progress(e.Next() - e.Offset)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if w.keywords == nil {
		if err := w.begin(o); err != nil {
			return err
		}
	}
	return w.folder.End(w.in.NextUID(), w.keywords.table)
}

// begin starts the folder once the first message has told the mailbox's state.
func (w *writer) begin(o mbox.Options) (err error) {
	if w.validity = w.in.UIDValidity(); w.validity == 0 {
		w.validity = w.guess
	}
	if w.keywords, err = newKeywords(w.src, w.in.Keywords(), o); err != nil {
		return err
	}
	var guid [16]byte
	rand.Read(guid[:])
	return w.folder.Begin(w.namer, w.validity, guid)
}

func (w *writer) message(e *mbox.Entry, state mbox.State) error {
	if state.Pseudo {
		return nil
	}
	flags := systemFlags(state.Flags) | w.keywords.flags(state)
	m := maildir.Message{
		Size: e.Size, VSize: e.VSize, Date: e.Date,
		Flags: flags, UID: state.UID, UIDL: uidl(w.in.Scanner, e, state.UID, w.validity),
	}
	if err := w.folder.Add(m, w.in.WriteContent); err != nil {
		return fmt.Errorf("message at offset %d: %w", e.Offset, err)
	}
	w.messages++
	w.bytes += e.Size
	return nil
}

func (w *writer) report() MailboxReport {
	return MailboxReport{
		Name: w.src.name(), Path: w.src.path, Messages: w.messages, Bytes: w.bytes,
		Careful: w.in.CarefulCount(), Oddities: w.in.Oddities(), Left: w.keywords.leftovers(),
	}
}
