package convert

import (
	"context"

	"golang.org/x/sys/unix"
)

// Pace is how a run behaves toward the machine, and who watches it.
type Pace struct {
	Progress func(bytes int64)                            // told of each message; nil: nobody watches
	Throttle func(ctx context.Context, bytes int64) error // waits for as long as so many bytes take; nil: no limit
	Nice     bool                                         // give way to everybody else
}

// Idle scheduling, ioprio_set(2): x/sys has no names for it.
const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
)

// beNice makes this thread give way, for processor and disk. It ends with its
// thread, which is why it is called inside of asUser only. A kernel that
// refuses does no harm.
func (p Pace) beNice() {
	if !p.Nice {
		return
	}
	unix.Setpriority(unix.PRIO_PROCESS, 0, 19)
	unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
}

// pace is that of a round of this run.
func (r *Run) pace() Pace {
	p := r.Pace
	p.Progress = r.Watch.Progress
	return p
}
