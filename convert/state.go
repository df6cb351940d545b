package convert

import (
	"fmt"
	"io"
	"strings"

	"mailferry/internal/message"
	"mailferry/maildir"
	"mailferry/mbox"
)

// flagPairs maps the letters of Status and X-Status to those of file names
// (docs/formats.md). Old has no place in a Maildir: a message that the uidlist
// names is not \Recent.
var flagPairs = []struct {
	from mbox.Flags
	to   maildir.Flags
}{
	{mbox.Seen, maildir.Seen},
	{mbox.Answered, maildir.Replied},
	{mbox.Flagged, maildir.Flagged},
	{mbox.Draft, maildir.Draft},
	{mbox.Deleted, maildir.Trashed},
}

func systemFlags(f mbox.Flags) (flags maildir.Flags) {
	for _, p := range flagPairs {
		if f&p.from != 0 {
			flags |= p.to
		}
	}
	return flags
}

// uidl is the POP3 UIDL that the profile's server gave the message, or "" to
// leave it to the format of the new server.
func uidl(s *mbox.Scanner, e *mbox.Entry, uid, validity uint32) string {
	switch s.Profile() {
	case "uw": // ipop3d.c: UIDVALIDITY, then UID
		return fmt.Sprintf("%08x%08x", validity, uid)
	case "qpopper", "mailutils": // stored in the message; not to be computed
		stored, _ := e.Get(message.XUIDL)
		if len(stored) > 70 || strings.ContainsFunc(stored, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
			return ""
		}
		return stored
	case "popa3d", "solid":
		return s.HeaderUIDL()
	}
	return fmt.Sprintf("%08x%08x", uid, validity) // Dovecot's default, %08Xu%08Xv
}

// keywords gives letters to the keywords of one mailbox and keeps account of
// those for which none is left.
type keywords struct {
	table *maildir.KeywordTable
	left  map[string]*uidSet // by lower-case name
	order []string
}

// newKeywords begins with the keywords that the mailbox lists. If they are
// more than there are letters, the mailbox is read once more to see which are
// used most.
func newKeywords(src source, listed []string, o mbox.Options) (*keywords, error) {
	k := &keywords{left: map[string]*uidSet{}}
	if len(listed) <= maildir.MaxKeywords {
		k.table, _ = maildir.NewKeywordTable(listed)
		return k, nil
	}
	uses, err := countKeywords(src, o)
	if err != nil {
		return nil, err
	}
	k.table, _ = maildir.NewKeywordTableByUse(listed, uses)
	return k, nil
}

func countKeywords(src source, o mbox.Options) (map[string]int, error) {
	in, err := open(src, o)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	uses := map[string]int{}
	for {
		e, err := in.Next()
		if err == io.EOF {
			return uses, nil
		}
		if err != nil {
			return nil, err
		}
		for _, name := range in.State(e).Keywords {
			uses[name]++
		}
	}
}

// flags returns the letters of a message's keywords.
func (k *keywords) flags(s mbox.State) (flags maildir.Flags) {
	for _, name := range s.Keywords {
		if i, ok := k.table.Letter(name); ok {
			flags |= maildir.Keyword(i)
			continue
		}
		key := strings.ToLower(name)
		if k.left[key] == nil {
			k.left[key] = &uidSet{}
			k.order = append(k.order, name)
		}
		k.left[key].add(s.UID)
	}
	return flags
}

func (k *keywords) leftovers() []LeftKeyword {
	var list []LeftKeyword
	for _, name := range k.order {
		list = append(list, LeftKeyword{name, k.left[strings.ToLower(name)].String()})
	}
	return list
}

// uidSet is a rising set of UIDs, written as IMAP writes it.
type uidSet struct{ ranges [][2]uint32 }

func (s *uidSet) add(uid uint32) {
	if n := len(s.ranges); n > 0 && s.ranges[n-1][1]+1 == uid {
		s.ranges[n-1][1] = uid
		return
	}
	s.ranges = append(s.ranges, [2]uint32{uid, uid})
}

func (s *uidSet) String() string {
	var b strings.Builder
	for i, r := range s.ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, r[0])
		if r[1] > r[0] {
			fmt.Fprintf(&b, ":%d", r[1])
		}
	}
	return b.String()
}
