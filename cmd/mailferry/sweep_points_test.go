//go:build linux && amd64

package main

import (
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"mailferry/internal/stepper"
)

// pointsOf are the points that are picked of calls.
func pointsOf(calls []stepper.Call, pick func(stepper.Call) []stepper.Options) (points []stepper.Options) {
	for at, c := range calls {
		for _, o := range pick(c) {
			o.At = at + 1
			points = append(points, o)
		}
	}
	return points
}

// faults are the errors that a call may end with, and a write that is cut short.
func faults(c stepper.Call, list ...unix.Errno) (points []stepper.Options) {
	for _, errno := range list {
		points = append(points, stepper.Options{Do: stepper.Fail(errno)})
	}
	if c.Size > 1 {
		points = append(points, stepper.Options{Do: stepper.Short})
	}
	return points
}

// full is a disk that is full from a call on, and a quota that is used up.
func full(c stepper.Call) (points []stepper.Options) {
	if takesRoom(c) {
		points = append(points, stepper.Options{Do: stepper.Fail(unix.ENOSPC), Also: takesRoom})
	}
	if ofUser(c) {
		points = append(points, stepper.Options{Do: stepper.Fail(unix.EDQUOT), Also: ofUser})
	}
	return points
}

// each tries every so many-th point on all processors.
func (w *sweep) each(t *testing.T, points []stepper.Options, stride int, try func(*testing.T, stepper.Options) (call string, wrong []string)) {
	t.Helper()
	next := make(chan stepper.Options, len(points))
	for i := 0; i < len(points); i += stride {
		next <- points[i]
	}
	close(next)
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for o := range next {
				if call, wrong := try(t, o); len(wrong) > 0 {
					t.Errorf("%s at %d\n\t%s\n\t%s", o.Do, o.At, call, strings.Join(wrong, "\n\t"))
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d points of %d", w.points.Load(), len(points))
}
