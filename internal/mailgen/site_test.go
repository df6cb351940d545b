package mailgen

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/config"
	"mailferry/mbox"
)

// siteDir is a directory that users can reach.
func siteDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "site")
}

func newTestSite(t testing.TB, o SiteOptions) *SiteSummary {
	t.Helper()
	sum, err := Site(siteDir(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestSameSeedGivesSameSite(t *testing.T) {
	o := SiteOptions{Users: 60, Seed: 4, Problems: 0.01}
	trees := []SnapshotTree{pathless(t, o), pathless(t, o), nil}
	o.Seed++
	trees[2] = pathless(t, o)
	if diff := trees[0].Diff(trees[1]); diff != nil {
		t.Errorf("the same seed gave another site:\n%s", strings.Join(diff, "\n"))
	}
	if len(trees[0].Diff(trees[2])) == 0 {
		t.Error("another seed gave the same site")
	}
}

// pathless is a site as it would be at the path SITE, without times.
func pathless(t *testing.T, o SiteOptions) SnapshotTree {
	t.Helper()
	sum := newTestSite(t, o)
	tree, err := Snapshot(sum.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for path, e := range tree {
		e.MTime = time.Time{}
		e.Target = strings.ReplaceAll(e.Target, sum.Dir, "SITE")
		if e.Mode.IsRegular() { // a FIFO would wait for a writer
			text, err := os.ReadFile(filepath.Join(sum.Dir, path))
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.ReplaceAll(text, []byte(sum.Dir), []byte("SITE"))
			e.Size, e.SHA256 = int64(len(text)), sha256.Sum256(text)
		}
		tree[path] = e
	}
	return tree
}

// read is a message as a scan finds it.
type read struct {
	offset int64
	sum    Sum
}

// scan reads an mbox by a profile; careful is the count of the other reading.
func scan(t *testing.T, path string, profile mbox.Profile) (all []read, careful int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s, err := mbox.NewScanner(f, info.Size(), mbox.Options{Profile: profile, Zone: time.UTC})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer s.Close()
	for {
		e, err := s.Next()
		if errors.Is(err, io.EOF) {
			return all, s.CarefulCount()
		}
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if err := s.WriteContent(h); err != nil {
			t.Fatal(err)
		}
		all = append(all, read{e.Offset, Sum{e.Size, [32]byte(h.Sum(nil))}})
	}
}

func TestSiteHoldsTheMailThatItReports(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 150, Seed: 5, Problems: 0.01})
	var messages int
	var bytes int64
	owner := map[string]string{}
	for _, u := range sum.Users {
		userMessages := 0
		for _, m := range u.Mailboxes {
			checkMailbox(t, u, m)
			userMessages += m.Messages
			bytes += m.Bytes
			for _, id := range m.IDs() {
				if other, twice := owner[id]; twice {
					t.Errorf("%s is in %s and %s", id, other, m.Path)
				}
				owner[id] = m.Path
			}
		}
		if u.Messages != userMessages {
			t.Errorf("%s: %d messages, want %d", u.Name, u.Messages, userMessages)
		}
		messages += userMessages
	}
	if sum.Messages != messages || sum.Bytes != bytes || messages == 0 {
		t.Errorf("the site has %d messages of %d octets, its mailboxes %d of %d", sum.Messages, sum.Bytes, messages, bytes)
	}
}

func checkMailbox(t *testing.T, u SiteUser, m SiteMailbox) {
	t.Helper()
	got, careful := scan(t, m.Path, mbox.Dovecot)
	var want []read
	var ids []string
	err := m.Each(func(msg Message) {
		want = append(want, read{msg.Offset, msg.Dovecot})
		ids = append(ids, msg.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(ids, m.IDs()) {
		t.Errorf("%s: messages %q, IDs %q", m.Path, ids, m.IDs())
	}
	pseudo := 0 // UW's pseudo message, which a scan finds and no server shows
	if len(want) > 0 && want[0].offset > 0 && len(got) > 0 {
		pseudo, got = 1, got[1:]
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: a scan finds other messages than were made", m.Path)
	}
	differs := u.Code == "reading-differs" && m.Name == "INBOX"
	if (careful-pseudo != len(got)) != differs {
		t.Errorf("%s: %d messages, %d by the careful reading, %q", m.Path, len(got), careful-pseudo, u.Code)
	}
	if info, err := os.Stat(m.Path); err != nil || info.Size() != m.Bytes {
		t.Errorf("%s: size %d, want %d, %v", m.Path, info.Size(), m.Bytes, err)
	}
}

func TestProblemsAreSpreadEvenly(t *testing.T) {
	s, err := newSite(t.TempDir(), SiteOptions{Users: 2000, Seed: 6, Problems: 0.05})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[*problem]int{}
	total, last := 0, -1
	for i, slot := range s.slots {
		if slot.problem == nil {
			continue
		}
		seen[slot.problem]++
		total++
		if gap := i - last; last >= 0 && (gap < 19 || gap > 21) {
			t.Errorf("%q follows the problem before after %d users", slot.problem.what, gap)
		}
		last = i
	}
	if total != 100 {
		t.Errorf("%d of 2,000 users have a problem, want 100", total)
	}
	for i := range problems {
		if p := &problems[i]; seen[p] < 2 {
			t.Errorf("%d users for %q", seen[p], p.what)
		}
	}
}

func TestOnlyTheProblemsAskedFor(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 9, Seed: 7, Problems: 1, Codes: []string{"mbox-mode", "collision"}})
	var codes []string
	for _, u := range sum.Users {
		codes = append(codes, u.Code)
	}
	want := strings.Fields("collision collision mbox-mode mbox-mode collision collision mbox-mode mbox-mode")
	if !slices.Equal(codes, append(want, "")) { // no room for a pair
		t.Errorf("got %q, want %q", codes, want)
	}
}

func TestSiteRefusesWhatItCannotMake(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		dir  string
		o    SiteOptions
		want string
	}{
		"no users":                    {siteDir(t), SiteOptions{}, "needs users"},
		"too few users":               {siteDir(t), SiteOptions{Users: 5, Problems: 0.1}, "too few"},
		"an unknown code":             {siteDir(t), SiteOptions{Users: 5, Problems: 1, Codes: []string{"bad-hair"}}, "bad-hair"},
		"a directory closed to users": {filepath.Join(closed, "site"), SiteOptions{Users: 1}, closed},
		"a directory in use":          {filepath.Dir(closed), SiteOptions{Users: 1}, "not empty"},
	} {
		if _, err := Site(tt.dir, tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tt.want)
		}
	}
}

func TestListsNameEveryUser(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 50, Seed: 8, Problems: 0.1, Sticky: true})
	var passwd, names strings.Builder
	for _, u := range sum.Users {
		fmt.Fprintln(&names, u.Name)
		if u.Code != "no-user" {
			fmt.Fprintf(&passwd, "%s:%d:%d:%s\n", u.Name, u.UID, u.GID, u.Home)
		}
		if found := sum.User(u.Name); found == nil || found.Name != u.Name {
			t.Errorf("%s is not found", u.Name)
		}
	}
	for path, want := range map[string]string{sum.UsersFile: "# user:uid:gid:home\n" + passwd.String(), sum.NamesFile: names.String()} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	if info, err := os.Stat(filepath.Join(sum.Dir, "spool")); err != nil || info.Mode() != 0o777|os.ModeDir|os.ModeSticky {
		t.Errorf("spool: %v, %v", info.Mode(), err)
	}
}

