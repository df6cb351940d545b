package dovecottest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// server is one imap or pop3 process on a pair of pipes.
// It has no goroutines of its own but the watchdog, which kills a silent server.
type server struct {
	tb     testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *os.File
	watch  *time.Timer
	limit  time.Duration
	silent atomic.Bool // killed by the watchdog
	dead   bool        // out has ended, or the process has been waited for
}

// startServer runs protocol ("imap" or "pop3") on loc. It is killed at the latest when the test ends.
func startServer(tb testing.TB, loc Location, protocol string) *server {
	tb.Helper()
	dir, err := libexec()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := command(context.Background(), tb, loc, filepath.Join(dir, protocol))
	s := &server{tb: tb, cmd: cmd, limit: silence}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if s.in, err = cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	// A file, not a buffer: what the server logged is there as soon as its answer is.
	if s.stderr, err = os.CreateTemp(cmd.Dir, "log"); err != nil {
		tb.Fatal(err)
	}
	cmd.Stderr = s.stderr
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s.out = bufio.NewReaderSize(out, 64<<10)
	s.watch = time.AfterFunc(s.limit, func() {
		s.silent.Store(true)
		_ = cmd.Process.Kill()
	})
	s.watch.Stop()
	tb.Cleanup(s.kill)
	return s
}

// send writes a command and sets the watchdog; the caller stops it when the answer is complete.
func (s *server) send(command string) error {
	s.watch.Reset(s.limit)
	if _, err := io.WriteString(s.in, command+"\r\n"); err != nil {
		return s.died(err)
	}
	return nil
}

// line returns the next line without its end.
func (s *server) line() (string, error) {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return "", s.died(err)
	}
	s.watch.Reset(s.limit)
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// died returns the error of a server that is gone, with its log. A hang fails the test besides.
func (s *server) died(err error) error {
	s.dead = true
	if s.silent.Load() {
		s.tb.Errorf("dovecot: silent for %v", s.limit)
		err = fmt.Errorf("killed: silent for %v", s.limit)
	}
	return fmt.Errorf("server gone: %w\n%s", err, s.log())
}

// log returns what the server has logged.
func (s *server) log() string {
	data, err := os.ReadFile(s.stderr.Name())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// wait lets the server finish what it does at the end of its input, such as writing flags to an mbox.
func (s *server) wait() error {
	_ = s.in.Close()
	s.watch.Reset(s.limit)
	_, _ = io.Copy(io.Discard, s.out)
	return s.reap()
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.reap()
}

func (s *server) reap() error {
	s.dead = true
	s.watch.Stop()
	_ = s.stderr.Close()
	if s.cmd.ProcessState != nil {
		return nil
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, s.log())
	}
	return nil
}
