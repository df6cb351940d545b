package mailgen

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SiteMailbox is an mbox of a site's user.
type SiteMailbox struct {
	Path        string // absolute
	Name        string // as IMAP clients show it, levels separated by "/"
	Messages    int
	Bytes       int64
	UIDValidity uint32 // 0 where no server has seen the mailbox
	UIDNext     uint32 // 0 where no server has seen the mailbox

	options  Options
	keywords []string // named in X-IMAPbase
	merged   bool     // a last message that careful readers take for two
}

// IDs lists Message.ID of the messages, in order.
func (m SiteMailbox) IDs() []string {
	ids := make([]string, m.Messages)
	for i := range ids {
		ids[i] = fmt.Sprintf("gen-%x-%d", m.options.Seed, i)
	}
	return ids
}

// Each makes the mailbox once more, from its seed, and tells of each message:
// nothing of it has to be kept in memory.
func (m SiteMailbox) Each(tell func(Message)) error {
	_, err := m.generate(io.Discard, tell)
	return err
}

func (m SiteMailbox) generate(w io.Writer, tell func(Message)) (sum Summary, err error) {
	o := m.options
	o.Each = tell
	if o.Messages > 0 {
		if sum, err = Generate(w, o); err != nil {
			return sum, err
		}
	}
	if m.merged {
		err = addMerged(w, m.options.Seed, &sum, tell)
	}
	return sum, err
}

