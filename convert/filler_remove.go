package convert

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/maildir"
	"mailferry/mbox"
)

// expunge removes the next message of the manifest.
func (f *filler) expunge() error {
	r := f.old.ahead[0]
	f.old.drop()
	if err := f.folder.Remove(r.name); err != nil {
		return altered(err)
	}
	if r.file.Ino == 0 {
		f.state.Unchecked--
	}
	f.report.Removed++
	f.report.lists = true
	return nil
}

func (f *filler) expungeRest() error {
	for {
		head, err := f.old.head()
		if err != nil {
			return fmt.Errorf("%w: %w", errAltered, err)
		}
		if head == nil {
			return nil
		}
		if err := f.expunge(); err != nil {
			return err
		}
	}
}

// quarantine leaves a message out of the folder.
func (f *filler) quarantine(e *mbox.Entry, r *record, reason string) error {
	f.state.Quarantined = append(f.state.Quarantined, Quarantined{f.src.name(), e.Offset, e.Next() - e.Offset, r.uid, reason})
	if r.file.Ino == 0 {
		f.state.Unchecked--
	}
	if err := f.folder.Remove(r.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.round.quarantine == nil || f.held {
		return nil
	}
	_, err := f.round.quarantine.Put(journal.Quarantined{User: f.account.Name, Mailbox: f.src.path, Offset: e.Offset, Reason: reason},
		io.NewSectionReader(f.in.File, e.Offset, e.Next()-e.Offset))
	return err
}

// unrepresentable tells why a message can't be a file here; "" when it could
// be, or when the error is about something else.
func unrepresentable(err error) string {
	var refused *maildir.EntryError
	switch {
	case errors.Is(err, unix.EFBIG):
		return "it is larger than the filesystem takes for one file"
	case errors.Is(err, unix.ENAMETOOLONG):
		return "its file name would be longer than the filesystem takes"
	case errors.As(err, &refused):
		return refused.Error()
	}
	return ""
}

// altered tells why a file of staging is not as it was left; err may be nil.
func altered(err error) error {
	switch {
	case err == nil:
		return errAltered
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", errAltered, err)
	}
	return err
}
