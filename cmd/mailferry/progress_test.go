package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// buffer is what may be written and read at the same time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// until waits for what is to be written.
func (b *buffer) until(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(b.String(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in %q", text, b.String())
		}
	}
}

func TestARunTellsPlainLinesWhereThereIsNoTerminal(t *testing.T) {
	var out buffer
	p := newProgress(&out, "migrate")
	p.start = p.start.Add(-10 * time.Second)
	p.run(3, 4_000_000)
	for range 2 {
		p.add(1_000_000)
	}
	p.userDone()
	p.say("%s: skipped: %s", "alice", "a \x1b[2Jlink\nthere")
	p.waiting("the window opens at 22:00")
	p.waiting("the window opens at 22:00")
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	out.until(t, "waiting since")
	p.waiting("")
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	out.until(t, "ETA")
	p.finish()
	want := regexp.MustCompile(`^alice: skipped: a \\x1b\[2Jlink\\nthere
migrate: waiting: the window opens at 22:00
migrate: 1/3 users, waiting since \d\d:\d\d:\d\d: the window opens at 22:00
migrate: goes on after 0s
migrate: 1/3 users, 2 messages, 0 MB/s, ETA 10s
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("told\n%s", out.String())
	}
}

// What is left is told from the bytes, or the users where those are not
// known, and from the time that was not spent waiting.
func TestTimeLeft(t *testing.T) {
	for _, tt := range []struct {
		name           string
		users          int
		bytes          int64
		done           int
		doneBytes      int64
		waited, waits  time.Duration
		want           time.Duration
		wantPerSecond  float64
		nothingToTell  bool
		startedSeconds int
	}{
		{name: "a quarter of the bytes", users: 10, bytes: 400e6, done: 9, doneBytes: 100e6, startedSeconds: 10, want: 30 * time.Second, wantPerSecond: 10},
		{name: "bytes unknown", users: 10, done: 5, doneBytes: 100e6, startedSeconds: 10, want: 10 * time.Second, wantPerSecond: 10},
		{name: "waited before", users: 10, done: 5, doneBytes: 100e6, waited: 5 * time.Second, startedSeconds: 10, want: 5 * time.Second, wantPerSecond: 20},
		{name: "waits now", users: 10, done: 5, doneBytes: 100e6, waits: 8 * time.Second, startedSeconds: 10, want: 2 * time.Second, wantPerSecond: 50},
		{name: "more than expected", users: 10, bytes: 100e6, done: 5, doneBytes: 200e6, startedSeconds: 10, want: 0, wantPerSecond: 20},
		{name: "nothing done", users: 10, startedSeconds: 10, nothingToTell: true},
		{name: "just begun", users: 10, done: 5, nothingToTell: true},
	} {
		now := time.Now()
		p := &progress{users: int64(tt.users), size: tt.bytes, start: now.Add(-time.Duration(tt.startedSeconds) * time.Second), waited: tt.waited}
		p.over.Store(int64(tt.done))
		p.bytes.Store(tt.doneBytes)
		if tt.waits > 0 {
			p.reason, p.since = "a pause", now.Add(-tt.waits)
		}
		left, ok := p.left()
		if ok == tt.nothingToTell || left.Round(time.Second) != tt.want {
			t.Errorf("%s: %v, %v, want %v", tt.name, left, ok, tt.want)
		}
		if rate := p.perSecond(); tt.startedSeconds > 0 && (rate < tt.wantPerSecond*0.95 || rate > tt.wantPerSecond*1.01) {
			t.Errorf("%s: %v MB/s, want %v", tt.name, rate, tt.wantPerSecond)
		}
	}
}

// screen is what a terminal of so many columns shows in the end, and how it
// came to be: each line is what was last written into it.
func screen(t *testing.T, shown string, cols int) (lines []string) {
	t.Helper()
	for _, text := range strings.Split(strings.ReplaceAll(shown, "\r\n", "\n"), "\n") {
		line := []rune(strings.Repeat(" ", cols))
		for _, part := range strings.Split(text, "\r") {
			if r := []rune(part); len(r) > cols {
				t.Errorf("%d columns: %q", len(r), part)
			} else {
				copy(line, r)
			}
		}
		lines = append(lines, strings.TrimRight(string(line), " "))
	}
	return lines
}

func TestLinesStandAboveTheBarOfARun(t *testing.T) {
	for _, cols := range []int{40, 80, 200} {
		master, slave := terminal(t)
		if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: uint16(cols)}); err != nil {
			t.Fatal(err)
		}
		var out buffer
		copied := make(chan bool)
		go func() { io.Copy(&out, master); close(copied) }() // ends with EIO when the other end closes
		p := newProgress(slave, "migrate")
		p.run(2000, 0)
		p.add(1000)
		p.userDone()
		p.say("alice: skipped")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { p.userDone(); p.say("another: done") })
		}
		wg.Wait()
		out.until(t, "migrate: 21/2000 ")
		p.waiting("pause file \x1bthere")
		out.until(t, "pause file \\x1bthere\r\n")
		if cols == 200 {
			out.until(t, "waiting since")
			if bar := regexp.MustCompile(`\rmigrate: 21/2000 users, waiting since \d\d:\d\d:\d\d: pause file \\x1bthere +1% \|[^|]*\|`); !bar.MatchString(out.String()) {
				t.Errorf("%d columns: %q", cols, out.String())
			}
		}
		p.finish()
		p.say("the end")
		slave.Close()
		<-copied
		lines := screen(t, out.String(), cols)
		want := []string{"alice: skipped"}
		for range 20 {
			want = append(want, "another: done")
		}
		want = append(want, "migrate: waiting: pause file \\x1bthere", "the end", "")
		if strings.Join(lines, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d columns:\n%s\nwant\n%s", cols, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("%d columns: escapes: %q", cols, out.String())
		}
	}
}

// A bar that is full would be gone while users are still being cut over.
func TestTheBarStaysToTheEnd(t *testing.T) {
	master, slave := terminal(t)
	var out buffer
	copied := make(chan bool)
	go func() { io.Copy(&out, master); close(copied) }()
	p := newProgress(slave, "migrate")
	p.run(1, 100)
	p.add(100)
	p.add(50)
	p.userDone()
	p.say("done")
	out.until(t, "done\r\n")
	out.until(t, "99% |")
	p.finish()
	slave.Close()
	<-copied
}
