package journal

import "time"

// Soak records of a user what there is beside his mail since he was moved: the
// mboxes that wait for the end of the soak, or after a rollback the Maildir
// that was set aside. It tells mail that came to the wrong place since from
// mail that was there before. Without it nothing is lost: what it would tell is
// then said to be in doubt.
type Soak struct {
	User    string    `json:"user"`
	Flipped time.Time `json:"flipped"`
	Run     string    `json:"run"`
	BootID  string    `json:"boot_id"` // until when Dev counts

	Maildir string   `json:"maildir"` // path
	Parked  []Parked `json:"parked,omitempty"`

	// After a rollback: the user is on mbox again, and these are left of what
	// he had.
	Back  time.Time `json:"back,omitzero"`
	Aside []Aside   `json:"aside,omitempty"`
}

// Parked is an mbox that was in use before the flip. Sizes are in bytes.
type Parked struct {
	Mailbox string `json:"mailbox"`        // its name, as reports have it
	Live    string `json:"live"`           // path that it had
	Path    string `json:"path"`           // path that it has
	From    string `json:"from,omitempty"` // while a rollback moves it: the path that it may still have
	Dev     uint64 `json:"dev"`
	Ino     uint64 `json:"ino"`
	Born    int64  `json:"born,omitempty"` // when the inode was made, in ns since 1970, for its number is used again; 0: unknown
	Mode    uint32 `json:"mode"`           // permissions that it had
	Size    int64  `json:"size"`           // when it was converted
	Taken   int64  `json:"taken"`          // up to here its mail is in the Maildir: Size, and what sweeps took since
}

// Aside is a Maildir that a rollback has set aside, or an mbox that was parked
// before the last flip.
type Aside struct {
	Path string    `json:"path"`
	From string    `json:"from,omitempty"` // as of Parked
	Dev  uint64    `json:"dev"`
	Ino  uint64    `json:"ino"`
	Back time.Time `json:"back,omitzero"` // of a Maildir: since when nobody reads it

	Begun []Undelivered `json:"begun,omitempty"` // of a Maildir: as of Rollback
	Held  int           `json:"held,omitempty"`  // of a Maildir: as of Rollback

	Taken int64 `json:"taken,omitempty"` // of an mbox: as of Parked
}

var soaks = records[Soak]{"soak", func(s Soak) string { return s.User }, Soak.each}

// WriteSoak writes the records of users, each durable and whole, as WriteStaging.
func WriteSoak(state string, list ...Soak) error { return soaks.write(state, list) }

// ReadSoak reads the record of a user; fs.ErrNotExist when there is none.
func ReadSoak(state, user string) (Soak, error) { return soaks.read(state, user) }

// RemoveSoak removes the records of users, durably.
func RemoveSoak(state string, users ...string) error { return soaks.remove(state, users) }

// each applies a function to the fields that may hold any bytes.
func (s Soak) each(do func(string) string) Soak {
	s.User, s.Maildir = do(s.User), do(s.Maildir)
	parked := make([]Parked, len(s.Parked))
	for i, p := range s.Parked {
		p.Mailbox, p.Live, p.Path, p.From = do(p.Mailbox), do(p.Live), do(p.Path), do(p.From)
		parked[i] = p
	}
	aside := make([]Aside, len(s.Aside))
	for i, a := range s.Aside {
		a.Path, a.From = do(a.Path), do(a.From)
		aside[i] = a
	}
	s.Parked, s.Aside = parked, aside
	return s
}
