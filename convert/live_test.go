package convert

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/host"
	"mailferry/internal/journal"
	"mailferry/internal/livemail"
	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// live is a mail server in use whose users are moved.
type live struct {
	*testing.T
	*livemail.Load
	site   Site
	host   Host // what ends the sessions of who is moved
	random *rand.Rand

	moves map[Verb]int
	swept []string // what runs told of mail that came to old places
	holds []time.Duration
	why   map[string]int      // reasons of moves that did not happen
	past  map[string][]string // what was done to a user and when, for who looks into a fault
}

// sessions has Dovecot write what it holds back before a hold, and ends the
// sessions in it.
type sessions struct{ host.Doveadm }

func (s sessions) BeforeHold(ctx context.Context, a account.Account) error {
	return s.Settle(ctx, a.Name)
}

func (s sessions) Drain(ctx context.Context, a account.Account) error {
	for {
		if err := s.Kick(ctx, a.Name); err != nil {
			return err
		}
		if n, err := s.Who(ctx, a.Name); n == 0 || err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (sessions) AfterFlip(context.Context, account.Account, semaphore.State) error  { return nil }
func (sessions) AfterAbort(context.Context, account.Account, semaphore.State) error { return nil }

// newLive makes a server of which no use is made yet.
func newLive(t *testing.T, users int, o livemail.Options) *live {
	t.Helper()
	dir, err := os.MkdirTemp("", "mailferry-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := livemail.NewSite(t, filepath.Join(dir, "site"), users)
	load := livemail.NewLoad(t, s, o)
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Fatal(err)
	}
	return &live{
		T: t, Load: load, host: sessions{host.Doveadm{Path: doveadm, Config: load.Server.Config()}}, random: rand.New(rand.NewPCG(o.Seed, 0x6d6f7665)),
		site: Site{
			Scan: mbox.Options{Profile: mbox.Dovecot}, Folders: maildir.Folders{Layout: maildir.MaildirPP, Escape: true},
			Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, State: filepath.Join(s.Dir, "state"), MinUID: 1,
		},
		moves: map[Verb]int{}, why: map[string]int{}, past: map[string][]string{},
	}
}

func accountOf(u *livemail.User) account.Account {
	return account.Account{
		User:  account.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home},
		Spool: u.Spool, Folders: []string{u.Folders}, Maildir: u.Maildir,
		Semaphore: u.Semaphore, Mirror: u.Mirror, Gate: u.Gate,
	}
}

// run does one run over users. A user who is busy stays where he is; that is no
// fault, and no move.
func (l *live) run(verb Verb, users []*livemail.User) {
	l.Helper()
	var accounts []account.Account
	for _, u := range users {
		accounts = append(accounts, accountOf(u))
	}
	log, err := journal.Begin(l.site.State, string(verb))
	if err != nil {
		l.Fatal(err)
	}
	defer log.Close()
	w := &told{}
	r := &Run{
		Site: l.site, Inspector: NewInspector(l.site, nil), Journal: log, Watch: w,
		Verb: verb, Chunk: 12, Jobs: 2, CutoverJobs: 4, HoldLimit: 10 * time.Second, DrainLimit: 5 * time.Second, MaxRounds: 3,
		Around: l.host,
	}
	summary, err := r.Do(context.Background(), accounts)
	if err != nil {
		l.Fatalf("%s: %v", verb, err)
	}
	if err := log.Finish(*summary); err != nil {
		l.Fatalf("%s: summary: %v", verb, err)
	}
	for name, u := range w.users {
		l.over(verb, name, u)
	}
	for _, note := range w.notes {
		if strings.Contains(note, "behind the flip") {
			l.swept = append(l.swept, note)
			continue
		}
		if strings.Contains(note, ": sweep: ") && strings.Contains(note, ": busy: ") {
			continue // an agent has the lock; the next sweep comes soon
		}
		l.Errorf("%s: %s", verb, note)
	}
}

// over counts what became of a user.
func (l *live) over(verb Verb, name string, u User) {
	l.past[name] = append(l.past[name], fmt.Sprintf("%s %s %s held %v", time.Now().Format("04:05.000"), verb, u.Outcome, u.Hold))
	switch {
	case u.Outcome == journal.Done && verb == Precopy:
	case u.Outcome == journal.Done && !u.Already:
		l.moves[verb]++
		l.holds = append(l.holds, u.Hold)
	case u.Reason == reasonBusy, u.Reason == reasonHold:
		l.why[u.Reason]++
	default:
		l.Errorf("%s: %s: %s, %q: %s %v", verb, name, u.Outcome, u.Reason, u.Text, u.Findings)
	}
}

// move moves some users there, or back, whichever more of them can do.
func (l *live) move(most int) {
	l.Helper()
	there, back := l.on(semaphore.Mbox), l.on(semaphore.Maildir)
	verb, users := Migrate, there
	if l.random.IntN(len(there)+len(back)) < len(back) {
		verb, users = Rollback, back
	}
	l.random.Shuffle(len(users), func(i, j int) { users[i], users[j] = users[j], users[i] })
	users = users[:min(len(users), 1+l.random.IntN(most))]
	if verb == Migrate {
		l.forget(users)
		if l.random.IntN(3) == 0 {
			l.run(Precopy, users)
		}
	}
	l.run(verb, users)
}

// on lists the users whose semaphore says so.
func (l *live) on(state semaphore.State) (users []*livemail.User) {
	for _, u := range l.Site.Users {
		if u.State() == state {
			users = append(users, u)
		}
	}
	return users
}

// forget removes what earlier moves have put away, of most users: the disk is
// not endless.
func (l *live) forget(users []*livemail.User) {
	l.Helper()
	for _, u := range users {
		if l.random.IntN(4) == 0 {
			continue
		}
		if err := u.Forget(); err != nil {
			l.Fatal(err)
		}
	}
}

// total are the moves so far.
func (l *live) total() int { return l.moves[Migrate] + l.moves[Rollback] }

// userName is that of a user in what the ledger tells.
var userName = regexp.MustCompile(`live\d+`)

// settle ends the use, and demands that all promises were kept.
func (l *live) settle() {
	l.Helper()
	l.Stop()
	for i, wrong := range slices.DeleteFunc(l.Account(), l.isUnwritten) {
		if i == 40 {
			l.Error("and more")
			break
		}
		l.Errorf("%s; moves: %s", wrong, strings.Join(l.past[userName.FindString(wrong)], "; "))
	}
	l.noLeavings()
	l.report()
}

// newUID is what the ledger tells of a message that has another UID.
var newUID = regexp.MustCompile(`(live\d+).*: (m\d+) had the UID`)

// isUnwritten reports whether a message has another UID because Dovecot never wrote
// the one that it had shown: mail that comes between two of its syncs now and then
// gets its UID in the index alone, for good (docs/migrating.md). Such a message lies
// in the parked mbox without an X-UID, or behind one; no other is excused.
func (l *live) isUnwritten(wrong string) bool {
	l.Helper()
	about := newUID.FindStringSubmatch(wrong)
	if about == nil {
		return false
	}
	soak, err := journal.ReadSoak(l.site.State, about[1])
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.Fatal(err)
	}
	id, uid := []byte("\nX-Live-Id: "+about[2]+"\n"), []byte("\nX-UID: ")
	for _, p := range soak.Parked {
		text, err := os.ReadFile(p.Path)
		if err != nil {
			l.Fatal(err)
		}
		text = text[:p.Size] // without what was swept up
		numbered := true     // all messages so far
		for message := range bytes.SplitSeq(text, []byte("\n\nFrom ")) {
			header, _, _ := bytes.Cut(message, []byte("\n\n"))
			header = append(header[:len(header):len(header)], '\n')
			numbered = numbered && bytes.Contains(header, uid)
			if bytes.Contains(header, id) && !numbered {
				l.Logf("not written by Dovecot: %s", wrong)
				return true
			}
		}
	}
	return false
}

