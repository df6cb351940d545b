package mbox

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
)

// maxUIDLHeader bounds the header that a UIDL is computed from, in bytes.
const maxUIDLHeader = 256 << 10

// HeaderUIDL computes the POP3 UIDL that popa3d or solid-pop3d gives the
// message that Next returned last, which is a digest of some header lines;
// other profiles have none ("").
func (s *Scanner) HeaderUIDL() string {
	if s.profile.uidl == nil {
		return ""
	}
	e := &s.entry
	return s.profile.uidl(s.w.peek(e.Offset+e.FromLen, int(min(e.header, maxUIDLHeader))))
}

// popa3dUIDL: popa3d mailbox.c, measured: MD5 over the raw lines, folds
// included, of Delivered-To, X-Delivery-ID, the first Received, and Date and
// Message-ID before it; of the digest, two words of four bytes, each reversed.
func popa3dUIDL(header []byte) string {
	hash := md5.New()
	received, hashing := false, false
	for line := range bytes.Lines(header) {
		if line[0] != ' ' && line[0] != '\t' {
			name, _, _ := bytes.Cut(line, []byte{':'})
			switch string(bytes.ToLower(name)) {
			case "delivered-to", "x-delivery-id":
				hashing = true
			case "received":
				hashing = !received
				received = true
			case "date", "message-id":
				hashing = !received
			default:
				hashing = false
			}
		}
		if hashing {
			hash.Write(line)
		}
	}
	d := hash.Sum(nil)
	return fmt.Sprintf("%02x%02x%02x%02x%02x%02x%02x%02x", d[3], d[2], d[1], d[0], d[7], d[6], d[5], d[4])
}

// solidFields compare with regard to case, as solid-pop3d does.
var solidFields = [][]byte{[]byte("Received:"), []byte("Date:"), []byte("Message-Id:"), []byte("Subject:")}

// solidUIDL: solid-pop3d, measured: MD5 over the first raw line of each of
// those fields.
func solidUIDL(header []byte) string {
	hash := md5.New()
	for line := range bytes.Lines(header) {
		for _, name := range solidFields {
			if bytes.HasPrefix(line, name) {
				hash.Write(line)
			}
		}
	}
	return hex.EncodeToString(hash.Sum(nil))
}
