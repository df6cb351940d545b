package convert

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"mailferry/internal/journal"
	"mailferry/internal/safefs"
	"mailferry/maildir"
)

// Sweep of who is on mbox again
//
// An agent that read "maildir" before the flip of a rollback and can't take the
// gate delivers behind it: into the Maildir that was set aside, which it may have
// as its working directory, or into one that it makes anew at the old path. A sweep
// takes that mail into the mbox, message by message:
//
//	record, begun       durable: which file
//	gate, locks         of the mbox, as a delivery takes them
//	in use?             who has the file open could be in the midst of it: later
//	record, appending   durable: which bytes are going to stand where in which mbox
//	append              synced
//	put away            the file is renamed into tmp of its folder, where it is no
//	                    message any more; with a Maildir that was set aside, retire
//	                    deletes it
//	unlock, record removed
//
// What a kill leaves is told by what the mbox holds from the recorded offset on: see
// sweep_back_recover.go.

// onMboxAgain is the note about a user whom a rollback has brought back.
const onMboxAgain = "on mbox again"

// lateMail is a message that came to a Maildir that nobody reads.
type lateMail struct {
	folder    string // path of the directory that its new or cur lies in
	sub, name string
	parts     []string // of the folder's name; none for INBOX
	nameless  bool     // the directory is no folder of the layout
	ino       uint64
	born      int64
	size      int64
	date      int64 // seconds since 1970
}

