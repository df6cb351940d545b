package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailferry/internal/config"
)

// site looks at the configuration, and at what it names.
func (e *examination) site() {
	switch e.config.Path {
	case "":
		e.find("configuration", Note, "defaults", "", "there is no %s: these are the defaults", config.DefaultPath)
	case config.DefaultPath:
	default:
		e.find("configuration", Note, "other-file", "", "mailferry-deliver reads %s, not %s, unless it is told otherwise", config.DefaultPath, e.config.Path)
	}
	if e.system.root == "" {
		for _, err := range e.config.Doubts() {
			e.find("configuration", Do, "doubt", "See mailferry config check.", "%s", reason(err))
		}
	}
	if !adaptable(e.config.Places()) {
		e.find("configuration", Unknown, "places", "Put the paths of the configuration into the snippets by hand.", "the recipes can't have all of its paths: what follows is compared with recipes that don't fit")
	}
	e.semaphores()
}

// semaphores looks at their directory, which agents read as their users.
func (e *examination) semaphores() {
	dir, ok := commonDir(e.config.Semaphore)
	if !ok {
		return
	}
	info, err := os.Stat(e.system.path(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.find("semaphores", Do, "semaphores-missing", "Run mailferry enroll --all before anything reads them.", "%s is not there: whatever reads semaphores holds all mail", dir)
	case err != nil:
		e.find("semaphores", Unknown, "not-told", "", "%s", reason(err))
	case !info.IsDir() || info.Mode()&0o001 == 0:
		e.find("semaphores", Do, "semaphores-closed", "Let everybody pass: chmod 755.", "%s has mode %s: users' agents can't read their semaphores, and hold all mail", dir, octal(info.Mode()))
	default:
		e.find("semaphores", Fine, "semaphores", "", "%s is there", dir)
	}
}

// sameSpool compares where a program has the mboxes, a template, with where the
// site has them.
func (e *examination) sameSpool(program, spool string) {
	if filepath.Clean(spool) == filepath.Clean(e.config.Spool) {
		return
	}
	theirs, common := commonDir(spool)
	ours, too := commonDir(e.config.Spool)
	if common && too && filepath.Base(spool) == filepath.Base(e.config.Spool) {
		a, errA := os.Stat(e.system.path(theirs))
		b, errB := os.Stat(e.system.path(ours))
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return // by a symlink, as /var/spool/mail
		}
	}
	e.find(program, Do, "spool-other", "Set spool to where the mboxes are.", "its mboxes are %s, and spool of the configuration is %s", spool, e.config.Spool)
}

// Where unit files are, and what is in them for those of ours.
var unitDirs = []string{"/etc/systemd/system/", "/lib/systemd/system/", "/usr/lib/systemd/system/"}

const (
	lmtpUnit   = "mailferry-lmtp.service"
	sweepTimer = "timers.target.wants/mailferry-sweep.timer"
)

// listener is whose LMTP server listens at a socket, by configurations; nothing
// is sent there.
func (e *examination) listener(socket string) agent {
	a := strangeAgent
	if e.dovecot != nil && e.dovecot.listens(socket) {
		a = dovecotLMTP
	} else if e.unitListens(socket) {
		a = oursLMTP
	}
	if _, err := os.Lstat(e.system.path(socket)); a != strangeAgent && errors.Is(err, fs.ErrNotExist) {
		e.find(string(a), Do, "not-running", "Start it.", "nobody listens at %s: all mail is deferred", socket)
	}
	return a
}

// unitListens looks for the socket in the unit of our server.
func (e *examination) unitListens(socket string) bool {
	for _, dir := range unitDirs {
		text, err := e.system.read(dir + lmtpUnit)
		if err != nil {
			e.find("mailferry-lmtp", Unknown, "not-told", "", "%s: %s", dir+lmtpUnit, reason(err))
		}
		for _, line := range rules(text) {
			start, ok := strings.CutPrefix(line, "ExecStart=")
			c := command{text: start, words: strings.Fields(start)}
			if at, told := c.option("--lmtp"); ok && told && at == socket {
				e.server = c
				e.callsOurs(lmtpUnit, c.program())
				return true
			}
		}
	}
	return false
}

// checkSweep looks for what sweeps after a run's grace.
func (e *examination) checkSweep() {
	where := e.sweeper()
	switch {
	case where != "":
		e.find("sweep", Fine, "sweep", "", "%s sweeps", where)
	case e.window:
		e.find("sweep", Do, "no-sweep", "Enable mailferry-sweep.timer (docs/systemd), or run mailferry sweep --all from cron.",
			"nothing sweeps after the %s of grace of a run: mail that was looked up before a flip, and written later, stays at the old place", e.config.Grace)
	default:
		e.find("sweep", Note, "no-sweep", "Enable mailferry-sweep.timer (docs/systemd) while users are moved.",
			"nothing sweeps after the %s of grace of a run: what users' own rules put at old places stays there", e.config.Grace)
	}
}

// sweeper is what runs a sweep: the timer, or a line of cron's; "" if neither
// is seen.
func (e *examination) sweeper() string {
	for _, dir := range unitDirs {
		if _, err := os.Lstat(e.system.path(dir + sweepTimer)); err == nil {
			return dir + sweepTimer
		}
	}
	files := append([]string{"/etc/crontab", "/var/spool/cron/crontabs/root"}, e.system.glob("/etc/cron.*/*")...)
	for _, file := range files {
		text, err := e.system.read(file)
		if err != nil {
			continue // not one of root's that cron would obey
		}
		for _, line := range rules(text) {
			if strings.Contains(line, "mailferry") && strings.Contains(line, " sweep") {
				return file
			}
		}
	}
	return ""
}
