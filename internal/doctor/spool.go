package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// callsOurs notes that a configuration calls our agent by a path.
func (e *examination) callsOurs(place, path string) {
	if !strings.HasPrefix(path, "/") {
		e.find(string(ours), Do, "agent-path", "Write its whole path.", "%s: %q is looked for in a PATH", place, path)
		return
	}
	if _, err := os.Stat(e.system.path(path)); err != nil {
		e.find(string(ours), Do, "agent-missing", "Install it there, or name where it is: make install.", "%s: %s", place, reason(err))
		return
	}
	e.addAgent(path)
}

func (e *examination) addAgent(path string) {
	p := Program{Name: string(ours), Path: path}
	if !slices.Contains(e.Programs, p) {
		e.Programs = append(e.Programs, p)
	}
}

// ourAgents are the paths of our agent: those that are called, or one that
// only lies there.
func (e *examination) ourAgents() (paths []string) {
	for _, p := range e.Programs {
		if p.Name == string(ours) {
			paths = append(paths, p.Path)
		}
	}
	return paths
}

// checkOurAgent looks whether it is installed, and as what.
func (e *examination) checkOurAgent() {
	if len(e.ourAgents()) == 0 {
		for _, path := range agentPaths {
			if _, err := os.Stat(e.system.path(path)); err == nil {
				e.addAgent(path)
				break
			}
		}
	}
	if len(e.ourAgents()) == 0 {
		e.find(string(ours), Note, "agent-absent", "make install puts it into /usr/local/bin.", "it is not installed where it usually is")
	}
	if slices.Contains(e.asUser, ours) {
		e.checkReadable()
	}
	for _, path := range e.ourAgents() {
		e.checkProgram(path)
		if slices.Contains(e.agents, oursLMTP) {
			e.checkProgram(filepath.Join(filepath.Dir(path), "mailferry-lmtp"))
		}
	}
}

// checkReadable looks whether recipients, as whom the agent runs, can read what
// it reads.
func (e *examination) checkReadable() {
	users, _ := strings.CutPrefix(e.config.Users, "file:")
	for _, path := range []string{e.config.Path, users} {
		if !strings.HasPrefix(path, "/") {
			continue
		}
		if info, err := os.Stat(e.system.path(path)); err == nil && info.Mode()&0o004 == 0 {
			e.find(string(ours), Do, "agent-blind", "chmod a+r it, and let everybody pass to it.", "%s has mode %s: the agent runs as the recipient, can't read it, and defers all mail", path, octal(info.Mode()))
		}
	}
}

// checkProgram looks at the file of one of our programs.
func (e *examination) checkProgram(path string) {
	info, err := os.Stat(e.system.path(path))
	if err == nil {
		err = trusted(e.system.path(path))
	}
	switch {
	case err != nil:
		e.find(string(ours), Do, "agent-file", "It must be there, root's, and only root's to change.", "%s", reason(err))
	case info.Mode()&fs.ModeSetuid != 0:
		e.find(string(ours), Do, "agent-setuid", "Take that from it: chmod u-s.", "%s is setuid: it delivers nothing so", path)
	case info.Mode()&0o001 == 0:
		e.find(string(ours), Do, "agent-file", "chmod 755, or 2755.", "%s has mode %s: users can't run it", path, octal(info.Mode()))
	default:
		e.find(string(ours), Fine, "agent", "", "%s is installed", path)
	}
}

// spool is the directory of the mboxes.
type spool struct {
	path  string
	mode  fs.FileMode
	group int
}

// octal is a mode as chmod has it.
func octal(m fs.FileMode) string {
	bits := uint32(m.Perm())
	for _, b := range []struct {
		mode fs.FileMode
		bit  uint32
	}{{fs.ModeSticky, 0o1000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSetuid, 0o4000}} {
		if m&b.mode != 0 {
			bits |= b.bit
		}
	}
	return fmt.Sprintf("%04o", bits)
}

// open reports whether everybody may make files there, which makes dotlocks easy.
func (s spool) open() bool { return s.mode&0o002 != 0 && s.mode&fs.ModeSticky != 0 }

// shared reports whether its group may.
func (s spool) shared() bool { return s.mode&0o020 != 0 && s.group != 0 }

// groupName is its group as chgrp and Dovecot have it: a name, or the number of
// one that has none.
func (s spool) groupName() string {
	group := strconv.Itoa(s.group)
	if g, err := user.LookupGroupId(group); err == nil {
		return g.Name
	}
	return group
}