// beginBack looks at a user who is on mbox again.
func (w *sweep) beginBack() error {
	w.report.Note, w.late = onMboxAgain, nil
	_, err := journal.ReadRollback(w.State, w.account.Name)
	if err == nil {
		return errUnsettledBack
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err = journal.ReadSweepBack(w.State, w.account.Name)
	if w.unfinished = err == nil; err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return asUser(w.account, w.aside)
}

// errUnsettledBack is about a user whose Maildir may not be set aside yet.
var errUnsettledBack = errors.New("his rollback waits to be finished; first run: mailferry recover")

// dueBack reports whether there is something to do about a user who is on mbox
// again.
func (w *sweep) dueBack() bool {
	return w.report.Note == onMboxAgain && (w.unfinished || len(w.late) > 0)
}

// sweepBack takes the late mail of a user who is on mbox again, while nobody
// changes the semaphore: what was read before, it reads again.
func (w *sweep) sweepBack(ctx context.Context) error {
	*w.report = Swept{User: w.account.Name}
	if _, err := w.begin(); err != nil || !w.dueBack() {
		return err
	}
	if w.unfinished {
		did, err := w.resumeBack(ctx)
		var doubt *backDoubt
		if errors.As(err, &doubt) { // the others wait for it, too: there is one record
			w.differ(doubt.path, "aside-doubt", "%s", doubt.text)
			return nil
		}
		if err != nil {
			return err
		}
		w.report.Recovered, w.report.Differences, w.late = did, nil, nil
		if err := asUser(w.account, w.aside); err != nil {
			return err
		}
	}
	err := w.bringAll(ctx)
	if len(w.report.Taken) > 0 || w.report.Recovered != "" {
		w.report.Note = ""
	}
	return err
}

// sweptBack takes the late mail of a user whom an earlier rollback has brought back,
// before he is moved again: then it would be none of his mboxes' any more.
func (c *chunk) sweptBack(ctx context.Context, m *member) {
	soak, err := journal.ReadSoak(c.State, m.Name)
	if c.Verb == Precopy || err == nil && soak.Back.IsZero() || errors.Is(err, fs.ErrNotExist) {
		return
	}
	var swept *Swept
	if err == nil {
		swept, err = c.Sweep(ctx, m.account, SweepOptions{Run: c.Journal.ID()})
	}
	if err != nil {
		c.failed(m, err)
		return
	}
	for _, line := range swept.Lines() {
		c.Watch.Note(line)
	}
	if _, err := journal.ReadSweepBack(c.State, m.Name); err == nil { // of an mbox that is about to be parked
		m.Outcome, m.Reason = journal.Skipped, "unfinished"
		m.Text = "a sweep of late mail, from when he was on Maildir, is not finished: see mailferry sweep " + shellWord(m.Name)
	}
}

// bringAll takes all of them: one that is busy keeps none of the others.
func (w *sweep) bringAll(ctx context.Context) (err error) {
	for _, m := range w.late {
		if ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		berr := w.bring(ctx, m)
		err = errors.Join(err, berr)
		if _, none := journal.ReadSweepBack(w.State, w.account.Name); berr != nil && !errors.Is(none, fs.ErrNotExist) {
			return err // the next sweep goes on with it first
		}
	}
	return err
}

// aside looks at the Maildirs that a rollback has set aside, and at one that was
// made anew: what came there since is in no mbox. What is not certainly late mail is
// a difference.
func (w *sweep) aside() error {
	if err := w.nameCopied(); err != nil {
		return err
	}
	list := append(slices.Clone(w.soak.Aside), journal.Aside{Path: w.soak.Maildir})
	for _, a := range list {
		if a.Back.IsZero() {
			a.Back = w.soak.Back
		}
		late, left := len(w.late), 0
		err := w.eachNewer(a.Path, a.Back, func(root, dir *safefs.Dir, name string, info fs.FileInfo) error {
			m, late := w.lateMail(root, dir, name, info, a)
			if late {
				w.late = append(w.late, m)
			} else {
				left++
			}
			return nil
		})
		if errors.Is(err, fs.ErrPermission) {
			w.differ(a.Path, "aside-mail", "can't be looked at as a whole: %v", err)
			err = nil
		}
		if err != nil {
			return err
		}
		if left > 0 {
			w.differ(a.Path, "aside-mail", "has %d messages that came or were changed since he is on mbox again, of which it is not certain that they came late, are whole, and his alone: they are left there, and are not in his mbox unless they were before", left)
		}
		if err := w.countAside(a, len(w.late)-late+left); err != nil {
			return err
		}
	}
	slices.SortStableFunc(w.late, func(a, b lateMail) int { return cmp.Compare(a.born, b.born) })
	return nil
}

// countAside names what came to a Maildir that was set aside, where times tell nothing
// of it: the clock was set back meanwhile.
func (w *sweep) countAside(a journal.Aside, known int) error {
	more, err := w.moreThanHeld(a)
	if more -= known; err == nil && more > 0 {
		w.differ(a.Path, "aside-mail", "has %d messages more than when it was set aside, and their times do not tell which, as if the clock had been set back: they are left there, and are not in his mbox unless they were before", more)
	}
	return err
}

// moreThanHeld is how many messages a Maildir has more than when it was set aside.
func (w *sweep) moreThanHeld(a journal.Aside) (more int, err error) {
	root, err := safefs.OpenFor(a.Path, w.account.UID)
	if err != nil {
		return 0, nil // what lies there instead is named elsewhere
	}
	defer root.Close()
	if a.Ino == 0 || !w.isSetAside(root, a) {
		return 0, nil
	}
	rels, err := w.foldersOf(root)
	n := 0
	if err == nil {
		n, err = countMessages(root, rels)
	}
	if errors.Is(err, fs.ErrPermission) { // it is named where new mail is looked for
		return 0, nil
	}
	return n - a.Held, err
}

// countMessages counts the files in new and cur of folders.
func countMessages(root *safefs.Dir, rels []string) (n int, err error) {
	for _, rel := range rels {
		for _, sub := range []string{"new", "cur"} {
			dir, err := subDir(root, path.Join(rel, sub))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return n, err
			}
			err = dir.Names(func(name string) error {
				if name[0] != '.' {
					n++
				}
				return nil
			})
			if err = errors.Join(err, dir.Close()); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// lateFor is how long behind a flip an agent may still be at work that looked before
// it: Postfix, which has the most patience, gives one 1000 s (command_time_limit). What
// is made later comes by somebody else, such as a client that keeps a copy of his
// mailbox at the old path.
const lateFor = 20 * time.Minute

// lateMail reports whether a file is certainly a message that came since a Maildir
// was given up: it was made and written behind that moment, is whole, as servers and
// agents leave it, and the user's alone. A copy, known by its times or its name, or one
// in a directory that somebody put in the place of what was set aside, may be old mail.
// Whether the mbox has it already is looked at later: see isNew.
func (w *sweep) lateMail(root, dir *safefs.Dir, name string, info fs.FileInfo, a journal.Aside) (lateMail, bool) {
	born := bornAt(dir.Fd(), name)
	parsed, err := maildir.ParseName(name)
	switch {
	case err != nil || name[0] == '.' || info.Size() == 0 || parsed.Size >= 0 && parsed.Size != info.Size():
		return lateMail{}, false
	case fit(info, name, w.account.UID) != nil || !w.isSetAside(root, a):
		return lateMail{}, false
	case slices.Contains(a.Begun, journal.Undelivered{Ino: idOf(info).ino, Born: born}): // was not delivered then
	case born == 0 || !time.Unix(0, born).After(a.Back) || info.ModTime().Before(a.Back) || time.Unix(0, born).After(a.Back.Add(lateFor)):
		return lateMail{}, false
	case a.Ino == 0 && w.copied[baseName(name)]:
		return lateMail{}, false
	}
	m := lateMail{
		folder: filepath.Dir(dir.Path()), sub: filepath.Base(dir.Path()), name: name,
		ino: idOf(info).ino, born: born, size: info.Size(), date: info.ModTime().Unix(),
	}
	rel, err := filepath.Rel(root.Path(), m.folder)
	if err == nil {
		m.parts, err = w.Folders.Parts(rel)
	}
	m.nameless = err != nil
	return m, true
}

// baseName is what stays of a name when flags change.
func baseName(name string) string {
	base, _, _ := strings.Cut(name, ":")
	return base
}

// nameCopied lists the messages of what was set aside, if there is a Maildir at the old
// path: a user may have copied them there.
func (w *sweep) nameCopied() error {
	w.copied = map[string]bool{}
	root, err := safefs.OpenFor(w.soak.Maildir, w.account.UID)
	if err != nil {
		return nil // nothing is there, or nothing that will be taken
	}
	defer root.Close()
	for _, a := range w.soak.Aside {
		err := w.eachNewer(a.Path, time.Time{}, func(_, _ *safefs.Dir, name string, _ fs.FileInfo) error {
			w.copied[baseName(name)] = true
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// isSetAside reports whether a directory is what a rollback set aside, or has come
// to the place of that.
func (w *sweep) isSetAside(root *safefs.Dir, a journal.Aside) bool {
	if a.Path == w.soak.Maildir && a.Ino == 0 {
		return true
	}
	info, err := root.Stat()
	return err == nil && idOf(info).ino == a.Ino
}

// newerThan counts the messages of a Maildir that changed since some time. A path
// that is no Maildir has none.
func (w *sweep) newerThan(path string, since time.Time) (n int, err error) {
	err = w.eachNewer(path, since, func(*safefs.Dir, *safefs.Dir, string, fs.FileInfo) error {
		n++
		return nil
	})
	return n, err
}

// eachNewer calls do for each of them, with the Maildir and the new or cur that it
// lies in.
func (w *sweep) eachNewer(path string, since time.Time, do func(root, dir *safefs.Dir, name string, info fs.FileInfo) error) error {
	root, err := safefs.OpenFor(path, w.account.UID)
	if err != nil {
		if isNoDir(err) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return w.unlessUntrusted(path, err)
	}
	defer root.Close()
	return eachMessageDir(root, asideDepth, func(dir *safefs.Dir) error {
		return dir.Names(func(name string) error {
			info, err := dir.Lstat(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a client renames
			}
			if err == nil && info.Mode().IsRegular() && time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix()).After(since) {
				err = do(root, dir, name, info)
			}
			return err
		})
	})
}

// boxOf is the mbox that the mail of a folder goes to: the one that a rollback makes
// for it, if there is one; else INBOX, and instead is the name of that. It is called
// as the user.
func (w *sweep) boxOf(m lateMail) (live, instead string) {
	if len(m.parts) == 0 && !m.nameless {
		return w.account.Spool, ""
	}
	var paths []string
	for _, p := range w.soak.Parked {
		if slices.Equal(w.parts(p.Live), m.parts) {
			paths = append(paths, p.Live)
		}
	}
	for _, root := range w.account.Folders {
		paths = append(paths, filepath.Join(root, filepath.Join(m.parts...)))
	}
	for _, path := range paths {
		if !m.nameless && w.isBox(path) {
			return path, ""
		}
	}
	return w.account.Spool, folderName(nil)
}

// isBox reports whether an mbox of the user's lies at a path.
func (w *sweep) isBox(path string) bool {
	name := filepath.Base(path)
	dir, err := safefs.OpenFor(filepath.Dir(path), w.account.UID)
	if err != nil || !mayBeMbox(name) {
		return false
	}
	defer dir.Close()
	info, err := dir.LstatRegular(name)
	return err == nil && fit(info, path, w.account.UID) == nil && (info.Size() == 0 || isMbox(dir, name))
}

// mailboxName is the name of the folder that late mail came to.
func (m *lateMail) mailboxName() string {
	if m.nameless {
		return strings.TrimPrefix(filepath.Base(m.folder), ".")
	}
	return folderName(m.parts)
}
