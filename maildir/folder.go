package maildir

import (
	"fmt"
	"strings"
)

// Layout is the way in which folders lie below the root of a Maildir.
type Layout int

// The layouts of Dovecot's mail_location.
const (
	MaildirPP Layout = iota // Maildir++: folder A/B is the directory .A.B of the root
	FS                      // LAYOUT=fs: folder A/B is the directory A/B
)

// Folders maps folder names to directories of one Maildir and back. A folder
// name is a list of hierarchy parts in modified UTF-7 ([DiskName]); the empty
// list is INBOX, which is the root itself.
type Folders struct {
	Layout Layout
	// Escape stands for Dovecot's listescape plugin with its default character
	// '\', as version 2.3 writes it: '\', '/', the hierarchy separator, a
	// leading '~' and the parts "." and ".." become \ and two hex digits.
	Escape bool
}

// ParseFolders reads the word for a way of laying out folders: "maildir++",
// "fs", or "listescape" for maildir++ with Escape.
func ParseFolders(word string) (Folders, error) {
	switch word {
	case "maildir++":
		return Folders{Layout: MaildirPP}, nil
	case "fs":
		return Folders{Layout: FS}, nil
	case "listescape":
		return Folders{Layout: MaildirPP, Escape: true}, nil
	}
	return Folders{}, fmt.Errorf("%q: choose one of maildir++, fs, listescape", word)
}

// FolderError says why a folder can't be stored and what would help.
type FolderError struct {
	Parts  []string // hierarchy parts of the folder
	Reason string
}

func (e *FolderError) Error() string {
	return fmt.Sprintf("folder %q: %s", strings.Join(e.Parts, "/"), e.Reason)
}

// maxFileName is the limit of Linux file systems and, for one hierarchy part,
// of Dovecot (mail-storage.c), in bytes.
const maxFileName = 255

// Dir returns the directory of a folder relative to the root of the Maildir,
// "." for INBOX. A folder that the layout can't hold, or that Dovecot would not
// find again, is refused with a *[FolderError]; no name is changed to fit.
func (f Folders) Dir(parts []string) (string, error) {
	if len(parts) == 0 {
		return ".", nil
	}
	reason := inboxReason(parts)
	escaped := make([]string, len(parts))
	for i, p := range parts {
		if reason == "" {
			escaped[i], reason = f.escapePart(p, i == 0)
		}
		if len(escaped[i]) > maxFileName {
			reason = "a part is longer than 255 bytes; rename it"
		}
	}
	dir := strings.Join(escaped, f.separator())
	if f.Layout == MaildirPP {
		dir = "." + dir
		if reason == "" && len(dir) > maxFileName {
			reason = "the name is longer than 255 bytes, and Maildir++ stores it as one file name; use layout fs, or rename it"
		}
	}
	if reason != "" {
		return "", &FolderError{Parts: parts, Reason: reason}
	}
	return dir, nil
}

func (f Folders) separator() string {
	if f.Layout == FS {
		return "/"
	}
	return "."
}

// inboxReason refuses names that IMAP gives to the spool (dovecot
// mailbox_alloc): a top level of INBOX in any case is INBOX.
func inboxReason(parts []string) string {
	switch {
	case !strings.EqualFold(parts[0], "INBOX"):
		return ""
	case len(parts) == 1:
		return "IMAP has only one INBOX, the spool; rename this mailbox"
	case parts[0] != "INBOX":
		return "Dovecot reads the top level as INBOX, in capitals; rename it"
	}
	return ""
}

