package dovecottest

import (
	"strings"
	"testing"
	"time"
)

// sample returns a new dump with something in every field.
func sample() *Dump {
	return &Dump{
		Mailboxes: []Mailbox{
			{Name: "Arch", Attrs: []string{`\Noselect`}},
			{
				Name: "INBOX", Attrs: []string{`\HasNoChildren`}, Selectable: true, UIDValidity: 1234567890, UIDNext: 22,
				Keywords: []string{"Junk"}, Messages: flaggedMessages(),
			},
			{Name: "notes", Selectable: true, Error: "NO [CANNOT] Mailbox isn't a valid mbox file"},
		},
		Subscribed: []string{"Arch/2023", "INBOX"},
	}
}

func TestDiffFindsEachPlantedDifference(t *testing.T) {
	first := flaggedMessages()[0].Digest
	for _, tt := range []struct {
		name  string
		plant func(d *Dump, inbox *Mailbox)
		want  []string // of Diff(planted, sample)
		field string   // under which it can be ignored
	}{
		{"nothing", func(*Dump, *Mailbox) {}, nil, ""},
		{"attributes, which are not compared", func(_ *Dump, m *Mailbox) { m.Attrs = []string{`\NoInferiors`} }, nil, ""},
		{"zone, the instant being the same", func(_ *Dump, m *Mailbox) {
			m.Messages[0].InternalDate = m.Messages[0].InternalDate.In(time.FixedZone("", 3600))
		}, nil, ""},
		{"mailbox missing", func(d *Dump, _ *Mailbox) { d.Mailboxes = d.Mailboxes[1:] }, []string{"Arch: mailbox missing"}, ""},
		{"mailbox unexpected", func(d *Dump, _ *Mailbox) { d.Mailboxes = append(d.Mailboxes, Mailbox{Name: "x"}) }, []string{"x: mailbox unexpected"}, ""},
		{"mailbox renamed", func(_ *Dump, m *Mailbox) { m.Name = "inbox" }, []string{"INBOX: mailbox missing", "inbox: mailbox unexpected"}, ""},
		{"subscription missing", func(d *Dump, _ *Mailbox) { d.Subscribed = d.Subscribed[1:] }, []string{"Arch/2023: subscription missing"}, ""},
		{"subscription unexpected", func(d *Dump, _ *Mailbox) { d.Subscribed = append(d.Subscribed, "x") }, []string{"x: subscription unexpected"}, ""},
		{"selectable", func(d *Dump, _ *Mailbox) { d.Mailboxes[0].Selectable = true }, []string{"Arch: selectable: got true, want false"}, "selectable"},
		{"error", func(_ *Dump, m *Mailbox) { m.Error = "NO" }, []string{`INBOX: error: got "NO", want none`}, "error"},
		{"error gone", func(d *Dump, _ *Mailbox) { d.Mailboxes[2].Error = "" }, []string{`notes: error: got none, want "NO [CANNOT] Mailbox isn't a valid mbox file"`}, "error"},
		{"UIDVALIDITY", func(_ *Dump, m *Mailbox) { m.UIDValidity++ }, []string{"INBOX: UIDVALIDITY: got 1234567891, want 1234567890"}, "UIDVALIDITY"},
		{"UIDNEXT", func(_ *Dump, m *Mailbox) { m.UIDNext-- }, []string{"INBOX: UIDNEXT: got 21, want 22"}, "UIDNEXT"},
		{"keyword missing", func(_ *Dump, m *Mailbox) { m.Keywords = nil }, []string{"INBOX: keywords: got [], want [Junk]"}, "keywords"},
		{"keyword in another case", func(_ *Dump, m *Mailbox) { m.Keywords[0] = "junk" }, []string{"INBOX: keywords: got [junk], want [Junk]"}, "keywords"},
		{"message missing", func(_ *Dump, m *Mailbox) { m.Messages = append(m.Messages[:1:1], m.Messages[2:]...) }, []string{"INBOX: UID 9: missing"}, ""},
		{"last message missing", func(_ *Dump, m *Mailbox) { m.Messages = m.Messages[:2] }, []string{"INBOX: UID 21: missing"}, ""},
		{"message unexpected", func(_ *Dump, m *Mailbox) { m.Messages = append(m.Messages, Message{UID: 30}) }, []string{"INBOX: UID 30: unexpected"}, ""},
		{"UID", func(_ *Dump, m *Mailbox) { m.Messages[0].UID = 8 }, []string{"INBOX: UID 7: missing", "INBOX: UID 8: unexpected"}, ""},
		{"flags", func(_ *Dump, m *Mailbox) { m.Messages[0].Flags = m.Messages[0].Flags[1:] }, []string{
			`INBOX: UID 7: flags: got [\Answered \Flagged \Seen], want [$Label1 \Answered \Flagged \Seen]`,
		}, "flags"},
		{"INTERNALDATE", func(_ *Dump, m *Mailbox) { m.Messages[0].InternalDate = m.Messages[0].InternalDate.Add(time.Second) }, []string{
			"INBOX: UID 7: INTERNALDATE: got 2023-01-02 03:04:06, want 2023-01-02 03:04:05",
		}, "INTERNALDATE"},
		{"RFC822.SIZE", func(_ *Dump, m *Mailbox) { m.Messages[0].Size++ }, []string{"INBOX: UID 7: RFC822.SIZE: got 25, want 24"}, "RFC822.SIZE"},
		{"BODY[]", func(_ *Dump, m *Mailbox) { m.Messages[0].Digest = Sum("") }, []string{"INBOX: UID 7: BODY[]: got " + Sum("").String() + ", want " + first.String()}, "BODY[]"},
		{"two bodies exchanged", func(_ *Dump, m *Mailbox) {
			m.Messages[0].Digest, m.Messages[1].Digest = m.Messages[1].Digest, m.Messages[0].Digest
		}, []string{
			"INBOX: UID 7: BODY[]: got " + flaggedMessages()[1].Digest.String() + ", want " + first.String(),
			"INBOX: UID 9: BODY[]: got " + first.String() + ", want " + flaggedMessages()[1].Digest.String(),
		}, "BODY[]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			planted := sample()
			tt.plant(planted, &planted.Mailboxes[1])
			equal(t, "differences", Diff(planted, sample()), tt.want)
			equal(t, "the other way round", len(Diff(sample(), planted)), len(tt.want))
			if tt.field != "" {
				equal(t, "differences when ignored", Diff(planted, sample(), tt.field), []string(nil))
			}
		})
	}
}