// noLeavings demands that no staging, lock, gate or file on its way to another
// name is left.
func (l *live) noLeavings() {
	l.Helper()
	err := filepath.WalkDir(l.Site.Dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == l.site.State || path == filepath.Join(l.Site.Dir, "run") {
			return fs.SkipDir
		}
		name := e.Name()
		_, parked := unparked(name)
		if maildir.IsStaging(name) && l.wasPutOff(filepath.Base(filepath.Dir(path))) { // and is gone on with
			return fs.SkipDir
		}
		ours := strings.Contains(name, ".mailferry-") && !parked || path == filepath.Join(l.Site.Dir, "semaphores", "."+name)
		if ours || strings.HasSuffix(name, ".lock") && filepath.Dir(path) != filepath.Join(l.Site.Dir, "semaphores") {
			l.Errorf("left: %s", path)
		}
		return err
	})
	if err != nil {
		l.Fatal(err)
	}
}

// wasPutOff reports whether the last move of a user came to nothing for a passing
// reason.
func (l *live) wasPutOff(name string) bool {
	moves := l.past[name]
	return len(moves) > 0 && strings.Contains(moves[len(moves)-1], string(Migrate)+" "+journal.Failed)
}

func (l *live) report() {
	l.Helper()
	slices.Sort(l.holds)
	quantile := func(q float64) time.Duration {
		if len(l.holds) == 0 {
			return 0
		}
		return l.holds[int(q*float64(len(l.holds)-1))].Round(100 * time.Microsecond)
	}
	l.Logf("%d moves: %d there, %d back; not: %v; held %v (median), %v (99%%), %v (most)\n%s",
		l.total(), l.moves[Migrate], l.moves[Rollback], l.why, quantile(0.5), quantile(0.99), quantile(1), l.Figures)
	for i, line := range slices.Concat(l.Server.Errors(), l.Notes()) {
		if i == 20 {
			break
		}
		l.Log(line)
	}
}

// wanted is how many moves MAILFERRY_TEST_MOVES asks for.
func wanted(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("MAILFERRY_TEST_MOVES"), "1000"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// While users are moved there and back and there again, mail comes by several
// agents at once, and clients read, flag and expunge: and every promise that
// was made to anybody is kept.
func TestUsersAreMovedLive(t *testing.T) {
	l := newLive(t, 40, livemail.Options{
		Seed: 4, Clients: 6, Think: 300 * time.Millisecond, Keep: 15, Rest: 40 * time.Millisecond, Append: true,
		Agents: []livemail.Agent{livemail.Honest{Pause: 200 * time.Microsecond}, livemail.Honest{Pause: 2 * time.Millisecond}, livemail.Procmail, livemail.Maildrop},
	})
	l.Start()
	for start := time.Now(); l.total() < wanted(t) && !t.Failed(); {
		l.move(24)
		if time.Since(start) > 10*time.Minute+time.Duration(wanted(t))*time.Second {
			t.Errorf("%d moves in %v", l.total(), time.Since(start))
		}
	}
	l.settle()
}
