package convert

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"mailferry/maildir"
	"mailferry/mbox"
	"mailferry/semaphore"
)

// Reasons beside the codes of findings.
const (
	reasonQuota      = "quota"
	reasonSpace      = "space"
	reasonBusy       = "busy"
	reasonQuarantine = "quarantine"
	reasonAltered    = "staging-altered"
	reasonSync       = "sync"
	reasonHold       = "hold-limit"
	reasonInUse      = "in-use"
	reasonVeto       = "vetoed"
	reasonPostponed  = "postponed"
	reasonStuck      = "stuck"
	reasonUnstaged   = "not-precopied"
	reasonStopped    = "stopped"
	reasonError      = "error"
)

// reasonOf sorts an error by what an admin does about it.
func reasonOf(err error) string {
	var (
		busy    *Busy
		altered *Altered
		lock    *mbox.LockError
		stuck   *Stuck
		inUse   *InUse
	)
	switch {
	case errors.As(err, &stuck):
		return reasonStuck
	case errors.Is(err, errQuarantine):
		return reasonQuarantine
	case errors.Is(err, unix.EDQUOT):
		return reasonQuota
	case errors.Is(err, unix.ENOSPC):
		return reasonSpace
	case errors.Is(err, context.Canceled):
		return reasonStopped
	case errors.Is(err, errVeto):
		return reasonVeto
	case errors.As(err, &inUse), errors.Is(err, errDrain):
		return reasonInUse
	case errors.As(err, &busy), errors.As(err, &lock) && lock.Busy(), // before the limit, which is what ended the wait for them
		errors.Is(err, semaphore.ErrGateBusy), errors.Is(err, semaphore.ErrBusy):
		return reasonBusy
	case errors.Is(err, errHoldLimit), errors.Is(err, context.DeadlineExceeded):
		return reasonHold
	case errors.As(err, &altered), errors.Is(err, errAltered):
		return reasonAltered
	case errors.Is(err, maildir.ErrNotEmpty):
		return "maildir-foreign"
	case errors.Is(err, fs.ErrPermission):
		return "mbox-unreadable"
	}
	if skip := skipOf("", err); skip.code != "" && isSkippable(err) {
		return skip.code
	}
	return reasonError
}

// concernsAll reports whether an error is no user's but the disk's.
func concernsAll(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) }
