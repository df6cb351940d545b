package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// child is a run in a process of its own, which says on its output what has
// been logged, and goes on until it is killed.
func child(state string) {
	r, err := Begin(state, "migrate")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if os.Getenv("JOURNAL_TEST_PROGRAM") != "" {
		cmd := exec.Command("sleep", "30")
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(cmd.Process.Pid)
	}
	for n := 1; ; n++ {
		if err := r.Log(Event{User: "alice", Phase: "precopy", Messages: n, Reason: strings.Repeat("long ", n%2000)}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// startChild returns the lines that the child prints.
func startChild(t *testing.T, state string, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "JOURNAL_TEST_CHILD="+state), env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

// What Log returned for is there after kill -9, in order, and the next run
// begins at once.
func TestAKillLosesNoLoggedEvent(t *testing.T) {
	state := newState(t)
	for round := range 10 {
		cmd, said := startChild(t, state)
		for range 20 * (round + 1) {
			said.Scan()
		}
		must(t, cmd.Process.Kill())
		logged := 0
		for ; ; said.Scan() {
			n, err := strconv.Atoi(said.Text())
			if err != nil || n <= logged {
				break
			}
			logged = n
		}
		cmd.Wait()
		if logged < 20*(round+1) {
			t.Fatalf("round %d: logged %d, %q", round, logged, said.Text())
		}
		runs, err := Runs(state)
		must(t, err)
		var got, want []int
		for _, e := range events(t, state, runs[len(runs)-1]) {
			got = append(got, e.Messages)
		}
		for n := range max(len(got), logged) {
			want = append(want, n+1)
		}
		if !slices.Equal(got, want) || len(got) > logged+1 {
			t.Errorf("round %d: logged %d, read %v", round, logged, got)
		}
		latest, err := Latest(state)
		if err != nil || latest["alice"].Messages != len(got) || latest["alice"].Run != runs[len(runs)-1] {
			t.Errorf("round %d: %+v, %v", round, latest, err)
		}
	}
	begin(t, state, "recover")
}

func TestTheLockSaysWhoHoldsIt(t *testing.T) {
	state := newState(t)
	if h, err := Active(t.TempDir()); h != nil || err != nil {
		t.Errorf("before the first run: %v, %v", h, err)
	}
	before := time.Now().Truncate(time.Second)
	cmd, said := startChild(t, state)
	said.Scan()
	_, err := Begin(state, "cutover")
	var locked *Locked
	if !errors.Is(err, ErrLocked) || !errors.As(err, &locked) {
		t.Fatalf("%v", err)
	}
	host, _ := os.Hostname()
	runs, rerr := Runs(state)
	must(t, rerr)
	h := locked.Holder
	if h.PID != cmd.Process.Pid || h.Host != host || h.Verb != "migrate" || len(runs) != 1 || h.Run != runs[0] || h.Since.Before(before) || h.Since.After(time.Now()) {
		t.Errorf("%+v", h)
	}
	want := fmt.Sprintf("another run is at work: migrate holds %s since %s: pid %d on %s", filepath.Join(state, "lock"), h.Since.Format(time.RFC3339), h.PID, host)
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	if a, err := Active(state); err != nil || a == nil || *a != h {
		t.Errorf("%+v, %v", a, err)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if a, err := Active(state); err != nil || a != nil {
		t.Errorf("after a kill: %+v, %v", a, err)
	}
	begin(t, state, "recover")
}

// A hook that outlives its run does not keep the next from beginning.
func TestAProgramOfAKilledRunHoldsNoLock(t *testing.T) {
	state := newState(t)
	cmd, said := startChild(t, state, "JOURNAL_TEST_PROGRAM=1")
	said.Scan()
	pid, err := strconv.Atoi(said.Text())
	must(t, err)
	defer func() {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}()
	said.Scan()
	must(t, cmd.Process.Kill())
	cmd.Process.Wait()
	begin(t, state, "recover")
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		t.Errorf("the program is gone: %v", err)
	}
}

// Those who only ask who is at work don't keep a run from beginning.
func TestAskingDoesNotBlock(t *testing.T) {
	state := newState(t)
	must(t, begin(t, state, "plan").Close())
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := Active(state); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 50 {
		r, err := Begin(state, "plan")
		if err != nil {
			t.Error(err)
			break
		}
		must(t, r.Close())
	}
	close(stop)
	<-stopped
}
