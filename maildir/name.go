package maildir

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// InfoPrefix opens the info part of a file name: the version of the flag
// syntax, which is the only one in use.
const InfoPrefix = ":2,"

// Flags are the flags of one message as the info part of its file name holds
// them: six system flags and 26 keyword letters. What a letter means stands in
// the dovecot-keywords file of the same folder, see [KeywordTable].
type Flags uint32

// The system flags, in the order of their letters D F P R S T.
// Source: dovecot maildir-filename-flags.c.
const (
	Draft   Flags = 1 << (MaxKeywords + iota) // IMAP \Draft
	Flagged                                   // IMAP \Flagged
	Passed                                    // resent or forwarded; Dovecot keeps the letter and shows nothing
	Replied                                   // IMAP \Answered
	Seen                                      // IMAP \Seen
	Trashed                                   // IMAP \Deleted
)

const systemLetters = "DFPRST"

// Keyword returns the flag of the keyword with the given index, 0 for letter a
// to 25 for letter z, and no flag for any other index.
func Keyword(index int) Flags {
	if index < 0 || index >= MaxKeywords {
		return 0
	}
	return 1 << index
}

// Keywords returns the keyword letters alone, bit 0 for a to bit 25 for z.
func (f Flags) Keywords() uint32 { return uint32(f) & (1<<MaxKeywords - 1) }

// Append appends the letters of f to dst in ASCII order, which the Maildir
// rules demand, without [InfoPrefix].
func (f Flags) Append(dst []byte) []byte {
	for i := range len(systemLetters) {
		if f&(Draft<<i) != 0 {
			dst = append(dst, systemLetters[i])
		}
	}
	for k := f.Keywords(); k != 0; k &= k - 1 {
		dst = append(dst, 'a'+byte(bits.TrailingZeros32(k)))
	}
	return dst
}

// String returns the letters of f in ASCII order.
func (f Flags) String() string { return string(f.Append(nil)) }

// ParseFlags reads flag letters, in any order and with repeats, as they follow
// [InfoPrefix]. The error names every letter that is no flag; the flags
// returned with it are those that were understood.
func ParseFlags(letters string) (Flags, error) {
	f, unknown := splitFlags(letters)
	if unknown != "" {
		return f, fmt.Errorf("flags %q: unknown letters %q", letters, unknown)
	}
	return f, nil
}

func splitFlags(letters string) (f Flags, unknown string) {
	for i := range len(letters) {
		c := letters[i]
		if at := strings.IndexByte(systemLetters, c); at >= 0 {
			f |= Draft << at
		} else if c >= 'a' && c <= 'z' {
			f |= Keyword(int(c - 'a'))
		} else {
			unknown += letters[i : i+1]
		}
	}
	return f, unknown
}

// Namer makes the unique names of one mailbox:
//
//	SECS.M<usec>P<pid>Q<n>.host,S=<bytes>,W=<vsize>
//
// Their order by (SECS, usec) is the order of the calls. A server that finds
// no uidlist numbers the files in that order, so the order of the mbox holds
// even then (dovecot maildir_filename_sort_cmp, Courier alike).
//
// A Namer serves one goroutine. Two Namers of one process give different names
// as long as their bases are further apart than the calls made to the first.
type Namer struct {
	sec, usec, n int64
	pid          string // "P<pid>Q"
	host         string // ".<escaped host>"
}

// maxHost keeps a name with all fields and flags below the 255 bytes that a
// file system allows; host names of Linux have at most 64 bytes.
const maxHost = 100

// NewNamer returns a Namer whose call number n, from 0, is dated base plus n
// microseconds. A base before 1970 counts as 1970, for a name must begin with
// a digit. An empty host becomes "localhost".
func NewNamer(base time.Time, pid int, host string) *Namer {
	usec := max(base.UnixMicro(), 0)
	return &Namer{
		sec:  usec / 1e6,
		usec: usec % 1e6,
		pid:  "P" + strconv.Itoa(pid) + "Q",
		host: "." + escapeHost(host),
	}
}

// escapeHost writes bytes that would end a field, leave the directory or break
// the line of a uidlist as backslash and three octal digits. '/' and ':' are
// the rule of the Maildir specification; ',' would begin a size field.
func escapeHost(host string) string {
	var b strings.Builder
	for i := range len(host) {
		if b.Len() >= maxHost {
			break
		}
		c := host[i]
		if c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == ',' {
			fmt.Fprintf(&b, "\\%03o", c)
		} else {
			b.WriteByte(c)
		}
	}
	if b.Len() == 0 {
		return "localhost"
	}
	return b.String()
}

