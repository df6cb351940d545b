package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// differing is one message to Dovecot, two to a careful reader.
const differing = "From bob@example.org Mon Jan  2 03:04:05 2023\nSubject: two or one\n\nHere it begins:\n\n" +
	"From alice at example.org  Sun Nov  1 08:00:00 2026\nFrom: alice@example.org\nSubject: archived\n\nA message?\n\n"

func TestAPlanCountsWhatIsThere(t *testing.T) {
	h := newHouse(t)
	h.write(h.a.Spool, "From MAILER_DAEMON Mon Jan  2 03:04:05 2023\nSubject: internal\nX-IMAP: 1600000000 0000000003\n\nx\n\n"+strings.Repeat(letter, 2)+differing, aliceID)
	before := h.snapshot()
	p := h.in.account(t.Context(), h.a)
	h.unchanged(before)
	h.same(&p.Inspection, "reading-differs")
	offset := strings.Index(differing, "From alice")
	inbox, sent := p.Mailboxes[0], p.Mailboxes[1]
	info, err := os.Stat(h.a.Spool)
	h.check(err)
	at := info.Size() - int64(len(differing)) + int64(offset)
	if inbox.Name != "INBOX" || inbox.Path != h.a.Spool || inbox.Messages != 3 || inbox.Careful != 5 || inbox.Bytes != info.Size() {
		t.Errorf("INBOX: %+v", inbox)
	}
	if p.Findings[0].Text != fmt.Sprintf("dovecot reads 4 messages, the careful reading 5; they differ 1 times, first at [%d]", at) {
		t.Errorf("%q", p.Findings[0].Text)
	}
	if got := inbox.Oddities["profile-differs"]; got.Count != 1 || !slices.Equal(got.Offsets, []int64{at}) {
		t.Errorf("oddities: %+v", inbox.Oddities)
	}
	if sent.Name != "Sent" || sent.Messages != 1 || sent.Bytes != int64(len(letter)) || sent.Oddities != nil {
		t.Errorf("Sent: %+v", sent)
	}
	odd := 0
	for _, places := range inbox.Oddities {
		odd += places.Count
	}
	if p.Messages != 4 || p.Bytes != inbox.Bytes+sent.Bytes || p.Oddities != odd || p.Quarantine != 0 {
		t.Errorf("sums: %+v", p.Sums)
	}
	if p.NeedBytes < p.Bytes || p.NeedInodes < 4+2*3 {
		t.Errorf("needs: %+v", p.Sums)
	}
}

// What a plan says is needed is enough for what a conversion makes.
func TestAPlanNeedsNoLessThanTheMaildirTakes(t *testing.T) {
	h := newHouse(t)
	for n := range 20 {
		h.write(h.home(fmt.Sprintf("mail/box%d", n)), strings.Repeat(letter, n), aliceID)
	}
	p := h.in.account(t.Context(), h.a)
	o := options(t, h.home("mail"), "dovecot")
	o.Inbox = h.a.Spool
	r := mustConvert(t, o)
	blocks, inodes := int64(0), int64(0)
	h.check(filepath.WalkDir(o.Dest, func(path string, _ os.DirEntry, err error) error {
		st, serr := os.Lstat(path)
		if err == nil && serr == nil {
			blocks += (st.Size() + 4095) / 4096 * 4096
			inodes++
		}
		return errors.Join(err, serr)
	}))
	if p.Messages != r.Messages || p.NeedBytes < blocks || p.NeedInodes < inodes {
		t.Errorf("planned %+v; %d messages take %d bytes and %d inodes", p.Sums, r.Messages, blocks, inodes)
	}
}

// Inspect does not read it all, and is not far off.
func TestInspectEstimatesTheNumberOfMessages(t *testing.T) {
	h := newHouse(t)
	for _, n := range []int{0, 1, 1000, 20000} {
		h.write(h.a.Spool, strings.Repeat(letter, n), aliceID)
		got := h.in.Inspect(h.a).mailboxes[0].Messages
		if got < n || got > n+n/10 {
			t.Errorf("%d messages: estimated %d", n, got)
		}
	}
}

