package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/journal"
)

// Something of Dovecot's that had looked up the old place writes into its index that all
// messages are gone.
func TestUIDsStayWhereDovecotLookedAtTheOldPlace(t *testing.T) {
	const late = "Return-Path: <sender@example.org>\r\nSubject: late\r\n\r\nbody\r\n"
	in := func(s *stand, commands ...string) {
		d := dovecottest.Start(s.T, mboxesOf(s.a))
		defer d.Close()
		for _, c := range commands {
			d.Try("%s", c)
		}
	}
	deliver := func(s *stand, box string) {
		d := dovecottest.Start(s.T, mboxesOf(s.a))
		defer d.Close()
		d.Command("APPEND %s {%d+}\r\n%s", box, len(late), late)
	}
	for name, look := range map[string]func(*stand){
		"nothing looks":           func(*stand) {},
		"a session looks":         func(s *stand) { in(s, "SELECT INBOX") },
		"mail is delivered there": func(s *stand) { deliver(s, "INBOX") },
		"mail is delivered to folders": func(s *stand) {
			in(s, "CREATE Sent", "CREATE lists/golang-nuts")
			deliver(s, "Sent")
			deliver(s, "lists/golang-nuts")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, a := servedPlace(t, 500)
			s := &stand{t, p, a}
			dump(t, mboxesOf(a)) // makes the indexes
			s.migrated()
			look(s)
			if _, err := p.site.Sweep(t.Context(), a, SweepOptions{}); err != nil {
				t.Fatal(err)
			}
			want := dump(t, maildirOf(a))
			_, w := doRun(t, p, Rollback, a)
			wentBack(t, p, w, a)
			sameBack(t, dump(t, mboxesOf(a)), want)
		})
	}
}

// Where the indexes lie elsewhere, the hook of docs/migrating.md does the same.
func TestTheHookForIndexesElsewhereKeepsUIDs(t *testing.T) {
	for _, hook := range []bool{true, false} {
		t.Run(fmt.Sprintf("hook: %t", hook), func(t *testing.T) {
			p, a := servedPlace(t, 500)
			s := &stand{t, p, a}
			indexes := filepath.Join(s.Dir, "indexes")
			s.check(errors.Join(os.MkdirAll(filepath.Join(indexes, a.Name), 0o755), os.Chown(filepath.Join(indexes, a.Name), a.UID, a.GID)))
			at := dovecottest.Location{Mail: mboxesOf(a).Mail + ":INDEX=" + filepath.Join(indexes, a.Name)}
			dump(t, at)
			s.migrated()
			d := dovecottest.Start(t, at)
			d.Try("SELECT INBOX")
			d.Close()
			want := dump(t, maildirOf(a))
			r, w := newTestRun(t, p, Rollback)
			r.Around = &inHold{do: func() error {
				if !hook {
					return nil
				}
				cmd := exec.Command("sh", "-c", strings.ReplaceAll(documentedHook(t), "/var/indexes", indexes))
				cmd.Env = append(os.Environ(), "MAILFERRY_USER="+a.Name, "MAILFERRY_RUN="+r.Journal.ID())
				return cmd.Run()
			}}
			finish(t, r, []account.Account{a})
			wentBack(t, p, w, a)
			if hook {
				sameBack(t, dump(t, at), want)
			} else if len(dovecottest.Diff(dump(t, at).imap, want.imap, "keywords")) == 0 {
				t.Error("UIDs stay without it: it is not needed")
			}
		})
	}
}

// documentedHook is the only script of docs/migrating.md that has to do with indexes.
func documentedHook(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, begins := strings.Cut(string(text), "    #!/bin/sh\n    case $MAILFERRY_RUN in")
	script, _, ends := strings.Cut(script, "\n\n")
	if !begins || !ends || !strings.Contains(script, "/var/indexes") {
		t.Fatalf("no such hook: %q", script)
	}
	return "case $MAILFERRY_RUN in" + script
}

// indexed is a user who was migrated, with an index that is made by hand.
type indexed struct {
	*stand
	rollback func() *told
	dir      string // of the index of INBOX
}

func indexedUser(t *testing.T) *indexed {
	t.Helper()
	s, rollback := backUser(t)
	x := &indexed{s, rollback, filepath.Join(s.a.Folders[0], ".imap", "INBOX")}
	for _, name := range indexFiles {
		x.put(filepath.Join(x.dir, name), name)
	}
	return x
}

// flippedNow says that the user was flipped behind all that was done.
func (x *indexed) flippedNow() {
	x.Helper()
	soak, err := journal.ReadSoak(x.site.State, x.a.Name)
	x.check(err)
	time.Sleep(2 * clockTick)
	soak.Flipped = time.Now().UTC()
	x.check(journal.WriteSoak(x.site.State, soak))
}

// files returns what lies in a directory.
func (x *indexed) files(dir string) map[string]string {
	x.Helper()
	all := map[string]string{}
	list, err := os.ReadDir(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		x.check(err)
	}
	for _, e := range list {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		all[e.Name()] = string(content)
		if err != nil {
			all[e.Name()] = err.Error()
		}
	}
	return all
}

