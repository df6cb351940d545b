package powerloss

import "bytes"

const pageSize = 4096

var zeroPage = make([]byte, pageSize)

// image is the content of a disk: pages that were written, over those of
// another image, which does not change any more; below all there are zeros. A
// page is replaced as a whole, never written into.
type image struct {
	under *image
	pages map[int64][]byte // by number
}

func over(under *image) *image { return &image{under, map[int64][]byte{}} }

func (m *image) page(n int64) []byte {
	for ; m != nil; m = m.under {
		if p, ok := m.pages[n]; ok {
			return p
		}
	}
	return zeroPage
}

func (m *image) read(dest []byte, at int64) {
	for len(dest) > 0 {
		n := copy(dest, m.page(at / pageSize)[at%pageSize:])
		dest, at = dest[n:], at+int64(n)
	}
}

// write takes the data over: it may not change any more.
func (m *image) write(data []byte, at int64) {
	for len(data) > 0 {
		n := at / pageSize
		in := int(at % pageSize)
		part := data[:min(len(data), pageSize-in)]
		data, at = data[len(part):], at+int64(len(part))
		if len(part) < pageSize {
			whole := bytes.Clone(m.page(n))
			copy(whole[in:], part)
			part = whole
		}
		if bytes.Equal(part, zeroPage) {
			part = zeroPage
		}
		m.pages[n] = part
	}
}
