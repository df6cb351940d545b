package convert

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
)

var zones = []string{"UTC", "America/New_York", "Europe/Berlin"}

// generated writes a mailbox of mailgen into a directory of its own.
func generated(t *testing.T, o mailgen.Options) (path string, messages []mailgen.Message) {
	t.Helper()
	o.Size = func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(60000/o.Messages) }
	o.Each = func(m mailgen.Message) { messages = append(messages, m) }
	var b bytes.Buffer
	if _, err := mailgen.Generate(&b, o); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "inbox"), b.String()), messages
}

// untouched converts a mailbox that no server has opened, and compares with
// what Dovecot shows of a copy.
func untouched(t *testing.T, path, zone string) (*Report, served, served) {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, path, "dovecot")
	o.Scan.Zone = loc
	r := mustConvert(t, o)
	copied := copyOf(t, path)
	root := filepath.Join(filepath.Dir(copied), "mail")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	dovecottest.Own(t, filepath.Dir(copied))
	mail := dovecottest.Location{Mail: "mbox:" + root + ":INBOX=" + copied, TZ: zone}
	want := served{imap: dovecottest.DumpIMAP(t, mail), pop3: dovecottest.DumpPOP3(t, mail)}
	return r, serveMaildir(t, o.Dest, zone), want
}

// shapes are the kinds of mailboxes that servers leave behind.
var shapes = []struct {
	name string
	o    mailgen.Options
}{
	{"all state", mailgen.Options{State: true}},
	{"with new mail", mailgen.Options{State: true, Fresh: 4}},
	{"after a pseudo message", mailgen.Options{State: true, Odd: mailgen.PseudoMessage}},
	{"all that is odd about messages", mailgen.Options{State: true, Fresh: 2, Odd: mailgen.AllOdd}},
	{"CRLF lines", mailgen.Options{State: true, Odd: mailgen.CRLFFile}},
	{"no final newline", mailgen.Options{State: true, Odd: mailgen.NoFinalNewline}},
	{"no final newline, CRLF lines", mailgen.Options{State: true, Odd: mailgen.NoFinalNewline | mailgen.CRLFFile}},
	{"CRs and NULs", mailgen.Options{State: true, Odd: mailgen.BodyCR | mailgen.NUL | mailgen.CRLF}},
	{"mboxo", mailgen.Options{State: true, Dialects: []mailgen.Dialect{mailgen.Mboxo}}},
	{"mboxrd", mailgen.Options{State: true, Dialects: []mailgen.Dialect{mailgen.Mboxrd}}},
	{"mboxcl2", mailgen.Options{State: true, Dialects: []mailgen.Dialect{mailgen.Mboxcl2}, Odd: mailgen.Prose}},
}

// What is in the file goes over as it is, before any server has settled it.
func TestUntouchedStateIsServedAlike(t *testing.T) {
	for i, shape := range shapes {
		for seed := range uint64(3) {
			zone := zones[(i+int(seed))%len(zones)]
			t.Run(fmt.Sprintf("%s, seed %d, %s", shape.name, seed, zone), func(t *testing.T) {
				o := shape.o
				o.Seed, o.Messages = 1000*seed+uint64(i), 12
				path, messages := generated(t, o)
				r, got, want := untouched(t, path, zone)
				if r.Messages != len(messages) {
					t.Errorf("%d messages, %d were made", r.Messages, len(messages))
				}
				compare(t, got, want)
			})
		}
	}
}

// What a server has settled goes over too, from mailboxes without state.
func TestSettledStateIsServedAlike(t *testing.T) {
	for i, shape := range shapes {
		zone := zones[i%len(zones)]
		t.Run(shape.name+", "+zone, func(t *testing.T) {
			o := shape.o
			o.Seed, o.Messages, o.State, o.Fresh = 77+uint64(i), 8, false, 0
			o.Odd &^= mailgen.PseudoMessage
			path, _ := generated(t, o)
			if _, refused := sameToClients(t, path, zone); refused != "" {
				t.Error(refused)
			}
		})
	}
}

