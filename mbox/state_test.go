package mbox

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// withFields makes a mailbox of messages with the given header fields.
func withFields(headers ...string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(fromA + "Subject: x\n" + h + "\nbody\n\n")
	}
	return b.String()
}

func TestUIDs(t *testing.T) {
	for _, tt := range []struct {
		name     string
		headers  []string
		uids     []uint32
		validity uint32
		next     uint32
		invalid  int
	}{
		{"the rules together", []string{"X-IMAPbase: 77 0000000100\nX-UID: 10\n", "X-UID: 50\n", "X-UID: 40\n", "X-UID: 99999\n", ""},
			[]uint32{10, 50, 101, 102, 103}, 77, 104, 2},
		{"none recorded", []string{"", ""}, []uint32{1, 2}, 0, 3, 0},
		{"X-UID before X-IMAPbase is not believed", []string{"X-UID: 10\nX-IMAPbase: 77 100\n", "X-UID: 50\n"}, []uint32{101, 102}, 77, 103, 2},
		{"X-UID without X-IMAPbase is not believed", []string{"X-UID: 10\n"}, []uint32{1}, 0, 2, 1},
		{"the next UID is believed where no X-IMAPbase is", []string{"", "X-UID: 2\n", "X-UID: 3\n"}, []uint32{1, 2, 3}, 0, 4, 0},
		{"X-IMAPbase counts in the first message only", []string{"", "", "X-IMAPbase: 77 100\nX-UID: 50\n"}, []uint32{1, 2, 3}, 0, 4, 1},
		{"UIDs of expunged messages are not given again", []string{"X-IMAPbase: 77 100\nX-UID: 3\n"}, []uint32{3}, 77, 101, 0},
		{"the first of two X-UIDs", []string{"X-IMAPbase: 77 100\nX-UID: 3\nX-UID: 4\n"}, []uint32{3}, 77, 101, 0},
		{"the second, where the first is not believed", []string{"X-IMAPbase: 77 100\nX-UID: 999\nX-UID: 4\n"}, []uint32{4}, 77, 101, 1},
		{"the first of two X-IMAPbases", []string{"X-IMAPbase: 77 100\nX-IMAPbase: 88 200\n"}, []uint32{101}, 77, 102, 0},
		{"blanks behind the number", []string{"X-IMAPbase: 77 100   \nX-UID: 3   \t\n"}, []uint32{3}, 77, 101, 0},
		{"letters behind the number", []string{"X-IMAPbase: 77 100\nX-UID: 3x\n"}, []uint32{101}, 77, 102, 1},
		{"zero", []string{"X-IMAPbase: 77 100\nX-UID: 0\n"}, []uint32{101}, 77, 102, 1},
		{"more than 32 bits", []string{"X-IMAPbase: 77 100\nX-UID: 4294967300\n"}, []uint32{101}, 77, 102, 1},
		{"a UIDVALIDITY of 0 is none", []string{"X-IMAPbase: 0 100\nX-UID: 3\n"}, []uint32{1}, 0, 2, 1},
		{"a UIDVALIDITY that is no number is none", []string{"X-IMAPbase: x 100\n"}, []uint32{1}, 0, 2, 0},
		{"the highest UID leaves no next one", []string{"X-IMAPbase: 77 4294967295\n"}, []uint32{1}, 0, 2, 0},
		{"a UIDVALIDITY alone", []string{"X-IMAPbase: 77\n"}, []uint32{1}, 77, 2, 0},
		{"any case", []string{"x-imapBASE: 77 100\nx-uid: 3\n"}, []uint32{3}, 77, 101, 0},
		{"a sender's flood of another field", []string{"X-IMAPbase: 77 100\n" + strings.Repeat("Date: x\n", 500) + "X-UID: 3\n", strings.Repeat("X-UIDL: x\n", 500) + "X-UID: 5\n"},
			[]uint32{3, 5}, 77, 101, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := withFields(tt.headers...)
			got := mustRead(t, file, "dovecot")
			var uids []uint32
			for _, s := range got.states {
				uids = append(uids, s.UID)
			}
			if !slices.Equal(uids, tt.uids) || got.tracker.UIDValidity() != tt.validity || got.tracker.NextUID() != tt.next {
				t.Errorf("UIDs %d, UIDVALIDITY %d, next %d; want %d, %d, %d", uids, got.tracker.UIDValidity(), got.tracker.NextUID(), tt.uids, tt.validity, tt.next)
			}
			if n := got.tracker.odd.Of(InvalidUID).Count; n != tt.invalid {
				t.Errorf("%d UIDs reported as invalid, want %d", n, tt.invalid)
			}
		})
	}
}

