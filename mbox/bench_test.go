package mbox

import (
	"bytes"
	"io"
	"testing"

	"mailferry/internal/mailgen"
)

// BenchmarkScan reads 20,000 messages of 2 KiB from memory: what a scan costs
// without the file.
func BenchmarkScan(b *testing.B) {
	var mailbox bytes.Buffer
	if _, err := mailgen.Fixed(&mailbox, 1, 20000, 2048); err != nil {
		b.Fatal(err)
	}
	for _, p := range []Profile{Careful, Dovecot} {
		b.Run(p.Name, func(b *testing.B) {
			b.SetBytes(int64(mailbox.Len()))
			b.ReportAllocs()
			for b.Loop() {
				s, err := NewScanner(bytes.NewReader(mailbox.Bytes()), int64(mailbox.Len()), Options{Profile: p})
				if err != nil {
					b.Fatal(err)
				}
				t := NewTracker(s)
				for {
					e, err := s.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
					t.State(e)
				}
			}
		})
	}
}