func TestAMailboxThatBecomesShorterIsReadAgain(t *testing.T) {
	h := newHouse(t)
	f, err := os.Open(h.a.Spool)
	h.check(err)
	defer f.Close()
	file := &mailboxFile{f, source{path: h.a.Spool}, int64(100 * len(letter)), h.site.Scan}
	if m, err := countAll(t.Context(), file, 1<<20); err != nil || m.Messages != 3 || m.Bytes != int64(3*len(letter)) {
		t.Errorf("%+v, %v", m, err)
	}
	i := h.in.inspect(h.a, func(*mailboxFile) (MailboxPlan, error) { return MailboxPlan{}, mbox.ErrShrunk })
	h.same(i, "mbox-changing")
	if len(i.mailboxes) != 2 || i.mailboxes[0].Messages != 3 {
		t.Errorf("estimated: %+v", i.mailboxes)
	}
}

// A message that no file may hold will be quarantined.
func TestAPlanNamesQuarantineCandidates(t *testing.T) {
	h := newHouse(t)
	long := strings.Replace(letter, "hello\n\n", strings.Repeat("hello\n", 20)+"\n", 1)
	h.write(h.a.Spool, letter+long, aliceID)
	h.in.maxFile = 100
	p := h.in.account(t.Context(), h.a)
	want := Quarantined{"INBOX", int64(len(letter)), int64(len(long)), 2, "it is larger than the filesystem takes for one file"}
	if got := p.Mailboxes[0].Quarantine; p.Quarantine != 1 || !slices.Equal(got, []Quarantined{want}) {
		t.Errorf("%+v, want %+v; %+v", got, want, p.Sums)
	}
}

