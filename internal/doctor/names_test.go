package doctor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const inbox = "namespace inbox {\n  inbox = yes\n}\n"

func TestFoldersThatWouldGetOtherNames(t *testing.T) {
	t.Parallel()
	const (
		unset   = "do: separator: namespace inbox has no separator"
		escaped = "do: listescape: layout is listescape, and for imap mail_plugins = "
	)
	set := strings.Replace(inbox, "yes\n", "yes\n  separator = /\n", 1)
	for name, c := range map[string]struct {
		layout, conf string
		finds        []string
	}{
		"no separator, as Debian has it":            {"maildir++", inbox, []string{unset}},
		"no namespace":                              {"maildir++", "", []string{"do: separator: the namespace that Dovecot makes"}},
		"a separator":                               {"maildir++", set, nil},
		"a separator that mbox had, too":            {"maildir++", strings.ReplaceAll(set, "/", "."), nil},
		"no separator, by layout fs":                {"fs", inbox, nil},
		"no separator, by listescape":               {"listescape", inbox + "mail_plugins = listescape\n", []string{unset}},
		"listescape without the plugin":             {"listescape", set + "mail_plugins = quota\n", []string{escaped + "quota"}},
		"listescape with the plugin":                {"listescape", set + "mail_plugins = quota, listescape\n", nil},
		"the plugin for IMAP only":                  {"listescape", set + "protocol imap {\n  mail_plugins = listescape\n}\n", nil},
		"the plugin not for IMAP":                   {"listescape", set + "protocol imap {\n  mail_plugins = imap_quota\n}\nmail_plugins = listescape\n", []string{escaped + "imap_quota"}},
		"none for IMAP":                             {"maildir++", set + "protocol imap {\n  namespace inbox {\n    separator =\n  }\n}\n", []string{unset}},
		"POP3 alone, which has no folders":          {"maildir++", inbox + "protocols = pop3\n", nil},
		"another private one, without a name":       {"maildir++", set + "namespace {\n  prefix = old/\n  hidden = yes\n}\n", []string{`do: separator: the namespace with prefix = "old/" has no separator`}},
		"one that is disabled":                      {"maildir++", set + "namespace old {\n  prefix = old/\n  disabled = yes\n}\n", nil},
		"public ones and one at a place of its own": {"maildir++", set + "namespace all {\n  type = public\n  prefix = all/\n}\nnamespace a {\n  prefix = a/\n  location = mbox:~/a\n}\n", nil},
		"an inbox at a place of its own":            {"maildir++", strings.Replace(inbox, "yes\n", "yes\n  location = maildir:~/Maildir\n", 1), []string{unset}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName, dovecotName)
			h.set("layout", c.layout)
			h.apply("postfix.md", "dovecot.md")
			before, err := os.ReadFile(h.path(userdbConf))
			h.must(err)
			databases, _, _ := strings.Cut(string(before), "namespace ")
			h.write(userdbConf, databases)
			h.write("/etc/dovecot/conf.d/99-logins.conf", logins+c.conf)
			h.finds(c.finds...)
		})
	}
}

// The namespace of the recipe adds to Debian's, and has an mbox and a Maildir
// with the same folders show the same names.
func TestTheSeparatorOfTheRecipeKeepsTheNames(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, dovecotName)
	h.write("/home/mail/Archive/2005", "From a Thu Nov 29 22:33:52 2001\nSubject: x\n\nx\n")
	for _, dir := range []string{"", "/.Archive.2005"} {
		for _, sub := range []string{"/cur", "/new", "/tmp"} {
			h.dir("/home/Maildir"+dir+sub, 0o700)
		}
	}
	h.must(os.Chmod(filepath.Dir(h.root), 0o755))
	h.must(exec.CommandContext(t.Context(), "chown", "-R", fmt.Sprint(somebody), h.path("/home")).Run())
	h.write("/etc/dovecot/conf.d/10-mail.conf", inbox)
	if mbox, maildir := h.folders("mbox:~/mail"), h.folders("maildir:~/Maildir"); !slices.Contains(mbox, "Archive/2005") || !slices.Contains(maildir, "Archive.2005") {
		t.Errorf("without it: mbox %q, Maildir %q", mbox, maildir)
	}
	h.apply("dovecot.md")
	if mbox, maildir := h.folders("mbox:~/mail"), h.folders("maildir:~/Maildir"); !slices.Contains(mbox, "Archive/2005") || !slices.Contains(maildir, "Archive/2005") {
		t.Errorf("with it: mbox %q, Maildir %q", mbox, maildir)
	}
}

// somebody is not root, to whom Dovecot shows no mail.
const somebody = 65534

// folders are the names that Dovecot shows for mail at a location.
func (h *house) folders(location string) []string {
	h.Helper()
	c := exec.CommandContext(h.Context(), "doveadm", "-c", h.path("/etc/dovecot/dovecot.conf"), "-o", "mail_location="+location,
		"-o", fmt.Sprintf("mail_uid=%d", somebody), "-o", fmt.Sprintf("mail_gid=%d", somebody), "-o", "stats_writer_socket_path=", "mailbox", "list")
	c.Env = append(os.Environ(), "USER=somebody", "HOME="+h.path("/home"))
	c.Stderr = h.Output()
	out, err := c.Output()
	h.must(err)
	return strings.Split(string(out), "\n")
}