// oddDates are From_ lines that Dovecot takes, and whose dates it computes in
// its own ways.
var oddDates = []string{
	"From a@b Mon Jan  2 03:04:05 2023",
	"From a@b Mon Jan  2 03:04:05 2023 +0530",
	"From a@b Mon Jan  2 03:04:05 2023 -0330",
	"From a@b Mon Jan  2 03:04:05 -0700 2023",
	"From a@b Mon Jan  2 03:04:05 PST 2023",
	"From a@b Mon Jan  2 03:04:05 2023 MET",
	"From a@b Mon, 2 Jan 2023 03:04:05 -0700",
	"From a@b Mon, 02 Jan 2023 03:04 +0100",
	"From a@b Jan  2 03:04 2023",
	"From a@b Mon Jan 2 03:04 2023",
	"From  Mon Jan  2 03:04:05 2023",
	`From "a b"@c Mon Jan  2 03:04:05 2023 remote from zz`,
	"From a@b Xyz jAN  2 03:04:05 2023",
	"From a@b Sun Mar 12 02:30:00 2023", // does not exist in New York
	"From a@b Sun Mar 26 02:30:00 2023", // does not exist in Berlin
	// Of an hour that comes twice Dovecot takes the one whose offset it computed
	// with last: so these stand behind summer dates.
	"From a@b Fri Jul  1 12:00:00 2022",
	"From a@b Sun Nov  5 01:30:00 2023", // twice in New York
	"From a@b Fri Jul  1 12:00:00 2022",
	"From a@b Sun Oct 29 02:30:00 2023", // twice in Berlin
	"From a@b Wed Feb 29 23:59:60 2023",
	"From a@b Fri Jan  2 00:00:00 1970",
	"From a@b Tue Jan 19 03:14:08 2038",
	"From a@b Sat Feb  6 06:28:14 2106",
}

func TestOddDatesAreServedAlike(t *testing.T) {
	for _, zone := range zones {
		t.Run(zone, func(t *testing.T) {
			var b strings.Builder
			for i, line := range oddDates {
				fmt.Fprintf(&b, "%s\nSubject: %d\n\n%s\n\n", line, i, line[1:])
			}
			sameToClients(t, writeFile(t, filepath.Join(t.TempDir(), "inbox"), b.String()), zone)
		})
	}
}

// Before 1970 Dovecot shows what the From_ line says at the first open of an
// mbox, and from then on, out of its cache of unsigned seconds, 2106. The
// Maildir has what clients have been shown ever since.
func TestDatesBefore1970AreThoseOfTheCache(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "inbox"), "From a@b Wed Dec 31 12:00:00 1969\nSubject: old\n\nbody\n\n")
	o := options(t, path, "dovecot")
	o.Scan.Zone = time.UTC
	mustConvert(t, o)
	got := serveMaildir(t, o.Dest, "UTC").imap.Mailbox("INBOX").Messages[0].InternalDate
	if got.Unix() != 1<<32-12*3600 {
		t.Errorf("Dovecot shows %v", got)
	}
}

// A Maildir has letters for 26 keywords. They go to the most used ones; the
// report says how to put the others into Dovecot's index.
func TestKeywordsBeyondTheLettersAreReported(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			path, messages := generated(t, mailgen.Options{Seed: seed, Messages: 300, State: true, Keywords: 34})
			r, got, want := untouched(t, path, "UTC")
			uses := map[string]int{}
			uids := map[string][]uint32{}
			for _, m := range messages {
				for _, k := range m.Keywords {
					uses[k]++
					uids[k] = append(uids[k], m.UID)
				}
			}
			left := map[string]string{}
			for _, k := range r.Mailboxes[0].Left {
				left[k.Keyword] = k.UIDs
				if set := expand(t, k.UIDs); !slices.Equal(set, uids[k.Keyword]) {
					t.Errorf("%s: UIDs %s, want %v", k.Keyword, k.UIDs, uids[k.Keyword])
				}
			}
			if len(uses) <= 26 || len(uses)-len(left) > 26 {
				t.Errorf("%d keywords are used, %d are left over", len(uses), len(left))
			}
			for k, n := range uses {
				for l := range left {
					if _, alsoLeft := left[k]; !alsoLeft && n < uses[l] {
						t.Errorf("%s of %d messages has a letter, %s of %d has none", k, n, l, uses[l])
					}
				}
			}
			for i := range want.imap.Mailboxes[0].Messages {
				m := &want.imap.Mailboxes[0].Messages[i]
				m.Flags = slices.DeleteFunc(m.Flags, func(f string) bool { _, ok := left[f]; return ok })
			}
			compare(t, got, want)
		})
	}
}

// expand reads an IMAP set.
func expand(t *testing.T, set string) (uids []uint32) {
	t.Helper()
	for part := range strings.SplitSeq(set, ",") {
		var from, to uint32
		if n, _ := fmt.Sscanf(part, "%d:%d", &from, &to); n == 1 {
			to = from
		} else if n == 0 || to <= from {
			t.Fatalf("set %q", set)
		}
		for ; from <= to; from++ {
			uids = append(uids, from)
		}
	}
	return uids
}

