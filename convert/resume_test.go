package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
)

// upTo is a round as a cutover makes it, at a fixed time.
func (g *stage) upTo(t *testing.T, start time.Time, held bool) *round {
	t.Helper()
	r := g.round(Pace{})
	r.start, r.held = start, held
	r.tracked, r.patient = true, !held
	err := asUser(g.account, func() error {
		if _, err := r.live(context.Background()); err != nil {
			return err
		}
		_, err := r.verify(context.Background())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	guidOfList  = regexp.MustCompile(`(?m)^(3 V\d+ N\d+) G[0-9a-f]+$`)
	markOfLines = regexp.MustCompile(`(?m)( [0-9a-f]{64}) \d{20} \d{20} `)
)

// content is all that a staging holds, without what no two have in common.
func content(t *testing.T, root string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		switch d.Name() {
		case "dovecot-uidlist":
			text = guidOfList.ReplaceAll(text, []byte("$1"))
		case manifestName:
			text = markOfLines.ReplaceAll(text, []byte("$1 "))
		case mailboxName:
			var m mailboxState
			err = errors.Join(err, json.Unmarshal(text, &m))
			m.GUID, m.Scanned, m.Stamp = "", 0, 0 // whoever remembers more scans less often
			text, _ = json.Marshal(m)
		}
		rel, _ := filepath.Rel(root, path)
		list[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sameContent(t *testing.T, resumed, full map[string]string) {
	t.Helper()
	for name, text := range full {
		if got, ok := resumed[name]; !ok || got != text {
			t.Errorf("%s: %t, resumed %.600q, full %.600q", name, ok, got, text)
		}
	}
	for name := range resumed {
		if _, ok := full[name]; !ok {
			t.Errorf("%s is there only when resumed", name)
		}
	}
}

// appendTo appends to a mailbox as programs without locks do.
func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// alterations are what can happen to an mbox between two rounds.
var alterations = []func(l *mailgen.Live, r *rand.Rand) error{
	func(l *mailgen.Live, r *rand.Rand) error { _, err := l.Deliver(); return err },
	func(l *mailgen.Live, r *rand.Rand) error {
		_, err1 := l.Deliver()
		_, err2 := l.Deliver()
		return errors.Join(err1, err2)
	},
	func(l *mailgen.Live, r *rand.Rand) error { _, err := l.Expunge(1 + r.IntN(3)); return err },
	func(l *mailgen.Live, r *rand.Rand) error { _, err := l.Reflag(1 + r.IntN(3)); return err },
	func(l *mailgen.Live, r *rand.Rand) error { return nil },
	func(l *mailgen.Live, r *rand.Rand) error { // ends in the middle of a header, a body, a separator
		whole := "From x@example.org Thu Jan  1 00:00:01 2015\nSubject: torn\nContent-Length: 40\n\nbody of more than one line\nFrom here on it goes\n\n"
		return appendTo(l.Path, whole[:1+r.IntN(len(whole))])
	},
	func(l *mailgen.Live, r *rand.Rand) error { // reaches behind the end, for now
		return appendTo(l.Path, fmt.Sprintf("\nFrom x@example.org Thu Jan  1 00:00:01 2015\nContent-Length: %d\n\nlong\n%s\n", r.IntN(40000), strings.Repeat("line\n", r.IntN(4000))))
	},
	func(l *mailgen.Live, r *rand.Rand) error { // another byte somewhere, as of a flag
		text, err := os.ReadFile(l.Path)
		if at := bytes.LastIndex(text[:r.IntN(len(text))], []byte("\nStatus: RO")); at > 0 && err == nil {
			copy(text[at:], "\nStatus: O ")
		}
		return errors.Join(err, os.WriteFile(l.Path, text, 0o600))
	},
	func(l *mailgen.Live, r *rand.Rand) error { // another UIDVALIDITY
		text, err := os.ReadFile(l.Path)
		text = bytes.Replace(text, []byte("X-IMAPbase: 1"), []byte("X-IMAPbase: 2"), 1)
		return errors.Join(err, os.WriteFile(l.Path, text, 0o600))
	},
	func(l *mailgen.Live, r *rand.Rand) error { // the same under another inode
		text, err := os.ReadFile(l.Path)
		info, serr := os.Stat(l.Path)
		if serr != nil {
			return serr
		}
		st := info.Sys().(*syscall.Stat_t)
		return errors.Join(err, os.Rename(l.Path, l.Path+".was"), os.WriteFile(l.Path, text, 0o600), os.Chown(l.Path, int(st.Uid), int(st.Gid)), os.Remove(l.Path+".was"))
	},
}

var mailboxKinds = map[string]mailgen.Options{
	"as Dovecot leaves it":     {Messages: 40, State: true},
	"no server saw it":         {Messages: 40},
	"with a pseudo-message":    {Messages: 30, State: true, Odd: mailgen.PseudoMessage},
	"lines end in CRLF":        {Messages: 30, State: true, Odd: mailgen.CRLFFile},
	"odd in every way":         {Messages: 60, Odd: mailgen.AllOdd},
	"odd, with Content-Length": {Messages: 40, State: true, Odd: mailgen.AllOdd, Dialects: []mailgen.Dialect{mailgen.Mboxcl2}},
	"more keywords than fit":   {Messages: 30, State: true, Keywords: 40},
}

// However a mailbox changes, a round that goes on behind a mark leaves the same
// staging as one that reads all of it.
func TestResumedRoundsEqualFullOnes(t *testing.T) {
	kept := 0
	seed := uint64(0)
	for kind, o := range mailboxKinds {
		for _, profile := range mbox.ProfileNames() {
			seed++
			t.Run(kind+", "+profile, func(t *testing.T) { kept += resumedEqualsFull(t, o, profile, seed) })
		}
	}
	if kept < 50 {
		t.Errorf("only %d rounds were resumed", kept)
	}
}

func resumedEqualsFull(t *testing.T, o mailgen.Options, profile string, seed uint64) (resumed int) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 3})
	a := p.accounts[0]
	p.site.Scan.Profile, _ = mbox.ProfileByName(profile)
	live := liveMailbox(t, a.Spool, a.UID, a.GID, o, seed)
	resuming, full := mustOpen(t, p, a), mustFresh(t, p, a)
	resuming.recall = newRecall()
	random := rand.New(rand.NewPCG(seed, 4))
	start := time.Now()
	for step := range 6 {
		held := step == 5
		r := resuming.upTo(t, start, held)
		full.upTo(t, start, held)
		if r.resumed["."] != nil {
			resumed++
		}
		sameContent(t, content(t, resuming.staging.Path()), content(t, full.staging.Path()))
		if _, err := (&stage{Site: p.site, account: a, staging: resuming.staging}).verify(context.Background(), Pace{}); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("step %d, resumed %t", step, r.resumed["."] != nil)
		}
		if err := alterations[random.IntN(len(alterations))](live, random); err != nil {
			t.Fatal(err)
		}
		start = start.Add(3 * time.Second)
	}
	return resumed
}

// mustFresh is a second staging of an account, which is not recorded.
func mustFresh(t *testing.T, p *place, a account.Account) *stage {
	t.Helper()
	site := p.site
	site.State = filepath.Join(p.Dir, "other-state")
	g, err := openStage(site, a, "run", &syncSet{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close() })
	return g
}

// liveMailbox makes an mbox up in the place of another.
func liveMailbox(t *testing.T, path string, uid, gid int, o mailgen.Options, seed uint64) *mailgen.Live {
	t.Helper()
	o.Seed = seed
	o.Size = func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(3000) }
	var messages []mailgen.Message
	o.Each = func(m mailgen.Message) { messages = append(messages, m) }
	var text bytes.Buffer
	sum, err := mailgen.Generate(&text, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, text.Bytes(), 0o600), os.Chown(path, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return mailgen.NewLive(path, seed, messages, sum)
}
