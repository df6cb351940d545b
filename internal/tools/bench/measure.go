package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one run took.
type usage struct {
	round     int
	wall, cpu time.Duration
	rss       int64 // octets, the highest of any step
	messages  int   // found in the Maildir afterwards
	disk      int64 // octets that the image's device wrote; of a site only
}

// result is all runs of a contender.
type result struct {
	name   string
	runs   []usage
	note   string // why it was left out
	phases map[string]time.Duration
}

// measure runs the contenders in turn, each on a fresh image. One that fails
// or exceeds the time is noted and left out of the rounds that follow; an
// interrupt ends it all.
func (b *bench) measure(ctx context.Context) ([]result, error) {
	contenders := b.contenders()
	results := make([]result, len(contenders))
	for i, c := range contenders {
		results[i].name = c.name
	}
	if err := b.warm(); err != nil {
		return nil, err
	}
	for round := range b.rounds {
		for i, c := range contenders {
			r := &results[i]
			if round >= c.rounds || r.note != "" {
				continue
			}
			u, _, err := b.once(ctx, c)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				r.note = err.Error()
				fmt.Fprintf(os.Stderr, "%s, round %d: %s: %v\n", b.name, round+1, c.name, err)
				continue
			}
			u.round = round
			r.runs = append(r.runs, u)
			fmt.Fprintf(os.Stderr, "%s, round %d: %s: %.2f s wall, %.2f s CPU\n", b.name, round+1, c.name, u.wall.Seconds(), u.cpu.Seconds())
		}
	}
	return results, b.takePhases(ctx, contenders, results)
}

// takePhases runs the bare loop once more for the CPU time of each call: taking
// it costs time itself, so that run is not among the others.
func (b *bench) takePhases(ctx context.Context, contenders []contender, results []result) error {
	for i, c := range contenders {
		if !c.reports || results[i].note != "" {
			continue
		}
		c.env = append(c.env, phasesVariable+"=1")
		_, phases, err := b.once(ctx, c)
		if err != nil {
			return fmt.Errorf("phases of the bare loop: %w", err)
		}
		results[i].phases = phases
	}
	return nil
}

// once is one run on a fresh image.
func (b *bench) once(ctx context.Context, c contender) (u usage, phases map[string]time.Duration, err error) {
	size, inodes := b.imageSize()
	im, err := newImage(b.scratch, size, inodes, b.uid)
	if err != nil {
		return u, nil, err
	}
	defer func() { err = errors.Join(err, im.close()) }()
	dst := filepath.Join(im.dir, "Maildir")
	if c.setup != nil {
		if err := c.setup(dst); err != nil {
			return u, nil, err
		}
	}
	unix.Sync() // what setup wrote
	ctx, cancel := context.WithTimeoutCause(ctx, b.peerTimeout, fmt.Errorf("given up after %v", b.peerTimeout))
	defer cancel()
	for _, argv := range c.steps(dst) {
		stdout, err := b.step(ctx, argv, c.env, &u)
		if err != nil {
			return u, nil, err
		}
		if c.reports {
			var r bareReport
			if err := json.Unmarshal(stdout, &r); err != nil {
				return u, nil, err
			}
			u.wall, u.cpu, phases = r.Wall, r.CPU, r.Phases
		}
	}
	u.messages, err = countMessages(dst)
	return u, phases, err
}

// step runs a command as the contenders' user and adds what it took to u.
func (b *bench) step(ctx context.Context, argv, env []string, u *usage) ([]byte, error) {
	return stepAs(ctx, b.uid, argv, env, u)
}

// stepAs is step for any user.
func stepAs(ctx context.Context, uid int, argv, env []string, u *usage) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/", "TZ=UTC", "LC_ALL=C"}, env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	id := uint32(uid)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: id, Gid: id},
		Setpgid:    true, Pdeathsig: syscall.SIGKILL,
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second

	start := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	peak := watchMemory(cmd.Process.Pid)
	err := cmd.Wait()
	u.wall += time.Since(start)
	u.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u.rss = max(u.rss, peak())
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %.300s", filepath.Base(argv[0]), err, &stderr)
	}
	return stdout.Bytes(), nil
}

// watchMemory samples VmHWM, the peak since exec: ru_maxrss of a child begins
// with the peak of the process that forked it. The func ends the sampling and
// returns the peak in octets.
func watchMemory(pid int) (peak func() int64) {
	stop, last := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var highest int64
		for {
			highest = max(highest, vmHWM(pid))
			select {
			case <-stop:
				last <- highest
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-last
	}
}

// vmHWM is the peak resident size of pid in octets, 0 once it has ended.
func vmHWM(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	field, _, _ := strings.Cut(rest, "kB")
	kib, err := strconv.ParseInt(strings.TrimSpace(field), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}
