package maildir

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
)

// UIDEntry is one line of a dovecot-uidlist: the identities of one message.
// Empty and zero fields stand for absent ones.
type UIDEntry struct {
	UID   uint32
	Name  string // unique name of the file, without info part
	UIDL  string // POP3 UIDL, bytes 0x21 to 0x7e; overrides the format of the server
	Order uint32 // POP3 position, from 1; messages without one follow
	GUID  string // message GUID, bytes 0x21 to 0x7e; absent: the unique name
	Size  int64  // S, bytes, for names without S=
	VSize int64  // W, bytes with every bare LF counted as CRLF, for names without W=
}

// UIDListHeader is the first line of a dovecot-uidlist.
type UIDListHeader struct {
	Version     int // 3, or 1 for old Dovecot and Courier's courierimapuiddb
	UIDValidity uint32
	NextUID     uint32   // UIDNEXT: the highest UID ever given, plus one
	GUID        [16]byte // of the mailbox; zero if absent
}

// UIDList is a dovecot-uidlist in memory.
type UIDList struct {
	UIDListHeader
	Entries []UIDEntry // UIDs rise
}

// maxUID is the highest UID that Dovecot takes from a uidlist.
const maxUID = 1<<32 - 2

// ParseUIDList reads a dovecot-uidlist of version 3 or 1 as Dovecot does: keys
// that it ignores are ignored, a last line without LF counts as not written, a
// file listed twice has the later UID, and a NextUID at or below the last UID
// is raised. What makes Dovecot throw the file away, and give every message a
// new UID, is an error that names the line. Memory grows with the file; see
// [ScanUIDList].
func ParseUIDList(r io.Reader) (*UIDList, error) {
	list := &UIDList{}
	at := map[string]int{} // index in Entries by file
	header, err := ScanUIDList(r, func(e UIDEntry) error {
		if i, ok := at[e.Name]; ok {
			list.Entries[i].UID = 0
		}
		at[e.Name] = len(list.Entries)
		list.Entries = append(list.Entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(at) < len(list.Entries) {
		list.Entries = dropReplaced(list.Entries)
	}
	list.UIDListHeader = header
	return list, nil
}

func dropReplaced(entries []UIDEntry) []UIDEntry {
	kept := entries[:0]
	for _, e := range entries {
		if e.UID != 0 {
			kept = append(kept, e)
		}
	}
	return kept
}

// ScanUIDList reads a uidlist like [ParseUIDList] in constant memory and hands
// over its entries in order, also those of files that a later entry lists
// again. An error of each ends the scan and is returned as it is.
func ScanUIDList(r io.Reader, each func(UIDEntry) error) (UIDListHeader, error) {
	return scanUIDList(r, 0, each)
}

// ScanUIDListFrom is ScanUIDList without the entries before a place; the zero
// place is the start.
func ScanUIDListFrom(f *os.File, from UIDListPlace, each func(UIDEntry) error) (UIDListHeader, error) {
	if from.At == 0 {
		return ScanUIDList(f, each)
	}
	header, err := bufio.NewReader(io.NewSectionReader(f, 0, from.At)).ReadString('\n')
	if err != nil {
		return UIDListHeader{}, fmt.Errorf("uidlist line 1: %w", err)
	}
	rest := io.NewSectionReader(f, from.At, math.MaxInt64-from.At)
	return scanUIDList(io.MultiReader(strings.NewReader(header), rest), from.Last, each)
}

func scanUIDList(r io.Reader, last uint32, each func(UIDEntry) error) (UIDListHeader, error) {
	in := bufio.NewReaderSize(r, 1<<16) // the longest line accepted
	line, err := readLine(in)
	if err == io.EOF {
		return UIDListHeader{}, errors.New("uidlist line 1: no header")
	}
	if err != nil {
		return UIDListHeader{}, fmt.Errorf("uidlist line 1: %w", err)
	}
	header, err := parseUIDHeader(line)
	if err != nil {
		return header, fmt.Errorf("uidlist line 1: %w", err)
	}
	for n := 2; ; n++ {
		line, err := readLine(in)
		if err == io.EOF {
			break
		}
		if err != nil {
			return header, fmt.Errorf("uidlist line %d: %w", n, err)
		}
		entry, err := parseUIDEntry(line, header)
		if err == nil && entry.UID <= last {
			err = fmt.Errorf("UID %d after %d: UIDs must rise", entry.UID, last)
		}
		if err != nil {
			return header, fmt.Errorf("uidlist line %d: %w", n, err)
		}
		last = entry.UID
		if err := each(entry); err != nil {
			return header, err
		}
	}
	header.NextUID = max(header.NextUID, last+1)
	return header, nil
}

// readLine returns the next line without its end. What follows the last LF is
// no line: a writer has not finished it.
func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return "", fmt.Errorf("longer than %d bytes", in.Size())
	}
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})), nil
}

