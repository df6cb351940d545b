package convert

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
)

func TestSizesAddUpToNoLessThanTheyAre(t *testing.T) {
	const huge = math.MaxInt64 / 2
	for _, n := range []need{
		needOf([]MailboxPlan{{Name: "INBOX", Bytes: huge}, {Bytes: huge}, {Bytes: huge}}),
		rehearsalNeed([]MailboxPlan{{Name: "INBOX", Bytes: math.MaxInt64, Messages: 9}}),
	} {
		if n.bytes != math.MaxInt64 {
			t.Errorf("%+v", n)
		}
	}
	if sum := (&tree{sources: []source{{size: math.MaxInt64}, {size: 1}}}).bytes(); sum != math.MaxInt64 {
		t.Error(sum)
	}
	for _, size := range []int64{0, 1 << 30, math.MaxInt64} {
		if w := weight(size); w <= 0 || w > memoryLimit {
			t.Errorf("%d weighs %d", size, w)
		}
	}
}

// A file says what size it likes, in its name or by a hole: its user is left alone, or it
// does not matter, and the run goes on with the others.
func TestHugeSizesEndNoRun(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 6, Seed: 61})
	s := &stand{t, p, p.accounts[0]}
	disk := filepath.Join(s.a.Folders[0], "disk")
	s.check(errors.Join(os.MkdirAll(disk, 0o700), unix.Mount("none", disk, "tmpfs", 0, "nr_inodes=0,mode=0777")))
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	for n := range 3 {
		path := filepath.Join(disk, fmt.Sprint("hole", n))
		s.put(path, "From a@b.org Mon Jan  2 03:04:05 2023\n\n")
		s.check(os.Truncate(path, 1<<62))
	}
	_, w := doRun(t, p, Migrate, p.accounts...)
	w.mustBe(t, s.a.Name, journal.Skipped, "space")
	for _, a := range p.accounts[1:] {
		w.mustBe(t, a.Name, journal.Done, "")
	}
	s = &stand{t, p, p.accounts[1]}
	for n, size := range []int64{math.MaxInt64 - 1, 1 << 62, 1 << 62} {
		s.put(s.inMaildir("cur", fmt.Sprintf("18%08d.M1P1.h,S=%d:2,S", n, size)), "Subject: x\n\nx\n")
	}
	_, w = doRun(t, p, Rollback, p.accounts[1:]...)
	for _, a := range p.accounts[1:] {
		w.mustBe(t, a.Name, journal.Done, "")
	}
}

// What a user has in his Maildir beside folders is not walked through in a hold, and no mail.
func TestDirectoriesThatAreNoFoldersAreNotCountedInAHold(t *testing.T) {
	s, rollback := backUser(t)
	count := func() int {
		files, _ := filepath.Glob(s.inMaildir("cur", "*"))
		more, _ := filepath.Glob(s.inMaildir(".*", "cur", "*"))
		return len(files) + len(more)
	}
	want := count()
	odd := s.inMaildir("backup", "old", "cur")
	s.check(errors.Join(os.MkdirAll(odd, 0o755), os.WriteFile(filepath.Join(odd, "1.a.b"), nil, 0o644)))
	rollback().mustBe(t, s.a.Name, journal.Done, "")
	aside := s.soak().Aside
	if last := aside[len(aside)-1]; want == 0 || last.Held != want {
		t.Errorf("held %d messages, not %d", last.Held, want)
	}
}
