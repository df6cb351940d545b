package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailferry/internal/config"
)

// house is a host below a directory, whose Postfix and Dovecot are the real
// ones with configurations of its own.
type house struct {
	testing.TB
	system
	installed []string // of Postfix, Dovecot, procmail, maildrop
	settings  []config.Setting
}

func newHouse(t testing.TB, installed ...string) *house {
	t.Helper()
	h := &house{TB: t, installed: installed}
	h.root = t.TempDir()
	h.programs = h.lookFor
	h.dir("/var/mail", 0o1777)
	h.dir("/var/lib/mailferry/semaphores", 0o755)
	h.program("/usr/local/bin/mailferry-deliver")
	h.program("/usr/local/bin/mailferry-lmtp")
	for _, path := range []string{procmailPaths[0], maildropPaths[0]} {
		h.must(os.MkdirAll(filepath.Dir(h.path(path)), 0o755))
		h.must(os.Symlink(path, h.path(path)))
	}
	h.write("/etc/postfix/main.cf", "compatibility_level = 3.6\nmydestination = test.invalid\nalias_maps =\n")
	h.write("/etc/postfix/master.cf", masterCf)
	h.write("/etc/dovecot/dovecot.conf", "ssl = no\nprotocols =\nbase_dir = "+h.root+"/run\n!include_try conf.d/*.conf\n")
	return h
}

const masterCf = `local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
smtp inet n - n - - smtpd
maildrop unix - n n - - pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}
strange unix - n n - - pipe user=x argv=/usr/bin/strange
`

// lookFor finds programs of this machine that this host has, and how they are
// called there.
func (h *house) lookFor(paths []string) (path string, args []string) {
	has := func(name string) bool { return slices.Contains(h.installed, name) }
	switch base := filepath.Base(paths[0]); {
	case (base == "postconf" || base == "postalias") && has(postfixName):
		args = []string{"-c", h.path("/etc/postfix")}
	case (base == "doveconf" || base == "dovecot") && has(dovecotName):
		args = []string{"-c", h.path("/etc/dovecot/dovecot.conf")}
	case has(base):
	default:
		return "", nil
	}
	path, _ = thisHost().programs(paths)
	if path == "" {
		h.Fatalf("the tests need one of %q", paths)
	}
	return path, args
}

func (h *house) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *house) dir(path string, mode uint32) {
	h.Helper()
	h.must(os.MkdirAll(h.path(path), 0o755))
	fm := os.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		fm |= os.ModeSticky
	}
	if mode&0o2000 != 0 {
		fm |= os.ModeSetgid
	}
	h.must(os.Chmod(h.path(path), fm))
}

func (h *house) write(path, text string) {
	h.Helper()
	h.must(os.MkdirAll(filepath.Dir(h.path(path)), 0o755))
	h.must(os.WriteFile(h.path(path), []byte(text), 0o644))
	// Postfix reads a file that was just written again and again, until it has been at rest for some seconds.
	old := time.Now().Add(-time.Hour)
	h.must(os.Chtimes(h.path(path), old, old))
}

func (h *house) add(path, text string) {
	h.Helper()
	before, err := os.ReadFile(h.path(path))
	h.must(err)
	h.write(path, string(before)+text)
}

func (h *house) program(path string) {
	h.Helper()
	h.write(path, "#!/bin/false\n")
	h.must(os.Chmod(h.path(path), 0o755))
}

// set changes the site's configuration.
func (h *house) set(key, text string) {
	h.settings = append(h.settings, config.Setting{Key: key, Text: text, From: "test"})
}

// apply does what recipes say. What they name for sockets is there already.
func (h *house) apply(recipes ...string) {
	h.Helper()
	for _, recipe := range recipes {
		e := &examination{system: h.system, config: h.load()}
		for _, s := range e.recipe(recipe) {
			if s.File == "/etc/postfix/main.cf" {
				h.add(s.File, s.Text)
			} else {
				h.write(s.File, s.Text)
			}
		}
	}
}

func (h *house) load() *config.Config {
	h.Helper()
	c, err := config.Load(config.Options{Flags: h.settings})
	h.must(err)
	return c
}

// examine returns what was found.
func (h *house) examine() *Report {
	h.Helper()
	r, err := examine(h.Context(), h.system, h.load())
	h.must(err)
	return r
}

// lines are the findings, without those that are fine or notes unless all is set.
func lines(r *Report, all bool) (list []string) {
	for _, f := range r.Findings {
		if all || f.Severity == Do || f.Severity == Unknown {
			list = append(list, fmt.Sprintf("%s: %s: %s: %s", f.About, f.Severity, f.Code, f.Text))
		}
	}
	return list
}

// finds fails unless there is exactly this to do or to find out, by parts of
// the lines.
func (h *house) finds(want ...string) *Report {
	h.Helper()
	r := h.examine()
	got := lines(r, false)
	for _, w := range want {
		i := slices.IndexFunc(got, func(line string) bool { return strings.Contains(line, w) })
		if i < 0 {
			h.Errorf("not found: %s\n  %s", w, strings.Join(lines(r, true), "\n  "))
			continue
		}
		got = slices.Delete(got, i, i+1)
	}
	for _, line := range got {
		h.Errorf("unexpected: %s", line)
	}
	return r
}

// tells fails unless all of these are among the findings.
func (h *house) tells(r *Report, want ...string) {
	h.Helper()
	got := lines(r, true)
	for _, w := range want {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, w) }) {
			h.Errorf("not found: %s\n  %s", w, strings.Join(got, "\n  "))
		}
	}
}