func parseUIDHeader(line string) (UIDListHeader, error) {
	version, rest, _ := strings.Cut(line, " ")
	var h UIDListHeader
	var err error
	switch version {
	case "1":
		h, err = parseUIDHeader1(rest)
	case "3":
		h, err = parseUIDHeader3(rest)
	default:
		return h, fmt.Errorf("version %q, want 3 or 1", version)
	}
	if err == nil && (h.UIDValidity == 0 || h.NextUID == 0) {
		err = fmt.Errorf("UIDVALIDITY %d and next UID %d, neither may be 0", h.UIDValidity, h.NextUID)
	}
	return h, err
}

func parseUIDHeader1(rest string) (UIDListHeader, error) {
	h := UIDListHeader{Version: 1}
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return h, errors.New("no UIDVALIDITY and next UID")
	}
	return h, errors.Join(parseUint32(fields[0], &h.UIDValidity), parseUint32(fields[1], &h.NextUID))
}

func parseUIDHeader3(rest string) (h UIDListHeader, err error) {
	h.Version = 3
	for field := range strings.SplitSeq(rest, " ") {
		if field == "" || err != nil {
			continue
		}
		switch value := field[1:]; field[0] {
		case 'V':
			err = parseUint32(value, &h.UIDValidity)
		case 'N':
			err = parseUint32(value, &h.NextUID)
		case 'G':
			if len(value) != 2*len(h.GUID) {
				return h, fmt.Errorf("mailbox GUID %q, want 32 hex digits", value)
			}
			_, err = hex.Decode(h.GUID[:], []byte(value))
		}
	}
	return h, err
}

func parseUint32(s string, to *uint32) error {
	v, err := strconv.ParseUint(s, 10, 32)
	*to = uint32(v)
	return err
}

func parseUIDEntry(line string, h UIDListHeader) (UIDEntry, error) {
	var e UIDEntry
	digits, rest, _ := strings.Cut(line, " ")
	if err := parseUint32(digits, &e.UID); err != nil || e.UID == 0 || e.UID > maxUID {
		return e, fmt.Errorf("UID %q, want 1 to %d", digits, uint32(maxUID))
	}
	rest = strings.TrimLeft(rest, " ")
	if h.Version == 1 {
		if e.UID >= h.NextUID {
			return e, fmt.Errorf("UID %d, but the next UID is %d", e.UID, h.NextUID)
		}
		e.Name = rest
	} else {
		for rest != "" && rest[0] != ':' {
			field, after, _ := strings.Cut(rest, " ")
			e.setField(field)
			rest = strings.TrimLeft(after, " ")
		}
		e.Name = strings.TrimPrefix(rest, ":")
	}
	// Dovecot compares names up to the info part and never writes it.
	e.Name, _, _ = strings.Cut(e.Name, ":")
	if e.Name == "" || strings.Contains(e.Name, "/") {
		return e, fmt.Errorf("UID %d: file name %q is empty or contains '/'", e.UID, e.Name)
	}
	if h.Version == 3 && e.UIDL == nameAsUIDL {
		e.UIDL = e.Name
	}
	return e, nil
}

// nameAsUIDL stands for a P without value while the name is not yet read; as a
// value it can't occur, for fields hold no space.
const nameAsUIDL = " "

// setField reads <key><value>. A key or number without a meaning is left out,
// as Dovecot does.
func (e *UIDEntry) setField(field string) {
	value := field[1:]
	switch field[0] {
	case 'P':
		if e.UIDL = value; value == "" {
			e.UIDL = nameAsUIDL
		}
	case 'G':
		e.GUID = value
	case 'O':
		if parseUint32(value, &e.Order) != nil {
			e.Order = 0
		}
	case 'S':
		e.Size = parseSize(value)
	case 'W':
		e.VSize = parseSize(value)
	}
}

func parseSize(s string) int64 {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0
	}
	return int64(v)
}
