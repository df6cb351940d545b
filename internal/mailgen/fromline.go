package mailgen

import (
	"strings"
	"time"
)

// asctime has no zone: Dovecot takes the clock for that of its own zone.
const asctime = "Mon Jan _2 15:04:05 2006"

// shape is a form of From_ line that Dovecot accepts (mbox-from.c).
type shape struct {
	sender string // "" for that of the message
	none   bool   // no sender at all
	layout string // of the date
	zone   string // in place of ZONE in the layout
	after  string // follows the date
	east   int    // the zone as it is meant, seconds
	quirk  int    // the zone as Dovecot applies it, seconds
	minute bool   // no seconds
}

// plainLayouts are those of most deliverers and of Dovecot, which puts two
// spaces before the date.
var plainLayouts = []string{asctime, " Mon Jan 02 15:04:05 2006"}

const hour = 3600

// shapes: Dovecot applies a numeric zone after the year, its minutes as
// seconds, and ignores every other zone.
var shapes = []shape{
	{layout: "Mon Jan 02 15:04:05 2006"},
	{layout: "Mon Jan 2 15:04:05 2006"},
	{layout: asctime, after: " +0000"},
	{layout: asctime, after: " +0200", east: 2 * hour, quirk: 2 * hour},
	{layout: asctime, after: " +0530", east: 5*hour + 1800, quirk: 5*hour + 30},
	{layout: asctime, after: " -0330", east: -3*hour - 1800, quirk: -3*hour - 30},
	{layout: "Mon Jan _2 15:04:05 ZONE 2006", zone: "-0700", east: -7 * hour},
	{layout: "Mon Jan _2 15:04:05 ZONE 2006", zone: "PST", east: -8 * hour},
	{layout: asctime, after: " MET", east: hour},
	{layout: "Mon, 2 Jan 2006 15:04:05", after: " -0700", east: -7 * hour, quirk: -7 * hour},
	{layout: "Mon Jan _2 15:04 2006", minute: true},
	{layout: asctime, sender: `"Alice Example"@example.org`},
	{layout: asctime, none: true},
	{layout: asctime, after: " remote from relay"},
	{layout: asctime, sender: "MAILER-DAEMON"},
}

// fromLine draws the From_ line and the two dates that it stands for.
func (g *generator) fromLine(d *draft) {
	s := shape{layout: plainLayouts[g.r.IntN(len(plainLayouts))]}
	if d.Odd&OddFromLines != 0 {
		s = shapes[g.r.IntN(len(shapes))]
	}
	if s.sender == "" && !s.none {
		s.sender = g.address()
	}
	d.Sender = s.sender
	d.True = g.clock
	if s.minute {
		d.True -= d.True % 60
	}
	d.Time = d.True + int64(s.east-s.quirk)
	date := strings.Replace(at(d.True, s.east).Format(s.layout), "ZONE", s.zone, 1)
	d.FromLine = "From " + d.Sender + " " + date + s.after
}

// at is what a clock so many seconds east of UTC shows.
func at(unix int64, east int) time.Time {
	return time.Unix(unix+int64(east), 0).UTC()
}
