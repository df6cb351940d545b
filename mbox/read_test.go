package mbox

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// read is what a scan finds, with copies of what Next returns.
type read struct {
	entries  []Entry
	contents []string
	careful  int
	lead     int64
	kind     Kind
	odd      string
	uidls    []string
	states   []State
	tracker  *Tracker
}

// readAll scans an mbox to its end.
func readAll(r io.ReaderAt, size int64, o Options, window int) (got read, err error) {
	o.Digest = true
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	s, err := newScanner(r, size, o, window)
	if err != nil {
		return got, err
	}
	got.tracker = NewTracker(s)
	got.lead, got.kind = s.Lead(), s.Kind()
	for {
		e, err := s.Next()
		if errors.Is(err, io.EOF) {
			got.careful, got.odd = s.CarefulCount(), s.Oddities().String()
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got.uidls = append(got.uidls, s.HeaderUIDL())
		got.states = append(got.states, got.tracker.State(e))
		var content bytes.Buffer
		if err := s.WriteContent(&content); err != nil {
			return got, err
		}
		got.contents = append(got.contents, content.String())
		got.entries = append(got.entries, keep(e))
	}
}

// keep copies an entry.
func keep(e *Entry) Entry {
	c := *e
	c.From.Raw = bytes.Clone(e.From.Raw)
	c.Fields = nil
	for _, h := range e.Fields {
		c.Fields = append(c.Fields, HeaderField{h.Field, bytes.Clone(h.Value)})
	}
	return c
}

func options(t testing.TB, profile string) Options {
	t.Helper()
	p, err := ProfileByName(profile)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Profile: p}
}

// mustRead scans a mailbox that is one to the profile.
func mustRead(t testing.TB, file, profile string) read {
	t.Helper()
	got, err := readAll(strings.NewReader(file), int64(len(file)), options(t, profile), windowSize)
	if err != nil {
		t.Fatalf("%s: %v", profile, err)
	}
	return got
}

// wantMessages compares the messages that a profile finds.
func wantMessages(t testing.TB, file, profile string, want ...string) {
	t.Helper()
	if got := mustRead(t, file, profile).contents; !slices.Equal(got, want) {
		t.Errorf("%s finds %d messages\n%q\nwant %d\n%q", profile, len(got), got, len(want), want)
	}
}

// wantOddity demands that a scan reports an oddity at the given offsets.
func wantOddity(t testing.TB, file, profile string, kind Oddity, offsets ...int64) {
	t.Helper()
	s, err := NewScanner(strings.NewReader(file), int64(len(file)), options(t, profile))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Next()
	}
	if got := s.Oddities().Of(kind).Offsets; !slices.Equal(got, offsets) {
		t.Errorf("%s reports %s at %v, want %v", profile, kind, got, offsets)
	}
}
