package dovecottest

import (
	"fmt"
	"slices"
)

// maxShown is how many differences of one mailbox are spelled out; the rest is counted.
const maxShown = 20

// Diff compares two dumps and returns readable differences, none if clients can't tell the one from the other:
//
//	INBOX: UID 7: INTERNALDATE: got 2023-01-02 03:04:05, want 2023-01-01 22:03:35
//
// ignore names what is not to be compared, as it is called in the differences: "UIDVALIDITY", "UIDNEXT",
// "keywords", "selectable", "error", "flags", "INTERNALDATE", "RFC822.SIZE", "BODY[]".
//
// Attributes of LIST are never compared except for whether a mailbox can be selected:
// \NoInferiors, \Marked and \HasNoChildren can't be equal between mbox and Maildir.
// The case of a keyword counts: Dovecot ignores it, but clients see it.
func Diff(got, want *Dump, ignore ...string) []string {
	d := &differ{ignore: ignore}
	names := union(got.names(), want.names())
	for _, name := range names {
		g, w := got.Mailbox(name), want.Mailbox(name)
		switch {
		case g == nil:
			d.found("%s: mailbox missing", name)
		case w == nil:
			d.found("%s: mailbox unexpected", name)
		default:
			d.mailbox(g, w)
		}
	}
	for _, name := range union(got.Subscribed, want.Subscribed) {
		switch {
		case !slices.Contains(got.Subscribed, name):
			d.found("%s: subscription missing", name)
		case !slices.Contains(want.Subscribed, name):
			d.found("%s: subscription unexpected", name)
		}
	}
	return d.differences
}

func (d *Dump) names() []string {
	names := make([]string, 0, len(d.Mailboxes))
	for _, m := range d.Mailboxes {
		names = append(names, m.Name)
	}
	return names
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// differ collects differences.
type differ struct {
	ignore      []string
	differences []string
}

func (d *differ) found(format string, args ...any) {
	d.differences = append(d.differences, fmt.Sprintf(format, args...))
}

// field reports a field that differs.
func (d *differ) field(where, name string, got, want any) {
	g, w := fmt.Sprint(got), fmt.Sprint(want)
	if g != w && !slices.Contains(d.ignore, name) {
		d.found("%s: %s: got %s, want %s", where, name, g, w)
	}
}

func (d *differ) mailbox(got, want *Mailbox) {
	name := got.Name
	d.field(name, "selectable", got.Selectable, want.Selectable)
	d.field(name, "error", quoteError(got.Error), quoteError(want.Error))
	d.field(name, "UIDVALIDITY", got.UIDValidity, want.UIDValidity)
	d.field(name, "UIDNEXT", got.UIDNext, want.UIDNext)
	d.field(name, "keywords", got.Keywords, want.Keywords)

	m := &differ{ignore: d.ignore}
	m.messages(name, got.Messages, want.Messages)
	if more := len(m.differences) - maxShown; more > 0 {
		m.differences = append(m.differences[:maxShown], fmt.Sprintf("%s: and %d more", name, more))
	}
	d.differences = append(d.differences, m.differences...)
}

func quoteError(s string) string {
	if s == "" {
		return "none"
	}
	return fmt.Sprintf("%q", s)
}

// messages compares messages of the same UID; both lists are in order of UID.
func (d *differ) messages(box string, got, want []Message) {
	for len(got) > 0 || len(want) > 0 {
		switch {
		case len(got) == 0 || len(want) > 0 && want[0].UID < got[0].UID:
			d.found("%s: UID %d: missing", box, want[0].UID)
			want = want[1:]
		case len(want) == 0 || got[0].UID < want[0].UID:
			d.found("%s: UID %d: unexpected", box, got[0].UID)
			got = got[1:]
		default:
			d.message(fmt.Sprintf("%s: UID %d", box, got[0].UID), got[0], want[0])
			got, want = got[1:], want[1:]
		}
	}
}

func (d *differ) message(where string, got, want Message) {
	const date = "2006-01-02 15:04:05"
	d.field(where, "flags", got.Flags, want.Flags)
	d.field(where, "INTERNALDATE", got.InternalDate.UTC().Format(date), want.InternalDate.UTC().Format(date))
	d.field(where, "RFC822.SIZE", got.Size, want.Size)
	d.field(where, "BODY[]", got.Digest, want.Digest)
}
