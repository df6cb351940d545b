package mbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockNew locks an mbox that is written and has yet to get its name: the kernel
// locks are those of temp, the dotlock is that of name, which must be free. Both
// lie in the directory dir. So nobody who locks can make an mbox of that name
// meanwhile, or write to this one when it has got it. Errors are as those of
// [Lock]; a name that is taken is LockRefused.
//
// When temp has been renamed, the Held is that of any mbox; before, CheckNew
// does what Check does.
func LockNew(ctx context.Context, dir int, temp, name string, opts LockOptions) (*Held, error) {
	if strings.Contains(temp, "/") || temp == "" {
		return nil, fmt.Errorf("locking %q: not the name of a file in a directory", temp)
	}
	if err := opts.complete(name); err != nil {
		return nil, err
	}
	start := time.Now()
	for {
		held, err := attemptLockNew(dir, temp, name, opts)
		var fault *LockError
		if !errors.As(err, &fault) || !fault.Busy() {
			return held, err
		}
		if !pause(ctx, opts.Timeout-time.Since(start)) {
			fault.Waited, fault.Err = time.Since(start), ctx.Err()
			return nil, fault
		}
	}
}

func attemptLockNew(dir int, temp, name string, opts LockOptions) (*Held, error) {
	h := &Held{dir: dir, name: temp, opts: opts, fd: -1}
	naming := func() error {
		h.name, h.free = name, true
		return nil
	}
	for _, step := range []func() error{h.openMbox, h.lockFcntl, h.lockFlock, naming, h.checkFree, h.lockDotlock, h.checkFree} {
		if err := step(); err != nil {
			if left := h.letGo(); left != nil {
				return nil, left
			}
			return nil, err
		}
	}
	return h, nil
}

// checkFree demands that nothing has the name.
func (h *Held) checkFree() error {
	st, err := h.statName(h.name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return h.failed("", "looking for the mbox", err)
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		return h.fault(LockRefused, "", "a file has come there")
	}
	return h.fault(LockRefused, "", "there is "+fileType(&st))
}

// CheckNew reports whether the lock of a mailbox that has not got its name yet
// still holds: nothing has the name, and the dotlock is ours. The error is as
// that of Check.
func (h *Held) CheckNew() error {
	if err := h.checkFree(); err != nil {
		return h.fault(LockLost, "", "something has come to its name")
	}
	return h.checkDotlock()
}
