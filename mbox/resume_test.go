package mbox

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// reading is all that a scan tells.
type reading struct {
	entries []string
	tail    string
}

func (r *reading) take(t *testing.T, s *Scanner, tr *Tracker, marked func()) {
	t.Helper()
	for {
		e, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		state := tr.State(e)
		r.entries = append(r.entries, fmt.Sprint(e.Offset, e.Next(), e.Size, e.VSize, e.Digest, e.Date, state))
		marked()
	}
	r.tail = fmt.Sprint(s.CarefulCount(), tr.NextUID(), tr.UIDValidity(), tr.Keywords(), "\n", s.Oddities())
}

// growingPieces are what random mailboxes are made of.
var growingPieces = []func(r *rand.Rand) string{
	func(r *rand.Rand) string {
		return fmt.Sprintf("From x@example.org Thu Jan  1 00:00:01 2015\nSubject: a\nX-UID: %d\nStatus: RO\n\ntext\n\n", r.IntN(20))
	},
	func(r *rand.Rand) string { return "From x@example.org Thu Jan  1 00:00:01 2015\n\ntext\n" },
	func(r *rand.Rand) string {
		return fmt.Sprintf("From x@example.org Thu Jan  1 00:00:01 2015\nContent-Length: %d\nX-Keywords: k%d\n\n", r.IntN(50000), r.IntN(40))
	},
	func(r *rand.Rand) string { // one that may well land
		body := strings.Repeat("12345678\n", r.IntN(3000))
		return fmt.Sprintf("From x@example.org Thu Jan  1 00:00:01 2015\nContent-Length: %d\n\n%s\n", len(body), body)
	},
	func(r *rand.Rand) string { // one that holds others
		inner := "From y@example.org Thu Jan  1 00:00:01 2015\nSubject: inner\n\n" + strings.Repeat("12345678\n", 2000) + "\n"
		body := "whole\n\n" + strings.Repeat(inner, 1+r.IntN(3))
		return fmt.Sprintf("From x@example.org Thu Jan  1 00:00:01 2015\nContent-Length: %d\n\n%s\n", len(body), body)
	},
	func(r *rand.Rand) string { return "From here on it is prose\n" },
	func(r *rand.Rand) string { return "From r@example.org\nSubject: undated\n\n" },
	func(r *rand.Rand) string { return strings.Repeat("filler\n", r.IntN(2000)) },
	func(r *rand.Rand) string { return "\n" },
	func(r *rand.Rand) string { return strings.Repeat("x", r.IntN(9000)) },
}

// A scan that is taken up behind a mark of a scan of the beginning finds what one
// of the whole file finds, wherever the beginning ended.
func TestAResumedScanFindsWhatAWholeOneDoes(t *testing.T) {
	for _, name := range ProfileNames() {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(9, uint64(len(name))))
			o := Options{Digest: true}
			o.Profile, _ = ProfileByName(name)
			resumed := 0
			for range 400 {
				text := "From x@example.org Thu Jan  1 00:00:01 2015\nX-IMAPbase: 7 9 k1 k2\n\nfirst\n\n"
				cut := 0 // often where a Content-Length leads
				for range 5 + r.IntN(20) {
					text += growingPieces[r.IntN(len(growingPieces))](r)
					if r.IntN(8) == 0 {
						cut = len(text) + r.IntN(50)
					}
				}
				if r.IntN(2) == 0 || cut >= len(text) {
					cut = r.IntN(len(text))
				}
				if resumedAt(t, text, cut, o) {
					resumed++
				}
			}
			if resumed < 100 {
				t.Errorf("only %d scans were resumed", resumed)
			}
		})
	}
}

func resumedAt(t *testing.T, text string, cut int, o Options) bool {
	t.Helper()
	scan := func(text string) (*Scanner, *Tracker) {
		s, err := NewScanner(strings.NewReader(text), int64(len(text)), o)
		if err != nil {
			return nil, nil
		}
		return s, NewTracker(s)
	}
	s, tr := scan(text[:cut])
	if s == nil {
		return false
	}
	var before, whole, after reading
	var mark *Mark
	known := 0
	before.take(t, s, tr, func() {
		if m, ok := s.Mark(tr); ok {
			mark, known = &m, len(before.entries)
		}
	})
	if mark == nil || !mark.Fits(int64(len(text))) {
		return false
	}
	s, tr = scan(text)
	whole.take(t, s, tr, func() {})
	s, tr, err := Resume(strings.NewReader(text), int64(len(text)), o, mark)
	if err != nil {
		t.Fatal(err)
	}
	after.entries = slices.Clone(before.entries[:known])
	after.take(t, s, tr, func() {})
	if !slices.Equal(whole.entries, after.entries) || whole.tail != after.tail {
		t.Fatalf("cut at %d of %d, marked at %d:\nwhole   %s\nresumed %s", cut, len(text), mark.Offset(), whole.tail, after.tail)
	}
	return true
}

// The place of an X-IMAPbase that the size of the file decides about is no mark.
func TestWhatTheSizeDecidesIsNotMarked(t *testing.T) {
	text := "From x@example.org Thu Jan  1 00:00:01 2015\nX-IMAPbase: 7 4294967000\n\nfirst\n\n"
	text += strings.Repeat("From x@example.org Thu Jan  1 00:00:01 2015\n\ntext\n\n", 1000)
	s, err := NewScanner(bytes.NewReader([]byte(text)), int64(len(text)), Options{Profile: Dovecot})
	if err != nil {
		t.Fatal(err)
	}
	tr := NewTracker(s)
	new(reading).take(t, s, tr, func() {
		if _, ok := s.Mark(tr); ok {
			t.Fatalf("marked at %d", s.Offset())
		}
	})
}
