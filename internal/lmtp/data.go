package lmtp

import "io"

// The library takes a CR behind a CR for text, and so misses the end of a line,
// and of a message, if a CR stands before it. It is right about runs of an odd
// number. So spread makes 2n-1 CRs of n, in what the library reads behind DATA,
// and gather makes n of 2n-1 in what it hands on.

// spread follows a message of DATA (RFC 5321 4.1.1.4) to its end.
type spread struct {
	matched int  // bytes of endOfData that were read last
	cr      bool // the last one was a CR
}

const endOfData = "\r\n.\r\n"

// newSpread is at the beginning of a message, which begins a line.
func newSpread() *spread { return &spread{matched: len("\r\n")} }

// next takes a byte, and tells whether it is to be doubled, and whether it is
// the last one of the message.
func (s *spread) next(c byte) (double, end bool) {
	double = c == '\r' && s.cr
	s.cr = c == '\r'
	switch {
	case c == endOfData[s.matched]:
		s.matched++
	case c == '\r':
		s.matched = 1
	default:
		s.matched = 0
	}
	return double, s.matched == len(endOfData)
}

// gather takes away what spread has added.
type gather struct {
	io.Reader
	odd bool // number of CRs that were read last
}

func (g *gather) Read(b []byte) (int, error) {
	n, err := g.Reader.Read(b)
	kept := b[:0]
	for _, c := range b[:n] {
		again := c == '\r' && g.odd
		g.odd = c == '\r' && !g.odd
		if !again {
			kept = append(kept, c)
		}
	}
	return len(kept), err
}
