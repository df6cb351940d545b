//go:build linux && amd64

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mailferry/internal/stepper"
)

const oneBefore = "From a@b  Sat Nov 21 18:00:00 2026\nSubject: 1\n\none\n\n"

// situation is where a delivery is stopped.
type situation struct {
	name, state string
	before      string // the mbox; "" for none
	between     string // what the delivery puts behind it first
	message     string
	dead        bool // the disk obeys no more: what was begun may stay, but is not told as delivered
}

var situations = []situation{
	{name: "appending", state: "mbox", before: oneBefore, message: hello},
	{name: "to a new mbox", state: "mbox", message: hello},
	{name: "appending behind a part of a message", state: "mbox", before: unended, between: "\n", message: hello},
	{name: "appending a big one", state: "mbox", before: oneBefore, message: big(2)},
	{name: "appending a big one with lines to quote", state: "mbox", before: oneBefore, message: big(2) + "From me\n"},
	{name: "to the Maildir", state: "maildir", before: oneBefore, message: hello},
	{name: "a big one to the Maildir", state: "maildir", before: oneBefore, message: big(2)},
}

// ground makes scenes in memory: a sweep takes the time of the calls, not of the disk.
func ground(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", dir, "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// step carries out a delivery that is stopped at a call, and tells what is wrong
// with what it leaves.
func (s situation) step(t *testing.T, dir string, o stepper.Options) (r *stepper.Result, wrong []string) {
	t.Helper()
	sc := &scene{t, filepath.Join(dir, "site")}
	sc.must(os.Mkdir(sc.dir, 0o755))
	defer os.RemoveAll(sc.dir)
	sc.furnish()
	sc.say(s.state)
	if s.before != "" {
		sc.own(sc.inbox(), s.before)
	}
	cmd := sc.command(s.message)
	var log bytes.Buffer
	cmd.Stderr = &log
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	o.Below = sc.dir
	r, err := stepper.Run(ctx, cmd, o)
	sc.must(err)
	return r, s.judge(sc, r, log.String())
}

func (s situation) judge(sc *scene, r *stepper.Result, log string) (wrong []string) {
	find := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	content, _ := os.ReadFile(sc.inbox())
	rest, ok := strings.CutPrefix(string(content), s.before)
	if !ok {
		find("the mbox has lost what it held")
	}
	inMbox := rest != ""
	whole := !inMbox || s.isWhole(rest)
	if !whole && !s.dead {
		find("a part of the message, %d bytes, is in the mbox", len(rest))
	}
	want := "Return-Path: <bob@example.org>\n" + s.message
	list := sc.inMaildir(sc.home("Maildir"))
	if len(list) > 1 || len(list) == 1 && list[0] != want && !s.dead {
		find("in new there are %d messages", len(list))
	}
	count := len(list)
	if inMbox {
		count++
	}
	if (s.state == "mbox") != inMbox && count > 0 {
		find("it is in the wrong place")
	}
	code := r.Exit.ExitStatus()
	switch {
	case r.Exit.Signaled():
		if !r.Reached || r.Exit.Signal() != unix.SIGKILL {
			find("it died of %v", r.Exit.Signal())
		}
	case code == 0 && (count != 1 || !whole):
		find("told as delivered, but it is there %d times", count)
	case code == 75 && count != 0 && !s.dead:
		find("told as not delivered, but it is there: %s", log)
	case code != 0 && code != 75:
		find("exit code %d: %s", code, log)
	}
	return wrong
}

func (s situation) isWhole(text string) bool {
	text, begins := strings.CutPrefix(text, s.between)
	head, body, ok := strings.Cut(text, "\n")
	message := strings.ReplaceAll(s.message, "\nFrom ", "\n>From ")
	return begins && ok && strings.HasPrefix(head, "From bob@example.org  ") && body == "Return-Path: <bob@example.org>\n"+message+"\n"
}

// An empty mbox may be what another delivery has made, which failed before its
// name was on the disk.
func TestTheNameOfAnMboxIsOnTheDiskToo(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(sc *scene)
		synced bool
	}{
		"no mbox":       {func(*scene) {}, true},
		"an empty mbox": {func(sc *scene) { sc.own(sc.inbox(), "") }, true},
		"an mbox":       {func(sc *scene) { sc.own(sc.inbox(), oneBefore) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t)
			tt.before(sc)
			r, err := stepper.Run(t.Context(), sc.command(hello), stepper.Options{Below: sc.dir})
			sc.must(err)
			synced := slices.ContainsFunc(r.Calls, func(c stepper.Call) bool {
				return c.Name == "fsync" && slices.Equal(c.Paths, []string{"spool"})
			})
			if synced != tt.synced || r.Exit.ExitStatus() != 0 {
				t.Errorf("exit code %d, %v", r.Exit.ExitStatus(), r.Calls)
			}
		})
	}
}

