package host

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Moment is when a hook runs.
type Moment string

// The moments, in the order of a cutover: one of the last two comes.
const (
	BeforeHold Moment = "before-hold" // mail still flows
	Drain      Moment = "drain"       // the hold is durable, sessions have to end
	AfterFlip  Moment = "after-flip"  // the semaphore says maildir; after a rollback mbox
	AfterAbort Moment = "after-abort" // the hold is over, the semaphore says what it did before
)

// hookLimit is how long a hook may take when the caller sets no limit.
const hookLimit = 5 * time.Minute

// Hooks are executables, by the moment at which they run; "" for none. The
// fields are those of config.Hooks, so that the one converts to the other.
type Hooks struct {
	BeforeHold, Drain, AfterFlip, AfterAbort string
}

// Subject is whom a hook is about: its environment.
type Subject struct {
	User     string // MAILFERRY_USER
	UID, GID int    // MAILFERRY_UID, MAILFERRY_GID
	Home     string // MAILFERRY_HOME
	Spool    string // MAILFERRY_SPOOL, the INBOX mbox
	Maildir  string // MAILFERRY_MAILDIR
	Run      string // MAILFERRY_RUN, the name of the run
	State    string // MAILFERRY_STATE, what the semaphore says now
}

// Run runs the hook of a moment, if there is one, and waits for its end, for
// 5 minutes at the most. A hook gets no arguments; MAILFERRY_HOOK is the
// moment. A hook that [CheckProgram] objects to is not run.
//
// The error is a *Failed unless the hook exits with 0.
func (h Hooks) Run(ctx context.Context, moment Moment, about Subject) error {
	path, err := h.at(moment)
	if err == nil && path != "" {
		err = CheckProgram(path)
	}
	if err == nil && path != "" {
		err = program{path: path, env: about.environment(moment), limit: hookLimit}.run(ctx)
	}
	if err != nil {
		return fmt.Errorf("hook %s: %w", moment, err)
	}
	return nil
}

// at is the hook of a moment.
func (h Hooks) at(moment Moment) (string, error) {
	switch moment {
	case BeforeHold:
		return h.BeforeHold, nil
	case Drain:
		return h.Drain, nil
	case AfterFlip:
		return h.AfterFlip, nil
	case AfterAbort:
		return h.AfterAbort, nil
	}
	return "", fmt.Errorf("there is no such moment as %q", string(moment))
}

func (s Subject) environment(moment Moment) []string {
	return []string{
		"MAILFERRY_HOOK=" + string(moment),
		"MAILFERRY_USER=" + s.User,
		"MAILFERRY_UID=" + strconv.Itoa(s.UID),
		"MAILFERRY_GID=" + strconv.Itoa(s.GID),
		"MAILFERRY_HOME=" + s.Home,
		"MAILFERRY_SPOOL=" + s.Spool,
		"MAILFERRY_MAILDIR=" + s.Maildir,
		"MAILFERRY_RUN=" + s.Run,
		"MAILFERRY_STATE=" + s.State,
	}
}

// CheckProgram refuses a file that should not be run: it must be named by an
// absolute path and be a regular, executable file. If this process is root,
// that file and every directory above it, symlinks resolved, must be root's
// and not writable by others; a directory may be if it has the sticky bit.
func CheckProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q is no absolute path", path)
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Lstat(resolved)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is no regular file", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%q is not executable (mode %04o)", path, info.Mode().Perm())
	case os.Geteuid() != 0:
		return nil
	}
	return rootsAlone(resolved)
}

// rootsAlone demands that only root can change a file or put another in its
// place.
func rootsAlone(path string) error {
	for {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		switch uid := info.Sys().(*syscall.Stat_t).Uid; {
		case uid != 0:
			return fmt.Errorf("%q belongs to uid %d, not to root", path, uid)
		case info.Mode()&0o022 != 0 && !sticky:
			return fmt.Errorf("%q is writable by others than root (mode %04o)", path, info.Mode().Perm())
		case path == filepath.Dir(path):
			return nil
		}
		path = filepath.Dir(path)
	}
}
