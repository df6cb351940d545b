package doctor

import (
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRulesAreTheRecipesOrNot(t *testing.T) {
	h := newHouse(t)
	e := &examination{system: h.system, config: h.load()}
	for program, files := range map[string][2]string{"procmail": {"procmail.md", "/etc/procmailrc"}, "maildrop": {"maildrop.md", "/etc/maildroprc"}} {
		recipe := e.snippet(files[0], files[1])
		for name, c := range map[string]struct {
			text string
			want likeness
		}{
			"as it is":              {recipe, same},
			"behind assignments":    {"# ours\nSHELL=/bin/sh\nVERBOSE=no\n\n" + recipe, same},
			"before more":           {recipe + "\n:0\n* ^X-Spam\nspam\n", same},
			"indented otherwise":    {strings.ReplaceAll(recipe, "  ", "\t"), same},
			"nothing":               {"", unlike},
			"rules of one's own":    {":0:\n$DEFAULT\n", unlike},
			"behind a delivery":     {":0:\n* ^X\nspam\n" + recipe, alike},
			"behind another file":   {"INCLUDERC=/etc/x\n" + recipe, alike},
			"a line is missing":     {strings.Replace(recipe, "EXITCODE=75\n", "\n", 1), alike},
			"without the semaphore": {strings.ReplaceAll(recipe, "/var/lib/mailferry/semaphores/", "$HOME/"), unlike},
			"the gate given back":   {recipe + "LOCKFILE=\n", alike},
			"DROPPRIVS taken back":  {recipe + "DROPPRIVS = no\n", alike},
		} {
			if got := likeRules(c.text, recipe, e.semaphoreMark()); got != c.want {
				t.Errorf("%s, %s: %d, want %d", program, name, got, c.want)
			}
		}
	}
}

func TestLocksExcludeOneAnother(t *testing.T) {
	for name, c := range map[string]struct {
		a, b locker
		want string
	}{
		"the same":              {locker{"a", []string{dotlock, fcntl}, true, true}, locker{"b", []string{dotlock, fcntl}, true, true}, ""},
		"one in common":         {locker{"a", []string{dotlock, fcntl}, true, true}, locker{"b", []string{fcntl}, true, true}, ""},
		"none in common":        {locker{"a", []string{dotlock}, true, true}, locker{"b", []string{flock, fcntl}, true, true}, "locks-disjoint"},
		"a reader and a writer": {locker{"a", []string{dotlock}, true, true}, locker{"b", []string{fcntl}, false, true}, "locks-disjoint"},
		"two readers":           {locker{"a", []string{dotlock}, false, true}, locker{"b", []string{fcntl}, false, true}, ""},
		"another order":         {locker{"a", []string{dotlock, fcntl}, true, true}, locker{"b", []string{fcntl, dotlock}, true, true}, "lock-order"},
		"who does not wait":     {locker{"a", []string{dotlock, fcntl}, true, false}, locker{"b", []string{fcntl, dotlock}, true, true}, ""},
	} {
		e := &examination{}
		e.comparedLocks(c.a, c.b)
		if got := strings.Join(lines(&e.Report, true), "; "); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if got := dovecotLocks("fcntl lockf dotlock_try dotlock flock"); !slices.Equal(got, []string{fcntl, fcntl, dotlock, flock}) {
		t.Errorf("%q", got)
	}
	if got := postfixLocks("fcntl, dotlock"); !slices.Equal(got, []string{dotlock, fcntl}) {
		t.Errorf("%q", got)
	}
}

func TestProcmailOfAnotherSpool(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, "procmail")
	h.set("spool", "/srv/mail/{user}")
	h.dir("/srv/mail", 0o1777)
	h.apply("procmail.md")
	h.finds("procmail: do: spool-other: its mboxes are /var/mail/{user}, and spool of the configuration is /srv/mail/{user}")
}

func TestProcmailTellsItsLocks(t *testing.T) {
	for text, want := range map[string][]string{
		"Locking strategies:\tdotlocking, fcntl()":          {dotlock, fcntl},
		"Locking strategies:\tdotlocking, lockf(), flock()": {dotlock, fcntl, flock},
		"Locking strategies:":                               nil,
	} {
		if got, ok := parseProcmailLocks([]string{"procmail v3.22", text}); !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
	}
	if _, ok := parseProcmailLocks([]string{"procmail v3.22"}); ok {
		t.Error("it did not say")
	}
}

func TestWhatTheSpoolNeeds(t *testing.T) {
	t.Parallel()
	const mailGroup = 8
	for name, c := range map[string]struct {
		mode, agent uint32
		group       int
		finds       []string
	}{
		"open to all":                 {0o1777, 0o755, 0, nil},
		"of a group, the agent, too":  {0o2775, 0o2755, mailGroup, nil},
		"of a group, the agent not":   {0o2775, 0o755, mailGroup, []string{"do: dotlocks: /usr/local/bin/mailferry-deliver runs as the recipient"}},
		"of a group that can't write": {0o2755, 0o2755, mailGroup, []string{"do: spool-mode", "do: dotlocks"}},
		"open without a sticky bit":   {0o777, 0o755, 0, []string{"do: spool-mode: ", "do: dotlocks"}},
		"a setuid agent":              {0o1777, 0o4755, 0, []string{"do: agent-setuid"}},
		"an agent not for all":        {0o1777, 0o750, 0, []string{"do: agent-file"}},
		"an agent that all may write": {0o1777, 0o777, 0, []string{"do: agent-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName)
			h.apply("postfix.md")
			h.must(os.Chown(h.path("/var/mail"), 0, c.group))
			h.must(syscall.Chmod(h.path("/var/mail"), c.mode))
			h.must(os.Chown(h.path(agentPaths[0]), 0, mailGroup))
			h.must(syscall.Chmod(h.path(agentPaths[0]), c.agent))
			h.finds(c.finds...)
		})
	}
}

func TestWhoseGroupAndModeAreToBeChangedIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mode fs.FileMode
		gid  int
		want string
	}{
		"a spool of group mail": {0o775 | fs.ModeSetgid, 8, "Either chmod 1777 /var/mail; or have /usr/bin/agent run with the group of the spool: chgrp mail /usr/bin/agent, then chmod 2755 /usr/bin/agent."},
		"of a group that may not write": {0o755, 8,
			"Either chmod 1777 /var/mail; or have /usr/bin/agent run with the group of the spool: chgrp mail /var/mail, chmod 2775 /var/mail, chgrp mail /usr/bin/agent, then chmod 2755 /usr/bin/agent."},
		"of group root, which no agent may get": {0o775, 0,
			"Either chmod 1777 /var/mail; or have /usr/bin/agent run with the group of the spool: chgrp mail /var/mail, chmod 2775 /var/mail, chgrp mail /usr/bin/agent, then chmod 2755 /usr/bin/agent."},
		"of a group without a name": {0o775, 54321, "Either chmod 1777 /var/mail; or have /usr/bin/agent run with the group of the spool: chgrp 54321 /usr/bin/agent, then chmod 2755 /usr/bin/agent."},
	} {
		if got := (spool{"/var/mail", c.mode, c.gid}).setgid("/usr/bin/agent"); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWhatTheAgentReadsIsReadable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName)
	h.apply("postfix.md")
	h.set("users", "file:/etc/mailferry/users")
	h.write("/etc/mailferry/users", "")
	h.must(os.Chmod(h.path("/etc/mailferry/users"), 0o640))
	h.finds("do: agent-blind: /etc/mailferry/users has mode 0640")
	h.must(os.Chmod(h.path("/etc/mailferry/users"), 0o644))
	h.finds()
}

