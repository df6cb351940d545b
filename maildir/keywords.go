package maildir

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// MaxKeywords is the number of keywords that file names can hold, one for each
// letter a to z.
const MaxKeywords = 26

// maxKeywordLength is the default of Dovecot's mail_max_keyword_length, in
// bytes; UW has the same.
const maxKeywordLength = 50

// atomSpecials are the printable characters that an IMAP atom can't have (RFC
// 3501); '}' is none of them.
const atomSpecials = "(){%*\"\\]"

// CheckKeyword says why Dovecot refuses a keyword of this name: it must be an
// IMAP atom of 1 to 50 bytes (dovecot mailbox_keyword_is_valid, RFC 3501
// atom-specials).
func CheckKeyword(name string) error {
	switch {
	case name == "":
		return errors.New("keyword is empty")
	case len(name) > maxKeywordLength:
		return fmt.Errorf("keyword %q is longer than %d bytes", name, maxKeywordLength)
	case !isGraphic(name) || strings.ContainsAny(name, atomSpecials):
		return fmt.Errorf("keyword %q is not an IMAP atom", name)
	}
	return nil
}

// KeywordTable gives each keyword of a folder its letter. Names compare without
// regard to ASCII case, and the first spelling is kept. The zero value is an
// empty table.
type KeywordTable struct {
	names [MaxKeywords]string // "" for a free letter
}

// NewKeywordTable gives letters in the order of the list, that of X-IMAPbase.
// Left are the names that got none, in order: those that [CheckKeyword] refuses
// and those for which there was no room.
func NewKeywordTable(names []string) (t *KeywordTable, left []string) {
	t = &KeywordTable{}
	for _, name := range names {
		if _, ok := t.Letter(name); !ok {
			left = append(left, name)
		}
	}
	return t, left
}

// NewKeywordTableByUse is [NewKeywordTable] for more names than letters: those
// that most messages have get one, and among equals those that come first in
// the list. Uses maps names to numbers of messages. The letters follow the
// order of the list all the same.
func NewKeywordTableByUse(names []string, uses map[string]int) (t *KeywordTable, left []string) {
	var ranked []string
	for _, name := range names {
		if CheckKeyword(name) == nil && !containsFold(ranked, name) {
			ranked = append(ranked, name)
		}
	}
	slices.SortStableFunc(ranked, func(a, b string) int { return usesOf(b, uses) - usesOf(a, uses) })
	chosen := ranked[:min(len(ranked), MaxKeywords)]
	t = &KeywordTable{}
	for _, name := range names {
		if !containsFold(chosen, name) {
			left = append(left, name)
		} else {
			t.Letter(name)
		}
	}
	return t, left
}

func usesOf(name string, uses map[string]int) (total int) {
	for n, count := range uses {
		if equalFold(n, name) {
			total += count
		}
	}
	return total
}

func containsFold(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return equalFold(n, name) })
}

// equalFold compares as strcasecmp does in the C locale, which Dovecot uses.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Letter returns the index of a keyword's letter for [Keyword], and gives it
// the first free letter if it has none. It reports false for a name that
// [CheckKeyword] refuses and when all letters are taken.
func (t *KeywordTable) Letter(name string) (index int, ok bool) {
	if i := t.index(name); i >= 0 {
		return i, true
	}
	free := slices.Index(t.names[:], "")
	if free < 0 || CheckKeyword(name) != nil {
		return -1, false
	}
	t.names[free] = name
	return free, true
}

func (t *KeywordTable) index(name string) int {
	if name == "" {
		return -1
	}
	return slices.IndexFunc(t.names[:], func(n string) bool { return equalFold(n, name) })
}

// Len returns the number of keywords that have a letter, 0 for a nil table.
func (t *KeywordTable) Len() (n int) {
	if t == nil {
		return 0
	}
	for _, name := range t.names {
		if name != "" {
			n++
		}
	}
	return n
}

// Name returns the keyword of an index, "" for a letter that has none; Dovecot
// shows messages with such a letter as having "unknown-<index>".
func (t *KeywordTable) Name(index int) string {
	if index < 0 || index >= MaxKeywords {
		return ""
	}
	return t.names[index]
}

// ParseKeywords reads a dovecot-keywords file, lines of "<0-25> <name>". Lines
// that Dovecot passes over are passed over: those without a space, with another
// number, or with a name that came before. Of two names with one number the
// later counts. Names are taken as they are. An error is one of r, or a line
// beyond 64 KiB.
// Source: dovecot maildir-keywords.c.
func ParseKeywords(r io.Reader) (*KeywordTable, error) {
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	t := &KeywordTable{}
	for _, line := range lines {
		// A name that ends in CR can't be written so that it is read again.
		number, name, _ := strings.Cut(strings.TrimRight(line, "\r"), " ")
		index, err := strconv.ParseUint(number, 10, 32)
		if err != nil || index >= MaxKeywords || name == "" || t.index(name) >= 0 {
			continue
		}
		t.names[index] = name
	}
	return t, nil
}

// WriteTo writes the table as a dovecot-keywords file. A name without messages
// keeps its letter by it, but Dovecot shows it in FLAGS only once a message has
// it.
func (t *KeywordTable) WriteTo(w io.Writer) (int64, error) {
	var b []byte
	for i, name := range t.names {
		if name != "" {
			b = fmt.Appendf(b, "%d %s\n", i, name)
		}
	}
	n, err := w.Write(b)
	return int64(n), err
}
