package livemail

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// entry is what was promised about a message.
type entry struct {
	*Message
	there     answer
	gone      answer
	flags     []string // the values that its flags may have, each sorted and joined by blanks
	uid       uint32   // 0: nobody has seen it
	validity  uint32
	deferrals int
	history   []string // what happened to it and when, for who looks into a fault
}

// answer is whether something was done.
type answer int

const (
	no answer = iota
	doubt
	yes
)

// Ledger holds all promises.
type Ledger struct {
	mu      sync.Mutex
	entries map[string]*entry
	uids    map[string]string // ids, by user, box, UIDVALIDITY and UID, which mean one message for ever
	faults  []string          // what was seen to be wrong meanwhile
}

func newLedger() *Ledger { return &Ledger{entries: map[string]*entry{}, uids: map[string]string{}} }

// Fault notes something that is wrong before the end.
func (l *Ledger) Fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// offer enters a message of which nobody has promised anything yet.
func (l *Ledger) offer(m *Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[m.ID] = &entry{Message: m, flags: []string{""}}
}

func (l *Ledger) change(id, what string, change func(e *entry)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[id]; e != nil { // an unknown one was told of when it was seen
		e.history = append(e.history, time.Now().Format("04:05.000 ")+what)
		change(e)
	}
}

// delivered enters the outcome of an attempt.
func (l *Ledger) delivered(id string, r Result) {
	l.change(id, fmt.Sprintf("delivery: %d", r), func(e *entry) {
		switch {
		case r == Accepted:
			e.there = yes
		case r == Deferred:
			e.deferrals++
		case e.there == no:
			e.there = doubt
		}
	})
}

// stored enters a change of flags; done says whether the server answered OK.
func (l *Ledger) stored(id, flags string, done bool) {
	l.change(id, fmt.Sprintf("flags %q: %t", flags, done), func(e *entry) {
		if done {
			e.flags = []string{flags}
		} else if !slices.Contains(e.flags, flags) {
			e.flags = append(e.flags, flags)
		}
	})
}

func (l *Ledger) expunged(id string, done bool) {
	l.change(id, fmt.Sprintf("expunged: %t", done), func(e *entry) {
		if done {
			e.gone = yes
		} else if e.gone == no {
			e.gone = doubt
		}
	})
}

// seen checks what a client was shown of a message, and keeps its UID.
func (l *Ledger) seen(where, box string, m shown, validity uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fault := func(format string, args ...any) {
		l.faults = append(l.faults, where+": "+fmt.Sprintf(format, args...))
	}
	e := l.entries[m.id]
	if e != nil {
		e.history = append(e.history, time.Now().Format("04:05.000 ")+fmt.Sprintf("seen as UID %d with flags %q", m.uid, m.flags))
	}
	switch {
	case e == nil:
		fault("an unknown message %q", m.id)
		return
	case e.gone == yes:
		fault("%s was expunged, and is there again: its history: %s", m.id, strings.Join(e.history, "; "))
	case e.uid == 0:
		e.uid, e.validity = m.uid, validity
	case e.uid != m.uid || e.validity != validity:
		fault("%s had the UID %d/%d, and has %d/%d: its history: %s", m.id, e.validity, e.uid, validity, m.uid, strings.Join(e.history, "; "))
		e.uid, e.validity = m.uid, validity
	}
	key := fmt.Sprintf("%s %s %d %d", e.User.Name, box, validity, m.uid)
	if first, ok := l.uids[key]; ok && first != m.id {
		fault("UID %d/%d was %s, and is %s: their histories: %s; and %s", validity, m.uid, first, m.id,
			strings.Join(l.entries[first].history, "; "), strings.Join(e.history, "; "))
	}
	l.uids[key] = m.id
}

// read checks the content of a message that a client was given.
func (l *Ledger) read(where string, raw []byte, want string) {
	id, digest := Identify(raw)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := l.entries[id]; {
	case e == nil || id != want:
		l.faults = append(l.faults, fmt.Sprintf("%s: fetched %s, and got %q, %d octets", where, want, id, len(raw)))
	case digest != e.Digest:
		l.faults = append(l.faults, fmt.Sprintf("%s: %s has another content: %d octets, sent %d", where, id, len(raw), e.Size))
	}
}

// joined is a list of flags as the ledger has it.
func joined(flags []string) string {
	kept := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f == `\Recent` })
	slices.Sort(kept)
	return strings.Join(kept, " ")
}
