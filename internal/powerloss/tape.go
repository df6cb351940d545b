package powerloss

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"math/rand/v2"
)

// Event is a thing that happened to a disk: a write, a flush, or a mark.
type Event struct {
	At   int64  // offset of a write
	Data []byte // of a write; nil: it is none
	Mark string // what the workload had to say; "" and no data: a flush
}

// Tape tells what a disk held, and all that happened to it since, in order.
type Tape struct {
	Events []Event
	from   *image
}

// Cut is a loss of power: all that was written before the last flush is there,
// and of the writes since, in the order in which they came, each one or not.
type Cut struct {
	Events int    // of the tape, that came before it
	Loss   Loss   // what became of writes that were not flushed
	Seed   uint64 // of what is random in that
}

// Loss is what a disk makes of writes that it was not told to flush.
type Loss int

const (
	None    Loss = iota // all of them came through
	Dropped             // half of them did not, at random
	Few                 // nearly all of them did not
	Torn                // each sector or block did, or did not
	All                 // none did
	losses
)

func (l Loss) String() string {
	return [...]string{"all written", "half dropped", "few written", "torn", "none written"}[l]
}

func (c Cut) String() string { return fmt.Sprintf("cut at %d, %s, seed %d", c.Events, c.Loss, c.Seed) }

// Marks are those that came before a cut, in order.
func (t *Tape) Marks(c Cut) (marks []string) {
	for _, e := range t.Events[:c.Events] {
		if e.Mark != "" {
			marks = append(marks, e.Mark)
		}
	}
	return marks
}

// at is what the disk holds after a cut. What a write consists of, sectors or
// blocks, has the size grain.
func (t *Tape) at(c Cut, grain int) *image {
	flushed := c.Events
	for flushed > 0 && !t.Events[flushed-1].flush() {
		flushed--
	}
	held := over(t.from)
	for _, e := range t.Events[:flushed] {
		held.write(e.Data, e.At)
	}
	r := rand.New(rand.NewPCG(c.Seed, uint64(c.Events)))
	for _, e := range t.Events[flushed:c.Events] {
		c.Loss.write(held, e, grain, r)
	}
	return held
}

func (e Event) flush() bool { return e.Data == nil && e.Mark == "" }

// write writes what comes through of a write that was not flushed.
func (l Loss) write(held *image, e Event, grain int, r *rand.Rand) {
	switch {
	case l == None, l == Dropped && r.IntN(2) == 0, l == Few && r.IntN(8) == 0:
		held.write(e.Data, e.At)
	case l == Torn:
		for i := 0; i < len(e.Data); i += grain {
			if r.IntN(3) > 0 {
				held.write(e.Data[i:min(i+grain, len(e.Data))], e.At+int64(i))
			}
		}
	}
}

// Cuts chooses n different cuts: behind each mark one that loses all it can, and
// evenly over the tape, the half of them such that lose nothing, the others some.
// Where within says no, there is none. The same seed and tape give the same ones.
func (t *Tape) Cuts(n int, seed uint64, within func(events int) bool) (cuts []Cut) {
	var moments []int
	for i := 0; i <= len(t.Events); i++ {
		if !within(i) || i < len(t.Events) && t.Events[i].Mark != "" {
			continue
		}
		moments = append(moments, i)
		if i > 0 && t.Events[i-1].Mark != "" && len(cuts) < n/2 {
			cuts = append(cuts, Cut{Events: i, Loss: All})
		}
	}
	if len(moments) == 0 {
		return nil
	}
	spread := func(i, n int) int { return moments[i*len(moments)/n] }
	left := n - len(cuts)
	whole := min(left/2, len(moments))
	for i := range whole {
		cuts = append(cuts, Cut{Events: spread(i, whole)})
	}
	r := rand.New(rand.NewPCG(seed, 0x706f776572))
	for i := range left - whole {
		cuts = append(cuts, Cut{spread(i, left-whole), 1 + Loss(r.IntN(int(losses)-1)), r.Uint64() >> 32})
	}
	return cuts
}

// kept is a tape in a file.
type kept struct {
	Pages  map[int64][]byte
	Events []Event
}

// MarshalBinary gives all that UnmarshalBinary needs on another day.
func (t *Tape) MarshalBinary() ([]byte, error) {
	k := kept{map[int64][]byte{}, t.Events}
	for m := t.from; m != nil; m = m.under {
		for n := range m.pages {
			if p := t.from.page(n); !bytes.Equal(p, zeroPage) {
				k.Pages[n] = p
			}
		}
	}
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(k)
	return b.Bytes(), err
}

// UnmarshalBinary makes the tape one that was kept.
func (t *Tape) UnmarshalBinary(data []byte) error {
	var k kept
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&k); err != nil {
		return err
	}
	t.Events, t.from = k.Events, &image{nil, k.Pages}
	return nil
}