func TestADeliveryKilledAtAnyCall(t *testing.T) {
	s := sweep{}
	s.all(t, func(stepper.Call) []stepper.Options { return []stepper.Options{{Do: stepper.Kill}} })
}

func TestADeliveryWithAFaultAtAnyCall(t *testing.T) {
	s := sweep{}
	s.all(t, func(c stepper.Call) (list []stepper.Options) {
		for _, errno := range []unix.Errno{unix.ENOSPC, unix.EIO, unix.EDQUOT, unix.EINTR, unix.EFBIG} {
			list = append(list, stepper.Options{Do: stepper.Fail(errno)})
		}
		if c.Size > 1 {
			list = append(list, stepper.Options{Do: stepper.Short})
		}
		return list
	})
}

func TestADiskFullFromAnyCallOn(t *testing.T) {
	takesRoom := func(c stepper.Call) bool {
		return c.Size > 0 || slices.Contains([]string{"openat", "openat2", "linkat"}, c.Name)
	}
	s := sweep{}
	s.all(t, func(c stepper.Call) []stepper.Options {
		if !takesRoom(c) {
			return nil
		}
		return []stepper.Options{{Do: stepper.Fail(unix.ENOSPC), Also: takesRoom}}
	})
}

// The sweep must be able to see a delivery that does not happen.
func TestTheSweepSeesAWriteThatWasNone(t *testing.T) {
	for _, s := range situations[:1] {
		dir := ground(t)
		r, _ := s.step(t, dir, stepper.Options{})
		at := slices.IndexFunc(r.Calls, func(c stepper.Call) bool { return c.Name == "write" && c.Paths[0] == "spool/alice" })
		if _, wrong := s.step(t, dir, stepper.Options{At: at + 1, Do: stepper.Lie}); len(wrong) == 0 {
			t.Error("not seen")
		}
	}
}

func TestADeadDiskFromAnyCallOn(t *testing.T) {
	s := sweep{dead: true}
	s.all(t, func(stepper.Call) []stepper.Options {
		return []stepper.Options{{Do: stepper.Fail(unix.EIO), Also: func(stepper.Call) bool { return true }}}
	})
}

// sweep counts.
type sweep struct {
	points int
	dead   bool
}

// all tries, in all situations, at each call what the function says.
func (w *sweep) all(t *testing.T, at func(stepper.Call) []stepper.Options) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			dir := ground(t)
			r, wrong := s.step(t, dir, stepper.Options{})
			if len(wrong) > 0 || r.Exit.ExitStatus() != 0 {
				t.Fatalf("without a fault: %v, %q", r.Exit, wrong)
			}
			s.dead = w.dead
			for i, c := range r.Calls {
				for _, o := range at(c) {
					o.At = i + 1
					w.points++
					if _, wrong := s.step(t, dir, o); len(wrong) > 0 {
						t.Errorf("%s at %d, %s\n\t%s", o.Do, o.At, c, strings.Join(wrong, "\n\t"))
					}
				}
			}
		})
	}
	t.Logf("%d points", w.points)
}
