package mbox

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/dovecottest"
	"mailferry/internal/mailgen"
)

var flagNames = map[Flags]string{Seen: `\Seen`, Answered: `\Answered`, Flagged: `\Flagged`, Draft: `\Draft`, Deleted: `\Deleted`}

// served is what Dovecot shows of an mbox, by IMAP and by POP3.
func served(t *testing.T, mbox string) (*dovecottest.Dump, []dovecottest.POP3Message) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "inbox"), []byte(mbox), 0o600); err != nil {
		t.Fatal(err)
	}
	dovecottest.Own(t, dir)
	loc := dovecottest.Location{Mail: fmt.Sprintf("mbox:%s/mail:INBOX=%s/inbox", dir, dir)}
	return dovecottest.DumpIMAP(t, loc), dovecottest.DumpPOP3(t, loc)
}

// TestDovecotShowsCopiesAsTheBase: of what Dovecot shows of the base, messages
// are gone, some have other flags and keywords, and new ones have come.
func TestDovecotShowsCopiesAsTheBase(t *testing.T) {
	for _, tt := range []struct {
		name     string
		gone     []int
		odd      mailgen.Odd
		fresh    int
		unserved bool // no server has seen the base
	}{
		{name: "from the middle", gone: []int{1}, odd: mailgen.AllOdd},
		{name: "the first, which has X-IMAPbase", gone: []int{0}, odd: mailgen.AllOdd},
		{name: "the first three and the last", gone: []int{0, 1, 2, 19}, odd: mailgen.NoBlankLine | mailgen.NoFinalNewline},
		{name: "none, no final newline", odd: mailgen.AllOdd | mailgen.NoFinalNewline},
		{name: "pseudo message", gone: []int{3}, odd: mailgen.AllOdd | mailgen.PseudoMessage},
		{name: "messages that Dovecot has not numbered yet", gone: []int{4}, odd: mailgen.AllOdd, fresh: 6},
		{name: "one of those", gone: []int{17}, odd: mailgen.AllOdd, fresh: 6},
		{name: "nothing is numbered", gone: []int{0, 5}, odd: mailgen.AllOdd, unserved: true},
		{name: "CRLF file", gone: []int{0, 7}, odd: mailgen.CRLFFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var base bytes.Buffer
			made, n := mailgen.Options{Seed: 11, Messages: 20, Odd: tt.odd, State: !tt.unserved, Fresh: tt.fresh, Size: func(r *rand.Rand) int { return mailgen.MinSize + r.IntN(9000) }}, -1
			if _, err := mailgen.Generate(&base, made); err != nil {
				t.Fatal(err)
			}
			is := numbers(t, base.String(), Dovecot)
			o := WriterOptions{Profile: Dovecot, Zone: time.UTC, UIDValidity: is.UIDValidity(), NextUID: is.NextUID() + 2, Keywords: append(slices.Clone(is.Keywords()), "$new")}
			if tt.unserved {
				o.UIDValidity = 1234567
			}
			want, wantPOP3 := served(t, base.String())
			box := want.Mailbox("INBOX")
			box.UIDValidity, box.UIDNext, box.Keywords = o.UIDValidity, o.NextUID, append(box.Keywords, "$new")
			slices.Sort(box.Keywords)
			var messages []dovecottest.Message
			var pop3 []dovecottest.POP3Message
			fates := func(int) fate {
				return func(s State) *State {
					if s.Pseudo {
						return &s
					}
					n++
					if slices.Contains(tt.gone, n) {
						return nil
					}
					m := box.Messages[n]
					if n%4 == 2 {
						s.Flags, s.Keywords = s.Flags^Flagged|Answered, append(s.Keywords, "$new")
						m.Flags = slices.Clone(s.Keywords)
						for f, name := range flagNames {
							if s.Flags&f != 0 {
								m.Flags = append(m.Flags, name)
							}
						}
						slices.Sort(m.Flags)
					}
					messages, pop3 = append(messages, m), append(pop3, wantPOP3[n])
					return &s
				}
			}
			var more []Outgoing
			for i, content := range []string{"Subject: new\n\n\n" + look + "\nA: b\n", "Subject: newer\n\nx"} {
				out := outgoing(stored{from: look, content: content})
				out.State = &State{UID: is.NextUID() + uint32(i), Flags: Seen | Old}
				more = append(more, out)
			}
			mbox, _, _ := copiedMbox(t, base.String(), o, fates, more...)
			got, gotPOP3 := served(t, mbox)
			inbox := got.Mailbox("INBOX")
			if len(inbox.Messages) != len(messages)+2 || len(gotPOP3) != len(messages)+2 {
				t.Fatalf("%d messages by IMAP, %d by POP3, want %d and two: %s", len(inbox.Messages), len(gotPOP3), len(messages), inbox.Error)
			}
			for i, m := range inbox.Messages[len(messages):] {
				content := []string{"Subject: new\r\n\r\n\r\n" + look + "\r\nA: b\r\n", "Subject: newer\r\n\r\nx"}[i]
				if m.UID != is.NextUID()+uint32(i) || m.Digest != dovecottest.Sum(content) || !slices.Equal(m.Flags, []string{`\Seen`}) {
					t.Errorf("new message %d: %+v", i+1, m)
				}
			}
			box.Messages = append(messages, inbox.Messages[len(messages):]...)
			for _, d := range dovecottest.Diff(got, want) {
				t.Error(d)
			}
			for i, m := range pop3 {
				m.Number = i + 1
				if tt.unserved {
					m.UIDL = gotPOP3[i].UIDL[:8] + fmt.Sprintf("%08x", o.UIDValidity)
				}
				if gotPOP3[i] != m {
					t.Errorf("POP3: got %+v, want %+v", gotPOP3[i], m)
				}
			}
		})
	}
}

func TestCopiesOfHugeMessagesTakeBoundedMemory(t *testing.T) {
	const size = 64 << 20
	for name, text := range map[string]string{"lines": strings.Repeat("x", 70) + "\n", "one line": "x", "From_ lines": "From here\n" + strings.Repeat("x", 700) + "\n"} {
		for _, change := range []bool{false, true} {
			base := repeated{look + "\nA: b\nStatus: R\n\n", strings.Repeat(text, 4096)}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s, err := NewScanner(base, size, Options{Profile: Dovecot})
			if err != nil {
				t.Fatal(err)
			}
			w := NewWriter(io.Discard, WriterOptions{Profile: Dovecot})
			for e, err := s.Next(); err != io.EOF; e, err = s.Next() {
				if err != nil {
					t.Fatal(err)
				}
				now := State{Flags: Seen}
				if change {
					now.Flags |= Flagged
				}
				if _, err := w.Copy(s, e, &now); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil || w.Same(s) == change {
				t.Errorf("%s: same: %v, %v", name, w.Same(s), err)
			}
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 || w.out.n < size-1 {
				t.Errorf("%s: %d bytes allocated, %d written", name, used, w.out.n)
			}
		}
	}
}
