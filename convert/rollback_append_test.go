package convert

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/account"
	"mailferry/internal/dovecottest"
	"mailferry/internal/journal"
	"mailferry/internal/mailgen"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// What changes between the last look before a hold and the hold comes back as Dovecot
// shows it in the Maildir; if it is only mail, it is appended to what was built.
func TestWhatChangesJustBeforeTheHold(t *testing.T) {
	arrives := func(n int) func(*stand) {
		return func(s *stand) {
			for i := range n {
				s.put(s.inMaildir("new", fmt.Sprintf("18000000%02d.M1P1.h", i)), fmt.Sprintf("Return-Path: <x@example.org>\nSubject: %d\n\nFrom here on\n\nFrom a@b Mon Jan  2 03:04:05 2023\n", i))
			}
		}
	}
	imap := func(commands ...string) func(*stand) {
		return func(s *stand) {
			c := dovecottest.Start(s.T, maildirOf(s.a))
			defer c.Close()
			c.Command("SELECT INBOX")
			for _, command := range commands {
				c.Command("%s", command)
			}
		}
	}
	for name, c := range map[string]struct {
		since, before []func(*stand)
		appended      bool
	}{
		"one message":                       {nil, []func(*stand){arrives(1)}, true},
		"three messages":                    {nil, []func(*stand){arrives(3)}, true},
		"three that Dovecot has numbered":   {nil, []func(*stand){arrives(3), imap()}, true},
		"one that was read and flagged":     {nil, []func(*stand){arrives(1), imap(`STORE * +FLAGS (\Seen \Flagged)`)}, true},
		"one with a keyword":                {nil, []func(*stand){arrives(1), imap(`STORE * +FLAGS ($Label1)`)}, false},
		"one, and a flag on another":        {nil, []func(*stand){arrives(1), imap(`STORE 3 +FLAGS (\Answered)`)}, false},
		"one, and another expunged":         {nil, []func(*stand){arrives(1), imap(`STORE 3 +FLAGS (\Deleted)`, "EXPUNGE")}, false},
		"two, of which the first is gone":   {nil, []func(*stand){arrives(2), imap(`STORE 61 +FLAGS (\Deleted)`, "EXPUNGE")}, false},
		"one that came and went":            {nil, []func(*stand){arrives(1), imap(`STORE * +FLAGS (\Deleted)`, "EXPUNGE")}, false},
		"one that replaces another":         {nil, []func(*stand){func(s *stand) { s.rewrite(s.first()) }}, false},
		"one, and one that is replaced":     {nil, []func(*stand){arrives(1), func(s *stand) { s.rewrite(s.first()) }}, false},
		"one behind others that came since": {[]func(*stand){imap(`APPEND INBOX {3+}` + "\r\nx\r\n"), imap(`STORE 2 +FLAGS ($Label2)`)}, []func(*stand){arrives(2)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if _, err := mailgen.Generate(&b, mailgen.Options{Seed: 5, Messages: 60, State: true}); err != nil {
				t.Fatal(err)
			}
			p, a := servedPlaceWith(t, b.Bytes())
			s := &stand{t, p, a}
			_, w := doRun(t, p, Migrate, a)
			w.mustBe(t, a.Name, journal.Done, "")
			imap()(s)
			for _, do := range c.since {
				do(s)
			}
			var built []byte
			w = s.rollbackBehind(func() {
				record, err := journal.ReadRollback(p.site.State, a.Name)
				s.check(err)
				built, err = os.ReadFile(filepath.Join(filepath.Dir(a.Spool), record.Files[0].Temp))
				s.check(err)
				for _, do := range c.before {
					do(s)
				}
			})
			wentBack(t, p, w, a)
			now, err := os.ReadFile(a.Spool) // before Dovecot writes UIDs to it
			s.check(err)
			soak := s.soak()
			aside := dovecottest.Location{Mail: "maildir:" + soak.Aside[len(soak.Aside)-1].Path}
			sameBack(t, dump(t, mboxesOf(a)), dump(t, aside))
			if appended := len(built) > 0 && len(now) > len(built) && bytes.HasPrefix(now, built); appended != c.appended {
				t.Errorf("appended: %t; %s", appended, w.users[a.Name].Text)
			}
		})
	}
}

// rewrite puts another message in the place of one, under its name and with its times.
func (s *stand) rewrite(path string) {
	s.Helper()
	info, err := os.Stat(path)
	s.check(err)
	text, err := os.ReadFile(path)
	s.check(err)
	tmp := s.inMaildir("tmp", "other")
	s.put(tmp, strings.ToUpper(string(text)))
	s.check(errors.Join(os.Chtimes(tmp, info.ModTime(), info.ModTime()), os.Rename(tmp, path)))
}

// Until somebody has looked, the UIDs that a conversion gave bind nobody, and the mbox is
// that which was parked; from then on they have to stay.
func TestUIDsStayThatWereFirstSeenJustBeforeTheHold(t *testing.T) {
	for name, came := range map[string]bool{"and mail came": true, "and nothing else": false} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if _, err := mailgen.Generate(&b, mailgen.Options{Seed: 5, Messages: 60}); err != nil {
				t.Fatal(err)
			}
			p, a := servedPlaceWith(t, b.Bytes())
			s := &stand{t, p, a}
			_, w := doRun(t, p, Migrate, a)
			w.mustBe(t, a.Name, journal.Done, "")
			var before served
			w = s.rollbackBehind(func() {
				if came {
					s.put(s.inMaildir("new", "1800000000.M1P1.h"), "Subject: late\n\nlate\n")
				}
				before = dump(t, maildirOf(a))
			})
			wentBack(t, p, w, a)
			sameBack(t, dump(t, mboxesOf(a)), before)
		})
	}
}

