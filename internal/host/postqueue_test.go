package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/postfixtest"
)

// deliver is an agent whose mailboxes are held until a file says otherwise.
const deliver = `#!/bin/sh
cat >/dev/null
test -e %[1]s/open || exit 75
echo "$USER $SENDER" >>%[1]s/delivered.$USER
`

// postfix is a running Postfix that listens nowhere and delivers by deliver.
type postfix struct {
	*testing.T
	Postqueue
	dir string
}

func startPostfix(t *testing.T) *postfix {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("run as root: Postfix can't be started by others")
	}
	dir := shortDir(t)
	p := &postfix{t, Postqueue{tool(t, "postqueue"), filepath.Join(dir, "conf")}, dir}
	for name, mode := range map[string]os.FileMode{"conf": 0o755, "queue": 0o755, "data": 0o700} {
		if err := os.Mkdir(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"conf/main.cf": postfixtest.Main(
			"queue_directory = "+dir+"/queue", "data_directory = "+dir+"/data", "maillog_file = "+dir+"/data/log",
			"recipient_delimiter = +", "alias_maps = texthash:"+dir+"/aliases", "local_recipient_maps =", "mailbox_command = "+dir+"/deliver"),
		"conf/master.cf": postfixtest.Master,
		"aliases":        "staff nobody, games\n", "deliver": fmt.Sprintf(deliver, dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p.run("chown", "postfix", filepath.Join(dir, "data"))
	if err := os.Chmod(dir, 0o777); err != nil { // for delivered.USER
		t.Fatal(err)
	}
	p.run(tool(t, "postfix"), "-c", p.Config, "start")
	t.Cleanup(func() { p.run(tool(t, "postfix"), "-c", p.Config, "stop") })
	return p
}

func (p *postfix) run(name string, args ...string) string {
	p.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		p.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// send submits a message.
func (p *postfix) send(sender string, recipients ...string) {
	p.Helper()
	cmd := exec.Command(tool(p.T, "sendmail"), append([]string{"-C", p.Config, "-f", sender, "--"}, recipients...)...)
	cmd.Stdin = strings.NewReader("Subject: x\n\nbody\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
}

// deferred counts the messages in the deferred queue.
func (p *postfix) deferred() (n int) {
	p.Helper()
	for line := range strings.Lines(p.run(p.Path, "-c", p.Config, "-j")) {
		m, err := parseQueued([]byte(line))
		if err != nil {
			p.Fatal(err)
		}
		if m.Queue == "deferred" {
			n++
		}
	}
	return n
}

// delivered are the senders of what a user got.
func (p *postfix) delivered(user string) (senders []string) {
	p.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, "delivered."+user))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		senders = append(senders, strings.TrimSuffix(strings.Fields(line)[1], "@test.invalid"))
	}
	slices.Sort(senders)
	return senders
}

func (p *postfix) until(what string, is func() bool) {
	p.Helper()
	for range 300 {
		if is() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(p.dir, "data", "log"))
	p.Fatalf("never: %s\n%s", what, log)
}

func TestHeldMailIsDeliveredOnceItsUserIsFlushed(t *testing.T) {
	p := startPostfix(t)
	if n, err := p.Flush(t.Context(), "nobody"); n != 0 || err != nil {
		t.Errorf("empty queue: %d, %v", n, err)
	}
	p.send("one", "nobody")
	p.send("two", "Nobody+list")
	p.send("three", "games")
	p.send("four", "games", "nobody@test.invalid")
	p.send("five", "staff")
	p.until("all five are deferred", func() bool { return p.deferred() == 5 })

	if n, err := p.Flush(t.Context(), "nobody", "nobodyelse"); n != 4 || err != nil {
		t.Errorf("held yet: %d, %v", n, err)
	}
	p.until("they are deferred again", func() bool { return p.deferred() == 5 })
	if n, err := p.Flush(t.Context(), "nobodyelse", "no", ""); n != 0 || err != nil {
		t.Errorf("others: %d, %v", n, err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "open"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Flush(t.Context(), "nobody"); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	p.until("four are delivered", func() bool {
		return p.deferred() == 1 && len(p.delivered("nobody")) == 4 && len(p.delivered("games")) == 2
	})
	if got := p.delivered("nobody"); !slices.Equal(got, []string{"five", "four", "one", "two"}) {
		t.Errorf("nobody has %q", got)
	}
	if got := p.delivered("games"); !slices.Equal(got, []string{"five", "four"}) {
		t.Errorf("games has %q", got)
	}
	if n, err := p.Flush(t.Context(), "nobody"); n != 0 || err != nil {
		t.Errorf("once more: %d, %v", n, err)
	}
	if n, err := p.Flush(t.Context(), "staff", "games"); n != 1 || err != nil {
		t.Errorf("the others: %d, %v", n, err)
	}
	p.until("all is delivered", func() bool { return p.deferred() == 0 && len(p.delivered("games")) == 3 })
	if got := p.delivered("games"); !slices.Equal(got, []string{"five", "four", "three"}) {
		t.Errorf("games has %q", got)
	}
}

// listing is a stand-in for postqueue that has a queue and writes down what is
// asked of it.
func listing(t *testing.T, queue string) (p Postqueue, asked func() string) {
	t.Helper()
	p.Path = script(t, `test "$1" = -j && exec cat "$0.queue"; echo "$@" >>"$0.asked"`)
	if err := os.WriteFile(p.Path+".queue", []byte(queue), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, func() string {
		data, err := os.ReadFile(p.Path + ".asked")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(data)
	}
}

// line is a message in a queue.
func line(queue, id string, recipients ...string) string {
	m := map[string]any{"queue_name": queue, "queue_id": id, "arrival_time": 1, "sender": "anne@x", "forced_expire": false}
	list := []map[string]string{}
	for _, r := range recipients {
		list = append(list, map[string]string{"address": r, "delay_reason": `said: "anne@x" \o/`})
	}
	m["recipients"] = list
	text, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

func TestOnlyDeferredMailOfTheUserIsAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		asked      bool
	}{
		{"his", line("deferred", "3xyz", "anne@example.com"), true},
		{"without a domain", line("deferred", "3xyz", "anne"), true},
		{"in capitals", line("deferred", "3xyz", "ANNE@Example.com"), true},
		{"with an extension", line("deferred", "3xyz", "anne+list+a@example.com"), true},
		{"the last of many", line("deferred", "3xyz", "bob@x", "carl@x", "anne@x"), true},
		{"a name with a plus, its own", line("deferred", "3xyz", "c++@x"), true},
		{"another's", line("deferred", "3xyz", "bob@example.com"), false},
		{"one that begins alike", line("deferred", "3xyz", "annex@example.com"), false},
		{"the domain's name", line("deferred", "3xyz", "bob@anne"), false},
		{"an extension of that name", line("deferred", "3xyz", "bob+anne@x"), false},
		{"in the active queue", line("active", "3xyz", "anne@x"), false},
		{"on hold by the admin", line("hold", "3xyz", "anne@x"), false},
		{"nobody's", line("deferred", "3xyz"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, asked := listing(t, tt.line)
			n, err := p.Flush(t.Context(), "anne", "c++")
			if err != nil || (n == 1) != tt.asked || (asked() == "-i 3xyz\n") != tt.asked || !tt.asked && asked() != "" {
				t.Errorf("%d, %v, asked %q", n, err, asked())
			}
		})
	}
}

func TestAQueueThatIsNoQueueIsAnError(t *testing.T) {
	for _, text := range []string{"Mail queue is empty\n", "{\n", line("deferred", "", "anne@x"), line("deferred", "-f", "anne@x"), line("deferred", "../x", "anne@x"), "[]\n", "\n"} {
		p, asked := listing(t, line("deferred", "1", "anne@x")+text+line("deferred", "2", "anne@x"))
		if n, err := p.Flush(t.Context(), "anne"); n != 0 || err == nil || !strings.Contains(err.Error(), "postqueue -j: ") || asked() != "" {
			t.Errorf("%q: %d, %v, asked %q", text, n, err, asked())
		}
	}
}

func TestAPostfixThatIsDownIsAnError(t *testing.T) {
	p := Postqueue{Path: script(t, `echo "postqueue: fatal: mail system is down" >&2; exit 69`)}
	n, err := p.Flush(t.Context(), "anne")
	var f *Failed
	if n != 0 || !errors.As(err, &f) || f.Exit != 69 || !strings.Contains(err.Error(), "mail system is down") {
		t.Errorf("%d, %v", n, err)
	}
	p.Path = script(t, `test "$1" = -j && exec cat "$0.queue"; test $2 = 1 && exit 0; exit 69`)
	if err := os.WriteFile(p.Path+".queue", []byte(line("deferred", "1", "anne")+line("deferred", "2", "anne")+line("deferred", "3", "anne")), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Flush(t.Context(), "anne"); n != 1 || !errors.As(err, &f) || f.Exit != 69 {
		t.Errorf("it went down: %d, %v", n, err)
	}
	p.Path = script(t, "touch $0.ran")
	if n, err := p.Flush(t.Context()); n != 0 || err != nil {
		t.Errorf("no users: %d, %v", n, err)
	}
	if _, err := os.Stat(p.Path + ".ran"); err == nil {
		t.Error("it was run for no users")
	}
}

func FuzzParseQueued(f *testing.F) {
	for _, s := range []string{
		line("deferred", "3xyz", "anne@x", "bob+a@y"), line("hold", "A1B2C3D4E5"), line("deferred", "-f", "a"),
		`{"queue_name":"deferred","queue_id":"4","recipients":[{"address":"\"a b\"@x"}]}`,
		`{"queue_id":1}`, `{"recipients":null}`, `[]`, `null`, ``, `{"queue_id":"a\u0000"}`, `{"queue_id":"é"}`,
	} {
		f.Add(s, "anne")
	}
	f.Fuzz(func(t *testing.T, s, user string) {
		m, err := parseQueued([]byte(s))
		if err != nil {
			return
		}
		if strings.HasPrefix(m.ID, "-") || m.ID == "" || strings.ContainsAny(m.ID, "/. \x00\n") {
			t.Errorf("queue id %q", m.ID)
		}
		if m.deferredFor(nil) || m.deferredFor([]string{""}) {
			t.Error("it waits for nobody")
		}
		if m.deferredFor([]string{user}) != m.deferredFor([]string{"", user}) {
			t.Error("another user makes a difference")
		}
		for _, r := range m.Recipients {
			if m.Queue == "deferred" && r.Address != "" && !strings.HasPrefix(r.Address, "@") {
				local := r.Address
				if at := strings.LastIndexByte(local, '@'); at >= 0 {
					local = local[:at]
				}
				if !m.deferredFor([]string{local}) {
					t.Errorf("it does not wait for %q", local)
				}
			}
		}
	})
}
