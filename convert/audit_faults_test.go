package convert

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/dovecottest"
)

// auditFaults are what may be wrong with the Maildir of a user who was
// converted, and what the audit says of it: mailbox, message (by its number,
// "-" for none), field, and what the Maildir has.
var auditFaults = []struct {
	name  string
	plant func(u *movedUser)
	want  []string
}{
	{"a byte is another", func(u *movedUser) { u.edit(u.file(2), func(b []byte) []byte { b[len(b)-2]++; return b }) }, []string{"INBOX 2 digest "}},
	{"a byte of the header is another", func(u *movedUser) { u.edit(u.file(2), func(b []byte) []byte { b[0] = 's'; return b }) }, []string{"INBOX 2 digest "}},
	{"cut", func(u *movedUser) { u.edit(u.file(2), func(b []byte) []byte { return b[:len(b)-1] }) },
		[]string{"INBOX 2 digest ", "INBOX 2 size 26", "INBOX 2 S= 27", "INBOX 2 W= 30"}},
	{"empty", func(u *movedUser) { u.edit(u.file(2), func(b []byte) []byte { return nil }) },
		[]string{"INBOX 2 digest e3b0c442", "INBOX 2 size 0", "INBOX 2 S= 27", "INBOX 2 W= 30"}},
	{"longer", func(u *movedUser) { u.edit(u.file(2), func(b []byte) []byte { return append(b, '\n') }) },
		[]string{"INBOX 2 digest ", "INBOX 2 size 28", "INBOX 2 S= 27", "INBOX 2 W= 30"}},
	{"CRLF for LF", func(u *movedUser) {
		u.edit(u.file(2), func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) })
	}, []string{"INBOX 2 digest ", "INBOX 2 size 30", "INBOX 2 S= 27"}},
	{"wrong S=", func(u *movedUser) { u.rename(2, "S=27", "S=28") }, []string{"INBOX 2 S= 28"}},
	{"no S=", func(u *movedUser) { u.rename(2, ",S=27", "") }, []string{"INBOX 2 S= absent"}},
	{"wrong S= in the name only", func(u *movedUser) {
		u.check(os.Rename(u.file(2), strings.Replace(u.file(2), "S=27", "S=28", 1)))
	}, []string{"INBOX 2 UID none"}},
	{"W= too big", func(u *movedUser) { u.rename(2, "W=30", "W=31") }, []string{"INBOX 2 W= 31"}},
	{"W= too small", func(u *movedUser) { u.rename(2, "W=30", "W=27") }, []string{"INBOX 2 W= 27"}},
	{"W= too big, and Dovecot has met it", func(u *movedUser) {
		u.rename(2, "W=30", "W=31")
		dovecottest.DumpIMAP(u, u.loc) // which drops the sizes and the UID
		dovecottest.DumpIMAP(u, u.loc)
	}, []string{"INBOX 2 UID 31"}},
	{"another date", func(u *movedUser) { u.check(os.Chtimes(u.file(2), time.Time{}, time.Unix(1672801446, 0))) },
		[]string{"INBOX 2 date 1672801446"}},
	{"another UIDVALIDITY of INBOX", func(u *movedUser) { u.replace("dovecot-uidlist", "V1600000000", "V1600000009") },
		[]string{"INBOX - UIDVALIDITY 1600000009"}},
	{"another UIDVALIDITY of a folder", func(u *movedUser) { u.replace(".Sent/dovecot-uidlist", "V1600000001", "V1600000009") },
		[]string{"Sent - UIDVALIDITY 1600000009"}},
	{"a lower next UID", func(u *movedUser) { u.replace("dovecot-uidlist", "N0000000031", "N0000000030") }, []string{"INBOX - next UID 30"}},
	{"another UID", func(u *movedUser) { u.replace("dovecot-uidlist", "\n16 ", "\n17 ") }, []string{"INBOX 2 UID 17"}},
	{"a later UID", func(u *movedUser) { u.relist(func(l []string) []string { return append(l[:3], l[4], "31"+l[3][2:]) }) },
		[]string{"INBOX 2 UID 31"}},
	{"a message that the list has not", func(u *movedUser) { u.relist(func(l []string) []string { return slices.Delete(l, 3, 4) }) },
		[]string{"INBOX 2 UID none"}},
	{"a file with two UIDs", func(u *movedUser) { u.relist(func(l []string) []string { return append(l, "31"+l[3][2:]) }) },
		[]string{"INBOX - UID 31 as well"}},
	{"two files with one UID", func(u *movedUser) {
		u.relist(func(l []string) []string { l[4] = "16" + l[4][2:]; return l })
	}, []string{"INBOX - list of UIDs uidlist line 5: UID 16 after 16", "INBOX 3 UID none"}},
	{"a new message with an old UID", func(u *movedUser) {
		u.write("cur/9.M9P9.host,S=1,W=1:2,S", "x")
		u.replace("dovecot-uidlist", "20 P", "17 :9.M9P9.host,S=1,W=1\n20 P")
	}, []string{"INBOX - message present with UID 17"}},
	{"a new message with the UID of a deleted one", func(u *movedUser) {
		u.check(os.Remove(u.file(2)))
		u.write("cur/9.M9P9.host,S=1,W=1:2,S", "x")
		u.relist(func(l []string) []string { l[3] = "16 :9.M9P9.host,S=1,W=1"; return l })
	}, []string{"INBOX 2 digest ", "INBOX 2 size 1", "INBOX 2 UIDL", "INBOX 2 date"}},
	{"two messages exchanged in the list", func(u *movedUser) { u.swapUIDs(false) },
		[]string{"INBOX 0 digest ", "INBOX 0 date ", "INBOX 1 digest ", "INBOX 1 date "}},
	{"two messages exchanged with their UIDLs", func(u *movedUser) { u.swapUIDs(true) },
		[]string{"INBOX 0 digest ", "INBOX 0 date ", "INBOX 0 UIDL 0000000f5f5e1000", "INBOX 1 digest ", "INBOX 1 date ", "INBOX 1 UIDL 0000000a5f5e1000"}},
	{"the content of two messages exchanged", func(u *movedUser) {
		one, err := os.ReadFile(u.file(0))
		u.check(err)
		two, err := os.ReadFile(u.file(1))
		u.check(err)
		u.edit(u.file(0), func([]byte) []byte { return two })
		u.edit(u.file(1), func([]byte) []byte { return one })
	}, []string{"INBOX 0 digest ", "INBOX 1 digest "}},
	{"another UIDL", func(u *movedUser) { u.replace("dovecot-uidlist", "P000000105f5e1000", "P000000105f5e1001") }, []string{"INBOX 2 UIDL 000000105f5e1001"}},
	{"no UIDL", func(u *movedUser) { u.replace("dovecot-uidlist", " P000000105f5e1000", "") }, []string{"INBOX 2 UIDL "}},
	{"two files of one unique name", func(u *movedUser) {
		u.check(os.Link(u.file(2), strings.TrimSuffix(u.file(2), "S")+"FS"))
	}, []string{"INBOX - message another is "}},
	{"two files of one unique name, one in new", func(u *movedUser) {
		u.write("new/"+uniqueOf(filepath.Base(u.file(2))), "x")
	}, []string{"INBOX - message another is ", "INBOX 2? "}},
	{"no list of UIDs", func(u *movedUser) { u.remove("dovecot-uidlist") },
		[]string{"INBOX - list of UIDs absent", "INBOX 0 UID none", "INBOX 1 UID none", "INBOX 2 UID none", "INBOX 3 UID none"}},
	{"a list of UIDs that is none", func(u *movedUser) { u.write("dovecot-uidlist", "what?\n") },
		[]string{"INBOX - list of UIDs uidlist line 1", "INBOX 0 UID none", "INBOX 1 UID none", "INBOX 2 UID none", "INBOX 3 UID none"}},
	{"no list of UIDs, and Dovecot has made a new one", func(u *movedUser) {
		u.remove("dovecot-uidlist")
		dovecottest.DumpIMAP(u, u.loc)
	}, []string{"INBOX - UIDVALIDITY ", "INBOX 0 UID 1", "INBOX 1 UID 2", "INBOX 2 UID 3", "INBOX 3 UID 4"}},
	{"a folder is gone", func(u *movedUser) {
		dovecottest.DumpIMAP(u, u.loc) // Dovecot would have a log
		u.remove(".Sent")
	}, []string{"Sent - folder absent; 2 of its messages are nowhere"}},
	{"a folder is gone while another was deleted", func(u *movedUser) {
		s := dovecottest.Start(u, u.loc)
		s.Command("DELETE Lists/golang")
		s.Close()
		u.remove(".Sent")
	}, []string{"Sent - folder absent; 2 of its messages are nowhere"}},
	{"the messages of a folder are gone, with their directory", func(u *movedUser) { u.remove(".Sent/cur") },
		[]string{"Sent - folder a list of UIDs without cur"}},
	{"a folder is a symlink", func(u *movedUser) {
		u.check(os.Rename(filepath.Join(u.root, ".Sent"), filepath.Join(u.a.Home, "elsewhere")))
		u.check(os.Symlink("../elsewhere", filepath.Join(u.root, ".Sent")))
	}, []string{"Sent - folder a symlink"}},
	{"the messages of INBOX are gone, with their directory", func(u *movedUser) { u.remove("cur") },
		[]string{"INBOX - folder a list of UIDs without cur"}},
	{"INBOX is gone", func(u *movedUser) { u.remove("cur"); u.remove("dovecot-uidlist") }, []string{"INBOX - folder absent"}},
	{"the Maildir is gone", func(u *movedUser) { u.remove("") }, []string{"INBOX - Maildir absent"}},
	{"keywords without names", func(u *movedUser) { u.remove("dovecot-keywords") }, []string{"INBOX - letter a ", "INBOX - letter b "}},
	{"keywords exchanged", func(u *movedUser) { u.write("dovecot-keywords", "0 Work\n1 $Forwarded\n") }, []string{"INBOX - letter a Work", "INBOX - letter b $Forwarded"}},
	{"a letter without a name", func(u *movedUser) { u.rename(2, ":2,S", ":2,Sd") }, []string{"INBOX - letter d without a name"}},
	{"a FIFO", func(u *movedUser) {
		f := u.file(2)
		u.check(os.Remove(f))
		u.check(unix.Mkfifo(f, 0o600))
	}, []string{"INBOX 2 message "}},
	{"a symlink for a message", func(u *movedUser) {
		f := u.file(2)
		u.check(os.Rename(f, filepath.Join(u.a.Home, "elsewhere")))
		u.check(os.Symlink(filepath.Join(u.a.Home, "elsewhere"), f))
	}, []string{"INBOX 2 message "}},
	{"a message that its user may not read", func(u *movedUser) { u.check(os.Chmod(u.file(2), 0)) }, []string{"INBOX 2 message "}},
	{"a message altered in a folder that was renamed", func(u *movedUser) {
		u.check(os.Rename(filepath.Join(u.root, ".Lists.golang"), filepath.Join(u.root, ".Old")))
		list, err := filepath.Glob(filepath.Join(u.root, ".Old/cur/*"))
		u.check(err)
		u.edit(list[0], func(b []byte) []byte { b[0]++; return b })
	}, []string{"Lists/golang 0 digest "}},
	{"a message altered that no server has seen", func(u *movedUser) {
		list, err := filepath.Glob(filepath.Join(u.root, ".unseen/cur/*"))
		u.check(err)
		u.edit(list[0], func(b []byte) []byte { b[0]++; return b })
	}, []string{"unseen 0 digest "}},
}

