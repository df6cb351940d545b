package mbox

import "time"

// Date returns the date of delivery that the profile's server gives a message
// for its From_ line, in its zone; false for undated lines, and for dates that
// no server can hold.
func (p Profile) Date(f FromLine, loc *time.Location) (time.Time, bool) {
	t, ok := p.date(f, loc)
	return t, ok && isCredible(t)
}