// rollbackBehind does something behind the last look before the hold.
func (s *stand) rollbackBehind(do func()) *told {
	s.Helper()
	r, w := newTestRun(s.T, s.place, Rollback)
	r.Around = &around{inHold: inHold{do: func() error { return nil }}, before: do}
	finish(s.T, r, []account.Account{s.a})
	s.check(r.Journal.Close())
	return w
}

// Whatever the end of an mbox looks like, to whatever server: a message that comes last is
// there, and those before it are what they were.
func TestMailIsAppendedToMboxesWithEveryOddity(t *testing.T) {
	for name, o := range map[string]mailgen.Options{
		"plain":                    {},
		"all oddities, with state": {Odd: mailgen.AllOdd | mailgen.PseudoMessage, State: true, Fresh: 2},
		"CRLF file":                {Odd: mailgen.AllOdd | mailgen.CRLFFile},
		"no final newline":         {Odd: mailgen.AllOdd | mailgen.NoFinalNewline, State: true},
	} {
		for _, profile := range mbox.ProfileNames() {
			t.Run(name+", "+profile, func(t *testing.T) {
				o.Seed, o.Messages = 78, 40
				var b bytes.Buffer
				if _, err := mailgen.Generate(&b, o); err != nil {
					t.Fatal(err)
				}
				p, a := servedPlaceWith(t, b.Bytes())
				s := &stand{t, p, a}
				var err error
				p.site.Scan.Profile, err = mbox.ProfileByName(profile)
				s.check(err)
				_, w := doRun(t, p, Migrate, a)
				if w.users[a.Name].Outcome != journal.Done {
					return // the profile reads no mailbox there
				}
				before := contentsOf(t, p.site, a.Spool+".mailferry-*")
				w = s.rollbackBehind(func() { s.put(s.inMaildir("new", "1800000000.M1P1.h"), "Subject: late\n\nand last\n") })
				wentBack(t, p, w, a)
				got, want := contentsOf(t, p.site, a.Spool), append(before, "Subject: late\n\nand last\n")
				other := 0
				for i, text := range want {
					if i < len(got) && got[i] != text {
						other++
					}
				}
				told := w.users[a.Name].Text
				if len(got) != len(want) || other > 1 || other == 1 && !strings.Contains(told, "1 messages of INBOX, from the Maildir, hold header fields or lines that an mbox can't give back") {
					t.Errorf("%d messages, not %d, of which %d are others; %s", len(got), len(want), other, told)
				}
			})
		}
	}
}

// contentsOf are the messages of the mbox at the one path that fits.
func contentsOf(t *testing.T, site Site, pattern string) (list []string) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := mbox.NewScanner(bytes.NewReader(content), int64(len(content)), site.Scan)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	track := mbox.NewTracker(s)
	for {
		e, err := s.Next()
		if err != nil {
			return list
		}
		var text bytes.Buffer
		if err := s.WriteContent(&text); err != nil {
			t.Fatal(err)
		}
		if !track.State(e).Pseudo {
			list = append(list, text.String())
		}
	}
}

// A message that finds no room in the hold undoes it: the user is on his Maildir, and
// nothing of the mboxes is left.
func TestALateMessageWithoutRoomUndoesTheHold(t *testing.T) {
	var b bytes.Buffer
	if _, err := mailgen.Generate(&b, mailgen.Options{Seed: 5, Messages: 60, State: true}); err != nil {
		t.Fatal(err)
	}
	p, a := servedPlaceWith(t, nil)
	spool := filepath.Join(p.Dir, "small")
	a.Spool = filepath.Join(spool, "nobody")
	s := &stand{t, p, a}
	size := fmt.Sprintf("size=%d,mode=0777", 3*b.Len())
	s.check(errors.Join(os.Mkdir(spool, 0o755), unix.Mount("none", spool, "tmpfs", 0, size)))
	t.Cleanup(func() { unix.Unmount(spool, unix.MNT_DETACH) })
	s.check(os.Chown(spool, nobody, nobody))
	s.put(a.Spool, b.String())
	_, w := doRun(t, p, Migrate, a)
	w.mustBe(t, a.Name, journal.Done, "")
	late := s.inMaildir("new", "1800000000.M1P1.h")
	w = s.rollbackBehind(func() { s.put(late, strings.Repeat("late\n", b.Len())) })
	if u := w.users[a.Name]; u.Outcome != journal.Failed || !strings.Contains(u.Text, "no space left") {
		t.Errorf("%s, %s: %s", u.Outcome, u.Reason, u.Text)
	}
	if authority, mirror := stateOf(t, a); authority != semaphore.Maildir || mirror != semaphore.Maildir {
		t.Errorf("semaphore %s, mirror %s", authority, mirror)
	}
	if !exists(t, late) || exists(t, a.Spool) || len(leavings(t, p)) > 0 {
		t.Errorf("left %q; the message is there: %t, an mbox: %t", leavings(t, p), exists(t, late), exists(t, a.Spool))
	}
	s.remove(late)
	_, w = doRun(t, p, Rollback, a)
	wentBack(t, p, w, a)
}
