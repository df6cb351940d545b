package mbox

import (
	"bytes"
	"io"
	"time"
)

// MissingLFs is how many LFs an mbox of size bytes needs at its end, so that an empty
// line stands before what is appended: mailutils, popa3d and qpopper would show the
// new message as text of the last one.
func MissingLFs(r io.ReaderAt, size int64) (int, error) {
	if size == 0 {
		return 0, nil
	}
	end := make([]byte, min(size, int64(len("\n\r\n"))))
	if _, err := r.ReadAt(end, size-int64(len(end))); err != nil && err != io.EOF {
		return 0, err
	}
	switch {
	case bytes.HasSuffix(end, []byte("\n\n")), bytes.HasSuffix(end, []byte("\n\r\n")):
		return 0, nil
	case bytes.HasSuffix(end, []byte("\n")):
		return 1, nil
	}
	return 2, nil
}

// MissingLFs is how many LFs an mbox needs at its end for the profile's server to split
// before what is appended. To Dovecot and others a line end is enough, and an LF more
// would be the last message's; to c-client it would not, which does not split in a
// header that somebody was killed in.
func (p Profile) MissingLFs(r io.ReaderAt, size int64) (int, error) {
	n, err := MissingLFs(r, size)
	line := FormatFromLine("", time.Time{}, time.UTC)
	if n > 0 && p.accept(candidate{line: line, rest: append(line, "\nTo: x\n\n"...), inHeader: true}) {
		n--
	}
	return n, err
}
