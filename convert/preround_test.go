package convert

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailferry/internal/mailgen"
)

// What came since the precopy is brought over before the hold; what stays to be
// read in it is what came behind that.
func TestPreRoundsLeaveLittleForTheHold(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 61, Load: mailgen.Office})
	c := ready(t, p, p.accounts[0])
	live := use(t, p.Users[0], 1)
	for range 3 {
		if _, err := live[0].Deliver(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := live[1].Expunge(1); err != nil {
		t.Fatal(err)
	}
	mustPreRound(t, c)
	if c.early.Written != 3 || c.early.Removed != 1 {
		t.Errorf("before the hold %+v, want 3 written and 1 removed", c.early)
	}
	if _, err := live[0].Deliver(); err != nil {
		t.Fatal(err)
	}
	read := int64(0)
	c.pace.Progress = func(n int64) { read += n }
	r := c.inHold(t)
	if r.resumed["."] == nil || len(r.touched) != 1 || read >= live[0].Messages[len(live[0].Messages)-1].End/2 {
		t.Errorf("resumed %v, touched %v, %d bytes read", r.resumed, r.touched, read)
	}
	p.compare(t, p.accounts[0], c.staging.Path())
}

func mustPreRound(t *testing.T, c *cutover) {
	t.Helper()
	if err := c.preRounds(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// inHold is the round under the locks, without them.
func (c *cutover) inHold(t *testing.T) *round {
	t.Helper()
	r := c.round(c.pace)
	r.held, r.tracked = true, true
	err := asUser(c.account, func() error {
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

// Mailboxes at rest cost a pre-round nothing, and the round in the hold reads
// none of them, even if they were changed within the second before.
func TestMailboxesAtRestAreReadByNoFurtherRound(t *testing.T) {
	p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 62, Load: mailgen.Office})
	c := ready(t, p, p.accounts[0])
	if _, err := use(t, p.Users[0], 1)[0].Deliver(); err != nil {
		t.Fatal(err)
	}
	mustPreRound(t, c)
	before, err := mailgen.Snapshot(c.staging.Path())
	if err != nil {
		t.Fatal(err)
	}
	read := int64(0)
	c.pace.Progress = func(n int64) { read += n }
	mustPreRound(t, c)
	if r := c.inHold(t); len(r.touched) > 0 || read > 0 {
		t.Errorf("touched %v, read %d", r.touched, read)
	}
	after, err := mailgen.Snapshot(c.staging.Path())
	if err != nil {
		t.Fatal(err)
	}
	if diff := before.Diff(after); len(diff) > 0 {
		t.Errorf("changed: %q", diff)
	}
}

// What somebody does to staging behind the last pre-round is found, if it leaves
// a trace in a directory or in a list; the folder is then proved from the start.
func TestAProofEndsWhenStagingIsTouched(t *testing.T) {
	for name, spoil := range map[string]func(cur, file string) error{
		"a file gone": func(cur, file string) error { return os.Remove(filepath.Join(cur, file)) },
		"a file more": func(cur, file string) error {
			return os.WriteFile(filepath.Join(cur, "1.M1P1Q1.h,S=1,W=1:2,"), []byte("x"), 0o600)
		},
		"a byte and another flag": func(cur, file string) error {
			return errors.Join(overwrite(filepath.Join(cur, file)), os.Rename(filepath.Join(cur, file), filepath.Join(cur, file+"Z")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, mailgen.SiteOptions{Users: 1, Seed: 63, Load: mailgen.Office})
			c := ready(t, p, p.accounts[0])
			live := use(t, p.Users[0], 1)
			if _, err := live[0].Deliver(); err != nil {
				t.Fatal(err)
			}
			mustPreRound(t, c)
			cur := filepath.Join(c.staging.Path(), "cur")
			entries, err := os.ReadDir(cur)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(clockTick)
			if err := spoil(cur, entries[0].Name()); err != nil {
				t.Fatal(err)
			}
			if _, err := live[0].Deliver(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.do(context.Background()); err == nil {
				t.Error("it went through")
			} else {
				t.Log(err)
			}
		})
	}
}
