package main

import (
	"context"
	"fmt"
	"os"

	"mailferry/internal/mailgen"
)

// memoryJobs is how many users are in flight, and memoryLimit what docs/results.md
// promises for them, in octets.
const (
	memoryJobs  = 64
	memoryLimit = 256 << 20
)

// memory takes the peak of a precopy of many large mailboxes at a time, and of
// the pass that follows.
func (l *lab) memory(ctx context.Context) error {
	of := load{users: scaled(memoryJobs, l.share), mailbox: func(seed uint64) mailgen.Options {
		return mailgen.RealisticOptions(seed, 64<<20)
	}}
	im, s, err := l.siteImage(ctx, of)
	if err != nil {
		return err
	}
	defer im.close()
	fmt.Fprintf(l.out, "\n## Memory of %d jobs\n\n%d users with one mailbox each, %d messages, %.1f MiB; one run.\n\n", memoryJobs, of.users, s.messages, float64(s.bytes)/(1<<20))
	fmt.Fprintln(l.out, "| pass | peak RSS (VmHWM) MiB | wall s | CPU s |\n|---|---|---|---|")
	for _, pass := range passes {
		if err := pass.before(s); err != nil {
			return err
		}
		var u usage
		if _, err := l.ferry(ctx, s, &u, "precopy", "--all", "--json", "--jobs", fmt.Sprint(memoryJobs), "--chunk", fmt.Sprint(memoryJobs)); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "| %s | %.1f | %.2f | %.2f |\n", pass.name, u.rssMiB(), u.wallSeconds(), u.cpuSeconds())
		if u.rss > memoryLimit {
			fmt.Fprintf(os.Stderr, "memory: %s: %d octets are more than %d\n", pass.name, u.rss, memoryLimit)
		}
	}
	return nil
}
