// Package control is how an operator speaks to a run that is at work: by a Unix
// socket in the state directory, which root alone may use.
//
//	STATE/control    0600; there while a run serves it
//
// A client writes one line of JSON, a Request, and reads one, the Reply; it may
// then write the next. Lines are bounded, and who dawdles is cut off, so that
// nobody keeps a run from its end. What the socket of a killed run leaves is
// replaced by the next run, which holds the run lock by then.
package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Name is that of the socket in the state directory.
const Name = "control"

// Command is what an operator asks for.
type Command string

// The commands.
const (
	Status   Command = "status"
	Pause    Command = "pause"    // begin no chunk and no cutover
	Resume   Command = "resume"   // end pause and postpone
	Postpone Command = "postpone" // begin no cutover
	Cutover  Command = "cutover"  // one user next, postponed or not
	Set      Command = "set"      // a key to a value, from the next user on
	Panic    Command = "panic"    // end the run
)

// Request is one command.
type Request struct {
	Command Command `json:"command"`
	User    string  `json:"user,omitempty"`  // of Cutover
	Key     string  `json:"key,omitempty"`   // of Set
	Value   string  `json:"value,omitempty"` // of Set
}

// Reply answers a request.
type Reply struct {
	Text   string          `json:"text,omitempty"`   // what was done, one sentence
	Error  string          `json:"error,omitempty"`  // why nothing was
	Status json.RawMessage `json:"status,omitempty"` // of Status
}

// Bounds of a line, in bytes, and of the time in which one side waits for the
// other's.
const (
	maxRequest = 4 << 10
	maxReply   = 4 << 20
	patience   = 10 * time.Second
)

// ParseRequest reads the line of a request, and refuses what is none: other
// fields, and fields that its command has not.
func ParseRequest(line []byte) (Request, error) {
	if len(line) > maxRequest {
		return Request{}, fmt.Errorf("a request of more than %d bytes", maxRequest)
	}
	var r Request
	in := json.NewDecoder(bytes.NewReader(line))
	in.DisallowUnknownFields()
	if err := in.Decode(&r); err != nil {
		return Request{}, fmt.Errorf("no request: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return Request{}, errors.New("no request: there is something behind it")
	}
	return r, r.Check()
}

// Check returns an error unless the request has what its command needs, and no
// more.
func (r Request) Check() error {
	user, key, value := false, false, false
	switch r.Command {
	case Status, Pause, Resume, Postpone, Panic:
	case Cutover:
		user = true
	case Set:
		key, value = true, r.Value != "" // a value may be empty
	default:
		return fmt.Errorf("no command %q", r.Command)
	}
	switch {
	case user != (r.User != ""):
		return fmt.Errorf("%s: %s", r.Command, choose(user, "which user?", "there is a user"))
	case key != (r.Key != "") || value != (r.Value != ""):
		return fmt.Errorf("%s: %s", r.Command, choose(key, "which key?", "there is a key or a value"))
	}
	return nil
}

func choose(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// ParseSetting takes KEY=VALUE apart.
func ParseSetting(text string) (key, value string, err error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return "", "", fmt.Errorf("%q is no KEY=VALUE", text)
	}
	return key, value, nil
}