// setgid says how a program that runs as the user comes to make dotlocks in it.
func (s spool) setgid(program string) string {
	first, group := "", s.groupName()
	if !s.shared() {
		group = "mail"
		first = fmt.Sprintf("chgrp %s %s, chmod 2775 %s, ", group, s.path, s.path)
	}
	return fmt.Sprintf("Either chmod 1777 %s; or have %s run with the group of the spool: %schgrp %s %s, then chmod 2755 %s.", s.path, program, first, group, program, program)
}

// checkSpool looks at the directory of the mboxes, and whether the agents can
// make their dotlocks there.
func (e *examination) checkSpool() {
	dir, ok := commonDir(e.config.Spool)
	if !ok {
		return // in homes, which are the users'
	}
	info, err := os.Stat(e.system.path(dir))
	if err != nil {
		e.find("spool", Do, "spool-missing", "Set spool to where the mboxes are.", "%s", reason(err))
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	s := spool{dir, info.Mode(), int(stat.Gid)}
	found := len(e.Findings)
	switch {
	case !info.IsDir():
		e.find("spool", Do, "spool-missing", "Set spool to where the mboxes are.", "%s is no directory", dir)
		return
	case stat.Uid != 0:
		e.find("spool", Do, "spool-owner", "chown root it.", "%s belongs to uid %d, who may put anything in the place of a mailbox", dir, stat.Uid)
	case s.mode&0o002 != 0 && !s.open():
		e.find("spool", Do, "spool-mode", "chmod 1777, or 2775 with group mail.", "%s can be written by everybody, without the sticky bit: one user can remove the mbox of another", dir)
	case !s.open() && !s.shared() && e.config.Locks.Dotlock:
		e.find("spool", Do, "spool-mode", "chmod 1777, or 2775 with group mail.", "%s has mode %s and group %d: no program can make dotlocks there but as root", dir, octal(s.mode), s.group)
	}
	if !s.open() {
		e.checkDotlocks(s)
	}
	if found == len(e.Findings) {
		e.find("spool", Fine, "spool", "", "%s has mode %s", dir, octal(s.mode))
	}
}

// checkDotlocks looks whether programs that run as the user have the group of
// the spool.
func (e *examination) checkDotlocks(s spool) {
	if slices.Contains(e.asUser, ours) && e.config.Locks.Dotlock {
		for _, path := range e.ourAgents() {
			e.checkGroup(s, path)
		}
	}
	for _, p := range []struct {
		agent agent
		paths []string
	}{{procmail, procmailPaths}, {maildrop, maildropPaths}} {
		if path := e.system.find(p.paths); slices.Contains(e.asUser, p.agent) && path != "" {
			e.checkGroup(s, path)
		}
	}
	if e.dovecot == nil || !slices.Contains(dovecotLocks(e.dovecot.values["mbox_write_locks"]), dotlock) {
		return
	}
	if slices.Contains(e.agents, dovecotLDA) {
		e.find(string(dovecotLDA), Do, "dotlocks", "chmod 1777 "+s.path+"; or take dotlock out of mbox_write_locks, if no other program relies on it.",
			"it runs as the recipient, who can't make dotlocks in %s, mode %s", s.path, octal(s.mode))
	}
	if e.dovecot.logins() || slices.Contains(e.agents, dovecotLMTP) {
		e.checkDovecotGroup(s)
	}
}

// checkGroup looks whether a program has the group of the spool, or is setuid root.
func (e *examination) checkGroup(s spool, path string) {
	info, err := os.Stat(e.system.path(path))
	if err != nil {
		e.find("spool", Unknown, "not-told", "", "%s", reason(err))
		return
	}
	stat := info.Sys().(*syscall.Stat_t)
	root := info.Mode()&fs.ModeSetuid != 0 && stat.Uid == 0
	group := info.Mode()&fs.ModeSetgid != 0 && int(stat.Gid) == s.group && s.shared()
	if !root && !group {
		e.find("spool", Do, "dotlocks", s.setgid(path), "%s runs as the recipient, who can't make dotlocks in %s, mode %s", path, s.path, octal(s.mode))
	}
}

// checkDovecotGroup looks whether Dovecot may make dotlocks.
func (e *examination) checkDovecotGroup(s spool) {
	names := strings.FieldsFunc(e.dovecot.values["mail_privileged_group"]+" "+e.dovecot.values["mail_access_groups"], func(r rune) bool { return r == ' ' || r == ',' })
	for _, name := range names {
		if g, err := user.LookupGroup(name); err == nil && g.Gid == strconv.Itoa(s.group) {
			return
		}
	}
	e.find(dovecotName, Do, "dotlocks", "Set mail_privileged_group = "+s.groupName()+"; for LMTP, mail_access_groups.",
		"it can't make dotlocks in %s, mode %s: neither mail_privileged_group nor mail_access_groups is its group", s.path, octal(s.mode))
}
