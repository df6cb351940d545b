package convert

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
)

// The good mailbox: UIDs with holes, all flags, keywords.
var goodMessages = []string{
	"From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: 1600000000 0000000030 $Forwarded Work\nX-UID: 10\nStatus: RO\nX-Status: AF\nX-Keywords: $Forwarded\nSubject: one\n\nbody one\n\n",
	"From a@example.org Tue Jan  3 03:04:05 2023\nX-UID: 15\nStatus: O\nX-Status: TD\nX-Keywords: Work\nSubject: two\n\nbody two\n\n",
	"From a@example.org Wed Jan  4 03:04:05 2023\nX-UID: 16\nStatus: RO\nSubject: three\n\nbody three\n\n",
	"From a@example.org Thu Jan  5 03:04:05 2023\nX-UID: 20\nStatus: RO\nSubject: four\n\nbody\n\n",
}

// goodTree is a tree of INBOX, two folders and subscriptions, and its Maildir.
func goodTree(t *testing.T) Options {
	t.Helper()
	src := filepath.Join(t.TempDir(), "mail")
	writeFile(t, filepath.Join(src, "INBOX"), strings.Join(goodMessages, ""))
	writeFile(t, filepath.Join(src, "Sent"), "From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: 1600000001 0000000003\nX-UID: 3\nSubject: sent\n\nsent\n")
	writeFile(t, filepath.Join(src, "Lists/golang"), "")
	writeFile(t, filepath.Join(src, ".subscriptions"), "V\t2\n\nSent\nINBOX\nLists\tgolang\ngone\n")
	o := options(t, src, "dovecot")
	o.Scan.Zone = time.UTC
	mustConvert(t, o)
	return o
}

// spot is a Maildir in which a fault is planted.
type spot struct {
	testing.TB
	root string
}

func (s spot) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// file is the path of the n-th message of INBOX, from 0.
func (s spot) file(n int) string {
	s.Helper()
	entries, err := os.ReadDir(filepath.Join(s.root, "cur"))
	s.check(err)
	return filepath.Join(s.root, "cur", entries[n].Name())
}

// edit changes a file without touching its times.
func (s spot) edit(path string, change func([]byte) []byte) {
	s.Helper()
	info, err := os.Stat(path)
	s.check(err)
	b, err := os.ReadFile(path)
	s.check(err)
	changed := change(slices.Clone(b))
	if bytes.Equal(changed, b) {
		s.Fatalf("nothing to change in %q", b)
	}
	s.check(os.WriteFile(path, changed, 0o600))
	s.check(os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// replace changes text in a list of the root.
func (s spot) replace(list, old, with string) {
	s.Helper()
	s.edit(filepath.Join(s.root, list), func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) })
}

// rename changes text in the name of the n-th message, in the uidlist too
// where that has it.
func (s spot) rename(n int, old, with string) {
	s.Helper()
	from := s.file(n)
	to := filepath.Join(filepath.Dir(from), strings.Replace(filepath.Base(from), old, with, 1))
	if from == to {
		s.Fatalf("%s has no %s", from, old)
	}
	s.check(os.Rename(from, to))
	unique := func(path string) string { name, _, _ := strings.Cut(filepath.Base(path), ":"); return name }
	if unique(from) != unique(to) {
		s.replace("dovecot-uidlist", unique(from), unique(to))
	}
}

func (s spot) write(path, content string) {
	s.Helper()
	s.check(os.WriteFile(filepath.Join(s.root, path), []byte(content), 0o600))
}

func (s spot) remove(path string) {
	s.Helper()
	s.check(os.RemoveAll(filepath.Join(s.root, path)))
}

