package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// input is standard input, of which a read ends when we are told to stop.
type input struct {
	ctx context.Context
	f   *os.File
}

// glance is how often a read looks whether it is to stop, in ms.
const glance = 200

func (in *input) Read(b []byte) (int, error) {
	for {
		if err := in.ctx.Err(); err != nil {
			return 0, err
		}
		ready := []unix.PollFd{{Fd: int32(in.f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, glance)
		if n == 0 || err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		return in.f.Read(b)
	}
}
