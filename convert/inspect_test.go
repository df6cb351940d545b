package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/semaphore"
)

// troubles are what may be wrong with an account: each brings up its code and
// no other.
var troubles = []struct {
	code, what string
	make       func(h *house)
}{
	{"", "nothing", func(h *house) {}},
	{"", "an empty INBOX", func(h *house) { h.write(h.a.Spool, "", aliceID) }},
	{"", "no folders", func(h *house) { h.remove(h.home("mail")) }},
	{"", "no INBOX", func(h *house) { h.remove(h.a.Spool) }},
	{"", "a mirror that agrees", func(h *house) { h.mirror("MAILSTATE=mbox\n") }},
	{"", "an empty file of qpopper", func(h *house) { h.write(h.path("spool/.alice.pop"), "", aliceID) }},
	{"", "a home that his own group may write", func(h *house) { h.chmod(h.a.Home, 0o770) }},
	{"", "the spool among the folders", func(h *house) {
		h.remove(h.a.Spool)
		h.a.Spool = h.home("mail/inbox")
		h.write(h.a.Spool, letter, aliceID)
	}},
	{"", "rules that name no mbox or ask the semaphore", func(h *house) {
		h.write(h.home(".procmailrc"), "# $HOME/mail/x\nDEFAULT=$HOME/Maildir/\nINCLUDERC=$HOME/.mailstate\n:0:\n* MAILSTATE ?? ^^mbox^^\n/var/mail/alice\n\n:0\n* ^List-Id\n.lists/\n:0\n! bob@example.org\n:0\n{\n:0 c\n| formail >log\n}\n", aliceID)
		h.write(h.home(".forward"), "# x\n\\alice, \"|/usr/bin/procmail\", bob@example.org\n/dev/null\n"+h.home("Maildir/")+"\n", aliceID)
		h.write(h.home(".mailfilter"), "DEFAULT=\"$HOME/Maildir/\"\nto \"!bob@example.org\"\nif ($MAILSTATE eq \"mbox\")\n{\n\tto \"/var/mail/alice\"\n}\nto \"$HOME/Maildir\"\n", aliceID)
	}},

	{"no-user", "a name that nobody has", func(h *house) {
		h.a = account.Account{User: account.User{Name: "alcie", UID: -1, GID: -1, Problem: account.ErrUnknown}}
	}},
	{"user-invalid", "an entry that can't be used", func(h *house) {
		h.a = account.Account{User: account.User{Name: "alice", Problem: errors.New("no home")}}
	}},
	{"system-user", "root", func(h *house) { h.a.UID = 0 }},
	{"system-user", "root's group", func(h *house) { h.a.GID = 0 }},
	{"system-user", "a low uid", func(h *house) { h.in.site.MinUID = aliceID + 1 }},
	{"shared-uid", "two names for one uid", func(h *house) { h.collide("uid", "61001") }},
	{"collision", "two users, one path", func(h *house) { h.collide("spool", h.a.Spool) }},
	{"inspection-failed", "a bug", func(h *house) {
		h.in.quota = func(int, int, int) (dqblk, error) { panic("a bug") }
	}},

	{"not-enrolled", "no semaphore", func(h *house) { h.remove(h.a.Semaphore) }},
	{"held", "a hold", func(h *house) { h.semaphore(semaphore.Hold) }},
	{"semaphore-unreadable", "no directory of semaphores", func(h *house) { h.remove(filepath.Dir(h.a.Semaphore)) }},
	{"semaphore-unreadable", "a directory of semaphores that others can write", func(h *house) { h.chmod(filepath.Dir(h.a.Semaphore), 0o777) }},
	{"semaphore-unreadable", "a semaphore that says something else", func(h *house) { h.write(h.a.Semaphore, "MAILSTATE=mbx\n", 0) }},
	{"migrated", "maildir", func(h *house) { h.semaphore(semaphore.Maildir) }},
	{"migrated", "maildir, live", func(h *house) {
		h.semaphore(semaphore.Maildir)
		h.staging("Maildir", false)
		h.remove(h.a.Spool)
	}},
	{"record-differs", "a moved user, and no semaphore", func(h *house) { h.moved(); h.remove(h.a.Semaphore) }},
	{"mirror-differs", "another state", func(h *house) { h.mirror("MAILSTATE=maildir\n") }},
	{"mirror-differs", "no state", func(h *house) { h.mirror("\x1b[2J") }},
	{"mirror-differs", "a symlink", func(h *house) { h.symlink(h.a.Semaphore, h.a.Mirror) }},

	{"home-missing", "no home", func(h *house) { h.remove(h.a.Home) }},
	{"home-missing", "no right to it", func(h *house) { h.chmod(h.a.Home, 0) }},
	{"home-owner", "another's", func(h *house) { h.chown(h.a.Home, malloID); h.chmod(h.a.Home, 0o755) }},
	{"home-owner", "root's", func(h *house) { h.chown(h.a.Home, 0); h.chmod(h.a.Home, 0o755) }},
	{"home-writable", "by everybody", func(h *house) { h.chmod(h.a.Home, 0o777) }},
	{"home-writable", "by a group of others", func(h *house) {
		h.check(os.Chown(h.a.Home, aliceID, 8))
		h.chmod(h.a.Home, 0o770)
	}},
	{"home-writable", "by his group, which is another's as well", func(h *house) {
		h.chmod(h.a.Home, 0o770)
		h.in.groups.users = append(h.in.groups.users, account.User{Name: "eve", UID: 61003, GID: aliceID})
	}},
	{"home-writable", "by his group, and nobody is known", func(h *house) {
		h.chmod(h.a.Home, 0o770)
		h.in.groups.users = nil
	}},
	{"home-writable", "by another, by a list of access rights", func(h *house) {
		entries := []struct {
			tag, perm uint16
			id        uint32
		}{{1, 7, ^uint32(0)}, {2, 7, malloID}, {4, 0, ^uint32(0)}, {16, 7, ^uint32(0)}, {32, 0, ^uint32(0)}} // acl(5): owner, user, group, mask, others
		list := binary.LittleEndian.AppendUint32(nil, 2)
		for _, e := range entries {
			list = binary.LittleEndian.AppendUint16(list, e.tag)
			list = binary.LittleEndian.AppendUint16(list, e.perm)
			list = binary.LittleEndian.AppendUint32(list, e.id)
		}
		h.check(unix.Setxattr(h.a.Home, "system.posix_acl_access", list, 0))
	}},
	{"home-untrusted", "below another's directory", func(h *house) { h.chown(h.path("home"), malloID) }},
	{"home-untrusted", "below a directory of everybody", func(h *house) { h.chmod(h.path("home"), 0o777) }},
	{"home-untrusted", "a symlink where everybody can write", func(h *house) {
		h.check(os.Rename(h.a.Home, h.path("elsewhere")))
		h.chmod(h.path("home"), 0o777|fs.ModeSticky)
		h.symlink(h.path("elsewhere"), h.a.Home)
	}},

	{"no-mail", "neither spool nor folders", func(h *house) { h.remove(h.a.Spool); h.remove(h.home("mail")) }},
	{"no-mail", "no spool, and empty folders", func(h *house) { h.remove(h.a.Spool); h.remove(h.home("mail/Sent")) }},
	{"spool-untrusted", "another's directory", func(h *house) { h.chown(h.path("spool"), malloID) }},
	{"folders-untrusted", "another's directory", func(h *house) { h.chown(h.home("mail"), malloID); h.chmod(h.home("mail"), 0o755) }},
	{"folders-untrusted", "a symlink", func(h *house) {
		h.check(os.Rename(h.home("mail"), h.home("old")))
		h.symlink("old", h.home("mail"))
	}},
	{"folders-unreadable", "a file", func(h *house) { h.remove(h.home("mail")); h.write(h.home("mail"), letter, aliceID) }},
	{"mbox-symlink", "INBOX", func(h *house) {
		h.check(os.Rename(h.a.Spool, h.home("inbox")))
		h.symlink(h.home("inbox"), h.a.Spool)
	}},
	{"mbox-symlink", "INBOX, leading nowhere", func(h *house) { h.remove(h.a.Spool); h.symlink("nowhere", h.a.Spool) }},
	{"mbox-symlink", "a folder", func(h *house) { h.symlink("Sent", h.home("mail/Posted")) }},
	{"mbox-hardlink", "INBOX", func(h *house) { h.check(os.Link(h.a.Spool, h.path("home/second"))) }},
	{"mbox-hardlink", "a folder", func(h *house) { h.check(os.Link(h.home("mail/Sent"), h.home("second"))) }},
	{"mbox-hardlink", "two folders", func(h *house) { h.check(os.Link(h.home("mail/Sent"), h.home("mail/Posted"))) }},
	{"mbox-irregular", "INBOX, a FIFO", func(h *house) {
		h.remove(h.a.Spool)
		h.check(unix.Mkfifo(h.a.Spool, 0o600))
		h.chown(h.a.Spool, aliceID)
	}},
	{"mbox-irregular", "INBOX, a directory", func(h *house) { h.remove(h.a.Spool); h.mkdir(h.a.Spool, 0o700, aliceID) }},
	{"mbox-irregular", "a folder, a FIFO", func(h *house) { h.check(unix.Mkfifo(h.home("mail/pipe"), 0o600)) }},
	{"mbox-owner", "INBOX", func(h *house) { h.chown(h.a.Spool, malloID) }},
	{"mbox-owner", "a folder", func(h *house) { h.chown(h.home("mail/Sent"), malloID) }},
	{"mbox-unreadable", "INBOX", func(h *house) { h.chmod(h.a.Spool, 0) }},
	{"mbox-unreadable", "INBOX, which he may only read", func(h *house) { h.chmod(h.a.Spool, 0o440) }},
	{"mbox-unreadable", "a directory in which he can't make a dotlock", func(h *house) { h.chmod(h.home("mail"), 0o555) }},
	{"mbox-unreadable", "a spool in which only root can make a dotlock", func(h *house) { h.chmod(h.path("spool"), 0o755) }},
	{"mbox-unreadable", "a folder", func(h *house) { h.chmod(h.home("mail/Sent"), 0) }},
	{"mbox-unreadable", "a directory of folders", func(h *house) { h.mkdir(h.home("mail/lists"), 0, aliceID) }},
	{"mbox-unreadable", "the directory of the spool", func(h *house) { h.chmod(h.path("spool"), 0o700) }},
	{"mbox-mode", "INBOX, to read", func(h *house) { h.chmod(h.a.Spool, 0o644) }},
	{"mbox-mode", "a folder, to write", func(h *house) { h.chmod(h.home("mail/Sent"), 0o602) }},
	{"inbox-format", "INBOX", func(h *house) { h.write(h.a.Spool, "Dentist on Monday\n", aliceID) }},
	{"not-mailbox", "a file of notes", func(h *house) { h.write(h.home("mail/notes"), "Dentist on Monday\n", aliceID) }},
	{"maildir-inside", "a folder", func(h *house) {
		for _, dir := range []string{"new", "new/cur", "new/new", "new/tmp"} {
			h.mkdir(h.home("mail/"+dir), 0o700, aliceID)
		}
	}},
	{"folder-name", "a dot", func(h *house) { h.write(h.home("mail/with.dot"), letter, aliceID) }},
	{"folder-double", "two spellings", func(h *house) {
		h.write(h.home("mail/R&D"), letter, aliceID)
		h.write(h.home("mail/R&-D"), letter, aliceID)
	}},

	{"maildir-empty", "an empty directory", func(h *house) { h.mkdir(h.a.Maildir, 0o700, aliceID) }},
	{"maildir-foreign", "something in it", func(h *house) { h.staging("Maildir", false) }},
	{"maildir-foreign", "another's", func(h *house) { h.mkdir(h.a.Maildir, 0o755, malloID) }},
	{"maildir-foreign", "no right to it", func(h *house) { h.mkdir(h.a.Maildir, 0, aliceID) }},
	{"maildir-mount", "a filesystem", func(h *house) { h.mkdir(h.a.Maildir, 0o700, aliceID); h.tmpfs(h.a.Maildir, "") }},
	{"maildir-mount", "a directory of the same filesystem", func(h *house) {
		h.mkdir(h.a.Maildir, 0o700, aliceID)
		h.check(unix.Mount(h.a.Maildir, h.a.Maildir, "", unix.MS_BIND, ""))
		h.Cleanup(func() { unix.Unmount(h.a.Maildir, unix.MNT_DETACH) })
	}},
	{"maildir-irregular", "a file", func(h *house) { h.write(h.a.Maildir, "", aliceID) }},
	{"maildir-irregular", "a symlink", func(h *house) { h.symlink("mail", h.a.Maildir) }},
	{"maildir-unreachable", "not there", func(h *house) { h.a.Maildir = h.home("sub/Maildir") }},
	{"maildir-unreachable", "not to be written", func(h *house) { h.chmod(h.a.Home, 0o500) }},
	{"staging-ours", "recorded", func(h *house) { h.staging(".Maildir.mailferry-0123456789abcdef", true) }},
	{"staging-ours", "published", func(h *house) { h.staging("Maildir", true) }},
	{"staging-left", "not recorded", func(h *house) { h.staging(".Maildir.mailferry-0123456789abcdef", false) }},
	{"staging-left", "recorded, and replaced", func(h *house) {
		h.staging(".Maildir.mailferry-0123456789abcdef", true)
		h.check(os.Rename(h.home(".Maildir.mailferry-0123456789abcdef"), h.home("moved")))
		h.staging(".Maildir.mailferry-0123456789abcdef", false)
	}},
	{"parked-left", "INBOX", func(h *house) { h.write(h.a.Spool+".mailferry-20260101T000000Z", letter, aliceID) }},
	{"parked-left", "a folder", func(h *house) { h.write(h.home("mail/Sent.mailferry-20260101T000000Z"), letter, aliceID) }},
	{"space", "a small disk", func(h *house) {
		h.smallHome("size=64k")
		h.write(h.a.Spool, strings.Repeat(letter, 1000), aliceID)
	}},
	{"space", "a floor", func(h *house) { h.in.FreeFloor = 1 << 60 }},
	{"inodes", "a small disk", func(h *house) {
		h.smallHome("nr_inodes=100")
		h.write(h.a.Spool, strings.Repeat(letter, 200), aliceID)
	}},
	{"quota", "bytes", func(h *house) { h.limit(dqblk{BlocksSoft: 8, BlocksHard: 1 << 30, Bytes: 4096}) }},
	{"quota", "inodes", func(h *house) { h.limit(dqblk{InodesHard: 100, Inodes: 99}) }},

	{"qpopper-temp", "mail in it", func(h *house) { h.write(h.path("spool/.alice.pop"), letter, aliceID) }},
	{"dotlock-live", "of a process", func(h *house) { h.dotlock(fmt.Sprintf("%d:%s", os.Getpid(), hostname()), aliceID) }},
	{"dotlock-live", "of root, by procmail", func(h *house) { h.dotlock("0", 0) }},
	{"dotlock-live", "of another host", func(h *house) { h.dotlock("4194305:elsewhere", aliceID) }},
	{"dotlock-stale", "of a dead process", func(h *house) { h.dotlock("4194305:"+hostname(), aliceID) }},
	{"dotlock-stale", "of a folder", func(h *house) { h.write(h.home("mail/Sent.lock"), "4194305:"+hostname(), aliceID) }},
	{"dotlock-stale", "old", func(h *house) { h.in.site.Locks.StaleAfter = time.Nanosecond; h.dotlock("0", aliceID) }},
	{"dotlock-foreign", "of another user", func(h *house) { h.dotlock("0", malloID) }},
	{"dotlock-foreign", "a symlink", func(h *house) { h.symlink("x", h.a.Spool+".lock") }},
	{"delivery-rule", "procmail, an action", func(h *house) {
		h.write(h.home(".procmailrc"), "MAILDIR=$HOME/mail\n\n:0:\n* ^List-Id\nlists/go\n", aliceID)
	}},
	{"delivery-rule", "procmail, DEFAULT", func(h *house) { h.write(h.home(".procmailrc"), "DEFAULT=$HOME/mbox\n", aliceID) }},
	{"delivery-rule", "procmail, a command", func(h *house) {
		h.write(h.home(".procmailrc"), ":0 c:\n| cat >> $HOME/mail/log\n", aliceID)
	}},
	{"delivery-rule", "maildrop", func(h *house) {
		h.write(h.home(".mailfilter"), "if (/^List-Id/)\n{\n\tcc \"$HOME/mail/lists\"\n}\n", aliceID)
	}},
	{"delivery-rule", ".forward", func(h *house) { h.write(h.home(".forward"), "\\alice, "+h.home("mail/Sent")+"\n", aliceID) }},
	{"delivery-rule", "a symlink", func(h *house) { h.symlink("dotfiles/procmailrc", h.home(".procmailrc")) }},
	{"delivery-rule", "a long file", func(h *house) { h.write(h.home(".procmailrc"), strings.Repeat("#\n", 40000), aliceID) }},
}

