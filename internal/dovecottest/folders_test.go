package dovecottest

import (
	"strings"
	"testing"
	"time"
)

// folder is a mailbox in both formats: an mbox of one message, and the files of a Maildir.
func folder(uidvalidity, uid string) (mbox string, maildir map[string]string) {
	mbox = "From a@example.org Mon Jan  2 03:04:05 2023\nX-IMAPbase: " + uidvalidity + " " + uid +
		"\nX-UID: " + uid + "\nStatus: RO\nSubject: s\n\nbody of " + uidvalidity + "\n\n"
	return mbox, map[string]string{
		"cur/1.M1.host:2,S": "Subject: s\n\nbody of " + uidvalidity + "\n",
		"dovecot-uidlist":   "3 V" + uidvalidity + " N" + next(uid) + "\n" + uid + " :1.M1.host\n",
		"new/":              "",
		"tmp/":              "",
	}
}

func next(uid string) string { return uid[:len(uid)-1] + string(uid[len(uid)-1]+1) }

// twins is one user in every format that Dovecot serves; only the first has been written by a server.
type twins struct{ mbox, maildir, fs, escaped Location }

func newTwins(t *testing.T, boxes []string) twins {
	t.Helper()
	all := map[string]string{
		"mail/.subscriptions":   "V\t2\n\n" + "Arch\t2023\ngone\nINBOX\n",
		"Maildir/subscriptions": "V\t2\n\n" + "Arch\t2023\ngone\nINBOX\n",
		"fs/subscriptions":      "V\t2\n\n" + "Arch\t2023\ngone\nINBOX\n",
		"escaped/subscriptions": "V\t2\n\n" + "Arch\t2023\ngone\nINBOX\n",
	}
	var files []string
	for i, box := range boxes {
		mbox, maildir := folder("160000000"+string(rune('0'+i)), "17")
		path, plus, fs := "mail/"+box, "."+strings.ReplaceAll(box, "/", ".")+"/", box+"/"
		escaped := "." + strings.ReplaceAll(strings.ReplaceAll(box, ".", `\2e`), "/", ".") + "/"
		if box == "INBOX" {
			path, plus, fs, escaped = "inbox", "", "", ""
		}
		all[path] = mbox
		for name, text := range maildir {
			for _, root := range []string{"Maildir/" + plus, "fs/" + fs, "escaped/" + escaped} {
				all[root+name] = text
				if strings.HasSuffix(name, ":2,S") {
					files = append(files, root+name)
				}
			}
		}
	}
	dir := tree(t, all)
	for _, name := range files {
		age(t, dir+"/"+name, time.Date(2023, 1, 2, 3, 4, 5, 0, time.UTC))
	}
	return twins{
		mbox:    mboxIn(dir),
		maildir: maildirIn(dir),
		fs:      Location{Mail: "maildir:" + dir + "/fs:LAYOUT=fs"},
		escaped: Location{Mail: "maildir:" + dir + "/escaped", ListEscape: true},
	}
}

func TestEqualUsersInTwoFormatsShowNoDifference(t *testing.T) {
	tw := newTwins(t, []string{
		"INBOX", "plain", "Arch/2023", "two words", `quote"s`, `back\slash`, "Entw&APw-rfe", "R&-D", "per%cent* {5}",
	})
	want := DumpIMAP(t, tw.mbox)
	equal(t, "subscriptions", want.Subscribed, []string{"Arch/2023", "INBOX", "gone"})
	equal(t, "names", want.names(), []string{
		"Arch", "Arch/2023", "Entw&APw-rfe", "INBOX", "R&-D", `back\slash`, "per%cent* {5}", "plain", `quote"s`, "two words",
	})
	equal(t, "attributes of a directory", want.Mailbox("Arch").Attrs, []string{`\HasChildren`, `\Noselect`})
	for name, loc := range map[string]Location{"Maildir++": tw.maildir, "fs": tw.fs} {
		for _, d := range Diff(DumpIMAP(t, loc), want) {
			t.Errorf("%s: %s", name, d)
		}
	}
}

func TestDotsInNamesNeedListEscape(t *testing.T) {
	tw := newTwins(t, []string{"INBOX", "with.dot", ".hid"})
	want := DumpIMAP(t, tw.mbox)
	for name, loc := range map[string]Location{"listescape": tw.escaped, "fs": tw.fs} {
		for _, d := range Diff(DumpIMAP(t, loc), want) {
			t.Errorf("%s: %s", name, d)
		}
	}
	if Diff(DumpIMAP(t, tw.maildir), want) == nil {
		t.Error("Maildir++: no difference")
	}
}
