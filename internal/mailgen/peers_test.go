package mailgen

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nobody runs the peers when the test is root, which Dovecot refuses to serve.
const nobody = 65534

// TestPythonSeesThePlainMessages: mailbox.mbox splits at any "From ", so the mix
// has no line that begins so, but in quotes.
func TestPythonSeesThePlainMessages(t *testing.T) {
	o := Options{Seed: 1, Messages: 200, Dialects: []Dialect{Plain, Mboxo, Mboxrd}, Odd: OddFromLines}
	mbox, all, _ := generate(t, o)
	path := filepath.Join(t.TempDir(), "mbox")
	if err := os.WriteFile(path, mbox, 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `
import hashlib, mailbox, sys
box = mailbox.mbox(sys.argv[1], create=False)
for key in box.iterkeys():
    print(hashlib.sha256(box.get_bytes(key)).hexdigest())
`
	out, err := exec.Command("python3", "-c", script, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(string(out))
	if len(got) != len(all) {
		t.Fatalf("python counts %d messages, want %d", len(got), len(all))
	}
	for i, m := range all {
		if want := fmt.Sprintf("%x", m.Content.SHA256); got[i] != want {
			t.Errorf("%s: python reads other bytes", m.ID)
		}
	}
}

// TestDovecotShowsWhatTheManifestSays compares bytes, UIDs, flags, keywords and
// dates with those of the server that the manifest claims to know.
func TestDovecotShowsWhatTheManifestSays(t *testing.T) {
	stateful := everything(21)
	stateful.Odd |= PseudoMessage
	lean := everything(22)
	lean.State = false
	for name, o := range map[string]Options{
		"all dialects and oddities":  everything(20),
		"UW's pseudo message":        stateful,
		"no state":                   lean,
		"CRLF file":                  {Seed: 23, Messages: 100, State: true, Odd: OddFromLines | CRLFFile | BodyCR},
		"no final newline":           {Seed: 24, Messages: 30, State: true, Odd: NoFinalNewline},
		"no final newline, no state": {Seed: 26, Messages: 31, Odd: NoFinalNewline},
		"30 keywords":                {Seed: 25, Messages: 200, State: true, Keywords: 30, Size: func(*rand.Rand) int { return MinSize }},
	} {
		t.Run(name, func(t *testing.T) {
			mbox, all, _ := generate(t, o)
			shown := dovecotFetch(t, mbox)
			if len(shown) != len(all) {
				t.Fatalf("Dovecot shows %d messages, want %d", len(shown), len(all))
			}
			for i, m := range all {
				compare(t, o.State, m, shown[i])
			}
		})
	}
}

// fetched is one message of doveadm fetch.
type fetched struct {
	uid, flags, date string
	text             Sum
}

func compare(t *testing.T, state bool, m Message, got fetched) {
	t.Helper()
	if got.text != m.Dovecot {
		t.Errorf("%s, odd %b, dialect %d: Dovecot shows %d octets, want %d", m.ID, m.Odd, m.Dialect, got.text.Size, m.Dovecot.Size)
	}
	if want := strconv.FormatInt(m.Time, 10); got.date != want {
		t.Errorf("%s: date %s, want %s for %q", m.ID, got.date, want, m.FromLine)
	}
	if !state {
		return
	}
	if want := strconv.Itoa(int(m.UID)); got.uid != want {
		t.Errorf("%s: UID %s, want %s", m.ID, got.uid, want)
	}
	if want := imapFlags(m); got.flags != want {
		t.Errorf("%s: flags %q, want %q", m.ID, got.flags, want)
	}
}

// imapFlags are the flags in doveadm's order, without \Recent.
func imapFlags(m Message) string {
	var words []string
	for _, f := range []struct{ letter, name string }{
		{"R", `\Answered`}, {"F", `\Flagged`}, {"T", `\Deleted`}, {"S", `\Seen`}, {"D", `\Draft`},
	} {
		if strings.Contains(m.Flags, f.letter) {
			words = append(words, f.name)
		}
	}
	return strings.Join(append(words, m.Keywords...), " ")
}

// dovecotFetch opens the mailbox with Dovecot in a home of its own.
func dovecotFetch(t *testing.T, mbox []byte) []fetched {
	t.Helper()
	home := t.TempDir()
	if err := os.Chmod(filepath.Dir(home), 0o755); err != nil { // nobody must get through
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inbox := write("INBOX", string(mbox))
	conf := write("dovecot.conf", fmt.Sprintf("mail_location = mbox:%[1]s/mail:INBOX=%[1]s/INBOX:INDEX=MEMORY\n"+
		"mail_home = %[1]s\nbase_dir = %[1]s/run\nlog_path = /dev/stderr\nssl = no\nstats_writer_socket_path =\n", home))
	cmd := exec.Command("doveadm", "-c", conf, "fetch",
		"uid flags date.received.unixtime size.virtual text", "mailbox", "INBOX", "all")
	cmd.Env = []string{"HOME=" + home, "USER=nobody", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		for _, path := range []string{home, inbox} {
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("doveadm fetch: %v\n%s", err, &stderr)
	}
	return parseFetch(t, out)
}

// parseFetch reads doveadm's pager format, in which a text without a newline
// at its end gets one: size.virtual tells. (size.physical is one off in the last
// message of a file without a final newline or with CR LFs.)
func parseFetch(t *testing.T, out []byte) []fetched {
	t.Helper()
	var all []fetched
	for record := range bytes.SplitSeq(out, []byte("\f\n")) {
		head, text, _ := bytes.Cut(record, []byte("text:\n"))
		field := map[string]string{}
		for line := range strings.Lines(string(head)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			field[name] = value
		}
		if field["size.virtual"] != strconv.Itoa(virtualSize(text)) {
			text = bytes.TrimSuffix(text, []byte("\n"))
		}
		flags := strings.TrimSpace(strings.Replace(field["flags"]+" ", `\Recent `, "", 1))
		all = append(all, fetched{
			uid: field["uid"], flags: flags, date: field["date.received.unixtime"],
			text: Sum{int64(len(text)), sha256.Sum256(text)},
		})
	}
	return all
}

// virtualSize is the size with every lone LF as CR LF.
func virtualSize(text []byte) int {
	return len(text) + bytes.Count(text, []byte("\n")) - bytes.Count(text, []byte("\r\n"))
}
