package message

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// Digest is the SHA-256 of a message's bytes.
type Digest [sha256.Size]byte

// Sizes takes the sizes of a message written to it.
type Sizes struct {
	Size  int64 // bytes
	VSize int64 // bytes when every bare LF counts as CRLF: RFC822.SIZE, POP3 LIST, W=
	cr    bool  // the last byte was a CR
}

// Write adds b to the message. It never fails.
func (s *Sizes) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.Size += int64(len(b))
	s.VSize += int64(len(b) + bareLFs(b))
	if s.cr && b[0] == '\n' {
		s.VSize-- // its CR came with the piece before
	}
	s.cr = b[len(b)-1] == '\r'
	return len(b), nil
}

// Measure takes the sizes and the digest of a message written to it.
type Measure struct {
	Sizes
	hash hash.Hash
}

// NewMeasure returns a Measure of nothing.
func NewMeasure() *Measure { return &Measure{hash: sha256.New()} }

// Reset makes m a Measure of nothing again.
func (m *Measure) Reset() {
	m.Sizes = Sizes{}
	m.hash.Reset()
}

// Write adds b to the message. It never fails.
func (m *Measure) Write(b []byte) (int, error) {
	m.hash.Write(b)
	return m.Sizes.Write(b)
}

// bareLFs counts the LFs in b that have no CR before them.
func bareLFs(b []byte) int {
	n := bytes.Count(b, []byte{'\n'})
	if bytes.IndexByte(b, '\r') >= 0 {
		n -= bytes.Count(b, crlf)
	}
	return n
}

// Digest returns the digest of what was written so far.
func (m *Measure) Digest() Digest {
	var d Digest
	m.hash.Sum(d[:0])
	return d
}

// MeasureBytes measures a message that is in memory as a whole.
func MeasureBytes(b []byte) (s Sizes, d Digest) {
	return SizesOf(b), sha256.Sum256(b)
}

// SizesOf takes the sizes alone: the digest costs more than everything else
// that is done to a message.
func SizesOf(b []byte) Sizes {
	return Sizes{Size: int64(len(b)), VSize: int64(len(b) + bareLFs(b))}
}
