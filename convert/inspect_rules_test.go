package convert

import (
	"strings"
	"testing"
)

func TestRulesAreReadLineByLine(t *testing.T) {
	for _, tt := range []struct {
		file  string
		lines []string
		want  []string // what each line delivers to
	}{
		{".procmailrc", []string{"DEFAULT=\"$HOME/Maildir/\"", ":0", "$DEFAULT", ":0", "$ORGMAIL"}, []string{"", "", "", "", "/var/mail/alice"}},
		{".procmailrc", []string{":0 B:", "* < 1000", "* ! ^From: x", "${HOME}/mail/x"}, []string{"", "", "", "/home/alice/mail/x"}},
		{".procmailrc", []string{"mail/x", "FOO=bar", "DEFAULT=$FOO"}, []string{"", "", "bar"}},
		{".procmailrc", []string{":0", "/dev/null", ":0", "| grep x", ":0", "mh/.", ":0", "! a@b"}, []string{"", "", "", "", "", "", "", ""}},
		{".procmailrc", []string{":0", "{", "  x", ":0", "y", "}"}, []string{"", "", "", "", "y", ""}},
		{".procmailrc", []string{":0", "* MAILSTATE ?? ^^mbox^^", "x", ":0", "y"}, []string{"", "", "", "", "y"}},
		{".mailfilter", []string{"to \"mail/x\";", "cc '|prog'", "# to x", "total = 3"}, []string{"mail/x", "", "", ""}},
		{".mailfilter", []string{"DEFAULT=$HOME/mbox"}, []string{"/home/alice/mbox"}},
		{".mailfilter", []string{"if ($MAILSTATE eq \"mbox\") {", "to x", "}", "to y"}, []string{"", "", "", "y"}},
		{".forward", []string{"a@b, /home/alice/mbox", "\"|cat >>/var/mail/alice\"", "|/usr/bin/vacation alice", "/home/alice/Maildir/"}, []string{"/home/alice/mbox", "/var/mail/alice", "", ""}},
	} {
		r := &ruleReader{vars: map[string]string{"HOME": "/home/alice", "ORGMAIL": "/var/mail/alice"}, own: []string{"/var/mail/alice"}}
		for _, file := range ruleFiles {
			if file.name != tt.file {
				continue
			}
			for i, line := range tt.lines {
				if got := file.read(r, strings.TrimSpace(line)); got != tt.want[i] {
					t.Errorf("%s: %q: line %d delivers to %q, want %q", tt.file, tt.lines, i, got, tt.want[i])
				}
			}
		}
	}
}

func FuzzRules(f *testing.F) {
	f.Add(":0:\n* ^x\n$HOME/x\nDEFAULT=${X}/\n{}|!\nto \"x\"\nif MAILSTATE\n}\n/x, |y,,\"")
	f.Fuzz(func(t *testing.T, text string) {
		for _, file := range ruleFiles {
			r := &ruleReader{vars: map[string]string{"HOME": "/home/alice"}, own: []string{"/var/mail/alice"}}
			for _, line := range strings.Split(text, "\n") {
				target := file.read(r, strings.TrimSpace(line))
				if strings.HasSuffix(target, "/") || strings.HasPrefix(target, "!") || target == "/dev/null" {
					t.Errorf("%s: %q delivers to %q", file.name, line, target)
				}
			}
		}
	})
}
