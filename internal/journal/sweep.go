package journal

import "time"

// Sweep records what a sweep is doing for a user, so that what a kill leaves of
// it is finished or undone, and no message is delivered twice. It is there before
// anything else of the sweep is, and is removed when all else is done:
//
//	Ready is false   nothing was delivered: what lies in Parent/Name is thrown away
//	Ready is true    what lies there is still to be delivered; what is not, was
type Sweep struct {
	User string    `json:"user"`
	Run  string    `json:"run,omitempty"`
	Time time.Time `json:"time"`

	Parent string `json:"parent"` // path of the directory that the staging directory lies in, the Maildir's
	Name   string `json:"name"`   // of the staging directory
	Folder string `json:"folder"` // directory of the folder that gets the mail, relative to the Maildir

	Mailbox string `json:"mailbox"` // as reports name it
	Live    string `json:"live"`    // the old path
	Path    string `json:"path"`    // where the source lies
	Park    string `json:"park"`    // where it is to lie in the end: Path, if it is parked
	BootID  string `json:"boot_id"` // until when Dev counts
	Dev     uint64 `json:"dev"`
	Ino     uint64 `json:"ino"`
	Born    int64  `json:"born,omitempty"` // as of Parked
	Mode    uint32 `json:"mode"`           // permissions of the source
	From    int64  `json:"from"`           // what is taken of it, in bytes
	To      int64  `json:"to"`

	Ready    bool `json:"ready"`
	Messages int  `json:"messages"` // that were in Parent/Name when it became ready
}

var sweeps = records[Sweep]{"sweep", func(s Sweep) string { return s.User }, Sweep.each}

// WriteSweep writes the record of a user, durable and whole.
func WriteSweep(state string, s Sweep) error { return sweeps.write(state, []Sweep{s}) }

// ReadSweep reads the record of a user; fs.ErrNotExist when there is none.
func ReadSweep(state, user string) (Sweep, error) { return sweeps.read(state, user) }

// RemoveSweep removes the record of a user, durably.
func RemoveSweep(state, user string) error { return sweeps.remove(state, []string{user}) }

// ListSweep returns all records, by user, with the error of those that can't be read.
func ListSweep(state string) ([]Sweep, error) { return sweeps.list(state) }

// each applies a function to the fields that may hold any bytes.
func (s Sweep) each(do func(string) string) Sweep {
	for _, field := range []*string{&s.User, &s.Parent, &s.Name, &s.Folder, &s.Mailbox, &s.Live, &s.Path, &s.Park} {
		*field = do(*field)
	}
	return s
}