// swapUIDs lets two messages change places in the uidlist.
func (s spot) swapUIDs(uidl bool) {
	s.edit(filepath.Join(s.root, "dovecot-uidlist"), func(b []byte) []byte {
		lines := strings.SplitAfter(string(b), "\n")
		one, two := strings.Fields(lines[1]), strings.Fields(lines[2])
		one[2], two[2] = two[2], one[2]
		if uidl {
			one[1], two[1] = two[1], one[1]
		}
		lines[1], lines[2] = strings.Join(one, " ")+"\n", strings.Join(two, " ")+"\n"
		return []byte(strings.Join(lines, ""))
	})
}

// faults are what may be wrong with a Maildir, and what verify says of it:
// message (by its number, "-" for none), field, and what the Maildir has.
var faults = []struct {
	name  string
	plant func(s spot)
	want  []string
}{
	{"a message is gone", func(s spot) { s.check(os.Remove(s.file(1))) }, []string{"1 message absent"}},
	{"the last message is gone", func(s spot) { s.check(os.Remove(s.file(3))) }, []string{"3 message absent"}},
	{"a message too many", func(s spot) { s.write("cur/9.M9P9.host,S=1,W=1:2,S", "x") }, []string{"- message present without a UID"}},
	{"a message too many, without flags", func(s spot) { s.write("cur/9.M9P9.host", "x") }, []string{"- message present"}},
	{"a message too many, with broken flags", func(s spot) { s.write("cur/9.M9P9.host:1,S", "x") }, []string{"- message present"}},
	{"a message too many, with a UID", func(s spot) {
		s.write("cur/9.M9P9.host,S=1,W=1:2,S", "x")
		s.replace("dovecot-uidlist", "20 P", "17 :9.M9P9.host,S=1,W=1\n20 P")
	}, []string{"- message present with UID 17"}},
	{"a message too many, with the last UID", func(s spot) {
		s.write("cur/9.M9P9.host,S=1,W=1:2,S", "x")
		s.edit(filepath.Join(s.root, "dovecot-uidlist"), func(b []byte) []byte { return append(b, "21 :9.M9P9.host,S=1,W=1\n"...) })
	}, []string{"- message present with UID 21"}},
	{"a message too many, in new", func(s spot) { s.write("new/9.M9P9.host", "x") }, []string{"- message present"}},
	{"a message twice", func(s spot) {
		b, err := os.ReadFile(s.file(2))
		s.check(err)
		s.write("cur/9.M9P9.host,S=1,W=1:2,S", string(b))
	}, []string{"- message present without a UID"}},
	{"a message twice, by one name", func(s spot) {
		s.check(os.Link(s.file(2), strings.TrimSuffix(s.file(2), "S")+"FS"))
	}, []string{"- message two files of one name", "2? flags FS"}},
	{"a byte is another", func(s spot) { s.edit(s.file(2), func(b []byte) []byte { b[len(b)-2]++; return b }) }, []string{"2 digest "}},
	{"a byte of the header is another", func(s spot) { s.edit(s.file(2), func(b []byte) []byte { b[0] = 's'; return b }) }, []string{"2 digest "}},
	{"cut", func(s spot) { s.edit(s.file(2), func(b []byte) []byte { return b[:len(b)-1] }) },
		[]string{"2 digest ", "2 size 26", "2 S= 27", "2 W= 30"}},
	{"empty", func(s spot) { s.edit(s.file(2), func(b []byte) []byte { return nil }) },
		[]string{"2 digest e3b0c442", "2 size 0", "2 S= 27", "2 W= 30"}},
	{"longer", func(s spot) { s.edit(s.file(2), func(b []byte) []byte { return append(b, '\n') }) },
		[]string{"2 digest ", "2 size 28", "2 S= 27", "2 W= 30"}},
	{"CRLF for LF", func(s spot) {
		s.edit(s.file(2), func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) })
	}, []string{"2 digest ", "2 size 30", "2 S= 27"}},
	{"wrong S=", func(s spot) { s.rename(2, "S=27", "S=28") }, []string{"2 S= 28"}},
	{"wrong S= in the name only", func(s spot) {
		s.check(os.Rename(s.file(2), strings.Replace(s.file(2), "S=27", "S=28", 1)))
	}, []string{"2 message absent", "- message present without a UID"}},
	{"no S=", func(s spot) { s.rename(2, ",S=27", "") }, []string{"2 S= absent"}},
	{"W= too big", func(s spot) { s.rename(2, "W=30", "W=31") }, []string{"2 W= 31"}},
	{"W= too small", func(s spot) { s.rename(2, "W=30", "W=27") }, []string{"2 W= 27"}},
	{"another date", func(s spot) {
		s.check(os.Chtimes(s.file(2), time.Time{}, time.Unix(1672801446, 0)))
	}, []string{"2 date 1672801446"}},
	{"a flag more", func(s spot) { s.rename(2, ":2,S", ":2,FS") }, []string{"2 flags FS"}},
	{"a flag that no mbox has", func(s spot) { s.rename(2, ":2,S", ":2,PS") }, []string{"2 flags PS"}},
	{"a flag less", func(s spot) { s.rename(2, ":2,S", ":2,") }, []string{"2 flags "}},
	{"another flag", func(s spot) { s.rename(1, ":2,DT", ":2,FT") }, []string{"1 flags FT"}},
	{"a keyword more", func(s spot) { s.rename(2, ":2,S", ":2,Sb") }, []string{"2 keywords work"}},
	{"a keyword more, without a name", func(s spot) { s.rename(2, ":2,S", ":2,Sd") }, []string{"2 keywords unknown-3"}},
	{"a keyword less", func(s spot) { s.rename(1, "DTb", "DT") }, []string{"1 keywords "}},
	{"another keyword", func(s spot) { s.rename(1, "DTb", "DTa") }, []string{"1 keywords $forwarded"}},
	{"keywords without names", func(s spot) { s.remove("dovecot-keywords") }, []string{"0 keywords unknown-0", "1 keywords unknown-1"}},
	{"keywords exchanged", func(s spot) { s.write("dovecot-keywords", "0 Work\n1 $Forwarded\n") }, []string{"0 keywords work", "1 keywords $forwarded"}},
	{"a list of keywords that is none", func(s spot) { s.write("dovecot-keywords", "\x00\xff") }, []string{"0 keywords unknown-0", "1 keywords unknown-1"}},
	{"no list of UIDs", func(s spot) { s.remove("dovecot-uidlist") }, []string{"- list of UIDs absent", "- UIDVALIDITY 0", "- next UID 0",
		"0 message absent", "1 message absent", "2 message absent", "3 message absent",
		"- message present without", "- message present without", "- message present without", "- message present without"}},
	{"a list of UIDs that is none", func(s spot) { s.write("dovecot-uidlist", "what?\n") }, []string{"- list uidlist line 1", "- UIDVALIDITY 0", "- next UID 0",
		"0 message absent", "1 message absent", "2 message absent", "3 message absent",
		"- message present without", "- message present without", "- message present without", "- message present without"}},
	{"another UIDVALIDITY", func(s spot) { s.replace("dovecot-uidlist", "V1600000000", "V1600000002") }, []string{"- UIDVALIDITY 1600000002"}},
	{"a lower next UID", func(s spot) { s.replace("dovecot-uidlist", "N0000000031", "N0000000030") }, []string{"- next UID 30"}},
	{"another UID", func(s spot) { s.replace("dovecot-uidlist", "\n16 ", "\n17 ") }, []string{"2 message absent", "- message present with UID 17"}},
	{"two messages exchanged in the list", func(s spot) { s.swapUIDs(false) },
		[]string{"0 digest ", "0 date 1672715045", "0 flags DT", "0 keywords work", "1 digest ", "1 date 1672628645", "1 flags FRS", "1 keywords $forwarded"}},
	{"two messages exchanged with their UIDLs", func(s spot) { s.swapUIDs(true) },
		[]string{"0 digest ", "0 date ", "0 flags DT", "0 keywords work", "0 UIDL 0000000f5f5e1000", "1 digest ", "1 date ", "1 flags FRS", "1 keywords $forwarded", "1 UIDL 0000000a5f5e1000"}},
	{"the content of two messages exchanged", func(s spot) {
		one, err := os.ReadFile(s.file(0))
		s.check(err)
		two, err := os.ReadFile(s.file(1))
		s.check(err)
		s.edit(s.file(0), func([]byte) []byte { return two })
		s.edit(s.file(1), func([]byte) []byte { return one })
	}, []string{"0 digest ", "1 digest "}},
	{"another UIDL", func(s spot) { s.replace("dovecot-uidlist", "P000000105f5e1000", "P000000105f5e1001") }, []string{"2 UIDL 000000105f5e1001"}},
	{"no UIDL", func(s spot) { s.replace("dovecot-uidlist", " P000000105f5e1000", "") }, []string{"2 UIDL "}},
}

