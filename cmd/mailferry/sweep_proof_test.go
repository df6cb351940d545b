//go:build linux && amd64

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/stepper"
	"mailferry/semaphore"
)

// The sweeps are worth what their accounting notices: damage of every kind that
// they are to find is done by hand here, to what a run has left in good order.
func TestTheAccountingNoticesDamage(t *testing.T) {
	w := newSweep(t)
	for _, test := range []struct {
		name   string
		damage func(*testing.T, *sweepSite) error
		want   string
	}{
		{"none", func(*testing.T, *sweepSite) error { return nil }, ""},
		{"a message is gone", func(t *testing.T, s *sweepSite) error { return os.Remove(s.message(t)) }, " 0 times"},
		{"a message is there twice", func(t *testing.T, s *sweepSite) error {
			return os.Link(s.message(t), filepath.Join(s.Users[0].Home, "Maildir", "new", "1.2.3"))
		}, " 2 times"},
		{"a message is in another folder", func(t *testing.T, s *sweepSite) error {
			return os.Rename(s.message(t), filepath.Join(s.Users[0].Home, "Maildir", ".Sent", "cur", "1.2.3"))
		}, "was not before"},
		{"a message has another byte", func(t *testing.T, s *sweepSite) error {
			return rewrite(s.message(t), func(b []byte) []byte { b[0] ^= 1; return b })
		}, "other content"},
		{"a message is cut", func(t *testing.T, s *sweepSite) error {
			return rewrite(s.message(t), func(b []byte) []byte { return b[:len(b)-1] })
		}, "other content"},
		{"a message has another flag", func(t *testing.T, s *sweepSite) error {
			base, flags, _ := strings.Cut(s.message(t), ":2,")
			if strings.Contains(flags, "T") {
				return os.Rename(base+":2,"+flags, base+":2,"+strings.ReplaceAll(flags, "T", ""))
			}
			return os.Rename(base+":2,"+flags, base+":2,"+flags+"T")
		}, "flags and keywords"},
		{"a message has another date", func(t *testing.T, s *sweepSite) error {
			return os.Chtimes(s.message(t), time.Time{}, time.Unix(1e9, 0))
		}, "date"},
		{"a subscription is gone", func(_ *testing.T, s *sweepSite) error {
			return os.Remove(filepath.Join(s.Users[0].Home, "Maildir", "subscriptions"))
		}, "subscription"},
		{"a message was never finished", func(t *testing.T, s *sweepSite) error {
			return os.WriteFile(filepath.Join(s.Users[0].Home, "Maildir", "tmp", "1.2.3"), nil, 0o600)
		}, "was not before"},
		{"UIDs are other ones", func(_ *testing.T, s *sweepSite) error {
			return rewrite(filepath.Join(s.Users[0].Home, "Maildir", "dovecot-uidlist"), func(b []byte) []byte {
				header, lines, _ := bytes.Cut(b, []byte("\n"))
				return slices.Concat(header, []byte("\n9"), lines)
			})
		}, ": UID 9"},
		{"UIDVALIDITY is another one", func(_ *testing.T, s *sweepSite) error {
			return rewrite(filepath.Join(s.Users[0].Home, "Maildir", "dovecot-uidlist"), func(b []byte) []byte {
				return bytes.Replace(b, []byte("3 V1"), []byte("3 V2"), 1)
			})
		}, "dovecot-uidlist begins with"},
		{"the UIDs are gone", func(_ *testing.T, s *sweepSite) error {
			return os.Remove(filepath.Join(s.Users[0].Home, "Maildir", "dovecot-uidlist"))
		}, "dovecot-uidlist"},
		{"a folder came up", func(_ *testing.T, s *sweepSite) error {
			return os.MkdirAll(filepath.Join(s.Users[0].Home, "Maildir", ".New", "cur"), 0o700)
		}, "folder of no mailbox"},
		{"the Maildir is gone", func(_ *testing.T, s *sweepSite) error {
			return os.RemoveAll(filepath.Join(s.Users[2].Home, "Maildir"))
		}, "no such file"},
		{"somebody is held", func(t *testing.T, s *sweepSite) error {
			sem := s.semaphore(t, "alice0")
			meta, err := sem.Meta()
			return errors.Join(err, sem.Hold(semaphore.Meta{Epoch: meta.Epoch + 1, Deadline: time.Now().Add(time.Hour)}))
		}, "the semaphore says hold"},
		{"a mirror says something else", func(_ *testing.T, s *sweepSite) error {
			return os.WriteFile(filepath.Join(s.Users[0].Home, ".mailstate"), []byte(semaphore.Mbox.Line()), 0o644)
		}, "the mirror says"},
		{"a parked mbox was changed", func(_ *testing.T, s *sweepSite) error {
			return rewrite(s.parked(0), func(b []byte) []byte { b[len(b)-2] ^= 1; return b })
		}, "other content"},
		{"a parked mbox is gone", func(_ *testing.T, s *sweepSite) error { return os.Remove(s.parked(0)) }, "is gone"},
		{"an mbox is not parked", func(_ *testing.T, s *sweepSite) error { return os.Rename(s.parked(0), s.Users[0].Spool) }, "is not parked"},
		{"a dotlock is left", func(_ *testing.T, s *sweepSite) error { return os.WriteFile(s.Users[0].Spool+".lock", nil, 0o644) }, "left: spool/alice0.lock"},
		{"a gate is left", func(_ *testing.T, s *sweepSite) error {
			return os.WriteFile(filepath.Join(s.Users[0].Home, ".mailstate.lock"), nil, 0o644)
		}, "left: home/alice0/.mailstate.lock"},
		{"a staging is left", func(_ *testing.T, s *sweepSite) error {
			return os.Mkdir(filepath.Join(s.Users[0].Home, ".Maildir.mailferry-0123456789abcdef"), 0o700)
		}, "left: home/alice0/.Maildir"},
		{"a list of ours is left", func(_ *testing.T, s *sweepSite) error {
			return os.WriteFile(filepath.Join(s.Users[0].Home, "Maildir", "mailferry-manifest"), nil, 0o600)
		}, "left: home/alice0/Maildir/mailferry-manifest"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := w.site(t)
			s.migrated(t, exitDone, "migrate")
			if err := test.damage(t, s); err != nil {
				t.Fatal(err)
			}
			wrong := s.account(t, ended)
			if test.want == "" && len(wrong) > 0 || test.want != "" && !strings.Contains(strings.Join(wrong, "\n"), test.want) {
				t.Errorf("told %q, want %q", wrong, test.want)
			}
		})
	}
}

