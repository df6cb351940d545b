package mailgen

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fact is what stat(2) says of a file.
type fact struct {
	fs.FileMode
	uid, gid int
	links    int
	size     int64
	text     string // of a regular file
	names    int    // in a directory
}

func factOf(t *testing.T, path string) (f fact) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		return fact{FileMode: fs.ModeIrregular} // not there
	}
	st := info.Sys().(*syscall.Stat_t)
	f = fact{FileMode: info.Mode(), uid: int(st.Uid), gid: int(st.Gid), links: int(st.Nlink), size: info.Size()}
	var text []byte
	var names []fs.DirEntry
	switch {
	case f.IsRegular():
		text, err = os.ReadFile(path)
	case f.IsDir():
		names, err = os.ReadDir(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.text, f.names = string(text), len(names)
	return f
}

func (f fact) missing() bool { return f.FileMode == fs.ModeIrregular }

// sight tells whether a user shows a problem.
type sight func(t *testing.T, sum *SiteSummary, u SiteUser) bool

func where(path func(SiteUser) string, shows func(SiteUser, fact) bool) sight {
	return func(t *testing.T, _ *SiteSummary, u SiteUser) bool {
		t.Helper()
		return shows(u, factOf(t, path(u)))
	}
}

func spool(shows func(SiteUser, fact) bool) sight {
	return where(func(u SiteUser) string { return u.Spool }, shows)
}

func dotlock(shows func(SiteUser, fact) bool) sight {
	return where(func(u SiteUser) string { return u.Spool + ".lock" }, shows)
}

func home(shows func(SiteUser, fact) bool) sight {
	return where(func(u SiteUser) string { return u.Home }, shows)
}

func below(name string, shows func(SiteUser, fact) bool) sight {
	return where(func(u SiteUser) string { return filepath.Join(u.Home, name) }, shows)
}

func sent(shows func(SiteUser, fact) bool) sight { return below("mail/Sent", shows) }

// found: a file of that pattern holds something.
func found(pattern func(SiteUser) string) sight {
	return func(t *testing.T, _ *SiteSummary, u SiteUser) bool {
		t.Helper()
		matches, err := filepath.Glob(pattern(u))
		if err != nil {
			t.Fatal(err)
		}
		return len(matches) == 1 && factOf(t, matches[0]).size > 0
	}
}

func stranger(u SiteUser, f fact) bool { return !f.missing() && f.uid != u.UID && f.uid != 0 }

func others(sum *SiteSummary, u SiteUser, like func(SiteUser) bool) (n int) {
	for _, o := range sum.Users {
		if o.Name != u.Name && like(o) {
			n++
		}
	}
	return n
}

func mailboxesCalled(u SiteUser, name string) (n int) {
	for _, m := range u.Mailboxes {
		if m.Name == name {
			n++
		}
	}
	return n
}

// sights are what tells each problem, by Problem.Case, from a look at the files.
// A sound user shows none of them.
var sights = map[string]sight{
	"the users file lacks the name": func(t *testing.T, sum *SiteSummary, u SiteUser) bool {
		return !strings.Contains(factOf(t, sum.UsersFile).text, "\n"+u.Name+":")
	},
	"the uid is below 1000": func(_ *testing.T, _ *SiteSummary, u SiteUser) bool { return u.UID > 0 && u.UID < 1000 },
	"two names have one uid": func(_ *testing.T, sum *SiteSummary, u SiteUser) bool {
		return others(sum, u, func(o SiteUser) bool { return o.UID == u.UID && u.UID != 0 }) == 1
	},
	"two names have one home": func(_ *testing.T, sum *SiteSummary, u SiteUser) bool {
		return others(sum, u, func(o SiteUser) bool { return o.Home == u.Home && u.Home != "" }) == 1
	},
	"neither spool nor folders": where(func(u SiteUser) string { return u.Home }, func(u SiteUser, f fact) bool {
		_, err := os.Lstat(u.Spool)
		_, also := os.Lstat(filepath.Join(u.Home, "mail"))
		return f.IsDir() && os.IsNotExist(err) && os.IsNotExist(also)
	}),

	"INBOX is a symlink to a file of the user's":    spool(func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeSymlink }),
	"a folder is a symlink to a file of the user's": sent(func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeSymlink }),
	"INBOX has a second name":                       spool(func(_ SiteUser, f fact) bool { return f.IsRegular() && f.links == 2 }),
	"a folder has a second name":                    sent(func(_ SiteUser, f fact) bool { return f.IsRegular() && f.links == 2 }),
	"INBOX is a FIFO":                               spool(func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeNamedPipe }),
	"INBOX is a directory":                          spool(func(_ SiteUser, f fact) bool { return f.IsDir() }),
	"INBOX is a socket":                             spool(func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeSocket }),
	"a folder is a FIFO":                            sent(func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeNamedPipe }),
	"INBOX is root's":                               spool(func(_ SiteUser, f fact) bool { return f.uid == 0 && f.IsRegular() }),
	"a folder is a stranger's":                      sent(stranger),
	"INBOX has mode 0":                              spool(func(_ SiteUser, f fact) bool { return f.FileMode == 0 }),
	"a folder has mode 0":                           sent(func(_ SiteUser, f fact) bool { return f.FileMode == 0 }),
	"others may read INBOX":                         spool(func(_ SiteUser, f fact) bool { return f.FileMode == 0o644 }),
	"others may write a folder":                     sent(func(_ SiteUser, f fact) bool { return f.FileMode == 0o666 }),
	"INBOX begins with prose": spool(func(_ SiteUser, f fact) bool {
		return f.size > 0 && f.IsRegular() && !strings.HasPrefix(f.text, "From ")
	}),

	"the folder tree is a symlink": below("mail", func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeSymlink }),
	"the folder tree is a file":    below("mail", func(_ SiteUser, f fact) bool { return f.IsRegular() }),
	"a Maildir among the folders":  below("mail/new-style/cur", func(_ SiteUser, f fact) bool { return f.IsDir() }),

	"the home does not exist":                      home(func(u SiteUser, f fact) bool { return u.Home != "" && f.missing() }),
	"the home is a stranger's":                     home(func(u SiteUser, f fact) bool { return stranger(u, f) && u.Code != "collision" }),
	"everybody may write to the home":              home(func(_ SiteUser, f fact) bool { return !f.missing() && f.Perm() == 0o777 }),
	"the directory above the home is a stranger's": where(func(u SiteUser) string { return filepath.Dir(u.Home) }, func(u SiteUser, f fact) bool { return u.Home != "" && f.uid != 0 }),
	"the user may not write to his home":           home(func(_ SiteUser, f fact) bool { return f.Perm() == 0o500 }),
	"a Maildir with a message is there":            below("Maildir/cur/1700000000.M1P1."+host+":2,S", func(u SiteUser, f fact) bool { return f.uid == u.UID && f.size > 0 }),
	"the Maildir is a symlink":                     below("Maildir", func(_ SiteUser, f fact) bool { return f.Type() == fs.ModeSymlink }),
	"the Maildir is a file":                        below("Maildir", func(_ SiteUser, f fact) bool { return f.IsRegular() }),
	"an empty directory is in the Maildir's place": below("Maildir", func(_ SiteUser, f fact) bool { return f.IsDir() && f.names == 0 }),
	"a staging directory that no record knows": found(func(u SiteUser) string {
		return filepath.Join(u.Home, ".Maildir.mailferry-????????????????", "cur", "*")
	}),
	"an older parked mbox lies beside INBOX":    found(func(u SiteUser) string { return u.Spool + ".mailferry-20260101T000000Z" }),
	"qpopper's temporary mailbox holds mail":    found(func(u SiteUser) string { return filepath.Join(filepath.Dir(u.Spool), "."+u.Name+".pop") }),
	"a dotlock whose maker is dead":             dotlock(func(u SiteUser, f fact) bool { return f.uid == u.UID && strings.HasPrefix(f.text, "4194304:") }),
	"a dotlock of a stranger":                   dotlock(stranger),
	"a From_ line that Dovecot does not accept": spool(func(_ SiteUser, f fact) bool { return strings.Contains(f.text, "\n\nFrom alice at example.org ") }),
	"a file of notes among the folders":         below("mail/notes.txt", func(_ SiteUser, f fact) bool { return strings.HasPrefix(f.text, "Dentist") }),
	"a folder has a dot in its name":            below("mail/with.dot", func(_ SiteUser, f fact) bool { return strings.HasPrefix(f.text, "From ") }),
	"one folder in two spellings":               below("mail/R&-D", func(u SiteUser, f fact) bool { return f.IsRegular() && mailboxesCalled(u, "R&D") == 2 }),
	".procmailrc names an mbox":                 below(".procmailrc", func(_ SiteUser, f fact) bool { return strings.Contains(f.text, "\n$HOME/mail/") }),
	".forward names an mbox":                    below(".forward", func(u SiteUser, f fact) bool { return strings.Contains(f.text, u.Home+"/mail/Sent") }),
	".mailfilter names an mbox":                 below(".mailfilter", func(_ SiteUser, f fact) bool { return strings.Contains(f.text, `to "$HOME/mail/`) }),
}

