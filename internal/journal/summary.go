package journal

import (
	"errors"
	"fmt"
	"time"
)

// summarySpace is allocated for the summary, in bytes.
const summarySpace = 16 << 10

// Summary is the end of a run.
type Summary struct {
	Run      string    `json:"run"`
	Verb     string    `json:"verb"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	End      string    `json:"end"` // why it ended: "all done", "window over", ...
	ExitCode int       `json:"exit_code"`
	Chunks   int       `json:"chunks"`
	Users    Users     `json:"users"`
	Messages Messages  `json:"messages"`
	Bytes    int64     `json:"bytes"` // of the messages that came in

	// Discrepancy is what Check said when the run ended.
	Discrepancy string `json:"discrepancy,omitempty"`
}

// Users counts users. Each is in one count, and in Total.
type Users struct {
	Total     int `json:"total"`
	Done      int `json:"done"`
	Skipped   int `json:"skipped"`
	Failed    int `json:"failed"`
	Untouched int `json:"untouched"`
}

// Messages counts messages. Each is in one count, and in In.
type Messages struct {
	In          int `json:"in"`
	Converted   int `json:"converted"`
	Quarantined int `json:"quarantined"`
}

// Check returns an error unless the counts add up: users = done + skipped +
// failed + untouched, and messages in = converted + quarantined.
func (s Summary) Check() error {
	u, m := s.Users, s.Messages
	var err error
	for name, n := range map[string]int64{
		"users": int64(u.Total), "users done": int64(u.Done), "users skipped": int64(u.Skipped), "users failed": int64(u.Failed), "users untouched": int64(u.Untouched),
		"messages in": int64(m.In), "messages converted": int64(m.Converted), "messages quarantined": int64(m.Quarantined), "bytes": s.Bytes, "chunks": int64(s.Chunks),
	} {
		if n < 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d is below 0", name, n))
		}
	}
	if u.Total != u.Done+u.Skipped+u.Failed+u.Untouched {
		err = errors.Join(err, fmt.Errorf("%d users, but %d done + %d skipped + %d failed + %d untouched = %d",
			u.Total, u.Done, u.Skipped, u.Failed, u.Untouched, u.Done+u.Skipped+u.Failed+u.Untouched))
	}
	if m.In != m.Converted+m.Quarantined {
		err = errors.Join(err, fmt.Errorf("%d messages in, but %d converted + %d quarantined = %d", m.In, m.Converted, m.Quarantined, m.Converted+m.Quarantined))
	}
	return err
}
