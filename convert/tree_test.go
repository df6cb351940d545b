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

// shownDifferently is what clients see of the tree and not of the Maildir, or
// the other way round, and why.
var shownDifferently = map[string]string{
	// Dovecot lists these, but can't open them; now they are mailboxes.
	"M&APw-ll: selectable: got true, want false": "",
	"empty: UIDVALIDITY":                         "a file without a byte has it only in Dovecot's index",
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
			for _, s := range r.Skips {
				t.Log(s)
			}
			dovecottest.Own(t, o.Dest)
			loc = dovecottest.Location{Mail: "maildir:" + o.Dest, ListEscape: tt.folders.Escape}
			if tt.folders.Layout == maildir.FS {
				loc.Mail += ":LAYOUT=fs"
			}
			got := served{imap: dovecottest.DumpIMAP(t, loc), pop3: dovecottest.DumpPOP3(t, loc)}
			for _, d := range dovecottest.Diff(got.imap, want.imap) {
				t.Error(d)
			}
			if !slices.Equal(got.pop3, want.pop3) {
				t.Errorf("POP3: got %+v, want %+v", got.pop3, want.pop3)
			}
			_ = strings.Join
		})
	}
}