func TestAPlanOfManyAddsUp(t *testing.T) {
	sum := madeUpSite(t, mailgen.SiteOptions{Users: 120, Seed: 7, Problems: 0.5})
	accounts, users := siteAccounts(t, sum)
	in := NewInspector(siteOf(sum), users)
	var done atomic.Int32
	p, err := in.Plan(t.Context(), accounts, PlanOptions{Jobs: 4, Done: func(*AccountPlan) { done.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	if p.Rate.Problem != "" || p.Rate.PerMessage+p.Rate.PerByte <= 0 || p.Rate.Digest <= 0 || p.Rate.Commit <= 0 {
		t.Errorf("rate: %+v", p.Rate)
	}
	var want PlanTotal
	for i, u := range sum.Users {
		a := p.Accounts[i]
		if a.User != u.Name {
			t.Fatalf("%s stands in the place of %s", a.User, u.Name)
		}
		expected := slices.Sorted(slices.Values(append(slices.Clone(u.Also), u.Code)))
		var got []string
		for _, f := range a.Findings {
			got = append(got, f.Code)
		}
		slices.Sort(got)
		if expected = slices.DeleteFunc(expected, func(c string) bool { return c == "" }); !slices.Equal(slices.Compact(got), expected) {
			t.Errorf("%s (%s): found %q, want %q: %+v", u.Name, u.Case, got, expected, a.Findings)
		}
		if a.Refused == u.Migrates() {
			t.Errorf("%s (%s): refused %t", u.Name, u.Case, a.Refused)
		}
		want.Users++
		if a.Refused {
			want.Refused++
			continue
		}
		want.Ready++
		want.Messages += u.Messages
		want.Mailboxes += len(u.Mailboxes)
		if a.Messages != u.Messages || a.Bytes != u.Bytes || len(a.Mailboxes) != len(u.Mailboxes) || a.Precopy <= 0 || a.Hold <= 0 {
			t.Errorf("%s (%s): %d messages, %d bytes in %d mailboxes, want %d, %d, %d; %+v", u.Name, u.Case, a.Messages, a.Bytes, len(a.Mailboxes), u.Messages, u.Bytes, len(u.Mailboxes), a)
		}
	}
	got := p.Total
	if got.Users != want.Users || got.Refused != want.Refused || got.Ready != want.Ready || got.Messages != want.Messages || got.Mailboxes != want.Mailboxes || int(done.Load()) != want.Users {
		t.Errorf("total %+v, want %+v", got, want)
	}
	if len(p.Volumes) != 1 || p.Volumes[0].Users != want.Ready || p.Volumes[0].NeedBytes != got.NeedBytes || !p.Volumes[0].Enough {
		t.Errorf("volumes: %+v", p.Volumes)
	}
	if left, err := filepath.Glob(filepath.Join(sum.Dir, "state", "*")); err != nil || len(left) > 0 {
		t.Errorf("left in the state directory: %q, %v", left, err)
	}
	var again Plan
	text, err := json.Marshal(p)
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil || again.Total.Messages != got.Messages || again.Accounts[3].User != sum.Users[3].Name {
		t.Errorf("JSON: %v\n%.500s", err, text)
	}
}

// Each fits alone, and all together don't.
func TestAPlanSeesThatAllTogetherDoNotFit(t *testing.T) {
	h := newHouse(t)
	h.smallHome("nr_inodes=120")
	h.write(h.a.Spool, strings.Repeat(letter, 60), aliceID)
	p, err := h.in.Plan(t.Context(), []account.Account{h.a, h.a}, PlanOptions{Jobs: 1})
	h.check(err)
	if p.Total.Refused != 0 || len(p.Volumes) != 1 || p.Volumes[0].Enough || p.Volumes[0].NeedInodes != 2*p.Accounts[0].NeedInodes {
		t.Errorf("%+v, %+v", p.Total, p.Volumes)
	}
}

func TestAPlanStopsWithItsContext(t *testing.T) {
	h := newHouse(t)
	ctx, stop := context.WithCancel(t.Context())
	p, err := h.in.Plan(ctx, []account.Account{h.a, h.a, h.a}, PlanOptions{Jobs: 1, Done: func(*AccountPlan) { stop() }})
	if p != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", p, err)
	}
}

// The state directory may not be there yet.
func TestTheRateIsMeasuredElsewhereWithoutAStateDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, dir := range []string{"", "/nonexistent/state"} {
		r, err := MeasureRate(t.Context(), dir)
		if err != nil || r.Problem != "" || r.Where != os.TempDir() || r.Write(1000, 1<<20) <= r.Write(10, 1<<10) {
			t.Errorf("%q: %+v, %v", dir, r, err)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAFullDiskIsAProblemOfTheRate(t *testing.T) {
	h := newHouse(t)
	h.tmpfs(h.site.State, "size=256k")
	r, err := MeasureRate(t.Context(), h.site.State)
	if err != nil || r.Problem == "" || r.Commit != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if left, err := os.ReadDir(h.site.State); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// madeUpSite makes a mail server whose users are enrolled.
func madeUpSite(t *testing.T, o mailgen.SiteOptions) *mailgen.SiteSummary {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := mailgen.Site(filepath.Join(dir, "site"), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range sum.Users {
		sem, err := semaphore.For(filepath.Join(sum.Dir, "semaphores", u.Name))
		if err == nil {
			err = sem.Enroll(semaphore.Meta{Epoch: 1})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return sum
}

// siteAccounts are its accounts, in order, and its user database.
func siteAccounts(t *testing.T, sum *mailgen.SiteSummary) ([]account.Account, []account.User) {
	t.Helper()
	users, err := account.Load(t.Context(), "file:"+sum.UsersFile)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range sum.Users {
		names = append(names, u.Name)
	}
	picked, err := users.Pick(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	places := account.Places{
		Spool: filepath.Join(sum.Dir, "spool/{user}"), Folders: []string{"{home}/mail"}, Maildir: "{home}/Maildir",
		Semaphore: filepath.Join(sum.Dir, "semaphores/{user}"), Mirror: "{home}/.mailstate", Gate: "{home}/.mailstate.lock",
	}
	list := make([]account.Account, len(picked))
	for i, u := range picked {
		list[i] = places.Account(u)
	}
	account.Collide(list, nil)
	return list, users.All()
}

func siteOf(sum *mailgen.SiteSummary) Site {
	return Site{
		Scan: mbox.Options{Profile: mbox.Dovecot}, Folders: maildir.Folders{}, Locks: mbox.LockOptions{Dotlock: true, Fcntl: true},
		State: filepath.Join(sum.Dir, "state"), MinUID: 1000,
	}
}