// message is the first of alice's INBOX.
func (s *sweepSite) message(t *testing.T) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(s.Users[0].Home, "Maildir", "cur", "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("%q, %v", list, err)
	}
	return list[0]
}

func (s *sweepSite) parked(user int) string {
	list, _ := filepath.Glob(s.Users[user].Spool + ".mailferry-*") // a good pattern
	return append(list, "none")[0]
}

func rewrite(path string, edit func([]byte) []byte) error {
	content, err := os.ReadFile(path)
	return errors.Join(err, os.WriteFile(path, edit(content), 0o600))
}

// A run that forgot one of the calls on which all depends is noticed by what a
// sweep looks at behind it. A forgotten fsync is not: that takes a disk that
// loses power.
func TestTheAccountingNoticesForgottenCalls(t *testing.T) {
	w := newSweep(t)
	calls := w.calls(t)
	for _, test := range []struct {
		name  string
		call  string
		path  string // of the last of its files
		want  string
		after moment
	}{
		{"publish", "renameat2", "home/bob1/Maildir", "no such file", afterFault},
		{"flip", "renameat", "semaphores/alice0", "the semaphore says hold", afterFault},
		{"mirror", "renameat", "home/alice0/.mailstate", "the mirror says", ended},
		{"release of a dotlock", "unlinkat", "spool/alice0.lock", "left: spool/alice0.lock", ended},
		{"release of the gate", "unlinkat", "home/alice0/.mailstate.lock", "left: home/alice0/.mailstate.lock", ended},
		{"parking", "renameat2", "spool/bob1.mailferry-", "is not parked", ended},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := 0
			for i, c := range calls {
				if c.Name == test.call && strings.HasPrefix(c.Paths[len(c.Paths)-1], test.path) {
					at = i + 1 // the last such
				}
			}
			s := w.site(t)
			r, _ := w.step(t, s, stepper.Options{At: at, Do: stepper.Lie})
			if wrong := s.account(t, test.after); !r.Reached || !strings.Contains(strings.Join(wrong, "\n"), test.want) {
				t.Errorf("at %d: told %q, want %q", at, wrong, test.want)
			}
		})
	}
}
