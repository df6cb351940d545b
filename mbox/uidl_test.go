package mbox

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// popa3dDigest is popa3d's form of an MD5: two words of four bytes, the last first.
func popa3dDigest(hashed string) string {
	d := md5.Sum([]byte(hashed))
	return fmt.Sprintf("%x%x%x%x%x%x%x%x", d[3:4], d[2:3], d[1:2], d[0:1], d[7:8], d[6:7], d[5:6], d[4:5])
}

func solidDigest(hashed string) string {
	d := md5.Sum([]byte(hashed))
	return hex.EncodeToString(d[:])
}

// TestHeaderUIDLs: what is hashed is given literally. The rules were run
// against the real servers.
func TestHeaderUIDLs(t *testing.T) {
	for _, tt := range []struct{ name, header, popa3d, solid string }{
		{"all fields in order", "Delivered-To: a\nReceived: r1\n r2\nReceived: r3\nDate: d\nMessage-Id: m\nSubject: s\n",
			"Delivered-To: a\nReceived: r1\n r2\n",
			"Received: r1\nReceived: r3\nDate: d\nMessage-Id: m\nSubject: s\n"},
		{"Date and Message-ID before the first Received", "Date: d\nMessage-ID: m\n folded\nReceived: r1\nDate: d2\n",
			"Date: d\nMessage-ID: m\n folded\nReceived: r1\n",
			"Date: d\nReceived: r1\nDate: d2\n"},
		{"no Received", "Subject: s\nMessage-Id: m\nDate: d\nX-Delivery-ID: x\n",
			"Message-Id: m\nDate: d\nX-Delivery-ID: x\n",
			"Subject: s\nMessage-Id: m\nDate: d\n"},
		{"popa3d takes any case, solid none but its own", "received: r\nDELIVERED-TO: a\nMessage-ID: m\nsubject: s\n",
			"received: r\nDELIVERED-TO: a\n", ""},
		{"X-Delivery-ID behind the Received", "Received: r\nX-Delivery-ID: x\nDate: d\n",
			"Received: r\nX-Delivery-ID: x\n", "Received: r\nDate: d\n"},
		{"nothing of all that", "From: a@b\nTo: c@d\n", "", ""},
		{"hidden from nobody", "Status: RO\nReceived: r\nX-UID: 1\n", "Received: r\n", "Received: r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := fromA + tt.header + "\nDate: body\n\n"
			if got := mustRead(t, file, "popa3d").uidls[0]; got != popa3dDigest(tt.popa3d) {
				t.Errorf("popa3d: %s, want that of %q", got, tt.popa3d)
			}
			if got := mustRead(t, file, "solid").uidls[0]; got != solidDigest(tt.solid) {
				t.Errorf("solid: %s, want that of %q", got, tt.solid)
			}
		})
	}
}

// TestHeaderUIDLVectors are UIDLs that the real servers gave (popa3d 1.0.3,
// solid-pop3d 0.15).
func TestHeaderUIDLVectors(t *testing.T) {
	file := fromA + "Subject: z\nMessage-Id: 3\nReceived: a\nReceived: b\nDelivered-To: q\n\nx\n\n" +
		fromC + "A: 1\n\ny\n\n"
	for profile, want := range map[string][]string{
		"popa3d": {"13f019e10b2beabc", "d98c1dd404b2008f"},
		"solid":  {"48d9a0e2bd66d0de68ffd9b470dfaf6b", "d41d8cd98f00b204e9800998ecf8427e"},
	} {
		if got := mustRead(t, file, profile).uidls; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", profile, got, want)
		}
	}
}

func TestOtherServersHaveNoHeaderUIDL(t *testing.T) {
	for _, profile := range strings.Fields("careful dovecot uw qpopper mailutils") {
		if got := mustRead(t, fromA+"Date: d\n\nx\n\n", profile).uidls[0]; got != "" {
			t.Errorf("%s: %q", profile, got)
		}
	}
}

func TestHeaderUIDLOfALongMessage(t *testing.T) {
	header := "Received: r\nX: " + strings.Repeat("y", 2*windowSize) + "\nDate: late\n"
	got := mustRead(t, fromA+"Date: d\n"+header+"\n"+strings.Repeat("body\n", 1000), "popa3d").uidls[0]
	if want := popa3dDigest("Date: d\nReceived: r\n"); got != want {
		t.Errorf("popa3d: %s, want %s", got, want)
	}
}