func TestEachTroubleIsFoundAndNothingElse(t *testing.T) {
	for _, tt := range troubles {
		t.Run(tt.code+"/"+tt.what, func(t *testing.T) {
			h := newHouse(t)
			tt.make(h)
			before := h.snapshot()
			seen := h.in.Inspect(h.a)
			h.same(seen, tt.code)
			planned := h.in.account(t.Context(), h.a)
			h.same(&planned.Inspection, tt.code)
			h.unchanged(before)
		})
	}
}

// One thing that is wrong does not hide another.
func TestAllTroublesAreFoundAtOnce(t *testing.T) {
	h := newHouse(t)
	h.in.site.MinUID = aliceID + 1
	h.collide("uid", "61001")
	h.semaphore(semaphore.Hold)
	h.mirror("MAILSTATE=maildir\n")
	h.chmod(h.a.Home, 0o777)
	h.chown(h.a.Spool, malloID)
	h.check(os.Link(h.a.Spool, h.path("home/second")))
	h.chmod(h.a.Spool, 0o666)
	h.dotlock("0", malloID)
	h.write(h.path("spool/.alice.pop"), letter, aliceID)
	h.symlink("Sent", h.home("mail/Posted"))
	h.write(h.home("mail/with.dot"), letter, aliceID)
	h.write(h.a.Maildir, "", aliceID)
	h.write(h.home(".forward"), "/var/mail/alice\n", aliceID)
	h.in.FreeFloor = 1 << 60
	var got []string
	for _, f := range h.in.Inspect(h.a).Findings {
		got = append(got, f.Code)
	}
	slices.Sort(got)
	want := []string{"delivery-rule", "dotlock-foreign", "folder-name", "held", "home-writable", "maildir-irregular", "mbox-hardlink",
		"mbox-mode", "mbox-owner", "mbox-symlink", "mirror-differs", "qpopper-temp", "shared-uid", "space", "system-user"}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%q, want\n%q", got, want)
	}
}

