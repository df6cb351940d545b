package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// UIDListFile is where a uidlist goes: a new file, empty and not opened for
// appending.
type UIDListFile interface {
	io.Writer
	io.WriterAt
}

// UIDListWriter writes a dovecot-uidlist of version 3 in constant memory. The
// next UID is known only at the end, so the header is written with ten zeros in
// its place, which Close replaces. Zero makes Dovecot and [ParseUIDList] refuse
// the file, so a uidlist that was not closed is never taken for a whole one.
type UIDListWriter struct {
	file   UIDListFile
	out    *bufio.Writer
	nextAt int64
	last   uint32
	size   int64 // written so far, in bytes
	line   []byte
	err    error
}

// nextDigits holds any UID; Dovecot reads leading zeros as decimal digits.
const nextDigits = 10

// NewUIDListWriter begins a uidlist with the UIDVALIDITY and GUID of a mailbox,
// neither of which may be zero.
func NewUIDListWriter(file UIDListFile, uidvalidity uint32, guid [16]byte) (*UIDListWriter, error) {
	return newUIDListWriter(file, uidvalidity, guid, 0)
}

// newUIDListWriter writes next in the place of the zeros.
func newUIDListWriter(file UIDListFile, uidvalidity uint32, guid [16]byte, next uint32) (*UIDListWriter, error) {
	if uidvalidity == 0 {
		return nil, errors.New("uidlist: UIDVALIDITY 0")
	}
	if guid == [16]byte{} {
		return nil, errors.New("uidlist: mailbox GUID is zero")
	}
	begin := beginUIDList(uidvalidity)
	w := &UIDListWriter{file: file, out: bufio.NewWriterSize(file, 1<<16), nextAt: int64(len(begin))}
	n, err := fmt.Fprintf(w.out, "%s%0*d G%x\n", begin, nextDigits, next, guid)
	w.size, w.err = int64(n), err
	return w, w.err
}

// resumeUIDList goes on with a uidlist behind a place; file is the list up to
// there.
func resumeUIDList(file UIDListFile, uidvalidity uint32, from UIDListPlace) *UIDListWriter {
	return &UIDListWriter{
		file: file, out: bufio.NewWriterSize(file, 1<<16), nextAt: int64(len(beginUIDList(uidvalidity))),
		size: from.At, last: from.Last,
	}
}

func beginUIDList(uidvalidity uint32) string { return fmt.Sprintf("3 V%d N", uidvalidity) }

// UIDListPlace is a place in a uidlist, between two entries.
type UIDListPlace struct {
	At   int64  // in bytes
	Last uint32 // UID of the entry before; 0: there is none
}

// Place is where the next entry will stand.
func (w *UIDListWriter) Place() UIDListPlace { return UIDListPlace{w.size, w.last} }

// Add writes one entry. UIDs must rise. An entry that Dovecot would misread is
// refused, and nothing of it is written; an error of the file is final.
func (w *UIDListWriter) Add(e UIDEntry) error {
	if w.err != nil {
		return w.err
	}
	if err := e.check(w.last); err != nil {
		return &EntryError{e.UID, err.Error()}
	}
	w.line = append(e.append(w.line[:0]), '\n')
	w.last = e.UID
	w.size += int64(len(w.line))
	_, w.err = w.out.Write(w.line)
	return w.err
}

// EntryError says why a message can't stand in a uidlist. The others can.
type EntryError struct {
	UID    uint32
	Reason string
}

func (e *EntryError) Error() string { return fmt.Sprintf("uidlist: UID %d: %s", e.UID, e.Reason) }

func (e *UIDEntry) check(last uint32) error {
	switch {
	case e.UID <= last:
		return fmt.Errorf("not above the UID before it, %d", last)
	case e.UID > maxUID:
		return errors.New("too high")
	case e.Name == "" || strings.ContainsAny(e.Name, "/:"):
		return fmt.Errorf("file name %q is empty or contains '/' or ':'", e.Name)
	case strings.ContainsFunc(e.Name, isControl):
		return fmt.Errorf("file name %q has control characters", e.Name)
	case !isGraphic(e.UIDL):
		return fmt.Errorf("UIDL %q has bytes outside 0x21 to 0x7e", e.UIDL)
	case !isGraphic(e.GUID):
		return fmt.Errorf("GUID %q has bytes outside 0x21 to 0x7e", e.GUID)
	case e.Size < 0 || e.VSize < 0:
		return errors.New("negative size")
	case len(e.UIDL)+len(e.GUID)+len(e.Name) > 1<<15:
		return errors.New("line too long")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func isGraphic(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func (e *UIDEntry) append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(e.UID), 10)
	if e.UIDL != "" {
		dst = append(dst, " P"...)
		if e.UIDL != e.Name { // Dovecot's short form
			dst = append(dst, e.UIDL...)
		}
	}
	if e.Order > 0 {
		dst = strconv.AppendUint(append(dst, " O"...), uint64(e.Order), 10)
	}
	if e.GUID != "" {
		dst = append(append(dst, " G"...), e.GUID...)
	}
	if e.Size > 0 {
		dst = strconv.AppendInt(append(dst, " S"...), e.Size, 10)
	}
	if e.VSize > 0 {
		dst = strconv.AppendInt(append(dst, " W"...), e.VSize, 10)
	}
	return append(append(dst, " :"...), e.Name...)
}

// Close writes the next UID, which must be above every UID added, and thereby
// makes the file valid. It neither syncs nor closes the file.
func (w *UIDListWriter) Close(nextUID uint32) error {
	if w.err != nil {
		return w.err
	}
	if nextUID <= w.last {
		return fmt.Errorf("uidlist: next UID %d is not above the last UID, %d", nextUID, w.last)
	}
	if w.err = w.out.Flush(); w.err != nil {
		return w.err
	}
	_, w.err = w.file.WriteAt(appendPadded(nil, int64(nextUID), nextDigits), w.nextAt)
	if w.err == nil {
		w.err = errors.New("uidlist: closed")
		return nil
	}
	return w.err
}
