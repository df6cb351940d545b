package semaphore

import (
	"context"
	"fmt"
	"time"
)

// Wait reads the semaphore until ok accepts the state, which it returns. While
// the semaphore can't be read, ok is not asked. When ctx is done first, the
// state is the last one read, and the error wraps that of ctx and tells what the
// semaphore says or what is wrong with it.
//
// It reads again and again, first after 5 ms, then less often: an inotify
// instance for each waiting login would soon reach the kernel's limit (128 for
// one user, inotify(7)), and tells nothing of what another NFS client does. A
// reading costs about 10 µs.
func (s *Semaphore) Wait(ctx context.Context, ok func(State) bool) (State, error) {
	for nap := 5 * time.Millisecond; ; nap = min(nap+nap/4, 100*time.Millisecond) {
		state, err := s.Get()
		if err == nil && ok(state) {
			return state, nil
		}
		select {
		case <-time.After(nap):
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("semaphore of %q says %s", s.user, state)
			}
			return state, fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}