// escapePart returns the spelling of one part on disk (dovecot
// mailbox_list_escape_name_params, mailbox_list_is_valid_fs_name), or why there
// is none.
func (f Folders) escapePart(part string, top bool) (disk, reason string) {
	if part == "" {
		return "", "a part of the name is empty; rename it"
	}
	if _, err := DecodeMUTF7(part); err != nil {
		return "", "a part is not in modified UTF-7; encode it first"
	}
	if f.Layout == FS {
		if reason := reservedReason(part, top); reason != "" {
			return "", reason
		}
	}
	if f.Escape {
		return f.escape(part), ""
	}
	switch {
	case strings.Contains(part, "/"):
		return "", "a part contains '/'; use the listescape plugin"
	case f.Layout == MaildirPP && strings.Contains(part, "."):
		return "", "'.' separates levels in Maildir++; use the listescape plugin or layout fs"
	case part == "." || part == "..":
		return "", "'.' and '..' are directories; use the listescape plugin"
	case top && part[0] == '~':
		return "", "Dovecot refuses a leading '~'; use the listescape plugin"
	}
	return part, ""
}

func (f Folders) escape(part string) string {
	var b strings.Builder
	for i := range len(part) {
		c := part[i]
		if c == '/' || c == '\\' || c == f.separator()[0] ||
			i == 0 && (c == '~' || part == "." || part == "..") {
			fmt.Fprintf(&b, "\\%02x", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// reservedReason refuses what layout fs keeps in the directory of a folder
// beside its subfolders. Dovecot itself refuses cur, new and tmp only, and
// breaks on the others. Escaping does not help, for these names hold nothing to
// escape.
func reservedReason(part string, top bool) string {
	const help = " is a name of Maildir's own in layout fs; use layout maildir++, or rename it"
	if reservedNames[part] || top && (part == "subscriptions" || part == "subscriptions.lock") {
		return part + help
	}
	for _, p := range reservedPrefixes {
		if strings.HasPrefix(part, p) {
			return part + help
		}
	}
	return ""
}

// Sources: maildir-storage.h, maildir-uidlist.c, maildir-keywords.c,
// quota-maildir.c, acl-backend-vfile.c, mailbox-list-fs.h of dovecot, and the
// manifest of this project.
var (
	reservedNames = map[string]bool{
		"cur": true, "new": true, "tmp": true,
		"dovecot-uidlist": true, "dovecot-uidlist.lock": true, "dovecot-uidlist.tmp": true,
		"dovecot-keywords": true, "dovecot-keywords.lock": true,
		"dovecot-acl": true, "dovecot-acl-list": true, "dovecot-shared": true, "dovecot-attributes": true,
		"maildirfolder": true, "maildirsize": true, "mailferry-manifest": true,
		"..DOVECOT-TrasH": true,
	}
	reservedPrefixes = []string{
		"dovecot-uidvalidity", "dovecot.index", "dovecot.list.index", "dovecot.mailbox.log", ".temp.",
	}
)

// Parts returns the folder of a directory that [Folders.Dir] names. A
// directory that Dir would not give to any folder is refused with a
// *[FolderError].
func (f Folders) Parts(dir string) ([]string, error) {
	if dir == "." {
		return nil, nil
	}
	name := dir
	if f.Layout == MaildirPP {
		if !strings.HasPrefix(dir, ".") {
			return nil, &FolderError{Parts: []string{dir}, Reason: "a Maildir++ folder is a directory that begins with '.'"}
		}
		name = dir[1:]
	}
	parts := strings.Split(name, f.separator())
	if f.Escape {
		for i := range parts {
			parts[i] = unescape(parts[i])
		}
	}
	again, err := f.Dir(parts)
	if err != nil {
		return nil, err
	}
	if again != dir {
		return nil, &FolderError{Parts: parts, Reason: fmt.Sprintf("lies in %q, and Dovecot looks for it in %q", dir, again)}
	}
	return parts, nil
}

// unescape reads \ and two hex digits of any case, and leaves other
// backslashes as they are (dovecot mailbox_list_unescape_name_params).
func unescape(part string) string {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '\\' && i+2 < len(part) {
			hi, lo := unhex(part[i+1]), unhex(part[i+2])
			if hi >= 0 && lo >= 0 {
				b.WriteByte(byte(hi<<4 | lo))
				i += 2
				continue
			}
		}
		b.WriteByte(part[i])
	}
	return b.String()
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c - 'a' + 10)
	case c >= 'A' && c <= 'F':
		return int(c - 'A' + 10)
	}
	return -1
}