func TestPseudoMessage(t *testing.T) {
	pseudo := "X-IMAP: 77 0000000100 Junk Work\nStatus: RO\n"
	for _, profile := range []string{"careful", "dovecot", "uw"} {
		file := strings.Replace(withFields(pseudo, "X-UID: 5\nX-Keywords: Work\n", ""), "From a@b ", "From MAILER_DAEMON ", 1)
		got := mustRead(t, file, profile)
		want := []State{
			{Flags: Seen | Old, Pseudo: true},
			{UID: 5, Keywords: []string{"Work"}},
			{UID: 101},
		}
		if !reflect.DeepEqual(got.states, want) {
			t.Errorf("%s: states %+v, want %+v", profile, got.states, want)
		}
		if k := got.tracker.Keywords(); !slices.Equal(k, []string{"Junk", "Work"}) || got.tracker.UIDValidity() != 77 || got.tracker.NextUID() != 102 {
			t.Errorf("%s: keywords %q, UIDVALIDITY %d, next UID %d", profile, k, got.tracker.UIDValidity(), got.tracker.NextUID())
		}
	}
	for _, profile := range []string{"careful", "popa3d", "solid", "mailutils"} {
		if got := mustRead(t, withFields(pseudo), profile); got.states[0].Pseudo {
			t.Errorf("%s: a stranger's X-IMAP field hides his mail", profile)
		}
	}
	for name, header := range map[string]string{"not first": "A: 1\n", "no numbers": "X-IMAP: none\n"} {
		if got := mustRead(t, withFields(header, pseudo), "dovecot"); got.states[0].Pseudo || got.states[1].Pseudo {
			t.Errorf("%s: states %+v", name, got.states)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		name, header    string
		careful, strict Flags // strict: each letter in the field where it belongs, as Dovecot reads
	}{
		{"none: recent", "", 0, 0},
		{"Status", "Status: RO\n", Seen | Old, Seen | Old},
		{"X-Status", "X-Status: AFTD\n", Answered | Flagged | Draft | Deleted, Answered | Flagged | Draft | Deleted},
		{"any order", "Status: OR\nX-Status: DA\n", Seen | Old | Answered | Deleted, Seen | Old | Answered | Deleted},
		{"answered in Status, as mailutils writes", "Status: ORA\n", Seen | Old | Answered, Seen | Old},
		{"seen in X-Status", "X-Status: RF\n", Seen | Flagged, Flagged},
		{"unknown letters", "Status: NUX\n", 0, 0},
		{"small letters", "Status: ro\n", 0, 0},
		{"an empty field", "Status: \n", 0, 0},
		{"twice", "Status: R\nStatus: O\n", Seen | Old, Seen | Old},
		{"in another case", "STATUS: RO\n", Seen | Old, Seen | Old},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, profile := range ProfileNames() {
				want := tt.careful
				if profile == "dovecot" {
					want = tt.strict
				}
				if got := mustRead(t, withFields(tt.header), profile).states[0].Flags; got != want {
					t.Errorf("%s: flags %06b, want %06b", profile, got, want)
				}
			}
		})
	}
}

