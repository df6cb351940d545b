package convert

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"mailferry/internal/journal"
	"mailferry/semaphore"
)

// lose makes alice, who was moved, one who has neither semaphore nor mirror.
func (h *house) lose() {
	h.Helper()
	h.moved()
	for _, path := range []string{h.a.Semaphore, h.a.Semaphore + ".meta", h.a.Mirror} {
		h.remove(path)
	}
}

// flippedWithoutRecord leaves what a run leaves that is killed right behind a flip.
func (h *house) flippedWithoutRecord() {
	h.remove(h.path("state/soak"))
	h.remove(h.a.Maildir)
	h.staging("Maildir", true)
}

func TestEnrollSendsNobodyBackWhoWasMoved(t *testing.T) {
	for _, tt := range []struct {
		name    string
		arrange func(*house)
		refused string // "": enrolled, as maildir
	}{
		{"all is lost but the record", func(*house) {}, ""},
		{"a site without mirrors", func(h *house) { h.a.Mirror = "" }, ""},
		{"the mirror knows it too", func(h *house) { h.mirror("MAILSTATE=maildir\n") }, ""},
		{"the meta knows it too", func(h *house) { h.semaphore(semaphore.Maildir); h.remove(h.a.Semaphore) }, ""},
		{"an empty spool was made", func(h *house) { h.write(h.a.Spool, "", aliceID) }, ""},
		{"retired", func(h *house) {
			h.remove(h.path("spool"))
			h.remove(h.home("mail"))
			h.mkdir(h.path("spool"), 0o755, 0)
		}, ""},

		{"the Maildir is gone", func(h *house) { h.remove(h.a.Maildir) }, "the Maildir is empty or not there"},
		{"mail at the old place", func(h *house) { h.write(h.a.Spool, letter, aliceID) }, "there is mail in mboxes"},
		{"another Maildir", func(h *house) { h.a.Maildir = h.home("Mail2") }, "now his Maildir is"},
		{"published by a cutover that was killed", func(h *house) { h.remove(h.a.Maildir); h.staging("Maildir", true) }, "published by a cutover that did not end"},
		{"the mirror says mbox", func(h *house) { h.mirror("MAILSTATE=mbox\n") }, ".mailstate\" does not"},
		{"the mirror says hold", func(h *house) { h.mirror("MAILSTATE=hold\n") }, ".mailstate\" does not"},
		{"the meta says hold", func(h *house) { h.heldByRun("maildir"); h.remove(h.a.Semaphore) }, "epoch 3 has set it to hold"},
		{"a rollback that was killed", func(h *house) { h.rollingBack() }, "state/rollback/alice.json\" says that a rollback of his"},
		{"killed behind the flip, before any record of it", func(h *house) { h.flippedWithoutRecord() }, "published by a cutover that did not end"},
		{"the same, and no mirror", func(h *house) { h.a.Mirror = ""; h.flippedWithoutRecord() }, "published by a cutover that did not end"},
		{"the same, and a mirror that says hold", func(h *house) { h.mirror("MAILSTATE=hold\n"); h.flippedWithoutRecord() }, "published by a cutover that did not end"},
		{"a record that can't be read", func(h *house) { h.write(h.path("state/soak/alice.json"), "{", 0) }, "whether he was moved can't be told"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t)
			h.lose()
			tt.arrange(h)
			got := h.enroll(h.a)[0]
			if tt.refused != "" {
				if got.Outcome != journal.Failed || got.Moved || !strings.Contains(got.Reason, tt.refused) {
					t.Errorf("got %+v, want %q", got, tt.refused)
				}
				if _, err := os.Lstat(h.a.Semaphore); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a semaphore: %v", err)
				}
				return
			}
			if got.Outcome != Enrolled || !got.Moved || got.Reason != "" {
				t.Errorf("got %+v", got)
			}
			h.says("maildir")
			if h.a.Mirror != "" {
				h.wantFile(h.a.Mirror, "MAILSTATE=maildir\n", aliceID, os.FileMode(map[bool]int{true: 0o644, false: 0o600}[got.Mirrored]))
			}
			if again := h.enroll(h.a)[0]; again.Outcome != Already || again.Moved {
				t.Errorf("a second time: %+v", again)
			}
		})
	}
}

// What an admin reads of a refusal is enough to act on it.
func TestEnrollSaysWhatTheRecordKnows(t *testing.T) {
	h := newHouse(t)
	h.lose()
	h.remove(h.a.Maildir)
	want := `there is no semaphore; the record "` + h.path("state/soak/alice.json") + `" says that he was moved at 2026-11-21 01:30:05Z, but: ` +
		"the Maildir is empty or not there, there is no mail in mboxes, mboxes are parked. " +
		"Nothing was written; look where his mail is, and say so: mailferry semaphore set alice maildir, or mbox"
	if got := h.enroll(h.a)[0]; got.Reason != want {
		t.Errorf("got  %s\nwant %s", got.Reason, want)
	}
}

func TestEnrollTakesWhoCameBackAsNew(t *testing.T) {
	h := newHouse(t)
	h.check(journal.WriteSoak(h.site.State, journal.Soak{User: "alice", Flipped: flip, Back: flip.Add(time.Hour), Maildir: h.a.Maildir}))
	h.remove(h.a.Semaphore)
	h.remove(h.a.Semaphore + ".meta")
	if got := h.enroll(h.a)[0]; got.Outcome != Enrolled || got.Moved {
		t.Errorf("got %+v", got)
	}
	h.says("mbox")
}
