package mailgen

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"hash"
)

// Sum is the size in octets and the SHA-256 of a message in one reading.
type Sum struct {
	Size   int64
	SHA256 [32]byte
}

// output counts and digests what goes to the mailbox.
type output struct {
	w    *bufio.Writer
	off  int64
	err  error
	room int   // octets that the body may still take
	sums *sums // nil: nobody asks
}

func (o *output) bytes(p []byte) {
	n, err := o.w.Write(p)
	o.off += int64(n)
	if err != nil {
		o.err = err
	}
}

func (o *output) string(s string) { o.bytes([]byte(s)) }

// body writes p as far as there is room for it, and digests that.
func (o *output) body(p []byte) {
	p = p[:min(len(p), o.room)]
	o.room -= len(p)
	if o.sums != nil {
		o.sums.write(p)
	}
	o.bytes(p)
}

// sums digests a message as it comes and with every CR LF as LF.
type sums struct {
	asIs, lf     hash.Hash
	size, lfSize int64
	tail         []byte // up to two octets not yet in asIs: a newline that Dovecot drops
	cr           bool   // a CR not yet in lf
}

func newSums() *sums { return &sums{asIs: sha256.New(), lf: sha256.New()} }

func (s *sums) write(p []byte) {
	s.writeLF(p)
	s.size += int64(len(p))
	if len(p) >= 2 {
		s.asIs.Write(s.tail)
		s.asIs.Write(p[:len(p)-2])
		s.tail = append(s.tail[:0], p[len(p)-2:]...)
		return
	}
	s.tail = append(s.tail, p...)
	if over := len(s.tail) - 2; over > 0 {
		s.asIs.Write(s.tail[:over])
		s.tail = append(s.tail[:0], s.tail[over:]...)
	}
}

func (s *sums) writeLF(p []byte) {
	if s.cr {
		p = append([]byte("\r"), p...)
	}
	if s.cr = bytes.HasSuffix(p, []byte("\r")); s.cr {
		p = p[:len(p)-1]
	}
	if bytes.Contains(p, []byte("\r\n")) {
		p = bytes.ReplaceAll(p, []byte("\r\n"), []byte("\n"))
	}
	s.lfSize += int64(len(p))
	s.lf.Write(p)
}

// finish gives the sums as written, without the lost last octets, and with LFs.
func (s *sums) finish(lost int) (content, dovecot, lf Sum) {
	kept := len(s.tail) - lost
	s.asIs.Write(s.tail[:kept])
	dovecot = sum(s.size-int64(lost), s.asIs)
	s.asIs.Write(s.tail[kept:])
	content = sum(s.size, s.asIs)
	if s.cr {
		s.lf.Write([]byte("\r"))
		s.lfSize++
	}
	return content, dovecot, sum(s.lfSize, s.lf)
}

func sum(size int64, h hash.Hash) Sum {
	return Sum{Size: size, SHA256: [32]byte(h.Sum(nil))}
}
