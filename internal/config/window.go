package config

import (
	"fmt"
	"time"
)

// Window is a part of each day, by the clock on the wall. The zero Window is
// always open.
type Window struct {
	From, To time.Duration // since midnight; To is the earlier if the window spans it
}

// ParseWindow reads "01:00-05:30" or, over midnight, "22:00-05:30". "24:00" is
// a way to write the end of the day; "" is the window that is always open.
func ParseWindow(text string) (Window, error) {
	if text == "" {
		return Window{}, nil
	}
	if len(text) != len("01:00-05:30") || text[5] != '-' {
		return Window{}, badWindow(text)
	}
	from, ok1 := parseClock(text[:5])
	to, ok2 := parseClock(text[6:])
	if !ok1 || !ok2 || from == day {
		return Window{}, badWindow(text)
	}
	if from == to%day {
		return Window{}, fmt.Errorf("%q has no length; leave it empty for always", text)
	}
	return Window{from, to % day}, nil
}

const day = 24 * time.Hour

func badWindow(text string) error {
	return fmt.Errorf("%q is no window such as 01:00-05:30", text)
}

// parseClock reads "05:30", to "24:00".
func parseClock(text string) (time.Duration, bool) {
	for _, at := range []int{0, 1, 3, 4} {
		if text[at] < '0' || text[at] > '9' {
			return 0, false
		}
	}
	digit := func(at int) time.Duration { return time.Duration(text[at] - '0') }
	minutes := digit(3)*10 + digit(4)
	t := (digit(0)*10+digit(1))*time.Hour + minutes*time.Minute
	return t, text[2] == ':' && minutes < 60 && t <= day
}

// String writes what ParseWindow reads.
func (w Window) String() string {
	if w == (Window{}) {
		return ""
	}
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute) }
	return clock(w.From) + "-" + clock(w.To)
}

// Open reports whether a time lies in the window, by the clock of its zone.
func (w Window) Open(t time.Time) bool {
	h, m, s := t.Clock()
	now := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	switch {
	case w == (Window{}):
		return true
	case w.From < w.To:
		return w.From <= now && now < w.To
	}
	return now >= w.From || now < w.To
}

// Closes returns when a window that is open at a time will close; the zero
// time for one that never does.
func (w Window) Closes(t time.Time) time.Time {
	if w == (Window{}) {
		return time.Time{}
	}
	return w.next(t, false)
}

// Opens returns when a window will be open, t itself if it is.
func (w Window) Opens(t time.Time) time.Time { return w.next(t, true) }

// next goes from minute to minute: on the nights when clocks change, times of
// the clock are missing or come twice.
func (w Window) next(t time.Time, open bool) time.Time {
	for w.Open(t) != open {
		t = t.Truncate(time.Minute).Add(time.Minute)
	}
	return t
}
