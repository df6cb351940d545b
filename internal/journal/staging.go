package journal

import (
	"os"
	"strings"
	"time"
)

// Staging records where the Maildir of a user is being built, so that after a
// crash nothing is taken for ours that merely looks like it.
type Staging struct {
	User   string    `json:"user"`
	Parent string    `json:"parent"` // path of the directory that it lies in
	Name   string    `json:"name"`   // in Parent
	Final  string    `json:"final"`  // its name once it is published
	Dev    uint64    `json:"dev"`    // st_dev; counts while BootID is that of now
	Ino    uint64    `json:"ino"`    // st_ino
	Layout string    `json:"layout"` // how its folders lie
	BootID string    `json:"boot_id"`
	Synced bool      `json:"synced"` // all that it holds is durable
	Run    string    `json:"run"`
	Time   time.Time `json:"time"`
}

var stagings = records[Staging]{"staging", func(s Staging) string { return s.User }, Staging.each}

// WriteStaging writes the records of users, each durable and whole: first all
// of them are written and synced, then renamed. After an error some may be
// old, some new.
func WriteStaging(state string, list ...Staging) error { return stagings.write(state, list) }

// ReadStaging reads the record of a user; fs.ErrNotExist when there is none.
func ReadStaging(state, user string) (Staging, error) { return stagings.read(state, user) }

// RemoveStaging removes the records of users, durably. Users without one are
// no error.
func RemoveStaging(state string, users ...string) error { return stagings.remove(state, users) }

// ListStaging returns all records, by user. Those that can't be read are
// named in the error; the others are returned with it.
func ListStaging(state string) ([]Staging, error) { return stagings.list(state) }

// each applies a function to the fields that may hold any bytes.
func (s Staging) each(do func(string) string) Staging {
	s.User, s.Parent, s.Name, s.Final = do(s.User), do(s.Parent), do(s.Name), do(s.Final)
	return s
}

// BootID returns what changes each time that the kernel is started: device
// numbers are good only until then (proc(5), random/boot_id).
func BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
