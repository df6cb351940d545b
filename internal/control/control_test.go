package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		name, line string
		want       Request
		wrong      string
	}{
		{"status", `{"command":"status"}`, Request{Command: Status}, ""},
		{"with space around", " {\"command\" : \"pause\"} \n", Request{Command: Pause}, ""},
		{"a user", `{"command":"cutover","user":"alice"}`, Request{Command: Cutover, User: "alice"}, ""},
		{"a setting", `{"command":"set","key":"jobs","value":"3"}`, Request{Command: Set, Key: "jobs", Value: "3"}, ""},
		{"a setting to nothing", `{"command":"set","key":"window"}`, Request{Command: Set, Key: "window"}, ""},
		{"nothing", ``, Request{}, "no request"},
		{"no JSON", `status`, Request{}, "no request"},
		{"a list", `[]`, Request{}, "no request"},
		{"null", `null`, Request{}, `no command ""`},
		{"a second one behind", `{"command":"status"}{}`, Request{}, "behind it"},
		{"another field", `{"command":"status","force":true}`, Request{}, "force"},
		{"another command", `{"command":"stop"}`, Request{}, `no command "stop"`},
		{"a cutover of nobody", `{"command":"cutover"}`, Request{}, "which user"},
		{"a user of status", `{"command":"status","user":"alice"}`, Request{}, "there is a user"},
		{"a value of panic", `{"command":"panic","value":"1"}`, Request{}, "a key or a value"},
		{"a setting of nothing", `{"command":"set","value":"1"}`, Request{}, "which key"},
		{"too long", `{"command":"cutover","user":"` + strings.Repeat("a", maxRequest) + `"}`, Request{}, "more than"},
	} {
		got, err := ParseRequest([]byte(tt.line))
		if tt.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{`{"command":"status"}`, `{"command":"cutover","user":"alice"}`, `{"command":"set","key":"jobs","value":"3"}`, `{"command":"set","key":"window"}`, `{}`, `[1]`, "{\"command\":\"\xff\"}", `{"command":"panic"} x`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRequest(line)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > maxRequest {
			return // spelled out, it is longer
		}
		if back, err := ParseRequest(again); err != nil || back != r {
			t.Errorf("%q: %+v became %+v, %v", line, r, back, err)
		}
	})
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		text, key, value string
		wrong            bool
	}{
		{text: "jobs=3", key: "jobs", value: "3"},
		{text: "window=", key: "window"},
		{text: "a=b=c", key: "a", value: "b=c"},
		{text: "jobs", wrong: true},
		{text: "=3", wrong: true},
	} {
		if key, value, err := ParseSetting(tt.text); key != tt.key || value != tt.value || (err != nil) != tt.wrong {
			t.Errorf("%q: %q, %q, %v", tt.text, key, value, err)
		}
	}
}

