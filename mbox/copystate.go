package mbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mailferry/internal/message"
)

var (
	// baseFields hold the mailbox's own state.
	baseFields = message.SetOf(message.XIMAP, message.XIMAPbase)
	// stateFields hold what changes while a message stays as it is.
	stateFields = baseFields | message.SetOf(message.Status, message.XKeywords, message.XStatus, message.XUID)
)

// fields returns those of the header fields only that a message's state needs,
// as mbox-save.c of Dovecot writes them: those that clients would see are left
// out.
func (w *Writer) fields(s *State, only message.Set) (string, error) {
	var b strings.Builder
	field := func(f message.Field, name string, value ...string) {
		if w.o.Profile.Hides(f) && only.Has(f) {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(value, " "))
		}
	}
	pseudo := s != nil && s.Pseudo
	if w.count == 0 && w.o.UIDValidity != 0 && only.Has(message.XIMAPbase) {
		if err := validKeywords(w.o.Keywords); err != nil {
			return "", err
		}
		// Ten digits, so that Dovecot can raise the number in place.
		base := []string{fmt.Sprintf("%d %010d", w.o.UIDValidity, max(w.o.NextUID, 1)-1)}
		if pseudo {
			field(message.XIMAP, "X-IMAP", append(base, w.o.Keywords...)...)
		} else {
			field(message.XIMAPbase, "X-IMAPbase", append(base, w.o.Keywords...)...)
		}
	}
	if s == nil {
		return b.String(), nil
	}
	if s.UID != 0 && !pseudo && w.o.UIDValidity != 0 && only.Has(message.XUID) {
		if next := cmp.Or(w.o.NextUID, w.tracker.nextUID+1); s.UID <= w.lastUID || s.UID >= next {
			return "", fmt.Errorf("UID %d is not between %d and %d, and would be given anew", s.UID, w.lastUID, next)
		}
		field(message.XUID, "X-UID", strconv.FormatUint(uint64(s.UID), 10))
	}
	field(message.Status, "Status", letters(s.Flags, "RO"))
	if x := letters(s.Flags, "AFTD"); x != "" {
		field(message.XStatus, "X-Status", x)
	}
	for _, k := range s.Keywords {
		if _, ok := w.listed[strings.ToLower(k)]; (!ok || w.o.UIDValidity == 0) && only.Has(message.XKeywords) {
			return "", fmt.Errorf("keyword %q is not in the mailbox's list", k)
		}
	}
	// The blanks let Dovecot change flags in place (mbox-storage.h, MBOX_HEADER_PADDING).
	field(message.XKeywords, "X-Keywords", strings.Join(s.Keywords, " ")+strings.Repeat(" ", 50))
	return b.String(), nil
}

// validKeywords refuses what would be read as other keywords, or none.
func validKeywords(keywords []string) error {
	for _, k := range keywords {
		if k == "" || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("keyword %q can't stand in X-IMAPbase", k)
		}
	}
	return nil
}

// letters are those of own whose flags are set.
func letters(f Flags, own string) string {
	return strings.Map(func(c rune) rune {
		if f&flagLetters[byte(c)] == 0 {
			return -1
		}
		return c
	}, own)
}

// changes returns which of a message's fields have to go, so that the new mbox
// says now of it: none if it says so already.
func (w *Writer) changes(e *Entry, now *State) (drop message.Set, err error) {
	if now == nil || !w.o.Profile.Hides(message.Status) {
		return 0, nil
	}
	reader := w.tracker.clone()
	is := reader.State(e)
	if is.Pseudo != now.Pseudo {
		drop |= baseFields
	}
	switch {
	case w.o.UIDValidity == 0:
	case w.count == 0 && (drop != 0 || !w.isBase(e)):
		// The UID and the keywords are believed behind the base only.
		drop |= baseFields | message.SetOf(message.XUID, message.XKeywords)
		if w.o.NextUID == 0 {
			return 0, errors.New("the mailbox's UIDVALIDITY and last UID have to be written, and WriterOptions.NextUID is 0")
		}
	case !now.Pseudo && now.UID != 0 && now.UID != is.UID:
		drop |= message.SetOf(message.XUID)
	}
	if is.Flags != now.Flags {
		drop |= message.SetOf(message.Status, message.XStatus)
	}
	if w.o.UIDValidity != 0 && !sameKeywords(is.Keywords, now.Keywords) {
		drop |= message.SetOf(message.XKeywords)
	}
	return drop, nil
}

// isBase reports whether the first message says of the mailbox what the options
// say.
func (w *Writer) isBase(e *Entry) bool {
	t := w.tracker.clone()
	for _, h := range e.Fields {
		if baseFields.Has(h.Field) && t.base(h.Value) {
			break
		}
	}
	return t.uidValidity == w.o.UIDValidity &&
		(w.o.NextUID == 0 || t.nextUID == w.o.NextUID && slices.Equal(t.listed, w.o.Keywords))
}

func sameKeywords(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// restate decides how a copy has to change so that the new mbox says now of it,
// and returns the tracker as it is behind it.
func (w *Writer) restate(c *copied, e *Entry, now *State) (t Tracker, err error) {
	if c.drop, err = w.changes(e, now); err != nil {
		return t, err
	}
	changed := *e
	if c.drop != 0 {
		if c.fields, err = w.fields(now, c.drop); err != nil {
			return t, err
		}
		changed.Fields = slices.DeleteFunc(slices.Clone(e.Fields), func(h HeaderField) bool { return c.drop.Has(h.Field) })
		changed.Fields = append(changed.Fields, parseFields(c.fields)...)
	}
	t = w.tracker.clone()
	is := t.State(&changed)
	if now != nil && now.UID != 0 && !now.Pseudo && w.o.UIDValidity != 0 && w.o.Profile.Hides(message.XUID) && is.UID != now.UID {
		return t, fmt.Errorf("UID %d would be read as %d", now.UID, is.UID)
	}
	return t, nil
}

func (t *Tracker) clone() Tracker {
	c := *t
	if t.seq == 0 { // later on words are only added, and do no harm
		c.known, c.listed = maps.Clone(t.known), nil
	}
	return c
}

// parseFields takes header lines apart that fields has made.
func parseFields(lines string) (all []HeaderField) {
	for line := range bytes.Lines([]byte(lines)) {
		f, at := message.ParseField(line)
		all = append(all, HeaderField{f, bytes.TrimSpace(line[at:])})
	}
	return all
}
