package maildir

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

var (
	maildirPP = Folders{Layout: MaildirPP}
	escaped   = Folders{Layout: MaildirPP, Escape: true}
	plainFS   = Folders{Layout: FS}
	escapedFS = Folders{Layout: FS, Escape: true}
)

func TestFolderDirectory(t *testing.T) {
	for _, tt := range []struct {
		name    string
		folders Folders
		parts   []string
		dir     string
	}{
		{"INBOX is the root of Maildir++", maildirPP, nil, "."},
		{"INBOX is the root of fs", plainFS, nil, "."},
		{"one level", maildirPP, []string{"Sent"}, ".Sent"},
		{"two levels", maildirPP, []string{"Arch", "2023"}, ".Arch.2023"},
		{"two levels in fs", plainFS, []string{"Arch", "2023"}, "Arch/2023"},
		{"child of INBOX", maildirPP, []string{"INBOX", "kid"}, ".INBOX.kid"},
		{"child of INBOX in fs", plainFS, []string{"INBOX", "kid"}, "INBOX/kid"},
		{"INBOX below another folder", maildirPP, []string{"a", "INBOX"}, ".a.INBOX"},
		{"cur in Maildir++", maildirPP, []string{"cur"}, ".cur"},
		{"subscriptions in Maildir++", maildirPP, []string{"subscriptions"}, ".subscriptions"},
		{"subscriptions below another folder in fs", plainFS, []string{"a", "subscriptions"}, "a/subscriptions"},
		{"a list called dovecot-users in fs", plainFS, []string{"dovecot-users"}, "dovecot-users"},
		{"dots in fs", plainFS, []string{"with.dot", ".hid"}, "with.dot/.hid"},
		{"odd bytes", maildirPP, []string{`a:b,c*d%e#f\g `}, `.a:b,c*d%e#f\g `},
		{"tilde below the top", maildirPP, []string{"a", "~b"}, ".a.~b"},
		{"escaped dot", escaped, []string{"with.dot", "..x"}, `.with\2edot.\2e\2ex`},
		{"escaped backslash", escaped, []string{`a\2eb`}, `.a\5c2eb`},
		{"escaped tilde on each level, not inside", escaped, []string{"~a~", "~b"}, `.\7ea~.\7eb`},
		{"escaped slash", escaped, []string{"a/b"}, `.a\2fb`},
		{"escaped dots in fs only as parts . and ..", escapedFS, []string{".", "..", ".hid", "a.b"}, `\2e/\2e./.hid/a.b`},
		{"modified UTF-7", maildirPP, []string{"Entw&APw-rfe", "R&-D"}, ".Entw&APw-rfe.R&-D"},
		{"longest name", maildirPP, []string{strings.Repeat("x", 254)}, "." + strings.Repeat("x", 254)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := tt.folders.Dir(tt.parts)
			if err != nil || dir != tt.dir {
				t.Fatalf("Dir(%q) = %q, %v, want %q", tt.parts, dir, err, tt.dir)
			}
			parts, err := tt.folders.Parts(dir)
			if err != nil || !slices.Equal(parts, tt.parts) {
				t.Errorf("Parts(%q) = %q, %v, want %q", dir, parts, err, tt.parts)
			}
		})
	}
}

func TestFolderRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		folders Folders
		parts   []string
		hint    string // what the reason must offer
	}{
		{"dot in Maildir++", maildirPP, []string{"a", "with.dot"}, "listescape plugin or layout fs"},
		{"leading dot in Maildir++", maildirPP, []string{".hid"}, "listescape plugin or layout fs"},
		{"slash", maildirPP, []string{"a/b"}, "listescape"},
		{"slash in fs", plainFS, []string{"a/b"}, "listescape"},
		{"leading tilde", maildirPP, []string{"~a"}, "listescape"},
		{"dot part in fs", plainFS, []string{"a", "."}, "listescape"},
		{"dotdot part in fs", plainFS, []string{"a", "..", "b"}, "listescape"},
		{"empty part", escaped, []string{"a", ""}, "rename"},
		{"empty part in fs", plainFS, []string{"", "a"}, "rename"},
		{"cur in fs", plainFS, []string{"a", "cur"}, "maildir++"},
		{"new in fs", plainFS, []string{"new", "a"}, "maildir++"},
		{"tmp in escaped fs", escapedFS, []string{"tmp"}, "maildir++"},
		{"uidlist in fs", plainFS, []string{"a", "dovecot-uidlist"}, "maildir++"},
		{"index in fs", plainFS, []string{"dovecot.index.log.2"}, "maildir++"},
		{"uidvalidity in fs", plainFS, []string{"dovecot-uidvalidity.5f5e1000"}, "maildir++"},
		{"subscriptions in fs", plainFS, []string{"subscriptions"}, "maildir++"},
		{"a second INBOX", maildirPP, []string{"Inbox"}, "rename"},
		{"a child of another case of INBOX", plainFS, []string{"inbox", "kid"}, "rename"},
		{"bytes that are no modified UTF-7", maildirPP, []string{"bad&utf"}, "encode"},
		{"raw UTF-8", maildirPP, []string{"Entwürfe"}, "encode"},
		{"256 bytes in one part", plainFS, []string{strings.Repeat("x", 256)}, "rename"},
		{"256 bytes over all in Maildir++", maildirPP, []string{strings.Repeat("x", 127), strings.Repeat("y", 127)}, "layout fs"},
		{"256 bytes by escapes", escaped, []string{strings.Repeat(".", 100)}, "rename"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, err := tt.folders.Dir(tt.parts)
			var refused *FolderError
			if !errors.As(err, &refused) {
				t.Fatalf("Dir(%q) = %q, %v, want a FolderError", tt.parts, dir, err)
			}
			if !slices.Equal(refused.Parts, tt.parts) || !strings.Contains(refused.Reason, tt.hint) {
				t.Errorf("got %v, want parts %q and the hint %q", err, tt.parts, tt.hint)
			}
		})
	}
}

func TestPartsRefusesWhatDirNeverNames(t *testing.T) {
	for _, tt := range []struct {
		name    string
		folders Folders
		dir     string
	}{
		{"no folder of Maildir++", maildirPP, "cur"},
		{"empty", maildirPP, ""},
		{"parent directory", maildirPP, ".."},
		{"Dovecot's trash", maildirPP, "..DOVECOT-TRASHED"},
		{"capital hex digits, which Dovecot lists and never finds", escaped, `.a\2Eb`},
		{"needless escape", escaped, `.\61`},
		{"bare backslash where it is escaped", escaped, `.a\x`},
		{"INBOX, which is the root", maildirPP, ".INBOX"},
		{"absolute path", plainFS, "/etc"},
		{"path upwards", plainFS, "../x"},
		{"empty in fs", plainFS, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts, err := tt.folders.Parts(tt.dir)
			var refused *FolderError
			if !errors.As(err, &refused) {
				t.Errorf("Parts(%q) = %q, %v, want a FolderError", tt.dir, parts, err)
			}
		})
	}
}

func TestWordsForFolders(t *testing.T) {
	for word, want := range map[string]Folders{"maildir++": maildirPP, "fs": plainFS, "listescape": escaped} {
		if got, err := ParseFolders(word); err != nil || got != want {
			t.Errorf("ParseFolders(%q) = %+v, %v; want %+v", word, got, err, want)
		}
	}
	if _, err := ParseFolders("Maildir++"); err == nil {
		t.Error("another spelling was accepted")
	}
}

func FuzzFolderName(f *testing.F) {
	for _, s := range []string{"Sent", "a/b", "with.dot/.hid", "~x/~y", `a\2eb`, "R&-D/Entw&APw-rfe", "INBOX/kid", "..", "a//b", ".a.b", `.with\2edot`, "dovecot.index"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, folders := range []Folders{maildirPP, escaped, plainFS, escapedFS} {
			if dir, err := folders.Dir(strings.Split(s, "/")); err == nil {
				parts, err := folders.Parts(dir)
				if err != nil || strings.Join(parts, "/") != s {
					t.Errorf("%+v: %q lies in %q, which is read as %q, %v", folders, s, dir, parts, err)
				}
				for level := range strings.SplitSeq(dir, "/") {
					if level == "" || level == "." || level == ".." || len(level) > 255 {
						t.Errorf("%+v: %q lies in %q", folders, s, dir)
					}
				}
			}
			if parts, err := folders.Parts(s); err == nil {
				if dir, err := folders.Dir(parts); err != nil || dir != s {
					t.Errorf("%+v: %q is read as %q, which lies in %q, %v", folders, s, parts, dir, err)
				}
			}
		}
	})
}
