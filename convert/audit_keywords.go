package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"mailferry/maildir"
	"mailferry/mbox"
)

// keywordLetters are the flags that stand for keywords.
const keywordLetters maildir.Flags = 1<<maildir.MaxKeywords - 1

// readKeywords reads which keywords the letters of the folder stand for.
func (b *mailboxAudit) readKeywords() error {
	b.keywords.keywords = &maildir.KeywordTable{}
	f, err := b.dir.dir.OpenRegular(keywordsName)
	if errors.Is(err, fs.ErrNotExist) || isIrregular(err) {
		return nil // no keywords, or those without names are reported
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b.keywords.keywords, err = maildir.ParseKeywords(f)
	return err
}

const keywordsName = "dovecot-keywords"

// checkKeywords demands that every letter has a name, and that those of the
// mbox's keywords have the names that they were given: Dovecot adds names and
// never gives a letter another one.
func (b *mailboxAudit) checkKeywords() error {
	if err := b.readKeywords(); err != nil { // names come before the letters
		return err
	}
	want := &maildir.KeywordTable{}
	if listed := b.in.Keywords(); len(listed) <= maildir.MaxKeywords {
		want, _ = maildir.NewKeywordTable(listed)
	}
	if b.report.Kept == 0 {
		return nil // the folder may have been made anew
	}
	for i := range maildir.MaxKeywords {
		name, got := want.Name(i), b.keywords.keywords.Name(i)
		switch {
		case name != "" && !strings.EqualFold(name, got):
			b.differ(b.report, -1, b.path(b.folder.rel, keywordsName), "letter "+string(rune('a'+i)), name, got)
		case got == "" && b.used&maildir.Keyword(i) != 0:
			b.differ(b.report, -1, b.path(b.folder.rel, keywordsName), "letter "+string(rune('a'+i)), "named", "without a name")
		}
	}
	return nil
}

// nameField returns the digits behind a field of a file name.
func nameField(name, field string) string {
	_, value, ok := strings.Cut(name, field)
	if !ok {
		return "absent"
	}
	value, _, _ = strings.Cut(value, ",")
	return value
}

// flags splits the letters of a file name into system flags and the keywords
// that the small letters stand for.
func (a *audit) flags(name string) (system, keywords string) {
	_, letters, _ := strings.Cut(name, maildir.InfoPrefix)
	var names []string
	for _, f := range letters {
		if 'a' <= f && f <= 'z' {
			names = append(names, a.keyword(int(f-'a')))
		} else {
			system += string(f)
		}
	}
	return system, joinKeywords(names)
}

// keyword names a letter as Dovecot does.
func (a *audit) keyword(index int) string {
	if name := a.keywords.Name(index); name != "" {
		return name
	}
	return fmt.Sprintf("unknown-%d", index)
}

// wantKeywords lists the keywords of a message that the folder can hold: no
// names that servers refuse, and where all letters are taken, none but theirs;
// the others live in the server's index.
func (a *audit) wantKeywords(s mbox.State) string {
	full := a.keywords.Len() == maildir.MaxKeywords
	var names []string
	for _, name := range s.Keywords {
		if maildir.CheckKeyword(name) == nil && (!full || a.hasLetter(name)) {
			names = append(names, name)
		}
	}
	return joinKeywords(names)
}

func (a *audit) hasLetter(name string) bool {
	for i := range maildir.MaxKeywords {
		if strings.EqualFold(a.keywords.Name(i), name) {
			return true
		}
	}
	return false
}

func joinKeywords(names []string) string {
	for i, n := range names {
		names[i] = strings.ToLower(n)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), " ")
}