// Append appends the next unique name to dst, without info part. Size is the
// length of the file in bytes, vsize the same with every bare LF counted as
// CRLF; a negative one is left out. A vsize that is wrong makes Dovecot drop
// the connection or cut the message short, so it must be exact or left out.
// Append does not allocate when dst has room.
func (n *Namer) Append(dst []byte, size, vsize int64) []byte {
	dst = strconv.AppendInt(dst, n.sec, 10)
	dst = append(dst, ".M"...)
	dst = appendPadded(dst, n.usec, 6)
	dst = append(dst, n.pid...)
	dst = strconv.AppendInt(dst, n.n, 10)
	dst = append(dst, n.host...)
	if size >= 0 {
		dst = strconv.AppendInt(append(dst, ",S="...), size, 10)
	}
	if vsize >= 0 {
		dst = strconv.AppendInt(append(dst, ",W="...), vsize, 10)
	}
	n.n++
	if n.usec++; n.usec == 1e6 {
		n.sec, n.usec = n.sec+1, 0
	}
	return dst
}

// appendPadded appends v, which has at most width digits, with leading zeros.
func appendPadded(dst []byte, v int64, width int) []byte {
	start := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= start && v > 0; i-- {
		dst[i] += byte(v % 10)
		v /= 10
	}
	return dst
}

// Name is what the file name of a message says. Absent numbers are -1.
type Name struct {
	Unique  string // the part before the first ':', which identifies the message
	Sec     int64  // the leading number, by custom the time of delivery; 0 if there is none
	Usec    int64  // microseconds, the number after the first M of the second field
	Size    int64  // S=, bytes of the file
	VSize   int64  // W=, bytes with every bare LF counted as CRLF
	Flags   Flags  // from the info part
	Unknown string // letters of the info part that are no flag; Dovecot keeps and ignores them
}

// ParseName reads a file name from new/ or cur/ by the rules of dovecot
// maildir-filename.c and maildir-filename-flags.c: sizes count where they are
// followed by ',', ':' or the end, the info part begins at the last ':', and an
// info part of another syntax than [InfoPrefix] has no flags. The error says
// why a name can't be that of a message.
func ParseName(file string) (Name, error) {
	unique, _, _ := strings.Cut(file, ":")
	switch {
	case unique == "":
		return Name{}, fmt.Errorf("maildir file name %q: no unique name", file)
	case file[0] == '.':
		return Name{}, fmt.Errorf("maildir file name %q: hidden file", file)
	case strings.ContainsAny(file, "/\x00"):
		return Name{}, fmt.Errorf("maildir file name %q: contains '/' or NUL", file)
	}
	n := Name{Unique: unique, Size: sizeField(file, ",S="), VSize: sizeField(file, ",W=")}
	sec, rest := leadingNumber(unique)
	n.Sec, n.Usec = sec, usecField(rest)
	if at := strings.LastIndexByte(file, ':'); at >= 0 && strings.HasPrefix(file[at:], InfoPrefix) {
		letters, _, _ := strings.Cut(file[at+len(InfoPrefix):], ",")
		n.Flags, n.Unknown = splitFlags(letters)
	}
	return n, nil
}

// leadingNumber reads digits, none of which counts as 0; a number beyond int64
// is the highest.
func leadingNumber(s string) (v int64, rest string) {
	for s != "" && s[0] >= '0' && s[0] <= '9' {
		d := int64(s[0] - '0')
		if v > (math.MaxInt64-d)/10 {
			v = math.MaxInt64
		} else {
			v = v*10 + d
		}
		s = s[1:]
	}
	return v, s
}

// sizeField finds the first field with the given mark (dovecot
// maildir_filename_get_size). A value that does not fit int64 is no size.
func sizeField(file, mark string) int64 {
	_, value, ok := strings.Cut(file, mark)
	if !ok || value == "" {
		return -1
	}
	v, rest := leadingNumber(value)
	if v == math.MaxInt64 || rest != "" && rest[0] != ',' && rest[0] != ':' {
		return -1
	}
	return v
}

// usecField finds the microseconds in what follows the leading number of a
// unique name (dovecot maildir_fname_get_usecs).
func usecField(rest string) int64 {
	if rest == "" || rest[0] != '.' {
		return -1
	}
	field, _, _ := strings.Cut(rest[1:], ".")
	_, digits, ok := strings.Cut(field, "M")
	if !ok {
		return -1
	}
	v, _ := leadingNumber(digits)
	return v
}

// Less reports whether a server that meets both files without a UID gives n
// the lower one: by Sec, by Usec where both have it, then by the bytes after
// the leading number (dovecot maildir_filename_sort_cmp).
func (n Name) Less(m Name) bool {
	if n.Sec != m.Sec {
		return n.Sec < m.Sec
	}
	if n.Usec >= 0 && m.Usec >= 0 && n.Usec != m.Usec {
		return n.Usec < m.Usec
	}
	_, a := leadingNumber(n.Unique)
	_, b := leadingNumber(m.Unique)
	return a < b
}
