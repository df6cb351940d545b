package journal

import "time"

// Rollback records what a rollback makes for a user and will have set aside, so
// that what a kill leaves of it is undone or finished. It is there before
// anything of it is made, and is removed when all else is done. Until the
// semaphore says mbox, what it lists is thrown away; from then on it is finished.
type Rollback struct {
	User   string    `json:"user"`
	Run    string    `json:"run"`
	BootID string    `json:"boot_id"` // until when devices count
	Time   time.Time `json:"time"`

	Maildir Aside          `json:"maildir"` // that is to be set aside
	Aside   string         `json:"aside"`   // path that it gets
	Files   []RollbackFile `json:"files,omitempty"`
	Dirs    []string       `json:"dirs,omitempty"` // paths of directories made for them, each behind the one that it lies in

	// Seen is when the Maildir was last known to hold what the files hold: what
	// came to it later is in none of them. It is written before they get their
	// names, with their sizes then; zero: none of them has one.
	Seen  time.Time     `json:"seen,omitzero"`
	Begun []Undelivered `json:"begun,omitempty"` // messages that lay in tmp then
	Held  int           `json:"held,omitempty"`  // how many were in new and cur of its folders
}

// Undelivered is a message that an agent had begun, and not yet delivered, when a Maildir
// was last looked at.
type Undelivered struct {
	Ino  uint64 `json:"ino"`
	Born int64  `json:"born"` // as of Parked; never 0
}

// RollbackFile is a file that is made beside its place. Dev and Ino are 0 in a
// record that was written before it was made.
type RollbackFile struct {
	Live string `json:"live"` // path that it gets
	Temp string `json:"temp"` // name that it has before, in the same directory
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
	Born int64  `json:"born,omitempty"` // as of Parked
	Size int64  `json:"size"`           // bytes
	List bool   `json:"list,omitempty"` // of subscriptions: takes the place of what is there, behind the flip
}

var rollbacks = records[Rollback]{"rollback", func(r Rollback) string { return r.User }, Rollback.each}

// WriteRollback writes the record of a user, durable and whole.
func WriteRollback(state string, r Rollback) error { return rollbacks.write(state, []Rollback{r}) }

// ReadRollback reads the record of a user; fs.ErrNotExist when there is none.
func ReadRollback(state, user string) (Rollback, error) { return rollbacks.read(state, user) }

// RemoveRollback removes the record of a user, durably.
func RemoveRollback(state, user string) error { return rollbacks.remove(state, []string{user}) }

// ListRollback returns all records, by user, with the error of those that can't be read.
func ListRollback(state string) ([]Rollback, error) { return rollbacks.list(state) }

// each applies a function to the fields that may hold any bytes.
func (r Rollback) each(do func(string) string) Rollback {
	r.User, r.Maildir.Path, r.Aside = do(r.User), do(r.Maildir.Path), do(r.Aside)
	files := make([]RollbackFile, len(r.Files))
	for i, f := range r.Files {
		f.Live, f.Temp = do(f.Live), do(f.Temp)
		files[i] = f
	}
	dirs := make([]string, len(r.Dirs))
	for i, d := range r.Dirs {
		dirs[i] = do(d)
	}
	r.Files, r.Dirs = files, dirs
	return r
}
