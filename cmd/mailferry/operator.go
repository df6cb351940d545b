package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"mailferry/convert"
	"mailferry/internal/config"
	"mailferry/internal/control"
)

// operator carries out, in a run, what comes by its socket.
type operator struct {
	run       *convert.Run
	bandwidth *bandwidth

	mu     sync.Mutex
	config *config.Config // as it was changed last
}

// listen serves the socket of a run until the function that it returns is
// called. Without it the run works as well, and obeys the files.
func listen(o *operator, w *watch) (deaf func()) {
	server, err := control.Serve(o.config.State, o.answer)
	if err != nil {
		w.Note(fmt.Sprintf("mailferry ctl can't reach this run: %v", err))
		return func() {}
	}
	return func() {
		if err := server.Close(); err != nil {
			w.Note(fmt.Sprintf("the control socket: %v", err))
		}
	}
}

func (o *operator) answer(r control.Request) control.Reply {
	text, err := "", error(nil)
	switch r.Command {
	case control.Status:
		status, err := json.Marshal(o.run.Status())
		return reply("", err, status)
	case control.Cutover:
		text, err = o.run.Cutover(r.User)
	case control.Set:
		text, err = o.set(r.Key, r.Value)
	default:
		text, err = flag(o.run.Site, r.Command)
	}
	return reply(text, err, nil)
}

func reply(text string, err error, status []byte) control.Reply {
	if err != nil {
		return control.Reply{Error: err.Error()}
	}
	return control.Reply{Text: text, Status: status}
}

// adjustable are the keys that may be set while a run works.
var adjustable = []string{"bwlimit", "jobs", "cutover-jobs", "hold-limit", "drain-limit", "pause-between", "max-failures", "retries"}

// set sets a key from the next user on, and says what it was.
func (o *operator) set(key, value string) (string, error) {
	if !slices.Contains(adjustable, key) {
		return "", fmt.Errorf("%q can't be set while a run works; what can: %s", key, strings.Join(adjustable, ", "))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next, err := o.config.With(config.Setting{Key: key, Text: value, From: "set " + key})
	if err != nil {
		return "", err
	}
	old := o.config.Text(key)
	o.config = next
	o.bandwidth.set(next.Bandwidth)
	o.run.Change(func(r *convert.Run) { adjust(r, next) })
	return fmt.Sprintf("%s: %s, was %s", key, value, old), nil
}

// flag does what is done by a file in the state directory, and says what it
// means.
func flag(site convert.Site, command control.Command) (string, error) {
	switch command {
	case control.Pause:
		return "nothing new is begun until mailferry ctl resume", site.PauseRuns()
	case control.Postpone:
		return "precopies go on, and nobody is cut over until mailferry ctl resume", site.PostponeCutovers()
	case control.Panic:
		return fmt.Sprintf("what is at work is finished, nothing new begun; remove %s before the next run", site.PanicFile()), site.EndRuns()
	case control.Resume:
		return resume(site)
	}
	return "", fmt.Errorf("no command %q", command)
}

// resume leaves the panic file alone, but does not hide it.
func resume(site convert.Site) (string, error) {
	was, err := site.ResumeRuns()
	text := "nothing was paused or postponed"
	if was {
		text = "goes on"
	}
	if site.RunsEnded() {
		text += fmt.Sprintf("; but %s is there, and ends each run at once: remove it", site.PanicFile())
	}
	return text, err
}
