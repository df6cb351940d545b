package mailgen

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func forget(u *resident) { u.UID, u.GID, u.Home, u.Spool = 0, 0, "", "" }

func lowUID(u *resident) {
	u.UID, u.GID = 999-u.nth, 999-u.nth
	if u.UID < 500 {
		u.err = fmt.Errorf("mailgen: %d users with a system's uid are too many", u.nth+1)
	}
}

func shareUID(u *resident) {
	u.UID, u.GID = u.FirstUID+u.first, u.FirstUID+u.first
}

// shareHome: the home is the first user's, so that it is none of the second's own.
func shareHome(u *resident) {
	u.Home = u.path("home", u.name(u.first))
	if u.first != u.index {
		u.Also = []string{"home-owner"}
	}
}

// settleInbox makes no folders: one of the two would not own them.
func settleInbox(u *resident) {
	if u.first == u.index {
		u.mkdir(u.Home, 0o755, u.UID, u.GID)
	}
	u.mailbox(u.Spool, "INBOX")
}

func noMail(u *resident) {
	u.remove(u.Spool)
	u.remove(u.mail())
	u.Mailboxes = nil
}

func (u *resident) sent() string { return u.mail("Sent") }

func spoolSymlink(u *resident)  { u.displace(u.Spool, "old-inbox") }
func folderSymlink(u *resident) { u.displace(u.sent(), "old-sent") }

// displace moves an mbox or a tree into the home and leaves a symlink.
func (u *resident) displace(path, name string) {
	u.rename(path, filepath.Join(u.Home, name))
	u.symlink(filepath.Join(u.Home, name), path, u.UID, u.GID)
}

func spoolHardlink(u *resident)  { u.link(u.Spool, filepath.Join(u.Home, "old-inbox")) }
func folderHardlink(u *resident) { u.link(u.sent(), filepath.Join(u.Home, "old-sent")) }

func spoolFIFO(u *resident) {
	u.vacate(u.Spool)
	u.node(u.Spool, unix.S_IFIFO, u.UID, mailGID)
}

func spoolSocket(u *resident) {
	u.vacate(u.Spool)
	u.node(u.Spool, unix.S_IFSOCK, u.UID, mailGID)
}

func spoolDirectory(u *resident) {
	u.vacate(u.Spool)
	u.mkdir(u.Spool, 0o700, u.UID, mailGID)
}

func folderFIFO(u *resident) {
	u.vacate(u.sent())
	u.node(u.sent(), unix.S_IFIFO, u.UID, u.GID)
}

// vacate removes an mbox or a tree.
func (u *resident) vacate(path string) {
	u.remove(path)
	u.lose(path)
}

// The user may read through his group what another owns, so that the owner is
// the only fault.

func spoolOwner(u *resident) {
	u.chown(u.Spool, 0, u.GID)
	u.chmod(u.Spool, 0o640)
}

func folderOwner(u *resident) {
	u.chown(u.sent(), u.stranger(), u.GID)
	u.chmod(u.sent(), 0o640)
}

func spoolMode(mode fs.FileMode) func(*resident) {
	return func(u *resident) { u.chmod(u.Spool, mode) }
}

func folderMode(mode fs.FileMode) func(*resident) {
	return func(u *resident) { u.chmod(u.sent(), mode) }
}

func inboxFormat(u *resident) {
	u.vacate(u.Spool)
	u.write(u.Spool, "Dentist on Monday\n\nFrom now on: no sweets.\n", 0o600, u.UID, mailGID)
}

func foldersSymlink(u *resident) { u.displace(u.mail(), "Mail") }

func foldersFile(u *resident) {
	u.vacate(u.mail())
	u.write(u.mail(), "", 0o600, u.UID, u.GID)
}

func maildirInside(u *resident) { u.tree(u.mail("new-style")) }

func homeReadOnly(u *resident) { u.chmod(u.Home, 0o500) }

func homeMissing(u *resident) { u.vacate(u.Home) }

func homeOwner(u *resident) {
	u.chown(u.Home, u.stranger(), u.stranger())
	u.chmod(u.Home, 0o755)
}

func homeWritable(u *resident) { u.chmod(u.Home, 0o777) }

func homeUntrusted(u *resident) {
	above := u.path("home", "above-"+u.Name)
	u.mkdir(above, 0o755, u.stranger(), u.stranger())
	u.Home = filepath.Join(above, u.Name)
}

func (u *resident) maildir() string { return filepath.Join(u.Home, "Maildir") }

func maildirForeign(u *resident) { u.tree(u.maildir()) }

// tree makes a Maildir with one message.
func (u *resident) tree(dir string) {
	u.mkdir(dir, 0o700, u.UID, u.GID)
	for _, sub := range []string{"cur", "new", "tmp"} {
		u.mkdir(filepath.Join(dir, sub), 0o700, u.UID, u.GID)
	}
	const letter = "From: alice@example.org\nSubject: here already\n\nThis is no message of an mbox.\n"
	u.write(filepath.Join(dir, "cur", "1700000000.M1P1."+host+":2,S"), letter, 0o600, u.UID, u.GID)
}