// serve answers with what was asked.
func serve(t *testing.T, state string) *Server {
	t.Helper()
	s, err := Serve(state, func(r Request) Reply {
		if r.Command == Panic {
			return Reply{Error: "not now"}
		}
		return Reply{Text: string(r.Command) + " " + r.User + r.Key + r.Value, Status: json.RawMessage(`{"n":1}`)}
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestARunAnswersWhileItServes(t *testing.T) {
	state := filepath.Join(t.TempDir(), strings.Repeat("long", 40)) // longer than an address can be
	if err := os.Mkdir(state, 0o711); err != nil {
		t.Fatal(err)
	}
	if _, err := Ask(state, Request{Command: Status}); err != ErrNoRun {
		t.Errorf("before: %v", err)
	}
	s := serve(t, state)
	info, err := os.Lstat(filepath.Join(state, Name))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, %v", info.Mode(), err)
	}
	for _, tt := range []struct {
		r    Request
		want Reply
	}{
		{Request{Command: Cutover, User: "alice"}, Reply{Text: "cutover alice", Status: json.RawMessage(`{"n":1}`)}},
		{Request{Command: Set, Key: "jobs", Value: "3"}, Reply{Text: "set jobs3", Status: json.RawMessage(`{"n":1}`)}},
		{Request{Command: Panic}, Reply{Error: "not now"}},
	} {
		got, err := Ask(state, tt.r)
		if err != nil || got.Text != tt.want.Text || got.Error != tt.want.Error || string(got.Status) != string(tt.want.Status) {
			t.Errorf("%+v: %+v, %v", tt.r, got, err)
		}
	}
	if _, err := Ask(state, Request{Command: Cutover}); err == nil || !strings.Contains(err.Error(), "which user") {
		t.Errorf("no request: %v", err)
	}
	var clients sync.WaitGroup
	for range 3 * maxClients {
		clients.Go(func() {
			if got, err := Ask(state, Request{Command: Pause}); err != nil || got.Text != "pause " {
				t.Errorf("at the same time: %+v, %v", got, err)
			}
		})
	}
	clients.Wait()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(state); err != nil || len(names) != 0 {
		t.Errorf("left %v, %v", names, err)
	}
	if _, err := Ask(state, Request{Command: Status}); err != ErrNoRun {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSeveralLinesOfOneClient(t *testing.T) {
	state := t.TempDir()
	s := serve(t, state)
	c, err := net.Dial("unix", filepath.Join(state, Name))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, tt := range []struct{ line, want string }{
		{`{"command":"pause"}`, `{"text":"pause ","status":{"n":1}}`},
		{`rubbish`, `{"error":"no request: invalid character 'r' looking for beginning of value"}`},
		{`{"command":"resume"}`, `{"text":"resume ","status":{"n":1}}`},
		{strings.Repeat("x", 2*maxRequest), `{"error":"a request of more than 4096 bytes"}`},
	} {
		if _, err := io.WriteString(c, tt.line+"\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); err != nil || got != tt.want+"\n" {
			t.Errorf("%.30s: %q, %v", tt.line, got, err)
		}
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a line that is too long: %q, %v", rest, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Who says nothing keeps no run from its end.
func TestASilentClientIsCutOff(t *testing.T) {
	state := t.TempDir()
	s := serve(t, state)
	for range 2 * maxClients {
		c, err := net.Dial("unix", filepath.Join(state, Name))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("Close took %s", took)
	}
}

func TestWhatLiesAtTheSocketsPlace(t *testing.T) {
	t.Run("the socket of a killed run is replaced", func(t *testing.T) {
		state := t.TempDir()
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(state, Name)})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		if _, err := Ask(state, Request{Command: Status}); err != ErrNoRun {
			t.Errorf("a dead one: %v", err)
		}
		s := serve(t, state)
		if got, err := Ask(state, Request{Command: Status}); err != nil || got.Text != "status " {
			t.Errorf("%+v, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("a file is left alone", func(t *testing.T) {
		state := t.TempDir()
		path := filepath.Join(state, Name)
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Serve(state, nil); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%v", err)
		}
		if content, err := os.ReadFile(path); err != nil || string(content) != "mine" {
			t.Errorf("%q, %v", content, err)
		}
	})
}

// Whoever gets past the modes is no operator for that.
func TestOthersAreNotHeard(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("needs root, as runs do")
	}
	state, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	s := serve(t, state)
	path := filepath.Join(state, Name)
	for _, p := range []string{state, path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(uid int) string {
		answer := make(chan string)
		go func() {
			runtime.LockOSThread() // to its end: nobody else gets a thread of that identity
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				answer <- errno.Error()
				return
			}
			answer <- askHere(path)
		}()
		return <-answer
	}
	if got := ask(0); got != `{"text":"status ","status":{"n":1}}` {
		t.Errorf("root heard %q", got)
	}
	if got := ask(61001); got != "" {
		t.Errorf("somebody else heard %q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// askHere asks for the status in this very thread.
func askHere(path string) string {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err.Error()
	}
	unix.Write(fd, []byte(`{"command":"status"}`+"\n")) // what is wrong with it, the answer tells
	line := make([]byte, 100)
	n, _ := unix.Read(fd, line)
	return strings.TrimSpace(string(line[:max(n, 0)]))
}
