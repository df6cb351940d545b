package convert

import (
	"slices"

	"mailferry/internal/journal"
)

// rehearsed is the rate as rehearsals have found it, on real mail; as it was
// measured if there are none.
//
// What a message takes and what a byte takes stand to each other as they were
// measured; both are scaled by what rehearsals took in proportion to that, by the
// median of users: a busy minute of the server makes no difference. A byte's part
// then includes reading and reading back.
func (r Rate) rehearsed(list []journal.Rehearsal) Rate {
	if r.Problem != "" {
		return r
	}
	var writing, reading []float64
	for _, h := range list {
		if foretold := r.Write(h.Messages, h.Bytes); h.Messages > 0 && h.Forth > 0 && foretold > 0 {
			writing = append(writing, h.Forth/float64(foretold))
		}
		if h.Inbox > 0 && h.Reading > 0 {
			reading = append(reading, h.Reading/float64(h.Inbox))
		}
	}
	if len(writing) == 0 {
		return r
	}
	scale := Seconds(median(writing))
	r.Rehearsed = len(writing)
	r.PerMessage, r.PerByte = scale*r.PerMessage, scale*(r.PerByte+2*r.Digest)
	if len(reading) > 0 {
		r.Digest = Seconds(median(reading))
	}
	return r
}

// median of a list that is not empty.
func median(list []float64) float64 {
	slices.Sort(list)
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2
}
