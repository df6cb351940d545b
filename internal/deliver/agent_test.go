package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailferry/internal/account"
	"mailferry/mbox"
)

const uid = 20001

// agent is that of a site with the user alice.
func agent(t *testing.T) (a *Agent, dir string) {
	t.Helper()
	dir = t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chmod(filepath.Dir(dir), 0o755))
	for _, d := range []string{"spool", "alice", "alice/Maildir", "alice/Maildir/cur", "alice/Maildir/new", "alice/Maildir/tmp"} {
		must(errors.Join(os.Mkdir(filepath.Join(dir, d), 0o700), os.Chown(filepath.Join(dir, d), uid, uid)))
	}
	must(os.WriteFile(filepath.Join(dir, "users"), []byte(fmt.Sprintf("alice:%d:%d:%s/alice\n", uid, uid, dir)), 0o644))
	say(t, dir, "mbox")
	return &Agent{
		Places: account.Places{
			Spool: dir + "/spool/{user}", Maildir: "{home}/Maildir", Semaphore: dir + "/{user}.semaphore", Gate: "{home}/.mailstate.lock",
		},
		Users: Users{Spec: "file:" + dir + "/users", MinUID: 1000},
		Locks: mbox.LockOptions{Dotlock: true, Fcntl: true}, Profile: mbox.Dovecot,

		LockWait: 30 * time.Second,
	}, dir
}

func say(t *testing.T, dir, state string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "alice.semaphore"), []byte("MAILSTATE="+state+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOneAgentServesManyAtATime(t *testing.T) {
	a, dir := agent(t)
	for _, state := range []string{"mbox", "maildir"} {
		say(t, dir, state)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 10 {
					text := fmt.Sprintf("Subject: %d\n\nbody\n", g*10+i)
					if err := a.Deliver(t.Context(), Envelope{User: "alice"}, strings.NewReader(text)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	box, err := os.ReadFile(filepath.Join(dir, "spool/alice"))
	if err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "alice/Maildir/new/*")) // a good pattern
	var all strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	for what, text := range map[string]string{"mbox": string(box), "Maildir": all.String()} {
		for n := range 40 {
			if count := strings.Count(text, fmt.Sprintf("Subject: %d\n\nbody\n", n)); count != 1 {
				t.Errorf("the %s has message %d %d times", what, n, count)
			}
		}
	}
}

func TestErrorsTellWhatTheMTAMayBeTold(t *testing.T) {
	a, dir := agent(t)
	text := "Subject: x\n\n"
	deliver := func(ctx context.Context, user string, r io.Reader) error {
		return a.Deliver(ctx, Envelope{User: user}, r)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for name, tt := range map[string]struct {
		err  error
		want error
		code int
	}{
		"nobody":      {deliver(t.Context(), "carol", strings.NewReader(text)), ErrNoUser, 67},
		"no name":     {deliver(t.Context(), "", strings.NewReader(text)), nil, 75},
		"no message":  {deliver(t.Context(), "alice", strings.NewReader("")), ErrEmpty, 75},
		"stopped":     {deliver(stopped, "alice", strings.NewReader(text)), context.Canceled, 75},
		"a bug":       {deliver(t.Context(), "alice", panicking{}), nil, 75},
		"cut off":     {deliver(t.Context(), "alice", io.MultiReader(strings.NewReader(text), cutOff{})), io.ErrUnexpectedEOF, 75},
		"held":        {held(t, a, dir, text), ErrHeld, 75},
		"all is well": {deliver(t.Context(), "alice", strings.NewReader(text)), nil, 0},
	} {
		if code := ExitCode(tt.err); code != tt.code || tt.want != nil && !errors.Is(tt.err, tt.want) {
			t.Errorf("%s: %v, exit code %d", name, tt.err, code)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "alice/.mailstate.lock")); err == nil {
		t.Error("the gate is left")
	}
}

func held(t *testing.T, a *Agent, dir, text string) error {
	say(t, dir, "hold")
	defer say(t, dir, "mbox")
	return a.Deliver(t.Context(), Envelope{User: "alice"}, strings.NewReader(text))
}

type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("a bug") }

type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A mailbox that somebody replaces or writes to, without a lock, while we do.
func TestOthersWithoutALockAreNoticed(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(path string) error
		want      string // what the file of that name holds then, of ours
		fails     bool
	}{
		"nobody": {func(string) error { return nil }, "new\n", false},
		"replaced": {func(path string) error {
			return errors.Join(os.WriteFile(path+".2", []byte("other\n"), 0o600), os.Rename(path+".2", path))
		}, "other\n", true},
		"removed": {os.Remove, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			path := filepath.Join(dir.Path(), "box")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			h, err := mbox.Lock(t.Context(), dir.Fd(), "box", mbox.LockOptions{Fcntl: true})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Release()
			if err := tt.meanwhile(path); err != nil {
				t.Fatal(err)
			}
			tg := &target{dir: dir, name: "box", held: h}
			m := &draft{memory: []byte("new\n"), end: 4}
			if err := tg.write(m, 0); (err != nil) != tt.fails {
				t.Errorf("%v", err)
			} else if err != nil {
				if err := tg.undo(m.end); err != nil {
					t.Error(err)
				}
				if info, err := h.File.Stat(); err != nil || info.Size() != 0 {
					t.Errorf("%d bytes are left, %v", info.Size(), err)
				}
			}
			if got, _ := os.ReadFile(path); string(got) != tt.want {
				t.Errorf("it holds %q, want %q", got, tt.want)
			}
		})
	}
	dir := tempDir(t)
	f, err := os.Create(filepath.Join(dir.Path(), "box"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("oldnew, and a stranger's"); err != nil {
		t.Fatal(err)
	}
	tg := &target{held: &mbox.Held{File: f}, size: 3}
	if err := tg.undo(3); err == nil {
		t.Error("what a stranger wrote was cut off")
	}
}