func maildirSymlink(u *resident) {
	elsewhere := filepath.Join(u.Home, "elsewhere")
	u.mkdir(elsewhere, 0o700, u.UID, u.GID)
	u.symlink(elsewhere, u.maildir(), u.UID, u.GID)
}

func maildirFile(u *resident)  { u.write(u.maildir(), "", 0o600, u.UID, u.GID) }
func maildirEmpty(u *resident) { u.mkdir(u.maildir(), 0o700, u.UID, u.GID) }

func stagingLeft(u *resident) {
	u.tree(filepath.Join(u.Home, fmt.Sprintf(".Maildir.mailferry-%016x", u.r.Uint64())))
}

func parkedLeft(u *resident) { u.beside(u.Spool + ".mailferry-20260101T000000Z") }

func qpopperTemp(u *resident) {
	u.beside(filepath.Join(filepath.Dir(u.Spool), "."+u.Name+".pop"))
}

// beside writes an mbox into the spool that is no INBOX.
func (u *resident) beside(path string) {
	var b bytes.Buffer
	u.try(func() error {
		_, err := Fixed(&b, u.r.Uint64()|1<<63, 2, 500) // no seed of a mailbox
		return err
	})
	u.write(path, b.String(), 0o600, u.UID, mailGID)
}

// deadPID is above every pid of Linux (PID_MAX_LIMIT).
const deadPID = 4 << 20

func dotlockStale(u *resident)   { u.dotlock(u.UID, 0o600) }
func dotlockForeign(u *resident) { u.dotlock(u.stranger(), 0o644) }

func (u *resident) dotlock(uid int, mode fs.FileMode) {
	name, err := os.Hostname()
	u.try(func() error { return err })
	path := u.Spool + ".lock"
	u.write(path, fmt.Sprintf("%d:%s", deadPID, name), mode, uid, mailGID)
	old := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	u.try(func() error { return os.Chtimes(path, old, old) })
}

// readingDiffers writes INBOX anew.
func readingDiffers(u *resident) {
	m := &u.Mailboxes[0]
	m.merged = true
	u.remove(m.Path)
	u.try(func() error { return m.make(u.UID, mailGID) })
}

// addMerged writes a message whose body goes on, behind an empty line, with a
// From_ line of a list archive and a header: two messages to a careful reader,
// one to Dovecot, to which "alice at example.org" is no sender (mbox-from.c).
func addMerged(w io.Writer, seed uint64, sum *Summary, tell func(Message)) error {
	m := Message{
		ID: fmt.Sprintf("gen-%x-%d", seed, sum.Messages), FromLine: "From bob@example.org Sun Nov  1 09:00:00 2026",
		Sender: "bob@example.org", Offset: sum.Bytes, UID: sum.UIDNext,
		Time: time.Date(2026, 11, 1, 9, 0, 0, 0, time.UTC).Unix(),
	}
	m.True = m.Time
	head := "From: bob@example.org\nSubject: two or one\n\n"
	body := "Id: " + m.ID + "\nHere the list archive begins:\n\n" +
		"From alice at example.org  Sun Nov  1 08:00:00 2026\nFrom: alice@example.org\nSubject: archived\n\nA message, or none?\n"
	m.Header = m.Offset + int64(len(m.FromLine)) + 1
	m.Body = m.Header + int64(len(head))
	m.End = m.Body + int64(len(body)) + 1
	m.Content = Sum{Size: int64(len(head + body)), SHA256: sha256.Sum256([]byte(head + body))}
	m.Dovecot, m.LF = m.Content, m.Content
	sum.Messages++
	sum.Bytes = m.End
	if sum.UIDNext > 0 {
		sum.UIDNext++
	}
	if tell != nil {
		tell(m)
	}
	_, err := io.WriteString(w, m.FromLine+"\n"+head+body+"\n")
	return err
}

func notMailbox(u *resident) {
	u.write(u.mail("notes.txt"), "Dentist on Monday\n\nFrom now on: no sweets.\n", 0o600, u.UID, u.GID)
}

func folderName(u *resident) { u.mailbox(u.mail("with.dot"), "with.dot") }

// folderDouble: "R&-D" is the modified UTF-7 of "R&D" (RFC 3501 5.1.3).
func folderDouble(u *resident) {
	u.vacate(u.mail("R&D"))
	u.mailbox(u.mail("R&D"), "R&D")
	u.mailbox(u.mail("R&-D"), "R&D")
}

func procmailRule(u *resident) {
	u.rule(".procmailrc", "MAILDIR=$HOME/mail\nLOGFILE=$HOME/procmail.log\n\n:0:\n* ^Sender:.*golang-nuts\n$HOME/mail/lists/golang-nuts\n")
}

func forwardRule(u *resident) {
	u.rule(".forward", "\\"+u.Name+", "+u.sent()+"\n")
}

func mailfilterRule(u *resident) {
	u.rule(".mailfilter", "if (/^Sender:.*golang-nuts/)\n{\n\tto \"$HOME/mail/lists/golang-nuts\"\n}\n")
}

func (u *resident) rule(name, text string) {
	u.write(filepath.Join(u.Home, name), text, 0o600, u.UID, u.GID)
}