func TestAnIndexOfTheOldPlaceGoesIfItWasChangedSinceTheFlip(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*indexed)
		goes   bool
	}{
		"not touched: stays": {func(*indexed) {}, false},
		"its log is longer: goes": {func(x *indexed) {
			x.put(filepath.Join(x.dir, "dovecot.index.log"), "longer")
		}, true},
		"made with an old mtime: goes": {func(x *indexed) {
			x.check(os.Chtimes(filepath.Join(x.dir, "dovecot.index"), time.Time{}, time.Unix(1e9, 0)))
		}, true},
		"half of it gone by a kill: goes": {func(x *indexed) {
			x.put(filepath.Join(x.dir, "dovecot.index.log"), "longer")
			x.remove(filepath.Join(x.dir, "dovecot.index"))
		}, true},
		"nobody knows when he was flipped: goes": {func(x *indexed) {
			soak, err := journal.ReadSoak(x.site.State, x.a.Name)
			for _, p := range soak.Parked { // nothing came to them since
				err = errors.Join(err, os.Chtimes(p.Path, time.Time{}, time.Unix(1e9, 0)))
			}
			x.check(errors.Join(err, journal.RemoveSoak(x.site.State, x.a.Name)))
		}, true},
		"only a file that is none of it is new: stays": {func(x *indexed) {
			x.put(filepath.Join(x.dir, "dovecot.index.pvt"), "flags")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := indexedUser(t)
			x.put(filepath.Join(x.dir, "dovecot.index.mine"), "no index")
			x.flippedNow()
			test.change(x)
			want := x.files(x.dir)
			if test.goes {
				for _, name := range indexFiles {
					delete(want, name)
				}
			}
			w := x.rollback()
			wentBack(t, x.place, w, x.a)
			if got := x.files(x.dir); !maps.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if text := w.users[x.a.Name].Text; strings.Contains(text, "index") {
				t.Error(text)
			}
		})
	}
}

// The index of an mbox of no bytes is the only place of its UIDVALIDITY.
func TestTheIndexOfAnEmptyMboxStays(t *testing.T) {
	p, a := servedPlace(t, 500)
	s := &stand{t, p, a}
	empty := filepath.Join(a.Folders[0], "empty")
	s.put(empty, "")
	before := dump(t, mboxesOf(a)).imap.Mailbox("empty").UIDValidity
	s.migrated()
	s.put(filepath.Join(a.Folders[0], ".imap", "empty", "dovecot.index.backup"), "")
	_, w := doRun(t, p, Rollback, a)
	wentBack(t, p, w, a)
	if info, err := os.Stat(empty); err != nil || info.Size() != 0 {
		t.Fatal(info, err)
	}
	if after := dump(t, mboxesOf(a)).imap.Mailbox("empty").UIDValidity; after != before {
		t.Errorf("UIDVALIDITY %d, want %d", after, before)
	}
}

// What is not Dovecot's work for this user stays, and he is told.
func TestAnOddIndexIsLeftAndTold(t *testing.T) {
	for name, make := range map[string]func(x *indexed, bait string){
		".imap is a symlink": func(x *indexed, bait string) {
			x.check(os.Rename(filepath.Dir(x.dir), bait))
			x.check(os.Symlink(bait, filepath.Dir(x.dir)))
		},
		"the directory of an mbox is a symlink": func(x *indexed, bait string) {
			x.check(errors.Join(os.Mkdir(bait, 0o755), os.Rename(x.dir, filepath.Join(bait, "INBOX"))))
			x.check(os.Symlink(filepath.Join(bait, "INBOX"), x.dir))
		},
		"a file is a symlink": func(x *indexed, bait string) {
			x.check(errors.Join(os.Mkdir(bait, 0o755), os.Mkdir(filepath.Join(bait, "INBOX"), 0o755)))
			log := filepath.Join(x.dir, "dovecot.index.log")
			x.check(os.Rename(log, filepath.Join(bait, "INBOX", "log")))
			x.check(os.Symlink(filepath.Join(bait, "INBOX", "log"), log))
		},
		"a file is a directory": func(x *indexed, _ string) {
			x.remove(filepath.Join(x.dir, "dovecot.index"))
			x.check(os.Mkdir(filepath.Join(x.dir, "dovecot.index"), 0o755))
		},
		"a file is another's": func(x *indexed, _ string) {
			x.check(os.Chown(filepath.Join(x.dir, "dovecot.index"), nobody+1, nobody))
		},
		"the user may not write there": func(x *indexed, _ string) {
			x.check(os.Chown(x.dir, 0, 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := indexedUser(t)
			bait := filepath.Join(x.Dir, "bait")
			make(x, bait)
			inside, outside := x.files(x.dir), x.files(filepath.Join(bait, "INBOX"))
			w := x.rollback()
			wentBack(t, x.place, w, x.a)
			if got := x.files(x.dir); !maps.Equal(got, inside) {
				t.Errorf("in the place of the index: got %q, want %q", got, inside)
			}
			if got := x.files(filepath.Join(bait, "INBOX")); !maps.Equal(got, outside) {
				t.Errorf("outside: got %q, want %q", got, outside)
			}
			if text := w.users[x.a.Name].Text; !strings.Contains(text, "Dovecot's index of INBOX stays") {
				t.Error(text)
			}
		})
	}
}
