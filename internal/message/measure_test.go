package message

import (
	"crypto/sha256"
	"strings"
	"testing"
)

func TestMeasure(t *testing.T) {
	for _, tt := range []struct {
		name, message string
		vsize         int64
	}{
		{"nothing", "", 0},
		{"each LF counts as CRLF", "a\nb\n", 6},
		{"a CRLF counts once", "a\r\nb\r\n", 6},
		{"both in one message", "a\r\nb\n\n", 8},
		{"CR CR LF", "a\r\r\n", 4},
		{"LF CR", "a\n\rb", 5},
		{"a CR is a byte like others", "a\rb\r", 4},
		{"no newline at the end", "a\nb", 4},
		{"NUL", "\x00\n\x00", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := Sizes{Size: int64(len(tt.message)), VSize: tt.vsize}
			sizes, digest := MeasureBytes([]byte(tt.message))
			if sizes != want || digest != sha256.Sum256([]byte(tt.message)) {
				t.Errorf("MeasureBytes(%q) is %+v %x, want %+v", tt.message, sizes, digest, want)
			}
			if s := SizesOf([]byte(tt.message)); s != want {
				t.Errorf("SizesOf(%q) is %+v, want %+v", tt.message, s, want)
			}
			long := strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n").Replace(tt.message)
			if int64(len(long)) != tt.vsize {
				t.Errorf("%q as CRLF is %d bytes, not %d", tt.message, len(long), tt.vsize)
			}
		})
	}
}

// TestMeasureIsTheSameForAnyPieces cuts at every two places, so between CR and LF too.
func TestMeasureIsTheSameForAnyPieces(t *testing.T) {
	const message = "a\r\nb\n\r\n\r\r\nc\r\r\n\n\rd\r"
	want, wantDigest := MeasureBytes([]byte(message))
	m := NewMeasure()
	for i := range len(message) + 1 {
		for j := i; j <= len(message); j++ {
			m.Reset()
			var s Sizes
			for _, piece := range []string{message[:i], message[i:j], message[j:]} {
				m.Write([]byte(piece))
				s.Write([]byte(piece))
			}
			if m.Size != want.Size || m.VSize != want.VSize || m.Digest() != wantDigest {
				t.Errorf("%q|%q|%q measures %d, %d, want %+v", message[:i], message[i:j], message[j:], m.Size, m.VSize, want)
			}
			if s.Size != want.Size || s.VSize != want.VSize {
				t.Errorf("%q|%q|%q has sizes %+v, want %+v", message[:i], message[i:j], message[j:], s, want)
			}
		}
	}
}

func FuzzMeasure(f *testing.F) {
	f.Add([]byte("a\r\nb\n"), 2)
	f.Add([]byte("\r\r\n"), 1)
	f.Fuzz(func(t *testing.T, message []byte, cut int) {
		if cut < 0 || cut > len(message) {
			return
		}
		m := NewMeasure()
		m.Write(message[:cut])
		m.Write(message[cut:])
		want, digest := MeasureBytes(message)
		if m.Size != want.Size || m.VSize != want.VSize || m.Digest() != digest {
			t.Errorf("%q|%q measures %d, %d, want %+v", message[:cut], message[cut:], m.Size, m.VSize, want)
		}
	})
}
