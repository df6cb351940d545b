package semaphore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// What callers of the gate decide by; all other errors are those of system calls.
var (
	ErrGateBusy    = errors.New("gate is busy")    // somebody else has it: later
	ErrGateRefused = errors.New("gate is refused") // no dotlock of the user's: an admin must look
	ErrGateLost    = errors.New("gate is lost")    // was ours, is not any more: stop
)

// RefreshEvery is how often a holder calls [Gate.Refresh]. Maildrop removes a
// dotlock untouched for 60 s and refreshes its own every 15 s (maildropfilter(7),
// LOCKTIMEOUT, LOCKREFRESH); procmail's LOCKTIMEOUT is 1024 s.
const RefreshEvery = 15 * time.Second

// DefaultStaleAfter is how long a gate of which the maker can't be proved dead
// must lie unchanged before it is taken over: longer than any delivery agent
// lets a delivery take (procmail TIMEOUT 960 s, Postfix command_time_limit
// 1000 s). Waiting longer costs a retry, breaking a live gate can cost mail.
const DefaultStaleAfter = 30 * time.Minute

// GateOptions says how long TakeGate tries.
type GateOptions struct {
	Timeout    time.Duration // how long to retry while busy; 0: one attempt
	StaleAfter time.Duration // see DefaultStaleAfter, used when 0
	Hostname   string        // this host; default os.Hostname
}

// Gate is a gate that is held. It belongs to the goroutine that took it, whose
// thread has the user's identity; its methods must be called from there.
type Gate struct {
	// Broken says which stale gate was taken over; "" when there was none.
	Broken string

	dir  int
	name string
	opts GateOptions
	own  *dotlock // nil once released
}

// TakeGate takes the gate called name in the home that is open as dir, a
// descriptor that must stay open until Release.
//
// The gate is a dotlock. Whoever delivers takes it before he reads the
// semaphore and keeps it until the message is on the disk; a cutover first sets
// hold and then takes it. So nobody who has read mbox writes after the flip.
// Procmail takes part by LOCKFILE, maildrop by its dotlock statement.
//
// It retries while the gate is busy, until opts.Timeout has passed or ctx is
// done; then the error is ErrGateBusy and wraps that of ctx. What lies there and
// is not a regular file of root's, of the home's owner or of our uid is
// ErrGateRefused at once.
func TakeGate(ctx context.Context, dir int, name string, opts GateOptions) (*Gate, error) {
	if err := errors.Join(fitName(name), opts.complete(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	g := &Gate{dir: dir, name: name, opts: opts}
	begin := time.Now()
	for nap := time.Millisecond; ; nap = min(2*nap, 64*time.Millisecond) {
		err := g.attempt()
		if err == nil {
			return g, nil
		}
		if !errors.Is(err, ErrGateBusy) || !pause(ctx, nap, opts.Timeout-time.Since(begin)) {
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

func (o *GateOptions) complete() (err error) {
	if o.StaleAfter == 0 {
		o.StaleAfter = DefaultStaleAfter
	}
	if o.Hostname == "" {
		o.Hostname, err = os.Hostname()
	}
	return err
}

// pause sleeps for nap to twice that, random so that two who keep meeting
// part, and reports whether there is time left for another attempt.
func pause(ctx context.Context, nap, left time.Duration) bool {
	nap += rand.N(nap)
	if left <= nap {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(nap):
		return true
	}
}

// attempt takes the gate if it is free or stale.
func (g *Gate) attempt() error {
	old, err := g.find()
	if err != nil {
		return err
	}
	if old == nil {
		return g.place(g.link)
	}
	defer unix.Close(old.fd)
	if err := g.judge(old); err != nil {
		return err
	}
	return g.alone(func() error {
		return g.place(func(temp string, own *dotlock) error { return g.takeOver(temp, own, old) })
	})
}

// Check reports whether the gate is still ours: else ErrGateLost. It is the
// last call before a step that relies on the gate.
func (g *Gate) Check() error {
	if g.own == nil {
		return g.fault(ErrGateLost, "it was released")
	}
	if st, err := lstat(g.dir, g.name); err != nil || inodeOf(&st) != inodeOf(&g.own.st) {
		return g.fault(ErrGateLost, "another program has removed or replaced it")
	}
	return nil
}

// Refresh sets the time of the gate to now, which tells others that its holder
// lives. A gate that is not ours any more is ErrGateLost.
func (g *Gate) Refresh() error {
	if err := g.Check(); err != nil {
		return err
	}
	// By name, since utimensat(2) takes a descriptor alone only from Linux 5.8 on.
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(g.dir, g.name, now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("gate %q: touching it: %w", g.name, err)
	}
	return g.Check()
}

// Release gives the gate up. If it was broken, what lies there now is another's
// and stays, and the error is ErrGateLost. A second Release does nothing.
func (g *Gate) Release() error {
	if g.own == nil {
		return nil
	}
	err := g.Check()
	if err == nil {
		err = unlink(g.dir, g.name)
	}
	g.own.forget()
	g.own = nil
	return err
}

// fault is an error that tells all that is known of the gate.
func (g *Gate) fault(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %q: %s", kind, g.name, fmt.Sprintf(format, args...))
}
