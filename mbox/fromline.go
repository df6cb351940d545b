package mbox

import (
	"math"
	"slices"
	"time"
)

var (
	fromPrefix = []byte("From ")
	lf         = []byte("\n")
)

// FromLine is a From_ line, without its line end. It may be empty: MMDF has
// none. RFC 4155 describes the usual form, real files hold many others.
type FromLine struct{ Raw []byte }

// rest is what follows "From ".
func (f FromLine) rest() []byte {
	if len(f.Raw) < len(fromPrefix) {
		return nil
	}
	return f.Raw[len(fromPrefix):]
}

// Sender returns the envelope sender as written, which may be nothing, a name
// or "a at b" instead of an address.
func (f FromLine) Sender() string {
	sender, _, _ := parseStamp(string(f.rest()))
	return sender
}

// Date returns the date that the line means: its zone applied, or loc where it
// names none. ok is false for undated lines.
func (f FromLine) Date(loc *time.Location) (t time.Time, ok bool) { return trueDate(f, loc) }

func trueDate(f FromLine, loc *time.Location) (time.Time, bool) {
	s, ok := stampOf(f.rest())
	if !ok {
		return time.Time{}, false
	}
	return s.trueTime(loc), true
}

// servedByDovecot is the INTERNALDATE that Dovecot gives in the zone loc:
// zones are passed over or misread (mbox-from.c). Its cache keeps 32 bits
// without a sign: the first FETCH shows 1969 and every later one 2105, which is
// what clients know. The last second before 1970 means "no date" (mbox-mail.c).
func servedByDovecot(f FromLine, loc *time.Location) (time.Time, bool) {
	_, d, ok := parseDovecotFrom(slices.Concat(f.rest(), []byte("\n        ")))
	if !ok {
		return time.Time{}, false
	}
	t := d.time(loc).Unix()
	if t == -1 {
		t = 0
	}
	return time.Unix(t&math.MaxUint32, 0), true
}