func TestVerifyNamesEveryFault(t *testing.T) {
	good := goodTree(t)
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			o := good
			o.Dest = filepath.Join(t.TempDir(), "Maildir")
			if err := os.CopyFS(o.Dest, os.DirFS(good.Dest)); err != nil {
				t.Fatal(err)
			}
			s := spot{t, o.Dest}
			for i := range goodMessages { // CopyFS makes new times
				copyTimes(t, s.file(i), spot{t, good.Dest}.file(i))
			}
			copyTimes(t, sentFile(t, o.Dest), sentFile(t, good.Dest))
			files := make([]string, len(goodMessages))
			for i := range files {
				files[i], _, _ = strings.Cut(s.file(i), ",")
			}
			tt.plant(s)
			compareDifferences(t, verified(t, o), files, tt.want)
		})
	}
}

func sentFile(t *testing.T, root string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(root, ".Sent/cur/*"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	return list[0]
}

func copyTimes(t *testing.T, to, from string) {
	t.Helper()
	info, err := os.Stat(from)
	if err == nil {
		err = os.Chtimes(to, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func verified(t *testing.T, o Options) []Difference {
	t.Helper()
	r, err := Verify(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r.Differences
}

// compareDifferences demands the differences that want sketches, and that each
// names its message by offset and file.
func compareDifferences(t *testing.T, got []Difference, files, want []string) {
	t.Helper()
	want = slices.Clone(want)
	for _, d := range got {
		line := fmt.Sprintf("%s %s %s", messageOf(d, files), d.Field, d.Got)
		i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(line, strings.Replace(w, "?", "", 1)) })
		if i < 0 {
			if !strings.HasPrefix(line, "- message one file") {
				t.Errorf("not planted: %s (%s)", d, line)
			}
			continue
		}
		want = slices.Delete(want, i, i+1)
		if d.Mailbox != "INBOX" {
			t.Errorf("mailbox %q: %s", d.Mailbox, d)
		}
		if d.Want == d.Got {
			t.Errorf("no difference: %s", d)
		}
	}
	for _, w := range want {
		if !strings.Contains(w, "?") { // which of two files is compared is open
			t.Errorf("not found: %s", w)
		}
	}
}

// messageOf tells which message a difference names by its offset, "-" for
// none, and that its file is the right one.
func messageOf(d Difference, files []string) string {
	at := int64(0)
	for i, m := range goodMessages {
		if d.Offset == at {
			if name, _, _ := strings.Cut(d.File, ","); d.File != "" && name != files[i] && !slices.Contains(files, name) {
				return fmt.Sprintf("%d in the wrong file %s", i, d.File)
			}
			return fmt.Sprint(i)
		}
		at += int64(len(m))
	}
	if d.Offset >= 0 || d.File == "" {
		return fmt.Sprintf("offset %d, file %q", d.Offset, d.File)
	}
	return "-"
}

func TestVerifyNamesFoldersAndSubscriptions(t *testing.T) {
	for _, tt := range []struct {
		name  string
		plant func(s spot)
		want  []string // mailbox: field: got
	}{
		{"a folder is gone", func(s spot) { s.remove(".Sent") }, []string{"Sent: folder: absent", "Sent: list of UIDs: absent", "Sent: UIDVALIDITY: 0", "Sent: next UID: 0", "Sent: message: absent"}},
		{"an empty folder is gone", func(s spot) { s.remove(".Lists.golang") }, []string{"Lists/golang: folder: absent", "Lists/golang: list of UIDs: absent", "Lists/golang: next UID: 0"}},
		{"a folder too many", func(s spot) { s.check(os.MkdirAll(filepath.Join(s.root, ".More/cur"), 0o700)) }, []string{".More: folder: present"}},
		{"a folder too many, within another", func(s spot) { s.check(os.MkdirAll(filepath.Join(s.root, ".Sent/More/cur"), 0o700)) }, []string{".Sent/More: folder: present"}},
		{"a message too many in a folder", func(s spot) { s.write(".Sent/new/9.host", "x") }, []string{"Sent: message: present"}},
		{"not subscribed", func(s spot) { s.replace("subscriptions", "Sent\n", "") }, []string{"Sent: subscription: absent"}},
		{"INBOX not subscribed", func(s spot) { s.replace("subscriptions", "INBOX\n", "") }, []string{"INBOX: subscription: absent"}},
		{"a nested folder not subscribed", func(s spot) { s.replace("subscriptions", "Lists\tgolang\n", "") }, []string{"Lists/golang: subscription: absent"}},
		{"a missing folder not subscribed", func(s spot) { s.replace("subscriptions", "gone\n", "") }, []string{"gone: subscription: absent"}},
		{"subscribed to too much", func(s spot) { s.replace("subscriptions", "gone\n", "gone\nmore\n") }, []string{"more: subscription: present"}},
		{"no subscriptions", func(s spot) { s.remove("subscriptions") },
			[]string{"Sent: subscription: absent", "INBOX: subscription: absent", "Lists/golang: subscription: absent", "gone: subscription: absent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := goodTree(t)
			tt.plant(spot{t, o.Dest})
			var got []string
			for _, d := range verified(t, o) {
				got = append(got, fmt.Sprintf("%s: %s: %s", d.Mailbox, d.Field, d.Got))
				if !strings.HasPrefix(d.File, o.Dest) && d.Offset < 0 {
					t.Errorf("names no file: %s", d)
				}
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A tree without an INBOX has a Maildir with an empty one.
func TestVerifyDemandsAnEmptyINBOX(t *testing.T) {
	for _, tt := range []struct {
		name, field string
		plant       func(s spot)
	}{
		{"a message", "message", func(s spot) { s.write("cur/9.M9P9.host:2,", "x") }},
		{"a new message", "message", func(s spot) { s.write("new/9.M9P9.host", "x") }},
		{"no INBOX", "folder", func(s spot) { s.remove("cur") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), "mail")
			writeFile(t, filepath.Join(src, "Sent"), goodMessages[0])
			o := options(t, src, "dovecot")
			mustConvert(t, o)
			tt.plant(spot{t, o.Dest})
			if d := verified(t, o); len(d) != 1 || d[0].Mailbox != "INBOX" || d[0].Field != tt.field {
				t.Errorf("%v", d)
			}
		})
	}
}

// What a server does to a Maildir that it serves is no difference.
func TestVerifyAcceptsWhatDovecotHasServed(t *testing.T) {
	o := goodTree(t)
	dovecottest.Own(t, o.Dest)
	loc := dovecottest.Location{Mail: "maildir:" + o.Dest}
	for range 2 {
		dovecottest.DumpIMAP(t, loc)
		dovecottest.DumpPOP3(t, loc)
		for _, d := range verified(t, o) {
			t.Error(d)
		}
	}
}
