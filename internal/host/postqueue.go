package host

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// queueLimit is how long a listing of Postfix's queue may take.
const queueLimit = time.Minute

// Postqueue is Postfix's queue control program, of version 3.1 or later.
type Postqueue struct {
	Path   string // of the program
	Config string // Postfix's configuration directory; "" for the default
}

func (p Postqueue) command(args ...string) program {
	if p.Config != "" {
		args = append([]string{"-c", p.Config}, args...)
	}
	return program{path: p.Path, args: args, limit: queueLimit}
}

// Flush has Postfix try again at once to deliver what waits in its deferred
// queue for any of users, and tells for how many messages that is. Else a
// message that came in a hold waits for minutes to more than an hour
// (minimal_backoff_time, maximal_backoff_time).
//
// A message waits for a user if the local part of a recipient's address is the
// user's name, without regard to case, or that name and an extension behind
// "+". A message to an alias is found, too: Postfix lists it by the addresses
// for which local(8) deferred it.
//
// It asks once for the queue, and for the messages by their queue ids, some
// 10 ms each (postqueue(1) -i takes one; -f would flush the mail of everybody
// and -s is for whole domains). It ends at the first error.
func (p Postqueue) Flush(ctx context.Context, users ...string) (n int, err error) {
	if len(users) == 0 {
		return 0, nil
	}
	var ids []string
	list := p.command("-j")
	list.each = func(line []byte) error {
		m, err := parseQueued(line)
		if err == nil && m.deferredFor(users) {
			ids = append(ids, m.ID)
		}
		return err
	}
	if err := list.run(ctx); err != nil {
		return 0, err
	}
	for _, id := range ids {
		if err := p.command("-i", id).run(ctx); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// queued is a message in the queue (postqueue(1), JSON OBJECT FORMAT).
type queued struct {
	Queue      string `json:"queue_name"`
	ID         string `json:"queue_id"`
	Recipients []struct {
		Address string `json:"address"`
	} `json:"recipients"`
}

// parseQueued reads a line of "postqueue -j".
func parseQueued(line []byte) (queued, error) {
	var m queued
	if err := json.Unmarshal(line, &m); err != nil {
		return queued{}, fmt.Errorf("postqueue -j: %q: %w", clip(line), err)
	}
	if !isQueueID(m.ID) {
		return queued{}, fmt.Errorf("postqueue -j: %q is no queue id", clip([]byte(m.ID)))
	}
	return m, nil
}

// clip is the start of a text, for errors.
func clip(text []byte) string { return string(text[:min(len(text), 200)]) }

// isQueueID knows the names of queue files: letters and digits, the long ones
// without vowels (mail_queue.h).
func isQueueID(id string) bool {
	other := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return id != "" && len(id) <= 100 && !strings.ContainsFunc(id, other)
}

// deferredFor tells whether the message waits for one of users.
func (m queued) deferredFor(users []string) bool {
	if m.Queue != "deferred" {
		return false
	}
	for _, r := range m.Recipients {
		if slices.ContainsFunc(users, func(user string) bool { return isFor(r.Address, user) }) {
			return true
		}
	}
	return false
}

// isFor tells whether address is the user's.
func isFor(address, user string) bool {
	local := address
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		local = address[:at]
	}
	name, _, _ := strings.Cut(local, "+")
	return user != "" && (strings.EqualFold(local, user) || strings.EqualFold(name, user))
}
