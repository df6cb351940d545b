package mailgen

import (
	"os"
	"path/filepath"
)

// Folder is a mailbox of a tree.
type Folder struct {
	Path     string // relative to the tree's directory
	Name     string // as IMAP clients show it, in UTF-8, levels separated by "/"
	Messages []Message
	Summary  Summary
}

// folders of the tree. Names on disk are modified UTF-7 (RFC 3501 5.1.3), or
// raw UTF-8 and a bare "&" as mutt and Pine make them.
var folders = []struct {
	path, name string
	options    Options
}{
	{"INBOX", "INBOX", Options{Messages: 40, State: true, Fresh: 3, Odd: OddFromLines | SharedHeader | WrongContentLength}},
	{"mail/Sent", "Sent", Options{Messages: 25, State: true}},
	{"mail/Drafts", "Drafts", Options{Messages: 3, State: true, Odd: PseudoMessage}},
	{"mail/Old Stuff", "Old Stuff", Options{Messages: 12, Odd: NoBlankLine | Prose}},
	{"mail/with.dot", "with.dot", Options{Messages: 4, State: true}},
	{"mail/Entw&APw-rfe", "Entwürfe", Options{Messages: 5, State: true}},
	{"mail/Müll", "Müll", Options{Messages: 6}},
	{"mail/R&D", "R&D", Options{Messages: 2, State: true}},
	{"mail/Archive/2023/Jan", "Archive/2023/Jan", Options{Messages: 20, State: true, Keywords: 30}},
	{"mail/Archive/2023/Feb", "Archive/2023/Feb", Options{Messages: 15, Odd: NoFinalNewline}},
	{"mail/lists/golang-nuts", "lists/golang-nuts", Options{Messages: 18, State: true}},
	{"mail/lists/v1.2/dev", "lists/v1.2/dev", Options{Messages: 4, Odd: BodyCR | NUL | CRLF}},
	{"mail/dos", "dos", Options{Messages: 5, Odd: CRLFFile}},
}

// Tree makes a small home in dir, which exists: the spool INBOX, a tree mail/ of
// mboxes with an empty one, and what lies between them in real homes: a file
// that is no mbox, subscriptions, index directories. It returns the mailboxes
// with what is in them.
func Tree(dir string, seed uint64) ([]Folder, error) {
	var made []Folder
	for i, f := range folders {
		o := f.options
		o.Seed = seed + uint64(i)
		folder := Folder{Path: f.path, Name: f.name}
		o.Each = func(m Message) { folder.Messages = append(folder.Messages, m) }
		if err := folder.write(dir, o); err != nil {
			return nil, err
		}
		made = append(made, folder)
	}
	made = append(made, Folder{Path: "mail/empty", Name: "empty"})
	return made, writeOthers(dir)
}

func (f *Folder) write(dir string, o Options) error {
	path := filepath.Join(dir, f.Path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if f.Summary, err = Generate(file, o); err != nil {
		return err
	}
	return file.Close()
}

// writeOthers writes the files of a tree that hold no mail.
func writeOthers(dir string) error {
	for path, text := range map[string]string{
		"mail/empty":                        "",
		"mail/notes.txt":                    "Dentist on Monday\n\nFrom now on: no sweets.\n",
		"mail/.subscriptions":               "V\t2\n\nSent\nEntw&APw-rfe\nArchive\t2023\tJan\nlists\tgolang-nuts\nold\tgone\n",
		"mail/.imap/Sent/dovecot.index.log": "\x01\x03 no index\n",
		"mail/.imap/INBOX/dovecot.index":    "\x07\x03 no index\n",
	} {
		name := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}
