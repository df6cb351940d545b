package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailferry/semaphore"
)

// numbered is a message that tells which it is.
func numbered(n int) string {
	return fmt.Sprintf("Subject: %d\n\nFrom here on\n%s", n, strings.Repeat("text\n", n%40*100))
}

// numbers tells which messages a list has, and whether they are whole.
func (s *scene) numbers(list []string) (got []int) {
	s.Helper()
	for _, m := range list {
		var n int
		if _, err := fmt.Sscanf(m, "Subject: %d\n", &n); err != nil {
			s.Errorf("%.100q is none of the messages", m)
		}
		if want := numbered(n); m != want && m != strings.Replace(want, "\nFrom", "\n>From", 1) {
			s.Errorf("message %d is not whole", n)
		}
		got = append(got, n)
	}
	slices.Sort(got)
	return got
}

// flood delivers messages by several processes at a time, each until it is
// delivered, as an MTA would, and tells how many were deferred.
func (s *scene) flood(processes, each int, delivered func()) (deferred int64) {
	s.Helper()
	var wg sync.WaitGroup
	var later atomic.Int64
	for p := range processes {
		wg.Go(func() {
			for i := range each {
				for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
					cmd := s.command(numbered(p*each+i), "-d", "alice", "--lock-wait", "20s")
					err := cmd.Run()
					if err == nil {
						delivered()
						break
					}
					later.Add(1)
					if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 75 || time.Now().After(deadline) {
						s.Errorf("%d: %v", p*each+i, err)
						break
					}
				}
			}
		})
	}
	wg.Wait()
	return later.Load()
}

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i)
	}
	return list
}

func TestManyAtATimeAreEachThereOnce(t *testing.T) {
	for _, state := range []string{"mbox", "maildir"} {
		s := newScene(t)
		s.say(state)
		if deferred := s.flood(8, 50, func() {}); deferred > 0 {
			t.Errorf("%s: %d deferred", state, deferred)
		}
		list := append(s.inMbox(s.inbox()), s.inMaildir(s.home("Maildir"))...)
		if got := s.numbers(list); !slices.Equal(got, upTo(400)) {
			t.Errorf("%s: %d messages: %v", state, len(got), got)
		}
		s.clean()
	}
}

// The semaphore is flipped to and fro while mail comes, as cutovers and
// rollbacks do it: hold, the gate, the flip, all else. In between nothing may
// change the mailbox that is being moved.
func TestMailThatComesDuringAFlipIsInTheRightPlace(t *testing.T) {
	s := newScene(t)
	done := make(chan struct{})
	var delivered atomic.Int64
	go func() {
		defer close(done)
		s.flood(4, 40, func() { delivered.Add(1) })
	}()
	where := map[string]func() []string{
		"mbox":    func() []string { return s.inMbox(s.inbox()) },
		"maildir": func() []string { return s.inMaildir(s.home("Maildir")) },
	}
	from, to := "mbox", "maildir"
	flips := 0
	for ; ; flips++ {
		select {
		case <-done:
			s.flipped(t, where, flips)
			return
		case <-time.After(15 * time.Millisecond):
		}
		s.say("hold")
		s.inGate(func() {
			before := len(where["mbox"]()) + len(where["maildir"]())
			time.Sleep(10 * time.Millisecond)
			if after := len(where["mbox"]()) + len(where["maildir"]()); after != before {
				t.Errorf("in a hold, %d messages became %d", before, after)
			}
			old := len(where[from]())
			s.say(to)
			time.Sleep(5 * time.Millisecond)
			if now := len(where[from]()); now != old {
				t.Errorf("after the flip to %s, %d messages came to the %s", to, now-old, from)
			}
		})
		from, to = to, from
	}
}

func (s *scene) flipped(t *testing.T, where map[string]func() []string, flips int) {
	mbox, maildir := where["mbox"](), where["maildir"]()
	if got := s.numbers(append(mbox, maildir...)); !slices.Equal(got, upTo(160)) {
		t.Errorf("%d messages: %v", len(got), got)
	}
	if len(mbox) == 0 || len(maildir) == 0 || flips < 5 {
		t.Errorf("%d flips, %d in the mbox, %d in the Maildir: that proves nothing", flips, len(mbox), len(maildir))
	}
	s.clean()
}

// inGate does something while it holds the gate.
func (s *scene) inGate(work func()) {
	s.Helper()
	dir, err := os.Open(s.home(""))
	s.must(err)
	defer dir.Close()
	g, err := semaphore.TakeGate(s.Context(), int(dir.Fd()), ".mailstate.lock", semaphore.GateOptions{Timeout: time.Minute})
	s.must(err)
	work()
	s.must(g.Release())
}

// Whoever is killed, at whatever moment, leaves locks that do not stop the next
// one, and no part of a message; what an MTA then delivers again may be there
// twice, if the first one died between the disk and its exit.
func TestTheKilledLeaveNothingInTheWay(t *testing.T) {
	for _, state := range []string{"mbox", "maildir"} {
		s := newScene(t)
		s.say(state)
		killed := 0
		for n := range 60 {
			cmd := s.command(numbered(n), "-d", "alice")
			s.must(cmd.Start())
			time.Sleep(rand.N(40 * time.Millisecond))
			_ = cmd.Process.Kill() // it may be gone
			if cmd.Wait() != nil {
				killed++
				s.wants(0, numbered(n), "-d", "alice")
			}
		}
		got := s.numbers(append(s.inMbox(s.inbox()), s.inMaildir(s.home("Maildir"))...))
		twice := len(got) - 60
		if got = slices.Compact(got); !slices.Equal(got, upTo(60)) {
			t.Errorf("%s: %v", state, got)
		}
		if killed == 0 || twice > killed {
			t.Errorf("%s: %d killed, %d there twice", state, killed, twice)
		}
		t.Logf("%s: %d killed, %d there twice", state, killed, twice)
	}
}
