package convert

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// backAgain is a user whom a rollback has brought back to mbox, and to whose Maildir
// mail comes all the same.
type backAgain struct {
	*stand
	aside string            // the Maildir that was set aside
	were  map[string][]byte // his mboxes, by path, as the rollback left them
}

func newBackAgain(t *testing.T) *backAgain {
	t.Helper()
	s, rollback := backUser(t)
	s.folder(".lists.go")
	wentBack(t, s.place, rollback(), s.a)
	b := &backAgain{stand: s, were: map[string][]byte{}}
	for _, a := range s.soak().Aside {
		if !a.Back.IsZero() {
			b.aside = a.Path
		}
	}
	for _, path := range []string{s.a.Spool, s.sent(), filepath.Join(s.a.Folders[0], "lists", "go")} {
		content, err := os.ReadFile(path)
		s.check(err)
		b.were[path] = content
	}
	time.Sleep(2 * clockTick)
	return b
}

func (b *backAgain) sweep() *Swept {
	b.Helper()
	r, err := b.site.Sweep(context.Background(), b.a, SweepOptions{Wait: 300 * time.Millisecond})
	b.check(err)
	return r
}

// comes has a message come, later than others to tell by.
func (b *backAgain) comes(path, text string) {
	b.Helper()
	b.put(path, text)
	time.Sleep(2 * clockTick)
}

// make makes a Maildir at the old path, as an agent does.
func (b *backAgain) make() {
	b.Helper()
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		dir := b.inMaildir(sub)
		b.check(errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, b.a.UID, b.a.GID)))
	}
}

// came demands that an mbox is what it was, and behind that holds these messages.
func (b *backAgain) came(path string, want ...arrived) {
	b.Helper()
	now, err := os.ReadFile(path)
	b.check(err)
	was := b.were[path]
	if !bytes.HasPrefix(now, was) {
		b.Fatalf("%s does not begin as it was", path)
	}
	var got []arrived
	if len(now) > len(was) {
		got = readArrived(b.T, now[len(was):])
	}
	if !slices.Equal(got, want) {
		b.Errorf("%s got %+v, want %+v", path, got, want)
	}
	if left, err := journal.ListSweepBack(b.site.State); err != nil || len(left) > 0 {
		b.Errorf("left the record %+v, %v", left, err)
	}
	for _, path := range leavings(b.T, b.place) {
		b.Errorf("left %s", path)
	}
}

// arrived is a message as an mbox holds it.
type arrived struct {
	text, sender string
	flags        mbox.Flags
}