// The commands of the report put the rest of the keywords where they were.
func TestLeftOverKeywordsCanBeAdded(t *testing.T) {
	path, _ := generated(t, mailgen.Options{Seed: 5, Messages: 300, State: true, Keywords: 34})
	o := options(t, path, "dovecot")
	o.Scan.Zone = time.UTC
	r := mustConvert(t, o)
	_, _, want := untouched(t, path, "UTC")
	dovecottest.Own(t, o.Dest)
	loc := dovecottest.Location{Mail: "maildir:" + o.Dest}
	if len(r.Mailboxes[0].Left) == 0 {
		t.Fatal("none is left over")
	}
	for _, k := range r.Mailboxes[0].Left {
		dovecottest.Doveadm(t, loc, "flags", "add", k.Keyword, "mailbox", "INBOX", "uid", k.UIDs)
	}
	compare(t, served{imap: dovecottest.DumpIMAP(t, loc), pop3: dovecottest.DumpPOP3(t, loc)}, want)
	for _, d := range verified(t, o) {
		t.Error("verify:", d)
	}
}

// UIDs that the rules refuse are given anew, as Dovecot gives them.
func TestDoubtfulUIDsAreServedAlike(t *testing.T) {
	for _, tt := range []struct {
		name, base string
		uids       []string
	}{
		{"falling, too high and absent", "1600000000 0000000100 a b", []string{"10", "50", "40", "99999", ""}},
		{"twice", "1600000000 0000000100", []string{"10", "10", "11"}},
		{"without X-IMAPbase", "", []string{"10", "11", "12"}},
		{"the next ones after the last UID", "1600000000 0000000010", []string{"10", "11", "12"}},
		// One that is the next UID by chance after Dovecot's first pass is taken
		// by its second, 10 13 14 for example: nobody has seen those UIDs yet.
		{"far beyond the last UID", "1600000000 0000000010", []string{"10", "20", "30"}},
		{"no number", "1600000000 0000000010", []string{"1", "2x", "-3", "4 "}},
		{"holes up to the end", "1600000000 4294967000", []string{"1", "70000", "4294966000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			for i, uid := range tt.uids {
				fmt.Fprintf(&b, "From a@b Mon Jan  2 03:04:%02d 2023\n", i)
				if i == 0 && tt.base != "" {
					fmt.Fprintf(&b, "X-IMAPbase: %s\n", tt.base)
				}
				if uid != "" {
					fmt.Fprintf(&b, "X-UID: %s\n", uid)
				}
				fmt.Fprintf(&b, "Status: RO\nSubject: %d\n\nbody\n\n", i)
			}
			path := writeFile(t, filepath.Join(t.TempDir(), "inbox"), b.String())
			if tt.base == "" {
				sameToClients(t, path, "UTC")
				return
			}
			_, got, want := untouched(t, path, "UTC")
			compare(t, got, want)
		})
	}
}

// An mbox whose messages were all expunged keeps its state.
func TestAnEmptyMailboxKeepsItsUIDs(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "inbox"), "From MAILER_DAEMON Mon Jan  2 03:04:05 2023\nDate: Mon, 02 Jan 2023 03:04:05 +0000\n"+
		"From: Mail System Internal Data <MAILER-DAEMON@host>\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n"+
		"Message-ID: <1@host>\nX-IMAP: 1600000000 0000000042 $Forwarded\nStatus: RO\n\nThis text is part of the internal format of your mail folder.\n\n")
	_, got, want := untouched(t, path, "UTC")
	compare(t, got, want)
	box := got.imap.Mailbox("INBOX")
	if box.UIDValidity != 1600000000 || box.UIDNext != 43 || len(box.Messages) != 0 {
		t.Errorf("%+v", box)
	}
}

// A mailbox that changes while it is read is busy, and nothing is made of it.
func TestAChangingMailboxIsBusy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*os.File) error
	}{
		{"grows", func(f *os.File) error {
			_, err := f.Seek(0, io.SeekEnd)
			_, werr := f.WriteString("x")
			return errors.Join(err, werr)
		}},
		{"shrinks", func(f *os.File) error { return f.Truncate(5000) }},
		{"is written to", func(f *os.File) error { _, err := f.WriteAt([]byte("f"), 5000); return err }},
		{"is replaced", func(f *os.File) error { return os.Rename(writeFile(t, f.Name()+".new", "From"), f.Name()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			if _, err := mailgen.Fixed(&b, 1, 200, 30000); err != nil { // more than the scanner holds
				t.Fatal(err)
			}
			o := options(t, writeFile(t, filepath.Join(t.TempDir(), "inbox"), b.String()), "careful")
			long := time.Unix(1600000000, 0)
			if err := os.Chtimes(o.Source, long, long); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(o.Source, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var once sync.Once
			o.Progress = func(int64) {
				once.Do(func() {
					if err := tt.change(f); err != nil {
						t.Error(err)
					}
				})
			}
			_, err = Convert(t.Context(), o)
			var busy *Busy
			if !errors.As(err, &busy) || busy.Path != o.Source {
				t.Errorf("%v", err)
			}
			if left, err := os.ReadDir(filepath.Dir(o.Dest)); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
