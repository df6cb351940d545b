package maildir

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// mUTF7 is the base64 of RFC 3501 5.1.3: ',' for '/', no padding.
var mUTF7 = base64.NewEncoding(
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

// EncodeMUTF7 writes a UTF-8 mailbox name in the modified UTF-7 in which it
// stands on disk and in IMAP (RFC 3501 5.1.3). Invalid UTF-8 and NUL are
// errors.
func EncodeMUTF7(name string) (string, error) {
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("mailbox name %q: not UTF-8", name)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("mailbox name %q: contains NUL", name)
	}
	var b strings.Builder
	for name != "" {
		n := 0
		for n < len(name) && !isDirect(name[n]) {
			n++
		}
		if n > 0 {
			writeShifted(&b, name[:n])
			name = name[n:]
			continue
		}
		if name[0] == '&' {
			b.WriteString("&-")
		} else {
			b.WriteByte(name[0])
		}
		name = name[1:]
	}
	return b.String(), nil
}

// isDirect reports whether c stands for itself; '&' does as "&-".
func isDirect(c byte) bool { return c >= 0x20 && c < 0x7f }

func writeShifted(b *strings.Builder, s string) {
	var be []byte
	for _, u := range utf16.Encode([]rune(s)) {
		be = append(be, byte(u>>8), byte(u))
	}
	b.WriteByte('&')
	b.WriteString(mUTF7.EncodeToString(be))
	b.WriteByte('-')
}

var errNotCanonical = errors.New("not the canonical spelling")

// DecodeMUTF7 reads a name in modified UTF-7. It accepts only what
// [EncodeMUTF7] writes, so that encoding the result gives name again: two
// spellings of one name would be two folders to the file system and one to
// IMAP.
func DecodeMUTF7(name string) (string, error) {
	decoded, err := decodeLoose(name)
	if err == nil {
		if again, e := EncodeMUTF7(decoded); e != nil || again != name {
			err = errNotCanonical
		}
	}
	if err != nil {
		return "", fmt.Errorf("mailbox name %q: invalid modified UTF-7: %w", name, err)
	}
	return decoded, nil
}

// decodeLoose decodes without a look at pad bits, at shifts that could be one,
// and at characters that needed none.
func decodeLoose(name string) (string, error) {
	var b strings.Builder
	for name != "" {
		if !isDirect(name[0]) {
			return "", errors.New("byte outside printable ASCII")
		}
		if name[0] != '&' {
			b.WriteByte(name[0])
			name = name[1:]
			continue
		}
		shifted, rest, ok := strings.Cut(name[1:], "-")
		if !ok {
			return "", errors.New("'&' without '-'")
		}
		text := "&"
		if shifted != "" {
			var err error
			if text, err = decodeShifted(shifted); err != nil {
				return "", err
			}
		}
		b.WriteString(text)
		name = rest
	}
	return b.String(), nil
}

func decodeShifted(s string) (string, error) {
	be, err := mUTF7.DecodeString(s)
	// The decoder passes over line ends.
	if err != nil || len(be)%2 != 0 || strings.ContainsAny(s, "\r\n") {
		return "", errors.New("broken base64")
	}
	units := make([]uint16, len(be)/2)
	for i := range units {
		units[i] = uint16(be[2*i])<<8 | uint16(be[2*i+1])
	}
	runes := utf16.Decode(units)
	if !slices.Equal(utf16.Encode(runes), units) { // a lone surrogate was replaced
		return "", errors.New("lone surrogate")
	}
	return string(runes), nil
}

// DiskName returns the spelling in which Dovecot finds the folder that an mbox
// file of the given name is: a name in modified UTF-7 stays as it is, one whose
// only fault is non-zero pad bits gets the proper spelling, and any other is
// UTF-8, as mutt and Pine write it, and is encoded. So Dovecot's LIST shows
// them. A name that is not UTF-8 either is an error. Two files of one directory
// can have the same DiskName.
func DiskName(file string) (string, error) {
	decoded, err := decodeLoose(file)
	if err == nil {
		// Every other fault makes the canonical spelling shorter.
		again, err := EncodeMUTF7(decoded)
		if err == nil && len(again) == len(file) {
			return again, nil
		}
	}
	return EncodeMUTF7(file)
}
