package convert

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
)

// treeFolders are the mailboxes of a tree; only layouts that have no other
// use for a dot hold dotted ones.
var treeFolders = []struct {
	path   string
	dotted bool
}{
	{path: "Sent"},
	{path: "two words"},
	{path: " leading blank"},
	{path: `quote"s and 'others'`},
	{path: `back\slash`},
	{path: "per%cent* {5}"},
	{path: "#hash"},
	{path: "a:b,c"},
	{path: "Entw&APw-rfe"},
	{path: "R&-D"},
	{path: "&ZeVnLIqe-/&U,BTFw-"},
	{path: "Archive/2023/Jan"},
	{path: "Archive/2023/Feb"},
	{path: "Archive/2022"},
	{path: "INBOX/kid"},
	{path: "INBOX/deep/kid"},
	{path: "subs/subscriptions"},
	{path: "with.dot", dotted: true},
	{path: ".hidden", dotted: true},
	{path: "v1.2/dev", dotted: true},
	{path: "lists/v1.2", dotted: true},
	{path: "...", dotted: true},
	{path: "dir/.hid", dotted: true},
}

// shownDifferently is what clients see otherwise after a conversion, by the
// beginnings of differences, and why. Whatever is not in the list is a fault,
// and so is what is in the list and not seen.
var shownDifferently = []struct{ difference, reason string }{
	{"M&APw-ll: ", "Dovecot lists a raw UTF-8 name, but can't open it; now it is a mailbox"},
	{"Q&-A: ", "the same with a bare &"},
	{"empty: UIDVALIDITY: ", "a file without a byte has it in Dovecot's index alone"},
	{"Archive/no-mailbox.txt: mailbox missing", "Dovecot lists every file; it could not open this one"},
	{"no mailbox in it: mailbox missing", "a directory without a mailbox holds no mail"},
	{"no mailbox in it/at all: mailbox missing", "the same"},
}

// dottedMissing is what Maildir++ lacks besides; the files are among the skips.
var dottedMissing = []string{"with.dot", ".hidden", "v1.2/dev", "v1.2", "lists/v1.2", "lists", "...", "dir/.hid", "dir"}

// compareTrees demands exactly the stated differences.
func compareTrees(t *testing.T, got, want *dovecottest.Dump, dots bool) {
	t.Helper()
	stated := map[string]bool{}
	for _, s := range shownDifferently {
		stated[s.difference] = false
	}
	for _, name := range dottedMissing {
		if !dots {
			stated[name+": mailbox missing"] = false
		}
	}
	compareAllKeywords(t, got, want)
	for _, d := range dovecottest.Diff(got, want, "keywords") {
		known := false
		for s := range stated {
			if strings.HasPrefix(d, s) {
				known, stated[s] = true, true
			}
		}
		if !known {
			t.Error(d)
		}
	}
	for s, seen := range stated {
		if !seen {
			t.Errorf("stated and not seen: %s", s)
		}
	}
}

// makeTree writes a home: a spool, mailboxes in mail, and what else is there.
func makeTree(t *testing.T, seed uint64) (spool, root string) {
	t.Helper()
	home := t.TempDir()
	spool, root = filepath.Join(home, "spool"), filepath.Join(home, "mail")
	generate := func(path string, o mailgen.Options) {
		var b bytes.Buffer
		if _, err := mailgen.Generate(&b, o); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, b.String())
	}
	generate(spool, mailgen.Options{Seed: seed, Messages: 8, State: true, Fresh: 2, Odd: mailgen.AllOdd})
	for i, f := range treeFolders {
		generate(filepath.Join(root, f.path), mailgen.Options{
			Seed: seed + uint64(i) + 1, Messages: 1 + i%4, State: i%3 > 0, Odd: mailgen.AllOdd,
			Size: func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(2000) },
		})
	}
	writeFile(t, filepath.Join(root, "empty"), "")
	writeFile(t, filepath.Join(root, "Archive/no-mailbox.txt"), "Dentist on Monday\n")
	generate(filepath.Join(root, "Müll"), mailgen.Options{Seed: seed, Messages: 2})
	generate(filepath.Join(root, "Q&A"), mailgen.Options{Seed: seed + 1, Messages: 2})
	writeFile(t, filepath.Join(root, ".subscriptions"), "V\t2\n\nSent\nEntw&APw-rfe\nArchive\t2023\tJan\ngone\tfor good\nINBOX\nINBOX\tkid\ntwo words\n")
	if err := os.MkdirAll(filepath.Join(root, "no mailbox in it", "at all"), 0o755); err != nil {
		t.Fatal(err)
	}
	return spool, root
}

// settle has Dovecot write all it knows into the mboxes: UIDVALIDITY and UIDs
// of a mailbox that nobody has changed are in its index only.
func settle(t *testing.T, loc dovecottest.Location) {
	t.Helper()
	before := dovecottest.DumpIMAP(t, loc)
	session := dovecottest.Start(t, loc)
	defer session.Close()
	for _, box := range before.Mailboxes {
		if !box.Selectable || box.Error != "" || len(box.Messages) == 0 {
			continue
		}
		session.Command("SELECT %s", dovecottest.Quote(box.Name))
		session.Command("STORE 1:* +FLAGS.SILENT ($Carried)")
		session.Command("CHECK")
	}
}

func TestTreesLookAlikeToClients(t *testing.T) {
	for _, tt := range []struct {
		name    string
		folders maildir.Folders
		dots    bool
	}{
		{"Maildir++", maildir.Folders{}, false},
		{"listescape", maildir.Folders{Escape: true}, true},
		{"fs", maildir.Folders{Layout: maildir.FS}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spool, root := makeTree(t, 100)
			dovecottest.Own(t, filepath.Dir(root))
			loc := dovecottest.Location{Mail: "mbox:" + root + ":INBOX=" + spool}
			settle(t, loc)
			want := served{imap: dovecottest.DumpIMAP(t, loc), pop3: dovecottest.DumpPOP3(t, loc)}

			o := options(t, root, "dovecot")
			o.Inbox, o.Folders = spool, tt.folders
			r := mustConvert(t, o)
			for _, f := range treeFolders {
				skipped := slices.ContainsFunc(r.Skips, func(s Skip) bool { return s.Path == filepath.Join(root, f.path) })
				if skipped != (f.dotted && !tt.dots) {
					t.Errorf("%s: skipped: %t", f.path, skipped)
				}
			}
			dovecottest.Own(t, o.Dest)
			loc = dovecottest.Location{Mail: "maildir:" + o.Dest, ListEscape: tt.folders.Escape}
			if tt.folders.Layout == maildir.FS {
				loc.Mail += ":LAYOUT=fs"
			}
			got := served{imap: dovecottest.DumpIMAP(t, loc), pop3: dovecottest.DumpPOP3(t, loc)}
			compareTrees(t, got.imap, want.imap, tt.dots)
			if len(got.pop3) == 0 || !slices.Equal(got.pop3, want.pop3) {
				t.Errorf("POP3: got %+v, want %+v", got.pop3, want.pop3)
			}
		})
	}
}
