package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The outcomes. An event that only begins something has Begun.
const (
	Begun     = "begun"
	Done      = "done"
	Skipped   = "skipped"   // refused by a check; nothing of the user was touched
	Failed    = "failed"    // tried and put back
	Untouched = "untouched" // the run ended before it came to him
)

// Event is a line of the journal. Unset fields are left out of it; fields are
// only ever added.
type Event struct {
	Time    time.Time `json:"time"`           // set by Log if zero
	Run     string    `json:"run"`            // set by Log
	User    string    `json:"user,omitempty"` // none for what concerns the run or a chunk
	Phase   string    `json:"phase"`          // "migrate", "hold", "flip", "chunk", ...; docs/state.md lists them
	Outcome string    `json:"outcome,omitempty"`
	Reason  string    `json:"reason,omitempty"` // one sentence, or the code of a finding

	Messages    int   `json:"messages,omitempty"`
	Bytes       int64 `json:"bytes,omitempty"`
	Written     int   `json:"written,omitempty"`   // messages that were new
	Removed     int   `json:"removed,omitempty"`   // messages that were expunged
	Reflagged   int   `json:"reflagged,omitempty"` // messages whose flags changed
	Quarantined int   `json:"quarantined,omitempty"`
	Users       int   `json:"users,omitempty"` // of a chunk or of the run

	Seconds  float64         `json:"seconds,omitempty"`  // how long it took
	Findings json.RawMessage `json:"findings,omitempty"` // a list, as inspect found them
}

// maxLine bounds a line, to write and to read, in bytes.
const maxLine = 16 << 20

// encode returns the event as a line.
func (e Event) encode() ([]byte, error) {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.Seconds = math.Round(e.Seconds*1e6) / 1e6
	e.User, e.Reason = escape(e.User), escape(e.Reason)
	line, err := encode(e)
	if err != nil {
		return nil, fmt.Errorf("event of user %q, phase %q: %w", e.User, e.Phase, err)
	}
	if len(line) > maxLine {
		return nil, fmt.Errorf("event of user %q, phase %q: %d bytes are too long for a line", e.User, e.Phase, len(line))
	}
	return line, nil
}

// decode reads a line. Unknown fields are from a later version.
func decode(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, err
	}
	e.User, e.Reason = unescape(e.User), unescape(e.Reason)
	return e, nil
}

// encode returns a value as a line of JSON that shows as it is wherever it is
// printed: what a terminal might obey is spelled out.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return visible(b.Bytes()), nil
}

// visible spells out the runes of a line of JSON that are not printable. They
// can only be in strings. Invalid UTF-8 becomes U+FFFD.
func visible(line []byte) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	out := make([]byte, 0, len(line)+1)
	for i, width := 0, 0; i < len(line); i += width {
		var r rune
		switch r, width = utf8.DecodeRune(line[i:]); {
		case strconv.IsPrint(r) && (r != utf8.RuneError || width > 1):
			out = append(out, line[i:i+width]...)
		case r > 0xffff:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return append(out, '\n')
}

// escape makes valid UTF-8 of any bytes, and can be undone: JSON has no other
// way to hold the name of a file. A byte that is not UTF-8 becomes \xHH, a
// backslash two.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i, width := 0, 0; i < len(s); i += width {
		var r rune
		switch r, width = utf8.DecodeRuneInString(s[i:]); {
		case r == utf8.RuneError && width == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// unescape undoes escape. A backslash that escape would not have written is
// taken as it is.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		switch n, err := strconv.ParseUint(s[min(2, len(s)):min(4, len(s))], 16, 8); {
		case strings.HasPrefix(s, `\\`):
			b.WriteByte('\\')
			s = s[2:]
		case strings.HasPrefix(s, `\x`) && len(s) >= 4 && err == nil:
			b.WriteByte(byte(n))
			s = s[4:]
		default:
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String()
}
