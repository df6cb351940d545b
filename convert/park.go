package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
)

// parkedMark stands between the name of an mbox that was parked and the time
// of its flip: "NAME.mailferry-20060102T150405Z". What a sweep found at an old
// path afterwards, and has taken into the Maildir, has a "-late" and a number
// behind the time.
const (
	parkedMark   = ".mailferry-"
	parkedLayout = "20060102T150405Z"
	lateMark     = "-late"
)

// parkedName is the name that an mbox gets after the flip.
func parkedName(name string, flip time.Time) string {
	return name + parkedMark + flip.UTC().Format(parkedLayout)
}

// lateName is the name that the n-th mbox gets of those that came to the old
// path after the flip.
func lateName(name string, flip time.Time, n int) string {
	return parkedName(name, flip) + lateMark + strconv.Itoa(n)
}

// parkedAs is what the name of a parked mbox says.
type parkedAs struct {
	live string    // name that it had
	flip time.Time // for which it was parked
	late bool      // it came to the old path afterwards
}

// parseParked reads the name of a parked mbox.
func parseParked(name string) (p parkedAs, ok bool) {
	at := strings.LastIndex(name, parkedMark)
	if at <= 0 {
		return p, false
	}
	stamp, number, late := strings.Cut(name[at+len(parkedMark):], lateMark)
	if n, err := strconv.Atoi(number); late && (err != nil || strconv.Itoa(n) != number) {
		return p, false
	}
	flip, err := time.Parse(parkedLayout, stamp)
	return parkedAs{name[:at], flip, late}, err == nil
}

// unparked returns the name that a parked mbox had.
func unparked(name string) (live string, parked bool) {
	p, ok := parseParked(name)
	if !ok {
		return name, false
	}
	return p.live, true
}

// settle parks the mailboxes. When all are, the manifests, which say of what the
// Maildir was made, have served their purpose.
func (c *cutover) settle(cut *Cut) (err error) {
	if cut.Parked, err = c.parkAll(c.converted()); err != nil {
		return err
	}
	return c.asUser(func() error { return removeManifests(c.staging) })
}

// converted are the locked mailboxes that are in the Maildir, with their size
// when they were read. Other files among the folders stay where they are.
func (c *cutover) converted() (list []converted) {
	for _, m := range c.report.Mailboxes {
		for _, l := range c.locks {
			if l.src.path == m.Path {
				list = append(list, converted{l, m.stat.Size})
			}
		}
	}
	return list
}

// converted is a locked mailbox of which the Maildir holds the first so many
// bytes. There may be more by now.
type converted struct {
	locked
	size int64
}

// record makes durable what is going to be parked, before it is: by that mail
// is told which comes to it later. What was written for the same flip already
// counts; of an earlier one, the names are kept until they are retired.
func (c *cutover) record(list []converted) error {
	boot, err := journal.BootID()
	if err != nil {
		return err
	}
	last, err := journal.ReadSoak(c.State, c.account.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !last.Flipped.Equal(c.flipped) {
		if err := c.asUser(func() error { return c.freeTime(list) }); err != nil {
			return err
		}
	}
	now := journal.Soak{User: c.account.Name, Flipped: c.flipped.UTC(), Run: c.run, BootID: boot, Maildir: c.account.Maildir, Aside: last.Aside}
	if last.Flipped.Equal(now.Flipped) {
		now.Parked = last.Parked
	} else {
		for _, p := range last.Parked {
			now.Aside = append(now.Aside, journal.Aside{Path: p.Path, From: p.From, Dev: p.Dev, Ino: p.Ino, Taken: p.Taken})
		}
	}
	for _, l := range list {
		if slices.ContainsFunc(now.Parked, func(p journal.Parked) bool { return p.Live == l.src.path }) {
			continue
		}
		p, err := l.parked(c.flipped)
		if err != nil {
			return err
		}
		now.Parked = append(now.Parked, p)
	}
	return journal.WriteSoak(c.State, now)
}

// freeTime moves the time of the flip behind those for which anything was parked:
// the newest of a mailbox's parked mboxes is told by its name. Who is moved,
// brought back and moved again may have been quick, or the clock set back.
func (c *cutover) freeTime(list []converted) error {
	for _, l := range list {
		newest, err := newestParked(l.dir, l.src.file)
		if err != nil {
			return err
		}
		if p, parked := parseParked(newest); parked && !c.flipped.Truncate(time.Second).After(p.flip) {
			c.flipped = p.flip.Add(time.Second)
		}
	}
	return nil
}

func (l converted) parked(flip time.Time) (journal.Parked, error) {
	info, err := l.File.Stat()
	if err != nil {
		return journal.Parked{}, err
	}
	st := info.Sys().(*syscall.Stat_t)
	return journal.Parked{
		Mailbox: l.src.name(), Live: l.src.path, Path: filepath.Join(l.dir.Path(), parkedName(l.src.file, flip)),
		Dev: uint64(st.Dev), Ino: st.Ino, Born: bornOf(l.File), Mode: st.Mode & 0o7777, Size: l.size, Taken: l.size,
	}, nil
}

// parkAll parks locked mailboxes, as the user where he may.
func (c *cutover) parkAll(list []converted) (parked []string, err error) {
	if err := c.record(list); err != nil {
		return nil, fmt.Errorf("what is to be parked could not be recorded, and is left where it is: %w", err)
	}
	var denied []locked
	err = c.asUser(func() (err error) {
		for _, l := range list {
			path, perr := park(l.locked, c.flipped)
			switch {
			case errors.Is(perr, fs.ErrPermission):
				denied = append(denied, l.locked)
			case perr != nil:
				err = errors.Join(err, perr)
			default:
				parked = append(parked, path)
			}
		}
		return err
	})
	for _, l := range denied {
		path, perr := c.parkAsRoot(l)
		if perr != nil {
			err = errors.Join(err, perr)
			continue
		}
		parked = append(parked, path)
	}
	return parked, err
}

// park gives a locked mbox the name under which it waits for the end of the
// soak, for its owner alone.
func park(l locked, flip time.Time) (path string, err error) {
	name := parkedName(l.src.file, flip)
	if err := l.Check(); err != nil {
		return "", err
	}
	if err := inGroup(l.dir, func() error { return l.dir.Rename(l.src.file, name, false) }); err != nil {
		return "", err
	}
	return filepath.Join(l.dir.Path(), name), errors.Join(l.File.Chmod(0o600), l.dir.Sync())
}

// parkAsRoot parks in a spool in which only root can rename.
func (c *cutover) parkAsRoot(l locked) (string, error) {
	if err := rootsOwn(l.dir); err != nil {
		return "", fmt.Errorf("%s: may not be parked by its user: %w; it is left where it is, and is not read any more", l.src.path, err)
	}
	return park(l, c.flipped)
}

// rootsOwn demands that nobody but root can change names in a directory.
func rootsOwn(dir *safefs.Dir) error {
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Mode&0o022 != 0 {
		return errors.New("the directory is not root's alone, and there root does nothing on behalf of others")
	}
	return nil
}