func readArrived(t *testing.T, content []byte) (list []arrived) {
	t.Helper()
	s, err := mbox.NewScanner(bytes.NewReader(content), int64(len(content)), mbox.Options{Profile: mbox.Dovecot, Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	track := mbox.NewTracker(s)
	for {
		e, err := s.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		state := track.State(e)
		var text bytes.Buffer
		if err := s.WriteContent(&text); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(e.Date); d < -time.Minute || d > time.Minute {
			t.Errorf("came at %v", e.Date)
		}
		list = append(list, arrived{text.String(), e.From.Sender(), state.Flags})
	}
}

const lateText = "Return-Path: <late@example.org>\nSubject: late\n\nFrom here on\n\nFrom x@y Mon Jan  2 03:04:05 2023\nlate\n"

func TestLateMailForAMaildirComesToTheMbox(t *testing.T) {
	b := newBackAgain(t)
	b.make()
	b.comes(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.comes(filepath.Join(b.aside, "cur", "2.a.b,S=14:2,FRSa"), "Subject: b\n\nb\n")
	b.comes(filepath.Join(b.aside, ".Sent", "cur", "3.a.b:2,S"), "Subject: c\n\nc\n")
	b.comes(filepath.Join(b.aside, ".lists.go", "new", "4.a.b"), "Subject: d\n\nd\n")
	b.comes(b.inMaildir("new", "5.a.b"), "Subject: e\n\ne\n")
	b.comes(filepath.Join(b.aside, "tmp", "6.a.b"), "Subject: half")
	if due, err := b.site.SweepDue(b.a); err != nil || !due {
		t.Errorf("due: %t, %v", due, err)
	}
	r := b.sweep()
	if r.Messages() != 5 || len(r.Differences) > 0 || r.Note != "" {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool,
		arrived{lateText, "late@example.org", 0},
		arrived{"Subject: b\n\nb\n", "MAILER-DAEMON", mbox.Seen | mbox.Old | mbox.Flagged | mbox.Answered},
		arrived{"Subject: e\n\ne\n", "MAILER-DAEMON", 0})
	b.came(b.sent(), arrived{"Subject: c\n\nc\n", "MAILER-DAEMON", mbox.Seen | mbox.Old})
	b.came(filepath.Join(b.a.Folders[0], "lists", "go"), arrived{"Subject: d\n\nd\n", "MAILER-DAEMON", 0})
	for _, taken := range r.Taken {
		if !exists(t, taken.Parked) || exists(t, taken.Path) || filepath.Base(filepath.Dir(taken.Parked)) != "tmp" {
			t.Errorf("%+v", taken)
		}
	}
	if due, err := b.site.SweepDue(b.a); err != nil || due {
		t.Errorf("still due: %t, %v", due, err)
	}
	if r := b.sweep(); r.Messages() > 0 || len(r.Differences) > 0 {
		t.Errorf("again: %+v", r)
	}
}

// Once it is taken, it keeps the soak from its end no longer.
func TestWhatWasTakenFromAMaildirAsideIsRetired(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.sweep()
	b.migrated()
	w := b.retire(0, false)
	w.mustBe(t, b.a.Name, journal.Done, "")
	if exists(t, b.aside) {
		t.Error("the Maildir that was set aside is left")
	}
	if n := strings.Count(readMaildir(t, b.a.Maildir), "Subject: late"); n != 1 {
		t.Errorf("the message is in the Maildir %d times", n)
	}
}

// Who is moved again before a sweep has come is swept by the run: mail would be in
// neither place.
func TestLateMailIsTakenBeforeAUserIsMovedAgain(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.migrated()
	if n := strings.Count(readMaildir(t, b.a.Maildir), "Subject: late"); n != 1 {
		t.Errorf("the message is in the Maildir %d times", n)
	}
	b.retire(0, false).mustBe(t, b.a.Name, journal.Done, "")
}

// While a rollback is not finished, it is.
func TestLateMailWaitsForTheEndOfARollback(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.check(journal.WriteRollback(b.site.State, journal.Rollback{User: b.a.Name}))
	if due, err := b.site.SweepDue(b.a); !due || err != nil {
		t.Errorf("due: %t, %v", due, err)
	}
	if _, err := b.site.Sweep(context.Background(), b.a, SweepOptions{}); !errors.Is(err, errUnsettledBack) {
		t.Errorf("got %v", err)
	}
	b.came(b.a.Spool)
}

func readMaildir(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	for _, sub := range []string{"new", "cur"} {
		list, err := os.ReadDir(filepath.Join(root, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			content, err := os.ReadFile(filepath.Join(root, sub, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(content)
		}
	}
	return all.String()
}

func TestLateMailOfAFolderWithoutMboxComesToInbox(t *testing.T) {
	b := newBackAgain(t)
	b.make()
	b.folder(".New")
	b.comes(b.inMaildir(".New", "new", "1.a.b"), "Subject: a\n\na\n")
	b.remove(b.sent())
	b.comes(filepath.Join(b.aside, ".Sent", "new", "2.a.b"), "Subject: b\n\nb\n")
	r := b.sweep()
	if len(r.Taken) != 2 || r.Taken[0].Mailbox != "New" || r.Taken[1].Mailbox != "Sent" || r.Taken[0].Folder != "INBOX" || r.Taken[1].Folder != "INBOX" {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool, arrived{"Subject: a\n\na\n", "MAILER-DAEMON", 0}, arrived{"Subject: b\n\nb\n", "MAILER-DAEMON", 0})
}

// Half a message does not become one.
func TestLateMailThatIsOpenWaits(t *testing.T) {
	b := newBackAgain(t)
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.put(path, lateText)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	b.check(err)
	_, err = b.site.Sweep(context.Background(), b.a, SweepOptions{Wait: 300 * time.Millisecond})
	var used *InUse
	if !errors.As(err, &used) {
		t.Errorf("got %v", err)
	}
	b.came(b.a.Spool)
	_, err = f.WriteString("more\n")
	b.check(errors.Join(err, f.Close()))
	b.sweep()
	b.came(b.a.Spool, arrived{lateText + "more\n", "late@example.org", 0})
}

// A delivery that has the gate or a lock is waited for.
func TestLateMailWaitsForGateAndLocks(t *testing.T) {
	for _, name := range []string{"gate", "dotlock"} {
		b := newBackAgain(t)
		b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
		lock := b.a.Spool + ".lock"
		if name == "gate" {
			lock = b.a.Gate
		}
		b.put(lock, "1:"+hostname())
		if _, err := b.site.Sweep(context.Background(), b.a, SweepOptions{Wait: 300 * time.Millisecond}); err == nil {
			t.Errorf("%s: was swept", name)
		}
		b.check(os.Remove(lock))
		b.came(b.a.Spool)
		b.sweep()
		b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
	}
}

func TestAnMboxIsMadeForLateMail(t *testing.T) {
	b := newBackAgain(t)
	b.remove(b.a.Spool)
	b.were[b.a.Spool] = nil
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.sweep()
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
	info, err := os.Stat(b.a.Spool)
	b.check(err)
	if info.Mode() != 0o600 || ownerOf(info) != b.a.UID {
		t.Errorf("made with mode %v, of uid %d", info.Mode(), ownerOf(info))
	}
}

// In a spool that is root's alone, root makes it.
func TestInASpoolOfRootsRootMakesAnMboxForLateMail(t *testing.T) {
	b := newBackAgain(t)
	spool := filepath.Join(b.Dir, "spool")
	b.check(os.Mkdir(spool, 0o755))
	b.a.Spool = filepath.Join(spool, "nobody")
	b.site.Locks.Dotlock = false
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.sweep()
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
	if info, err := os.Stat(b.a.Spool); err != nil || info.Mode() != 0o600 || ownerOf(info) != b.a.UID {
		t.Errorf("made as %+v, %v", info, err)
	}
}

func TestAnMboxWithoutAnEndGetsOne(t *testing.T) {
	b := newBackAgain(t)
	was := bytes.TrimRight(b.were[b.a.Spool], "\n")
	b.put(b.a.Spool, string(was))
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.sweep()
	b.were[b.a.Spool] = append(was, '\n')
	b.came(b.a.Spool, arrived{lateText, "late@example.org", 0})
}

// A full disk leaves the mbox as it was, and the message where it was.
func TestLateMailOnADiskThatIsFull(t *testing.T) {
	b := newBackAgain(t)
	spool := filepath.Join(b.Dir, "small")
	b.check(os.Mkdir(spool, 0o755))
	b.check(unix.Mount("none", spool, "tmpfs", 0, "size=64k,mode=0777"))
	defer unix.Unmount(spool, unix.MNT_DETACH)
	b.check(os.Chown(spool, nobody, nobody))
	b.a.Spool = filepath.Join(spool, "nobody")
	b.put(b.a.Spool, "From a@b Mon Jan  2 03:04:05 2023\n\nx\n\n")
	was, err := os.ReadFile(b.a.Spool)
	b.check(err)
	b.were[b.a.Spool] = was
	path := filepath.Join(b.aside, "new", "1.a.b")
	b.put(path, "Subject: long\n\n"+strings.Repeat("late\n", 50000))
	if _, err := b.site.Sweep(context.Background(), b.a, SweepOptions{}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	b.came(b.a.Spool)
	if !exists(t, path) {
		t.Error("the message is gone")
	}
}

func TestLateMailIsLeftOfWhoIsHeld(t *testing.T) {
	b := newBackAgain(t)
	b.put(filepath.Join(b.aside, "new", "1.a.b"), lateText)
	b.hold(semaphore.Mbox)
	if r := b.sweep(); r.Messages() > 0 || r.Note != "held" {
		t.Errorf("%+v", r)
	}
	b.came(b.a.Spool)
}
