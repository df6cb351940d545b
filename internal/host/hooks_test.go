package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script makes a shell script in a directory of its own, and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

var anne = Subject{
	User: "anne", UID: 1001, GID: 1002, Home: "/home/anne x", Spool: "/var/mail/anne",
	Maildir: "/home/anne x/Maildir", Run: "20260102T030405Z-migrate", State: "hold",
}

func TestEachMomentHasItsHookAndEnvironment(t *testing.T) {
	t.Setenv("SECRET", "of the admin's shell")
	hook := script(t, `exec >"$0.$MAILFERRY_HOOK"; env | grep -v '^_=\|^PWD=\|^SHLVL=' | sort; pwd; wc -c; echo $#`)
	for _, moment := range []Moment{BeforeHold, Drain, AfterFlip, AfterAbort} {
		hooks := map[Moment]Hooks{
			BeforeHold: {BeforeHold: hook}, Drain: {Drain: hook}, AfterFlip: {AfterFlip: hook}, AfterAbort: {AfterAbort: hook},
		}[moment]
		for _, m := range []Moment{BeforeHold, Drain, AfterFlip, AfterAbort} {
			if err := hooks.Run(t.Context(), m, anne); err != nil {
				t.Errorf("%s: %v", m, err)
			}
		}
		got, err := os.ReadFile(hook + "." + string(moment))
		want := `LANG=C
MAILFERRY_GID=1002
MAILFERRY_HOME=/home/anne x
MAILFERRY_HOOK=` + string(moment) + `
MAILFERRY_MAILDIR=/home/anne x/Maildir
MAILFERRY_RUN=20260102T030405Z-migrate
MAILFERRY_SPOOL=/var/mail/anne
MAILFERRY_STATE=hold
MAILFERRY_UID=1001
MAILFERRY_USER=anne
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/
0
0
`
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\ngot\n%swant\n%s", moment, err, got, want)
		}
		if others, _ := filepath.Glob(hook + ".*"); len(others) != 1 {
			t.Errorf("%s: %q", moment, others)
		}
		os.Remove(hook + "." + string(moment))
	}
	if err := (Hooks{}).Run(t.Context(), "lunch", anne); err == nil {
		t.Error("a moment that there is not: no error")
	}
}

func TestAHookThatFailsTellsHow(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		exit       int
		said       string
	}{
		{"a code", "exit 3", 3, ""},
		{"words on both", "echo out; echo 'err\nor' >&2; exit 75", 75, "out\nerr\nor"},
		{"more than is kept", "i=0; while [ $i -lt 1000 ]; do echo 0123456789; i=$((i+1)); done; echo end >&2; exit 1", 1, "0123456789\n0123456789\nend"},
		{"a signal", "kill -TERM $$", -1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Hooks{Drain: script(t, tt.text)}.Run(t.Context(), Drain, anne)
			var f *Failed
			if !errors.As(err, &f) {
				t.Fatalf("%v", err)
			}
			if f.Exit != tt.exit || !strings.HasSuffix(f.Said, tt.said) || len(f.Said) > tailSize {
				t.Errorf("exit %d, said %q", f.Exit, f.Said)
			}
			if !strings.HasPrefix(err.Error(), "hook drain: /") || tt.said != "" && !strings.Contains(err.Error(), strings.Trim(strconv.Quote(tt.said), `"`)) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestAHookIsKilledWithAllThatItStarted cancels a hook that waits for a child.
func TestAHookIsKilledWithAllThatItStarted(t *testing.T) {
	hook := script(t, `sleep 300 & echo $! >"$0.child"; wait`)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := Hooks{BeforeHold: hook}.Run(ctx, BeforeHold, anne)
	var f *Failed
	if !errors.As(err, &f) || f.Exit != -1 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(hook + ".child")
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("its child lives")
}

func TestAHookMayLeaveSomethingInTheBackground(t *testing.T) {
	hook := script(t, `sleep 300 & echo $! >"$0.child"; exit 0`)
	start := time.Now()
	if err := (Hooks{AfterFlip: hook}).Run(t.Context(), AfterFlip, anne); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(hook + ".child")
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

func TestALimitIsTold(t *testing.T) {
	err := program{path: script(t, "exec sleep 300"), limit: 50 * time.Millisecond}.run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "not done after 50ms") || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestWhatIsNoProgramIsNotRun(t *testing.T) {
	good := script(t, "exit 0")
	dir := filepath.Dir(good)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(good, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{good, link} {
		if err := CheckProgram(path); err != nil {
			t.Error(err)
		}
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"hook":                        "no absolute path",
		filepath.Join(dir, "missing"): "no such file",
		dir:                           "no regular file",
		"/dev/null":                   "no regular file",
		plain:                         "not executable (mode 0644)",
	} {
		err := Hooks{Drain: path}.Run(t.Context(), Drain, anne)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestAProgramThatOthersCanChangeIsNotRunByRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run as root")
	}
	for _, tt := range []struct {
		name   string
		change func(file, dir string) error
		want   string
	}{
		{"of another user", func(file, _ string) error { return os.Chown(file, 65534, 0) }, "belongs to uid 65534"},
		{"writable by the group", func(file, _ string) error { return os.Chmod(file, 0o770) }, "writable by others than root (mode 0770)"},
		{"writable by all", func(file, _ string) error { return os.Chmod(file, 0o702) }, "writable by others"},
		{"in a directory of another user", func(_, dir string) error { return os.Chown(dir, 65534, 0) }, "belongs to uid 65534"},
		{"in a directory that all write", func(_, dir string) error { return os.Chmod(dir, 0o777) }, "writable by others"},
		{"in a sticky directory of another user", func(_, dir string) error {
			return errors.Join(os.Chown(dir, 65534, 0), os.Chmod(dir, 0o777|os.ModeSticky))
		}, "belongs to uid 65534"},
		{"in a sticky directory of root's", func(_, dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, ""},
	} {
		file := script(t, `echo ran >"$0.ran"`)
		if err := tt.change(file, filepath.Dir(file)); err != nil {
			t.Fatal(err)
		}
		err := Hooks{AfterAbort: file}.Run(t.Context(), AfterAbort, anne)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if _, missing := os.Stat(file + ".ran"); (missing != nil) != (tt.want != "") {
			t.Errorf("%s: run: %v", tt.name, missing == nil)
		}
	}
}

func TestLinesAreWholeHoweverTheyAreWritten(t *testing.T) {
	const text = "one\n\ntwo words\nend without newline"
	for size := 1; size <= len(text); size++ {
		var got []string
		l := &lines{each: func(line []byte) error { got = append(got, string(line)); return nil }}
		for part := range slices.Chunk([]byte(text), size) {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if want := []string{"one", "", "two words"}; !slices.Equal(got, want) || l.err != nil {
			t.Errorf("by %d: %q, %v", size, got, l.err)
		}
	}
}

func TestALineThatIsTooLongIsAnError(t *testing.T) {
	l := &lines{each: func([]byte) error { return nil }}
	for range maxLine/4096 + 1 {
		if _, err := l.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if l.err == nil || len(l.rest) > maxLine {
		t.Errorf("%v, %d bytes", l.err, len(l.rest))
	}
}
