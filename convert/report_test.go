package convert

import (
	"strings"
	"testing"

	"mailferry/mbox"
)

// A kind that package mbox gets behind the last one would not be told.
func TestTheLastKindOfOddityIsTheLast(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("there is a kind behind lastKind")
		}
	}()
	_ = (lastKind + 1).String()
}

func TestWhatAScanDoubtedIsKeptByKindInTheOrderOfThePackage(t *testing.T) {
	const letter = "From a@example.org Mon Jan  2 03:04:05 2023\nSubject: x\n\n"
	content := letter + "From here\n\n" + letter + "no newline"
	s, err := mbox.NewScanner(strings.NewReader(content), int64(len(content)), mbox.Options{Profile: mbox.Dovecot})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		if _, err := s.Next(); err != nil {
			break
		}
	}
	odd, want := oddOf(s.Oddities()), s.Oddities().String()
	if len(odd) < 2 {
		t.Fatalf("%v", odd)
	}
	var again mbox.Oddities
	if oddOf(&again) != nil {
		t.Error("nothing was odd, and something is kept")
	}
	got := ""
	odd["no-code"] = mbox.Places{Count: 1}
	for kind, p := range odd.All {
		if q := s.Oddities().Of(kind); p.Count != q.Count || len(p.Offsets) != len(q.Offsets) || p.Offsets[0] != q.Offsets[0] {
			t.Errorf("%s: %v, want %v", kind, p, q)
		}
		got += kind.String() + " "
	}
	for line := range strings.Lines(want) {
		kind, _, _ := strings.Cut(line, ":")
		if !strings.HasPrefix(got, kind+" ") {
			t.Fatalf("%s is not next in %s", kind, got)
		}
		got = strings.TrimPrefix(got, kind+" ")
	}
	if got != "" {
		t.Errorf("more: %s", got)
	}
}
