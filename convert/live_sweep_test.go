package convert

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"mailferry/internal/livemail"
	"mailferry/semaphore"
)

// hesitates is an agent that can't take the gate, and looks up where mail goes
// long before it locks: as Exim does, or Postfix by a table.
var hesitates = planted{"hesitates", takesNoGate.deliver}

// waitsOpen is one that opens the mbox before it waits for its fcntl lock, and
// does not look afterwards whether the file still has its name: as Postfix does
// with mailbox_delivery_lock = fcntl. It comes while the mbox is locked.
var waitsOpen = planted{"waits with the mbox open", func(ctx context.Context, m *livemail.Message) (livemail.Result, error) {
	state := m.User.State()
	lagBehind(m.User, func() bool {
		_, err := os.Lstat(m.User.Spool + ".lock")
		return err == nil
	})
	if state == semaphore.Mbox {
		return m.PutWaiting(slow)
	}
	return m.Put(ctx, state, true, slow)
}}

// Agents that can't hold the gate deliver to the old place behind a flip: into a
// new file there, or into the mbox that has been parked. What they deliver is
// swept up, each message once.
func TestStragglersAreSweptUpLive(t *testing.T) {
	for seed := range uint64(3) {
		if moveBesideStragglers(t, 7+seed) > 0 {
			return
		}
	}
	t.Error("there were no stragglers: nothing is proved")
}

// moveBesideStragglers moves some users to Maildir, and returns how often mail was swept up.
func moveBesideStragglers(t *testing.T, seed uint64) (swept int) {
	const users = 12
	l := newLive(t, users, livemail.Options{Seed: seed, Clients: 2, ReadOnly: true})
	lda := livemail.LDA{Server: l.Server}
	l.Agents = slices.Concat(slices.Repeat([]livemail.Agent{hesitates, waitsOpen}, 6), []livemail.Agent{lda, lda, livemail.Honest{Pause: slow}})
	l.Start()
	time.Sleep(time.Second)
	for start := time.Now(); len(l.on(semaphore.Maildir)) < users; {
		there := l.on(semaphore.Mbox)
		l.run(Migrate, there[:min(len(there), 3)])
		swept += l.sweep()
		if time.Since(start) > 3*time.Minute {
			t.Fatalf("still on mbox: %d users", len(there))
		}
	}
	l.Stop()
	swept += l.sweep() + len(l.swept)
	t.Logf("%d times mail was swept up", swept)
	l.settle()
	return swept
}

// sweep takes what came to old places, and returns how many messages.
func (l *live) sweep() (messages int) {
	l.Helper()
	for _, u := range l.on(semaphore.Maildir) {
		swept, err := l.site.Sweep(context.Background(), accountOf(u), SweepOptions{Alone: true})
		if err != nil {
			if r := reasonOf(err); r != reasonBusy && r != reasonInUse {
				l.Errorf("sweep of %s: %v", u.Name, err)
			}
			continue
		}
		for _, d := range swept.Differences {
			l.Errorf("sweep of %s: %s %s", u.Name, d.Path, d.Reason)
		}
		messages += swept.Messages()
	}
	return messages
}
