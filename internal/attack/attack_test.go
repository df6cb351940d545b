package attack

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailferry/internal/safefs"
)

var alice = safefs.Identity{UID: 40001, GID: 40001}

const bob = 40002

// scene is a home with an mbox and a Maildir, and a bait beside it. ok is
// false where the test can't take the identity of users.
func scene(t *testing.T) (home string, bait *Bait, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("only root can work as somebody else")
		return "", nil, false
	}
	dir := t.TempDir()
	home = filepath.Join(dir, "home")
	must(t, os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	must(t, safefs.AsUser(alice, func() error { return nil }), os.Mkdir(home, 0o700), os.Chown(home, alice.UID, alice.GID))
	must(t, safefs.AsUser(alice, func() error {
		return errors.Join(
			os.MkdirAll(filepath.Join(home, "mail", "Maildir", "tmp"), 0o700),
			os.WriteFile(filepath.Join(home, "mail", "mbox"), []byte("From her own\n"), 0o600),
		)
	}))
	bait, err := Lay(dir, bob, bob)
	must(t, err)
	t.Cleanup(func() { bait.Close() })
	return home, bait, true
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// program does as user what a conversion does, over and over.
type program struct {
	create func(home, name string) error
	read   func(home string) (string, error)
}

type outcome struct{ created, read, refused int }

func (o outcome) isPartial() bool { return o.created == 0 || o.read == 0 || o.refused == 0 }

func (p program) run(home string, as func(work func() error) error, long time.Duration, o *outcome) error {
	return as(func() error {
		for start := time.Now(); time.Since(start) < long; {
			if p.create(home, fmt.Sprintf("%x", rand.Uint64())) == nil {
				o.created++
			} else {
				o.refused++
			}
			content, err := p.read(home)
			switch {
			case err != nil:
				o.refused++
			case strings.Contains(content, Token):
				return errors.New("a foreign file was read as the user's")
			default:
				o.read++
			}
		}
		return nil
	})
}

func asAlice(work func() error) error { return safefs.AsUser(alice, work) }
func asRoot(work func() error) error  { return work() }

// byPath is how not to do it.
var byPath = program{
	create: func(home, name string) error {
		return os.WriteFile(filepath.Join(home, "mail", "Maildir", "tmp", name), []byte("new"), 0o600)
	},
	read: func(home string) (string, error) {
		f, err := os.OpenFile(filepath.Join(home, "mail", "mbox"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		return strings.ReplaceAll(string(b), Token, ""), err // the bait tells
	},
}

// bySafefs holds directories, and looks at what it opened.
var bySafefs = program{
	create: func(home, name string) error {
		return below(home, []string{"mail", "Maildir", "tmp"}, func(d *safefs.Dir) error {
			f, err := d.Create(name, 0o600)
			if err != nil {
				return err
			}
			_, err = f.WriteString("new")
			return errors.Join(err, f.Close(), d.Rename(name, name+"-done", false))
		})
	},
	read: func(home string) (content string, err error) {
		err = below(home, []string{"mail"}, func(d *safefs.Dir) error {
			f, err := d.OpenRegular("mbox")
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			if st := info.Sys().(*syscall.Stat_t); st.Nlink != 1 || int(st.Uid) != alice.UID {
				return errors.New("not hers alone")
			}
			b, err := io.ReadAll(f)
			content = string(b)
			return err
		})
		return content, err
	},
}

func below(home string, names []string, work func(*safefs.Dir) error) error {
	d, err := safefs.OpenFor(home, alice.UID)
	if err != nil {
		return err
	}
	defer func() { d.Close() }()
	for _, name := range names {
		sub, err := d.Sub(name)
		if err != nil {
			return err
		}
		d.Close()
		d = sub
	}
	return work(d)
}

func TestNobodyIsLedOutOfHeldDirectories(t *testing.T) {
	for name, as := range map[string]func(func() error) error{"as the user": asAlice, "even as root": asRoot} {
		t.Run(name, func(t *testing.T) {
			home, bait, ok := scene(t)
			if !ok {
				return
			}
			a := Start(Target{
				UID: alice.UID, GID: alice.GID, Roots: []string{home, filepath.Join(home, "mail")}, Bait: bait,
				Plant: []string{"mbox", "mbox.lock", "tmp", "Maildir"}, Destroy: name == "even as root",
			})
			var o outcome
			for start := time.Now(); time.Since(start) < 2*time.Second || o.isPartial() && time.Since(start) < time.Minute; {
				must(t, bySafefs.run(home, as, 200*time.Millisecond, &o))
			}
			tally, err := a.Stop()
			must(t, err)
			harm, err := bait.Harm(home)
			must(t, err)
			t.Logf("%+v, attacks %v", o, tally)
			if len(harm) > 0 {
				t.Errorf("harm: %q", harm)
			}
			if o.isPartial() || len(tally) < 20 {
				t.Errorf("%+v, attacks %v: not all was tried", o, tally)
			}
		})
	}
}

// What the detectors are worth: the same work by paths is led astray.
func TestPathsTakeTheBait(t *testing.T) {
	for name, tt := range map[string]struct {
		as   func(func() error) error
		want []string
	}{
		"as root":     {asRoot, []string{"closed/secret was read", "closed had an entry created", "closed has a new entry"}},
		"as the user": {asAlice, []string{"open/secret was read", "open had an entry created", "open has a new entry"}},
	} {
		t.Run(name, func(t *testing.T) {
			home, bait, ok := scene(t)
			if !ok {
				return
			}
			a := Start(Target{UID: alice.UID, GID: alice.GID, Roots: []string{filepath.Join(home, "mail")}, Bait: bait})
			var told string
			missing := func() bool {
				return slices.ContainsFunc(tt.want, func(want string) bool { return !strings.Contains(told, want) })
			}
			for start := time.Now(); missing() && time.Since(start) < time.Minute; {
				must(t, byPath.run(home, tt.as, 200*time.Millisecond, new(outcome)))
				harm, err := bait.Harm()
				must(t, err)
				told += strings.Join(harm, "\n") + "\n"
			}
			_, err := a.Stop()
			must(t, err)
			if missing() {
				t.Errorf("of %q only %q", tt.want, told)
			}
		})
	}
}

func TestCopiesOfTheBaitAreFound(t *testing.T) {
	home, bait, ok := scene(t)
	if !ok {
		return
	}
	must(t, os.Link(bait.path("open/shared"), filepath.Join(home, "link")), os.Symlink(bait.path("open/secret"), filepath.Join(home, "symlink")))
	if harm, err := bait.Harm(home); err != nil || harm != nil {
		t.Errorf("links alone: %q, %v", harm, err)
	}
	copied := filepath.Join(home, "mail", "Maildir", "tmp", "1")
	must(t, os.WriteFile(copied, []byte("Subject: "+Token+"\n"), 0o600))
	if harm, err := bait.Harm(home); err != nil || !slices.Equal(harm, []string{"copied (1, " + copied + ")"}) {
		t.Errorf("%q, %v", harm, err)
	}
}