// A home that can't be entered does not hide what is in the spool.
func TestTheSpoolIsLookedAtWithoutAHome(t *testing.T) {
	h := newHouse(t)
	h.remove(h.a.Home)
	h.chown(h.a.Spool, malloID)
	i := h.in.Inspect(h.a)
	if !i.Has("home-missing") || !i.Has("mbox-owner") || len(i.Findings) != 2 {
		t.Errorf("%+v", i.Findings)
	}
}

// The gravest comes first, and there is an end to it.
func TestManyFindingsOfOneKindAreBounded(t *testing.T) {
	h := newHouse(t)
	h.chmod(h.a.Spool, 0o644)
	for n := range 50 {
		h.write(h.home(fmt.Sprintf("mail/a.%d", n)), letter, aliceID)
	}
	i := h.in.Inspect(h.a)
	if len(i.Findings) != maxFindings+1 || i.Findings[0].Code != "folder-name" || i.Findings[maxFindings].Code != "mbox-mode" {
		t.Errorf("%d findings: %+v", len(i.Findings), i.Findings)
	}
	if !strings.HasSuffix(i.Findings[0].Text, "; and 40 more like it") {
		t.Errorf("%q", i.Findings[0].Text)
	}
}

func TestFindingsSayWhatToDoAndWhere(t *testing.T) {
	h := newHouse(t)
	h.chown(h.a.Spool, malloID)
	h.remove(h.a.Semaphore)
	for _, f := range h.in.Inspect(h.a).Findings {
		want := map[string]Finding{
			"mbox-owner":   {Severity: Refuse, Path: h.a.Spool, Text: "belongs to uid 61002, not to uid 61001", Advice: "Find out whose mail it is; if it is the user's: chown alice " + h.a.Spool},
			"not-enrolled": {Severity: Refuse, Path: h.a.Semaphore, Text: "is not there", Advice: "Run: mailferry enroll alice"},
		}[f.Code]
		want.Code = f.Code
		if f != want {
			t.Errorf("got  %+v\nwant %+v", f, want)
		}
	}
}

// A folder's name is its owner's choice, and the advice may be typed by root.
func TestAdviceIsSafeToCopy(t *testing.T) {
	h := newHouse(t)
	h.write(h.home("mail/a;it's $(reboot)"), letter, malloID)
	f := h.in.Inspect(h.a).Findings[0]
	want := "Find out whose mail it is; if it is the user's: chown alice '" + h.home(`mail/a;it'\''s $(reboot)`) + "'"
	if f.Code != "mbox-owner" || f.Advice != want {
		t.Errorf("%+v, want advice %s", f, want)
	}
}
