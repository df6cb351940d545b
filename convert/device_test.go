package convert

import (
	"os"
	"strings"
	"testing"

	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
)

// The number of a device says nothing: that of btrfs is another after each mount,
// with or without a reboot.

func TestAStagingIsContinuedWhateverTheNumberOfItsDevice(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 2, Seed: 3195})
	doRun(t, p, Precopy, p.accounts...)
	before := map[string]string{}
	devs := map[string]uint64{}
	for _, a := range p.accounts {
		before[a.Name] = stagingOf(t, a)
		record, err := journal.ReadStaging(p.site.State, a.Name)
		if err != nil {
			t.Fatal(err)
		}
		devs[a.Name] = record.Dev
		record.Dev++
		if err := journal.WriteStaging(p.site.State, record); err != nil {
			t.Fatal(err)
		}
	}
	sum, w := doRun(t, p, Precopy, p.accounts...)
	if sum.Users.Done != len(p.accounts) {
		t.Errorf("%+v", sum)
	}
	for _, a := range p.accounts {
		if u := w.users[a.Name]; stagingOf(t, a) != before[a.Name] || u.Round.Written > 0 {
			t.Errorf("%s: %q was made anew as %q; %+v", a.Name, before[a.Name], stagingOf(t, a), u.Round.Changes)
		}
		if record, err := journal.ReadStaging(p.site.State, a.Name); err != nil || record.Dev != devs[a.Name] {
			t.Errorf("%s: %+v, %v; a failed sync is known by device %d", a.Name, record, err, devs[a.Name])
		}
	}
}

func TestARollbackIsUndoneWhateverTheNumberOfItsDevice(t *testing.T) {
	s, way := killedBack(t, strings.Repeat(late, 2))
	way.Files[0].Dev++
	way.Maildir.Dev++
	s.check(journal.WriteRollback(s.site.State, way))
	s.recoverMaildir()
	if _, err := os.Lstat(s.a.Spool); !os.IsNotExist(err) {
		t.Errorf("the mbox that was made is left: %v", err)
	}
}
