package livemail

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What formats and servers do to a message is no change of it; all else is.
func TestIdentify(t *testing.T) {
	const sent = "From: <a@example.org>\nSubject: live m1\nX-Live-Id: m1\n\nHello,\nFrom here it goes on\nbye\n"
	_, want := Identify([]byte(sent))
	for _, tt := range []struct {
		name, old, new string
		id             string
		same           bool
	}{
		{"as it was sent", "", "", "m1", true},
		{"CRLF", "\n", "\r\n", "m1", true},
		{"fields of servers", "Subject:", "X-UID: 7\nStatus: RO\nReturn-Path: <a@example.org>\nSubject:", "m1", true},
		{"a From_ line in front", "From: <", "From a@example.org Mon Jan  2 03:04:05 2023\nFrom: <", "m1", true},
		{"a quoted From_ line", "\nFrom here", "\n>From here", "m1", true},
		{"another field", "<a@", "<b@", "m1", false},
		{"a missing field", "Subject: live m1\n", "", "m1", false},
		{"another octet of text", "bye", "Bye", "m1", false},
		{"a line less", "bye\n", "", "m1", false},
		{"a line more", "bye\n", "bye\n\n", "m1", false},
		{"text of another", "bye\n", "bye\n\nFrom b@example.org Mon Jan  2 03:04:05 2023\nFrom: <b@example.org>\n", "m1", false},
		{"another id", "X-Live-Id: m1", "X-Live-Id: m2", "m2", false},
		{"no id", "X-Live-Id: m1\n", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, got := Identify(bytes.ReplaceAll([]byte(sent), []byte(tt.old), []byte(tt.new)))
			if tt.old == "" {
				id, got = Identify([]byte(sent))
			}
			if id != tt.id || (got == want) != tt.same {
				t.Errorf("id %q, want %q; same digest %t, want %t", id, tt.id, got == want, tt.same)
			}
		})
	}
}

// A message is made up anew for each attempt, and is the same each time.
func TestTextComesFromTheSeed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	u := &User{Name: "live0"}
	for range 300 {
		m := newMessage("m1", u, random)
		text := m.Text()
		if id, digest := Identify(text); id != m.ID || digest != m.Digest || len(text) != m.Size {
			t.Fatalf("id %q, digest %s, %d octets; want %q, %s, %d", id, digest, len(text), m.ID, m.Digest, m.Size)
		}
		if !bytes.HasSuffix(text, []byte(".\n")) { // a blank line at the end is the format's
			t.Fatalf("ends in %q", text[len(text)-10:])
		}
	}
}
