package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// ErrNoRun says that nobody answers: no run is at work, or none that serves the
// socket.
var ErrNoRun = errors.New("no run is at work")

// Ask sends a request to the run that is at work in a state directory. A Reply
// with an Error is no error here.
func Ask(state string, r Request) (Reply, error) {
	if err := r.Check(); err != nil {
		return Reply{}, err
	}
	dir, err := openDir(state)
	if errors.Is(err, fs.ErrNotExist) {
		return Reply{}, ErrNoRun
	}
	if err != nil {
		return Reply{}, err
	}
	defer dir.Close()
	c, err := net.DialUnix("unix", nil, address(dir))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return Reply{}, ErrNoRun
	}
	if err != nil {
		return Reply{}, fmt.Errorf("%s/%s: %w", state, Name, err)
	}
	defer c.Close()
	reply, err := exchange(c, r)
	if err != nil {
		return Reply{}, fmt.Errorf("the run did not answer: %w", err)
	}
	return reply, nil
}

func exchange(c net.Conn, r Request) (reply Reply, err error) {
	if err := send(c, r); err != nil {
		return reply, err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return reply, err
	}
	line, err := bufio.NewReader(io.LimitReader(c, maxReply)).ReadBytes('\n')
	if err != nil {
		return reply, err
	}
	return reply, json.Unmarshal(line, &reply)
}