// relist changes the lines of INBOX's list of UIDs; the first is the header.
func (u *movedUser) relist(change func([]string) []string) {
	u.Helper()
	u.edit(filepath.Join(u.root, "dovecot-uidlist"), func(b []byte) []byte {
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		return []byte(strings.Join(change(lines), "\n") + "\n")
	})
}

func TestAuditNamesEveryFault(t *testing.T) {
	for _, tt := range auditFaults {
		t.Run(tt.name, func(t *testing.T) {
			u := newMovedUser(t, strings.Join(goodMessages, ""))
			tt.plant(u)
			u.own(u.a.Home)
			r := u.audit()
			want := slices.Clone(tt.want)
			for _, d := range r.Differences {
				line := fmt.Sprintf("%s %s %s %s", d.Mailbox, numberOf(d), d.Field, d.Got)
				i := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(line, strings.Replace(w, "?", "", 1)) })
				if i < 0 {
					t.Errorf("not planted: %s (%s)", d, line)
					continue
				}
				if !strings.Contains(want[i], "?") {
					want = slices.Delete(want, i, i+1)
				}
				if d.Want == d.Got || d.File == "" && d.Offset < 0 {
					t.Errorf("says nothing: %+v", d)
				}
			}
			for _, w := range want {
				if !strings.Contains(w, "?") { // which of two files is compared is open
					t.Errorf("not found: %s", w)
				}
			}
			if r.Differing < len(tt.want) && !strings.Contains(strings.Join(tt.want, ""), "?") {
				t.Errorf("counts %d differences", r.Differing)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
			t.Log(r)
		})
	}
}

// numberOf tells which message of its mailbox a difference is about.
func numberOf(d Difference) string {
	if d.Offset < 0 {
		return "-"
	}
	if d.Mailbox != "INBOX" {
		return fmt.Sprint(d.Offset)
	}
	at := int64(0)
	for i, m := range goodMessages {
		if d.Offset == at {
			return fmt.Sprint(i)
		}
		at += int64(len(m))
	}
	return fmt.Sprintf("offset %d", d.Offset)
}
