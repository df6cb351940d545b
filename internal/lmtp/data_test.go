package lmtp

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// What is spread up to the end of a message has only odd runs of CRs, and is
// gathered to what it was.
func FuzzSpread(f *testing.F) {
	f.Add([]byte("foo\r\r\n..dot\r\nend\r\n.\r\nMAIL FROM:<>\r\r\n"))
	f.Add([]byte(".\r\n\r\r"))
	f.Add([]byte("\r\r\n.\r\r\n.\r.\r\n\r\n.\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, wire, ended := newSpread(), []byte(nil), 0
		for i, c := range in {
			double, end := s.next(c)
			if double {
				wire = append(wire, c)
			}
			wire = append(wire, c)
			if ended = i + 1; end {
				break
			}
		}
		message := append([]byte("\r\n"), in...)
		if at := bytes.Index(message, []byte(endOfData)); at >= 0 && ended != at+len(endOfData)-2 || at < 0 && ended != len(in) {
			t.Errorf("%q ends at %d", in, ended)
		}
		for _, run := range strings.FieldsFunc(string(wire), func(r rune) bool { return r != '\r' }) {
			if len(run)%2 == 0 {
				t.Errorf("%q is spread to %q", in, wire)
			}
		}
		for _, r := range []io.Reader{bytes.NewReader(wire), iotest.OneByteReader(bytes.NewReader(wire))} {
			if got, err := io.ReadAll(&gather{Reader: r}); err != nil || !bytes.Equal(got, in[:ended]) {
				t.Errorf("%q is %q behind it: %v", in, got, err)
			}
		}
	})
}
