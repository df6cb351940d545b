package journal

import "time"

// SweepBack records the message that a sweep is appending to an mbox of a user
// whom a rollback has brought back: one that came late, to a Maildir that nobody
// reads. It is there before anything else is done about the message, and is removed
// when it is in the mbox and its file is put away, or when neither is so. What a
// kill leaves is judged by the phase and by what the mbox holds at From.
type SweepBack struct {
	User  string    `json:"user"`
	Run   string    `json:"run,omitempty"`
	Time  time.Time `json:"time"`
	Phase BackPhase `json:"phase"`

	Folder string `json:"folder"` // path of the directory that the new or cur of the message lies in
	Sub    string `json:"sub"`    // "new" or "cur"
	Name   string `json:"name"`   // of its file there
	Ino    uint64 `json:"ino"`
	Born   int64  `json:"born"` // as of Parked; never 0
	Size   int64  `json:"size"` // of the message, in bytes
	Date   int64  `json:"date"` // of its delivery, in seconds since 1970

	Mailbox string `json:"mailbox"`            // that it came to, as reports name it
	Live    string `json:"live"`               // path of the mbox
	BoxIno  uint64 `json:"box_ino,omitempty"`  // of the mbox; this and what follows is known from Appending on
	BoxBorn int64  `json:"box_born,omitempty"` // 0: unknown
	Written int64  `json:"written,omitempty"`  // when the mbox was written to last before, in ns since 1970
	From    int64  `json:"from"`               // size of the mbox before
	Bytes   int64  `json:"bytes,omitempty"`    // that are appended
	Digest  string `json:"digest,omitempty"`   // SHA-256 of them, in hex
	LFs     uint8  `json:"lfs,omitempty"`      // that they begin with, where the mbox had no end
}

// BackPhase is how far a sweep has come with a message.
type BackPhase string

// The phases, in order.
const (
	BackBegun     BackPhase = "begun"     // the mbox is as it was
	BackAppending BackPhase = "appending" // it may hold the bytes, or the first of them
	BackCutting   BackPhase = "cutting"   // not all of them could be appended: those that were are cut off again
)

var sweepBacks = records[SweepBack]{"sweepback", func(s SweepBack) string { return s.User }, SweepBack.each}

// WriteSweepBack writes the record of a user, durable and whole.
func WriteSweepBack(state string, s SweepBack) error { return sweepBacks.write(state, []SweepBack{s}) }

// ReadSweepBack reads the record of a user; fs.ErrNotExist when there is none.
func ReadSweepBack(state, user string) (SweepBack, error) { return sweepBacks.read(state, user) }

// RemoveSweepBack removes the record of a user, durably.
func RemoveSweepBack(state, user string) error { return sweepBacks.remove(state, []string{user}) }

// ListSweepBack returns all records, by user, with the error of those that can't be read.
func ListSweepBack(state string) ([]SweepBack, error) { return sweepBacks.list(state) }

// each applies a function to the fields that may hold any bytes.
func (s SweepBack) each(do func(string) string) SweepBack {
	for _, field := range []*string{&s.User, &s.Folder, &s.Name, &s.Mailbox, &s.Live} {
		*field = do(*field)
	}
	return s
}