func TestConfigurationLeadsToTheMail(t *testing.T) {
	sum := newTestSite(t, SiteOptions{Users: 3, Seed: 8})
	c, err := config.Load(config.Options{Path: sum.Config})
	if err != nil {
		t.Fatal(err)
	}
	users, err := account.Load(t.Context(), c.Users)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range users.All() {
		u := sum.Users[i]
		a := c.Places().Account(got)
		want := account.Account{
			User:  account.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home},
			Spool: u.Spool, Folders: []string{u.Home + "/mail"}, Maildir: u.Home + "/Maildir",
			Semaphore: sum.Dir + "/semaphores/" + u.Name, Mirror: u.Home + "/.mailstate", Gate: u.Home + "/.mailstate.lock",
		}
		if !reflect.DeepEqual(a, want) {
			t.Errorf("got %+v, want %+v", a, want)
		}
	}
	if c.State != sum.Dir+"/state" || c.MinUID != 1000 || c.Profile.Name != "dovecot" || !c.Locks.Dotlock || !c.Locks.Fcntl {
		t.Errorf("got %+v", c)
	}
}

// BenchmarkSite makes the site of the tests of thousands.
func BenchmarkSite(b *testing.B) {
	for b.Loop() {
		newTestSite(b, SiteOptions{Users: 2000, Seed: 1, Problems: 0.05})
	}
}
