package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBareLoopMakesTheFilesOfTheList(t *testing.T) {
	dir := t.TempDir()
	want := []entry{
		{"1451606400.M0P1Q0.host,S=0,W=0:2,", 0, 1451606400},
		{"1451606401.M1P1Q1.host,S=5,W=6:2,S", 5, 1451606401},
		{"1451606402.M2P1Q2.host,S=70000,W=71000:2,FS", 70000, 1},
	}
	list, maildir := filepath.Join(dir, "list"), filepath.Join(dir, "Maildir")
	if err := writeList(list, want); err != nil {
		t.Fatal(err)
	}
	t.Setenv(phasesVariable, "1")
	var out bytes.Buffer
	if err := bareMain(list, maildir, &out); err != nil {
		t.Fatal(err)
	}
	if got, err := listMaildir(maildir); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if n, err := countMessages(maildir); err != nil || n != len(want) {
		t.Errorf("%d messages, %v", n, err)
	}
	var r bareReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Wall <= 0 || r.Phases["create"] <= 0 {
		t.Errorf("report %s: %v", &out, err)
	}
}

func TestRatioIsTheMedianOfTheRoundsInCommon(t *testing.T) {
	at := func(round int, s float64) usage {
		return usage{round: round, wall: time.Duration(s * float64(time.Second))}
	}
	base := []usage{at(0, 1), at(1, 2), at(2, 9)}
	for _, tt := range []struct {
		name  string
		other []usage
		want  string
	}{
		{"all rounds", []usage{at(0, 1), at(1, 4), at(2, 3)}, "1.00"},
		{"two rounds", []usage{at(0, 2), at(1, 2)}, "0.75"},
		{"none", nil, "-"},
		{"one in which the other took nothing", []usage{at(0, 1), at(1, 0)}, "1.00"},
	} {
		if got := ratio(base, tt.other, usage.wallSeconds); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestMemoryIsThatOfTheProcessNotOfItsParent(t *testing.T) {
	ballast := bytes.Repeat([]byte("x"), 64<<20)
	b := &bench{config: config{uid: os.Getuid()}}
	var u usage
	if _, err := b.step(t.Context(), []string{"sleep", "0.1"}, nil, &u); err != nil {
		t.Fatal(err)
	}
	if u.rss == 0 || u.rss > 16<<20 {
		t.Errorf("sleep has a peak of %d octets beside a parent of %d", u.rss, len(ballast))
	}
	if u.wall < 100*time.Millisecond {
		t.Errorf("wall time %v", u.wall)
	}
}

func TestFailedStepTellsWhatTheCommandSaid(t *testing.T) {
	b := &bench{config: config{uid: os.Getuid()}}
	_, err := b.step(t.Context(), []string{"ls", "/no such place"}, nil, new(usage))
	if err == nil || !strings.Contains(err.Error(), "no such place") {
		t.Errorf("got %v", err)
	}
}