func TestASpoolBehindASymlinkIsTheSame(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName)
	h.must(os.MkdirAll(h.path("/var/spool"), 0o755))
	h.must(os.Symlink("../mail", h.path("/var/spool/mail")))
	h.add("/etc/postfix/main.cf", "mail_spool_directory = /var/spool/mail\n")
	h.finds("do: no-semaphore")
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.must(os.RemoveAll(h.path("/var/lib/mailferry")))
	h.must(os.RemoveAll(h.path("/var/mail")))
	h.must(os.RemoveAll(h.path("/usr/local/bin")))
	h.tells(h.finds("unknown: no-mta", "do: semaphores-missing", "do: spool-missing"), "note: agent-absent", "note: no-sweep", "note: user-rules")
	h.dir("/var/lib/mailferry/semaphores", 0o700)
	h.dir("/var/mail", 0o1777)
	h.finds("unknown: no-mta", "do: semaphores-closed")
}

func TestWhatSweeps(t *testing.T) {
	t.Parallel()
	window := []string{postfixName, dovecotName}
	for _, c := range map[string]struct {
		file, text string
		want       bool
	}{
		"nothing":   {"/etc/cron.d/x", "5 * * * * root true\n", false},
		"cron.d":    {"/etc/cron.d/mail", "*/5 * * * * root /usr/local/bin/mailferry sweep --all\n", true},
		"a comment": {"/etc/cron.d/mail", "# mailferry sweep --all\n", false},
		"crontab":   {"/etc/crontab", "*/5 * * * * root mailferry --config /x sweep --all\n", true},
		"a timer":   {"/lib/systemd/system/" + sweepTimer, "", true},
	} {
		h := newHouse(t, window...)
		h.sockets()
		h.apply("dovecot.md", "dovecot-lmtp.md")
		h.write(c.file, c.text)
		if c.want {
			h.finds()
		} else {
			h.finds("do: no-sweep")
		}
	}
}

func TestAProgramOfOthersIsNotRun(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ran := h.path("/ran")
	h.write("/usr/sbin/postconf", "#!/bin/sh\ntouch "+ran+"\n")
	h.must(os.Chmod(h.path("/usr/sbin/postconf"), 0o777))
	h.programs = func(paths []string) (string, []string) {
		if slices.Equal(paths, postconfPaths) {
			return h.path(paths[0]), nil
		}
		return "", nil
	}
	h.finds("Postfix: unknown: not-told")
	if _, err := os.Stat(ran); err == nil {
		t.Error("it was run")
	}
}

func TestAFIFOIsNotWaitedFor(t *testing.T) {
	h := newHouse(t)
	h.must(syscall.Mkfifo(h.path("/etc/fifo"), 0o600))
	read := make(chan error, 1)
	go func() {
		_, err := h.read("/etc/fifo")
		read <- err
	}()
	select {
	case err := <-read:
		if err == nil {
			t.Error("it was read")
		}
	case <-time.After(time.Minute):
		t.Error("its other end was waited for")
	}
	h.write("/etc/big", strings.Repeat("x", maxFile+1))
	if _, err := h.read("/etc/big"); err == nil {
		t.Error("too big a file was read")
	}
}

func FuzzRules(f *testing.F) {
	h := newHouse(f)
	e := &examination{system: h.system, config: h.load()}
	recipe := e.snippet("procmail.md", "/etc/procmailrc")
	f.Add(recipe)
	f.Add("A=b\n" + recipe + "\nLOCKFILE=\n")
	f.Fuzz(func(t *testing.T, text string) {
		if likeRules(text, recipe, e.semaphoreMark()) == same && !strings.Contains(text, "INCLUDERC=/var/lib/mailferry/semaphores/$LOGNAME") {
			t.Errorf("%q", text)
		}
		parseProcmailLocks(strings.Split(text, "\n"))
	})
}