// make writes the mailbox as its owner's.
func (m *SiteMailbox) make(uid, gid int) error {
	f, err := os.OpenFile(m.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := m.generate(f, nil)
	if err != nil {
		return err
	}
	m.Messages, m.Bytes = sum.Messages, sum.Bytes
	m.UIDValidity, m.UIDNext, m.keywords = sum.UIDValidity, sum.UIDNext, sum.Keywords
	if err := own(f, 0o600, uid, gid); err != nil {
		return err
	}
	return f.Close()
}

// siteFolders are the mailboxes that users have beside INBOX: path below mail/,
// name as clients show it. All have Sent if they have any.
var siteFolders = []struct{ path, name string }{
	{"Sent", "Sent"},
	{"Drafts", "Drafts"},
	{"Old Stuff", "Old Stuff"},
	{"Entw&APw-rfe", "Entwürfe"},
	{"Archive/2023/Jan", "Archive/2023/Jan"},
	{"Archive/2023/Feb", "Archive/2023/Feb"},
	{"lists/golang-nuts", "lists/golang-nuts"},
	{"Müll", "Müll"},
	{"R&D", "R&D"},
}

// siteOdd are oddities on which the readings dovecot and careful agree about
// where messages begin.
const siteOdd = OddFromLines | WrongContentLength | CRLF | BodyCR | NUL | SharedHeader

// resident is a user being made.
type resident struct {
	SiteUser
	*site
	hands
	slot
	r     *rand.Rand
	index int
}

// user makes the user of an index: first sound, then with his problem.
func (s *site) user(i int) (SiteUser, error) {
	u := &resident{site: s, slot: s.slots[i], index: i, r: rand.New(rand.NewPCG(s.Seed, uint64(i)))}
	u.Name, u.UID, u.GID = s.name(i), s.FirstUID+i, s.FirstUID+i
	u.Home, u.Spool = s.path("home", u.Name), s.path("spool", u.Name)
	p := u.problem
	if p == nil {
		p = &problem{}
	}
	u.Code, u.Case, u.Severity = p.code, p.what, p.severity
	if p.arrange != nil {
		p.arrange(u)
	}
	if !p.bare {
		u.settle()
	}
	if p.spoil != nil && u.err == nil {
		p.spoil(u)
	}
	for _, m := range u.Mailboxes {
		u.Messages += m.Messages
		u.Bytes += m.Bytes
	}
	return u.SiteUser, u.err
}

// settle makes home, INBOX and folders. One in eight sound users has no folders,
// one in thirty no spool file.
func (u *resident) settle() {
	u.mkdir(u.Home, 0o700, u.UID, u.GID)
	if u.problem != nil || u.r.IntN(30) > 0 {
		u.mailbox(u.Spool, "INBOX")
	}
	if u.problem != nil || len(u.Mailboxes) == 0 || u.r.IntN(8) > 0 {
		u.folders()
	}
}

// folders draws a tree of mailboxes, with what Dovecot leaves in one.
func (u *resident) folders() {
	u.mkdir(u.mail(), 0o700, u.UID, u.GID)
	subscribed := "V\t2\n\n"
	for i, f := range siteFolders {
		if i > 0 && u.r.IntN(4) > 0 {
			continue
		}
		u.mailbox(u.mail(f.path), f.name)
		subscribed += strings.ReplaceAll(f.path, "/", "\t") + "\n"
	}
	if u.r.IntN(3) == 0 {
		u.write(u.mail(".subscriptions"), subscribed, 0o600, u.UID, u.GID)
	}
	if u.r.IntN(8) == 0 {
		u.mkdir(u.mail(".imap"), 0o700, u.UID, u.GID)
		u.write(u.mail(".imap", "dovecot.index.log"), "\x01\x03 no index\n", 0o600, u.UID, u.GID)
	}
}

// mail is a path in the folder tree.
func (u *resident) mail(parts ...string) string {
	return filepath.Join(append([]string{u.Home, "mail"}, parts...)...)
}

// mailbox makes an mbox of the user. Those of problem users are never empty.
func (u *resident) mailbox(path, name string) {
	m := SiteMailbox{Path: path, Name: name}
	m.options = Options{
		Seed:     u.Seed<<40 | uint64(u.index)<<8 | uint64(len(u.Mailboxes)),
		Messages: u.Load.Messages(u.r), Size: u.Load.Size, Odd: siteOdd,
		State: u.r.IntN(4) > 0,
	}
	if u.problem != nil {
		m.options.Messages = max(m.options.Messages, 1)
	}
	if n := m.options.Messages; m.options.State && n > 0 {
		m.options.Fresh = min(u.r.IntN(3), n-1) // the first holds X-IMAPbase
	}
	if name == "Drafts" {
		m.options.Odd |= PseudoMessage
	}
	u.add(m)
}

// add makes a mailbox and the directories that it lies in.
func (u *resident) add(m SiteMailbox) {
	u.parents(filepath.Dir(m.Path))
	gid := u.GID
	if m.Path == u.Spool {
		gid = mailGID
	}
	u.try(func() error { return m.make(u.UID, gid) })
	u.Mailboxes = append(u.Mailboxes, m)
}

func (u *resident) parents(dir string) {
	if _, err := os.Lstat(dir); err == nil || u.err != nil {
		return
	}
	u.parents(filepath.Dir(dir))
	u.mkdir(dir, 0o700, u.UID, u.GID)
}

// lose forgets the mailboxes at path and below it.
func (u *resident) lose(path string) {
	var kept []SiteMailbox
	for _, m := range u.Mailboxes {
		if m.Path != path && !strings.HasPrefix(m.Path, path+"/") {
			kept = append(kept, m)
		}
	}
	u.Mailboxes = kept
}

// hands make files and keep the first error, after which they do nothing.
// Modes are as given, whatever the umask.
type hands struct{ err error }

func (h *hands) try(do func() error) {
	if h.err == nil {
		h.err = do()
	}
}

func (h *hands) mkdir(path string, mode fs.FileMode, uid, gid int) {
	h.try(func() error { return os.Mkdir(path, 0o700) })
	h.chown(path, uid, gid)
	h.chmod(path, mode)
}

func (h *hands) write(path, text string, mode fs.FileMode, uid, gid int) {
	h.try(func() error {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			return err
		}
		if err := own(f, mode, uid, gid); err != nil {
			return err
		}
		return f.Close()
	})
}

// own gives a file its owner and then its mode, which a change of owner could
// take bits from.
func own(f *os.File, mode fs.FileMode, uid, gid int) error {
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	return f.Chmod(mode)
}

func (h *hands) chmod(path string, mode fs.FileMode) {
	h.try(func() error { return os.Chmod(path, mode) })
}

func (h *hands) chown(path string, uid, gid int) {
	h.try(func() error { return os.Lchown(path, uid, gid) })
}

func (h *hands) rename(from, to string) {
	h.try(func() error { return os.Rename(from, to) })
}

func (h *hands) remove(path string) {
	h.try(func() error { return os.RemoveAll(path) })
}

func (h *hands) link(to, path string) {
	h.try(func() error { return os.Link(to, path) })
}

func (h *hands) symlink(to, path string, uid, gid int) {
	h.try(func() error { return os.Symlink(to, path) })
	h.chown(path, uid, gid)
}

// node makes a FIFO or a socket.
func (h *hands) node(path string, kind uint32, uid, gid int) {
	h.try(func() error { return unix.Mknod(path, kind|0o600, 0) })
	h.chown(path, uid, gid)
}
