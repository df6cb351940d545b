package mbox

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LockKind names a kind of lock as admins do.
type LockKind string

// The three kinds of lock.
const (
	KindDotlock LockKind = "dotlock"
	KindFcntl   LockKind = "fcntl lock"
	KindFlock   LockKind = "flock"
)

// LockFault is what callers decide by.
type LockFault string

// What can be the matter with a lock.
const (
	LockBusy    LockFault = "busy"        // somebody else has it: try again later
	LockRefused LockFault = "refused"     // a check said no: an admin must look
	LockLost    LockFault = "lock lost"   // was held, is not any more: stop
	LockFailed  LockFault = "lock failed" // a system call failed, see Err
)

// LockHolder is who made a lock, as far as is known.
type LockHolder struct {
	PID  int    // 0: unknown
	Host string // "": not stated
}

// ParseHolder understands `pid:host` (dovecot file-dotlock.c) and `pid`, with or
// without a final newline. Everything else, `0` included, is an unknown holder.
func ParseHolder(content string) LockHolder {
	pid, host, hasHost := strings.Cut(strings.TrimSuffix(content, "\n"), ":")
	n, err := strconv.ParseInt(pid, 10, 32)
	if err != nil || n <= 0 || hasHost && !isHostname(host) {
		return LockHolder{}
	}
	return LockHolder{PID: int(n), Host: host}
}

// isHostname keeps text that a user wrote into a dotlock out of messages.
func isHostname(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
	return s != "" && len(s) <= 255 && strings.Trim(s, allowed) == ""
}

// String names the holder for a message.
func (l LockHolder) String() string {
	switch {
	case l.PID == 0:
		return "an unknown program"
	case l.Host == "":
		return fmt.Sprintf("pid %d", l.PID)
	}
	return fmt.Sprintf("pid %d on %s", l.PID, l.Host)
}

// LockError is why an mbox is not locked. When it comes from Lock, nothing was
// changed and no lock is held.
type LockError struct {
	Path   string        // the mbox
	Fault  LockFault     // what callers decide by
	Kind   LockKind      // which lock; "": the mbox itself
	Holder LockHolder    // who has it
	Age    time.Duration // of a dotlock: time since it last changed
	Waited time.Duration // how long Lock tried
	Reason string        // what is the case, in words
	Hint   string        // what an admin can do next; may be ""
	Err    error         // the failed call, or ctx's error; may be nil
}

// Busy reports whether trying again later can help.
func (e *LockError) Busy() bool { return e.Fault == LockBusy }

// Unwrap gives the failed call's errno or the context's error.
func (e *LockError) Unwrap() error { return e.Err }

// Error is one line: path, fault, reason and what is true of the mbox now.
func (e *LockError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", printable(e.Path), e.Fault, e.Reason)
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Waited >= time.Second {
		fmt.Fprintf(&b, "; waited %s", e.Waited.Round(time.Second))
	}
	if e.Fault == LockBusy || e.Fault == LockRefused {
		b.WriteString("; mbox unchanged")
	}
	return b.String()
}

func (h *Held) fault(fault LockFault, kind LockKind, reason string) *LockError {
	return &LockError{Path: h.opts.Path, Fault: fault, Kind: kind, Reason: reason}
}

func (h *Held) failed(kind LockKind, doing string, err error) *LockError {
	return &LockError{Path: h.opts.Path, Fault: LockFailed, Kind: kind, Reason: doing, Err: err}
}

// printable is s, quoted when it holds anything that could upset a terminal or log.
func printable(s string) string {
	if q := strconv.QuoteToASCII(s); q != `"`+s+`"` {
		return q
	}
	return s
}
