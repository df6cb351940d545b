package mbox

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// mktimes asks glibc, whose mktime begins its search at the offset that it
// found last, and so answers an hour that comes twice by the call before. In a
// mailbox in order of time, read from its beginning, the call before was for an
// earlier message: each question follows one about the week before.
const mktimes = `
import sys, time, os
for line in sys.stdin:
    zone, *clock = line.split()
    if zone != os.environ.get('TZ'):
        os.environ['TZ'] = zone
        time.tzset()
    y, mo, d, h, mi, s = map(int, clock)
    time.mktime((y, mo, d - 7, h, mi, s, 0, 0, -1))
    print(int(time.mktime((y, mo, d, h, mi, s, 0, 0, -1))))
`

// askMktime answers for each clock reading, given in UTC, what it is in its zone.
func askMktime(t *testing.T, zone string, clocks []time.Time) []int64 {
	t.Helper()
	var in strings.Builder
	for _, c := range clocks {
		fmt.Fprintln(&in, zone, c.Format("2006 1 2 15 4 5"))
	}
	cmd := exec.Command("python3", "-c", mktimes)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers []int64
	for _, word := range strings.Fields(string(out)) {
		var n int64
		if _, err := fmt.Sscan(word, &n); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, n)
	}
	if len(answers) != len(clocks) {
		t.Fatalf("mktime answered %d of %d", len(answers), len(clocks))
	}
	return answers
}

// readings are what clocks in loc can show near each change of the offset from
// 1971 to 2037, by the offset before and by the one after it, and at random times.
func readings(r *rand.Rand, loc *time.Location) (clocks []time.Time) {
	first := time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)
	last := time.Date(2037, 1, 1, 0, 0, 0, 0, time.UTC)
	for at := first; ; {
		_, change := at.In(loc).ZoneBounds()
		if change.IsZero() || change.After(last) {
			break
		}
		_, before := change.Add(-time.Second).In(loc).Zone()
		_, after := change.In(loc).Zone()
		for _, offset := range []int{before, after} {
			edge := change.UTC().Add(time.Duration(offset) * time.Second)
			clocks = append(clocks, edge.Add(-time.Second), edge, edge.Add(time.Second))
			for range 3 {
				clocks = append(clocks, edge.Add(time.Duration(r.IntN(4*3600)-2*3600)*time.Second))
			}
		}
		at = change
	}
	for range 300 {
		clocks = append(clocks, first.Add(time.Duration(r.Int64N(int64(last.Sub(first)/time.Second)))*time.Second))
	}
	return clocks
}

func TestLocalTimeIsMktimeOfAMailboxInOrder(t *testing.T) {
	for _, zone := range []string{"UTC", "America/New_York", "Europe/Berlin", "Europe/London", "Australia/Lord_Howe",
		"Asia/Kolkata", "America/Sao_Paulo", "Pacific/Chatham"} {
		t.Run(zone, func(t *testing.T) {
			loc, err := time.LoadLocation(zone)
			if err != nil {
				t.Fatal(err)
			}
			clocks := readings(rand.New(rand.NewPCG(1, 1)), loc)
			for i, want := range askMktime(t, zone, clocks) {
				c := clocks[i]
				got := localTime(c.Year(), int(c.Month()), c.Day(), c.Hour(), c.Minute(), c.Second(), loc)
				if got.Unix() != want {
					t.Errorf("%s is %v, but %v to glibc", c.Format(time.DateTime), got, time.Unix(want, 0).In(loc))
				}
			}
		})
	}
}

func TestLocalTimeTakesDatesThatAreNone(t *testing.T) {
	for _, tt := range []struct {
		name                              string
		year, month, day, hour, min, secs int
		want                              string
	}{
		{"31 February is 3 March", 2023, 2, 31, 3, 4, 5, "2023-03-03 03:04:05"},
		{"25 o'clock is 1 o'clock of the next day", 2023, 1, 31, 25, 0, 0, "2023-02-01 01:00:00"},
		{"a leap second is the next minute", 2016, 12, 31, 23, 59, 60, "2017-01-01 00:00:00"},
		{"99 minutes and seconds", 2023, 1, 1, 0, 99, 99, "2023-01-01 01:40:39"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := localTime(tt.year, tt.month, tt.day, tt.hour, tt.min, tt.secs, time.UTC)
			if got.Format(time.DateTime) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}