func TestDiffCountsWhatItDoesNotSpellOut(t *testing.T) {
	box := Mailbox{Name: "INBOX", Selectable: true}
	for uid := range uint32(100) {
		box.Messages = append(box.Messages, Message{UID: uid + 1})
	}
	got := Diff(&Dump{Mailboxes: []Mailbox{{Name: "INBOX", Selectable: true}}}, &Dump{Mailboxes: []Mailbox{box}})
	equal(t, "length", len(got), maxShown+1)
	equal(t, "last", got[maxShown], "INBOX: and 80 more")
}

// TestDumpAndDiffFindWhatChangesOnDisk alters one file of an equal pair at a time.
func TestDumpAndDiffFindWhatChangesOnDisk(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"byte of the body", "text", "Text", "INBOX: UID 7: BODY[]: "},
		{"date", "03:04:05", "03:04:06", "INBOX: UID 7: INTERNALDATE: got 2023-01-02 03:04:06, want 2023-01-02 03:04:05"},
		{"flag", "X-Status: TD", "X-Status: T", `INBOX: UID 9: flags: got [\Draft], want [\Deleted \Draft]`},
		{"UIDVALIDITY", "1234567890", "1234567891", "INBOX: UIDVALIDITY: got 1234567891, want 1234567890"},
		{"last UID", "0000000020", "0000000021", "INBOX: UIDNEXT: got 23, want 22"},
		{"unused keyword", "Junk ", "", "INBOX: keywords: got [$Label1], want [$Label1 Junk]"},
		{"From_ line spoilt", "From b@", "From: b@", "INBOX: UID 9: missing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := DumpIMAP(t, mboxIn(tree(t, map[string]string{"inbox": flagged})))
			changed := strings.Replace(flagged, tt.old, tt.new, 1)
			got := strings.Join(Diff(DumpIMAP(t, mboxIn(tree(t, map[string]string{"inbox": changed}))), want), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
		})
	}
}