func TestEachUserHasHisProblemAndNoOther(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 150, Seed: 9, Problems: 0.7})
	shown := map[string]int{}
	for _, u := range sum.Users {
		for what, shows := range sights {
			if got := shows(t, sum, u); got != (u.Case == what) {
				t.Errorf("%s, made with %q: %q is %t", u.Name, u.Case, what, got)
			}
		}
		shown[u.Case]++
	}
	for _, p := range Problems() {
		if sights[p.Case] == nil || shown[p.Case] == 0 {
			t.Errorf("%q: made %d times, tested: %t", p.Case, shown[p.Case], sights[p.Case] != nil)
		}
	}
}

func TestSoundUsersOwnAllThatIsTheirs(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 40, Seed: 10})
	for _, u := range sum.Users {
		tree, err := u.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for path, e := range tree {
			if e.UID != u.UID || e.Mode.Perm()&0o077 != 0 || !e.Mode.IsDir() && (!e.Mode.IsRegular() || e.Links != 1) {
				t.Errorf("%s: %s is %v of uid %d, %d links", u.Name, path, e.Mode, e.UID, e.Links)
			}
		}
		if u.Code != "" || u.Severity != Sound || !u.Migrates() || u.Messages == 0 && len(u.Mailboxes) == 0 {
			t.Errorf("%+v is not sound", u)
		}
	}
}
