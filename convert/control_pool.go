package convert

import (
	"context"
	"slices"
)

// each runs a step for all members without an outcome, some at a time. The
// phase is what it is called; the number of jobs is looked at before each
// member.
func (c *chunk) each(ctx context.Context, phase string, jobs *int, step func(context.Context, *member)) {
	left := c.members
	c.pool(ctx, phase, jobs, step, func() (m *member) {
		for len(left) > 0 && (m == nil || m.Outcome != "") {
			m, left = left[0], left[1:]
		}
		if m == nil || m.Outcome != "" {
			return nil
		}
		return m
	})
}

// inTurn runs a step that holds users, for all members without an outcome, at
// most CutoverJobs at a time. Whom the operator asked for comes first. While
// the run is paused none begins; while cutovers are postponed only who was
// asked for does, and the others are put aside, as are all when the window ends
// in a pause.
func (c *chunk) inTurn(ctx context.Context, phase string, step func(context.Context, *member)) {
	var left []*member
	for _, m := range c.members {
		if m.Outcome == "" {
			left = append(left, m)
		}
	}
	open := true
	c.pool(ctx, phase, &c.CutoverJobs, step, func() *member {
		for len(left) > 0 {
			open = c.paused(ctx) && open
			at := max(slices.IndexFunc(left, func(m *member) bool { return setting(c.Run, &m.asked) }), 0)
			m := left[at]
			left = slices.Delete(left, at, at+1)
			if m.aside = !open || c.flagged(postponeFile) && !setting(c.Run, &m.asked); !m.aside {
				return m
			}
		}
		return nil
	})
}

// pool runs a step for the members that next returns, until it returns nil.
func (c *chunk) pool(ctx context.Context, phase string, jobs *int, step func(context.Context, *member), next func() *member) {
	over := make(chan struct{})
	work := 0
	for {
		for ; work >= max(setting(c.Run, jobs), 1); work-- {
			<-over
		}
		m := next()
		if m == nil {
			break
		}
		work++
		go func() {
			defer func() { over <- struct{}{} }()
			if ctx.Err() == nil && !c.flagged(panicFile) && !c.faulted() {
				c.at(m.entry, phase)
				step(ctx, m)
				c.at(m.entry, "")
			} else {
				m.interrupt()
			}
		}()
	}
	for ; work > 0; work-- {
		<-over
	}
}
