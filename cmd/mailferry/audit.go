package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"mailferry/convert"
	"mailferry/internal/account"
)

// auditor prints what an audit finds, user by user.
type auditor struct {
	json bool
	out  io.Writer

	mu     sync.Mutex
	total  auditTotal
	failed error // of out
}

// auditTotal is what the audits of all users come to.
type auditTotal struct {
	Users       int `json:"users"`
	Audited     int `json:"audited"`
	NotMoved    int `json:"not_moved"` // nothing to compare
	Failed      int `json:"failed"`    // could not be audited
	Differing   int `json:"differing_users"`
	Differences int `json:"differences"`
	convert.AuditCounts
}

// user enters the audit of a user.
func (a *auditor) user(u account.Account, r *convert.AuditReport, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total.Users++
	switch {
	case err != nil:
		a.total.Failed++
	case r.Note != "" && r.Differing == 0:
		a.total.NotMoved++
	default:
		a.total.Audited++
		a.total.Add(r.AuditCounts)
		a.total.Differences += r.Differing
		if r.Differing > 0 {
			a.total.Differing++
		}
	}
	if a.json {
		a.printJSON(u, r, err)
	} else {
		a.print(u, r, err)
	}
}

// The JSON lines of an audit.
type (
	jsonAudit struct {
		MessageType string `json:"message_type"` // "user"
		*convert.AuditReport
	}
	jsonUnaudited struct {
		MessageType string `json:"message_type"` // "unaudited"
		User        string `json:"user"`
		Error       string `json:"error"`
	}
	jsonAuditTotal struct {
		MessageType string `json:"message_type"` // "summary"
		auditTotal
	}
)

func (a *auditor) printJSON(u account.Account, r *convert.AuditReport, err error) {
	if err != nil {
		a.note(json.NewEncoder(a.out).Encode(jsonUnaudited{"unaudited", u.Name, err.Error()}))
		return
	}
	a.note(json.NewEncoder(a.out).Encode(jsonAudit{"user", r}))
}

// print prints a user about whom there is something to know.
func (a *auditor) print(u account.Account, r *convert.AuditReport, err error) {
	line := func(format string, args ...any) {
		_, err := fmt.Fprintln(a.out, printable(fmt.Sprintf(format, args...)))
		a.note(err)
	}
	if err != nil {
		line("%s: could not be audited: %v", quoted(u.Name), err)
		return
	}
	if r.Note == "" || r.Differing > 0 {
		line("%s", r)
	}
	for _, s := range r.Passed() {
		line("%s: skipped: %q %s", quoted(u.Name), s.Path, s.Reason)
	}
	for _, d := range r.Differences {
		line("%s: differs: %s", quoted(u.Name), d)
	}
	if n := r.Differing - len(r.Differences); n > 0 {
		line("%s: and %s more", quoted(u.Name), plural(n, "difference"))
	}
}

func (a *auditor) note(err error) {
	if a.failed == nil {
		a.failed = err
	}
}

// end prints the total, and makes the exit code of it.
func (a *auditor) end() error {
	t := a.total
	if a.json {
		a.note(json.NewEncoder(a.out).Encode(jsonAuditTotal{"summary", t}))
	} else {
		_, err := fmt.Fprintf(a.out, "%s: %d audited, %d not on Maildir or without a parked mbox, %d could not be audited\n%v; %s\n",
			plural(t.Users, "user"), t.Audited, t.NotMoved, t.Failed, t.AuditCounts, plural(t.Differences, "difference"))
		a.note(err)
	}
	switch {
	case a.failed != nil:
		return fmt.Errorf("the audit is done, but its report could not be written: %w", a.failed)
	case t.Differing > 0:
		return outcome(exitMismatch)
	case t.Failed > 0:
		return outcome(exitSkipped)
	}
	return nil
}