func TestKeywords(t *testing.T) {
	base := "X-IMAPbase: 77 100 $Forwarded Work\nX-UID: 1\n"
	for _, tt := range []struct {
		name, header     string
		dovecot, careful []string
		listed           []string // by careful, in the end
	}{
		{"listed", "X-Keywords: Work $Forwarded   \n", []string{"Work", "$Forwarded"}, []string{"Work", "$Forwarded"}, []string{"$Forwarded", "Work"}},
		{"in another case", "X-Keywords: work\n", []string{"work"}, []string{"work"}, []string{"$Forwarded", "Work"}},
		{"one that is not listed", "X-Keywords: Work Mine\n", nil, []string{"Work", "Mine"}, []string{"$Forwarded", "Work", "Mine"}},
		{"padding only", "X-Keywords:                 \n", nil, nil, []string{"$Forwarded", "Work"}},
		{"folded", "X-Keywords: Work\n\t$Forwarded\n", []string{"Work", "$Forwarded"}, []string{"Work", "$Forwarded"}, []string{"$Forwarded", "Work"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := withFields(base, tt.header)
			if got := mustRead(t, file, "dovecot").states[1].Keywords; !slices.Equal(got, tt.dovecot) {
				t.Errorf("dovecot: %q, want %q", got, tt.dovecot)
			}
			got := mustRead(t, file, "careful")
			if !slices.Equal(got.states[1].Keywords, tt.careful) || !slices.Equal(got.tracker.Keywords(), tt.listed) {
				t.Errorf("careful: %q of %q, want %q of %q", got.states[1].Keywords, got.tracker.Keywords(), tt.careful, tt.listed)
			}
		})
	}
	// So Dovecot leaves the first message when the one before it is expunged.
	behind := mustRead(t, withFields("X-Keywords: Work\nX-IMAPbase: 77 100 $Forwarded Work\nX-UID: 1\n"), "dovecot")
	if got := behind.states[0].Keywords; !slices.Equal(got, []string{"Work"}) {
		t.Errorf("listed behind the field: %q", got)
	}
	wantUnlisted := mustRead(t, withFields(base, "X-Keywords: Mine\n"), "dovecot")
	if p := wantUnlisted.tracker.odd.Of(UnlistedKeyword); p.Count != 1 || p.Offsets[0] != wantUnlisted.entries[1].Offset {
		t.Errorf("the unlisted keyword is reported at %v", p)
	}
}

func TestDeliveryDateOfUndatedMessages(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"the Date field", "Date: Mon, 2 Jan 2023 03:04:05 +0100\n", "2023-01-02 02:04:05"},
		{"a Date that is none", "Date: yesterday\n", ""},
		{"a Date before 1970", "Date: Mon, 2 Jan 1956 03:04:05 +0100\n", ""},
		{"no Date", "A: 1\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			date := mustRead(t, "From -\n"+tt.header+"\nx\n", "careful").entries[0].Date
			if got := stampString(date, !date.IsZero()); got != tt.want {
				t.Errorf("the date is %q, want %q", got, tt.want)
			}
		})
	}
	wantOddity(t, "From -\nA: 1\n\nx\n", "careful", Undated, 0)
	wantOddity(t, fromA+"A: 1\n\nx\n", "careful", Undated)
}

func TestCorrectDatesAreThoseThatWereMeant(t *testing.T) {
	file := "From a@b Mon Jan  2 03:04:05 2023 +0530\nA: 1\n\nx\n"
	for correct, want := range map[bool]string{false: "2023-01-01 22:03:35", true: "2023-01-01 21:34:05"} {
		o := options(t, "dovecot")
		o.CorrectDates = correct
		got, err := readAll(strings.NewReader(file), int64(len(file)), o, windowSize)
		if err != nil || stampString(got.entries[0].Date, true) != want {
			t.Errorf("correct %v: %v, %v, want %s", correct, got.entries[0].Date, err, want)
		}
	}
}
