package doctor

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const dovecotName = "Dovecot"

// dovecotAsked are the settings and sections that doveconf is asked for.
var dovecotAsked = []string{
	"base_dir", "protocols", "mail_location", "mbox_read_locks", "mbox_write_locks", "mail_privileged_group", "mail_access_groups",
	"auth_cache_size", "passdb", "userdb", "service",
}

// dovecot is what doveconf -S says: "path/of/a/setting=value".
type dovecot struct{ values map[string]string }

func parseDoveconf(lines []string) dovecot {
	d := dovecot{map[string]string{}}
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, "="); ok && name != "" {
			d.values[name] = value
		}
	}
	return d
}

// database is one of the passdbs or userdbs.
type database struct{ driver, args, success, internalfail string }

// databases are those of a kind, in the order in which they are asked.
func (d dovecot) databases(kind string) (list []database) {
	for _, i := range strings.Fields(d.values[kind]) {
		of := func(name string) string { return d.values[kind+"/"+i+"/"+name] }
		list = append(list, database{of("driver"), of("args"), of("result_success"), of("result_internalfail")})
	}
	return list
}

// file is the script of a Lua database; "" if there is none.
func (b database) file() string {
	if b.driver != "lua" {
		return ""
	}
	for _, word := range strings.Fields(b.args) {
		if name, ok := strings.CutPrefix(word, "file="); ok {
			return name
		}
	}
	return ""
}

// serves reports whether a protocol is served.
func (d dovecot) serves(protocol string) bool {
	return slices.Contains(strings.Fields(d.values["protocols"]), protocol)
}

func (d dovecot) logins() bool { return d.serves("imap") || d.serves("pop3") }

// listens reports whether its LMTP server listens at a socket.
func (d dovecot) listens(socket string) bool {
	const listener = "service/lmtp/unix_listener"
	for _, name := range strings.Fields(d.values[listener]) {
		path := d.values[listener+"/"+name+"/path"]
		if !strings.HasPrefix(path, "/") {
			path = filepath.Join(d.values["base_dir"], path)
		}
		if path == socket && d.serves("lmtp") {
			return true
		}
	}
	return false
}

func (e *examination) askDovecot() {
	path := e.system.find(doveconfPaths)
	if path == "" {
		return
	}
	var version string
	said, err := e.ask(dovecotPaths, "--version")
	if err == nil {
		version = versionIn(said)
	}
	e.Programs = append(e.Programs, Program{dovecotName, version, path})
	if err != nil || !strings.HasPrefix(version, "2.3.") {
		e.find(dovecotName, Unknown, "not-told", "", "only the settings of version 2.3 are known here, and this is %q", version)
		return
	}
	told, err := e.ask(doveconfPaths, append([]string{"-S"}, dovecotAsked...)...)
	if err != nil {
		e.find(dovecotName, Unknown, "not-told", "", "its configuration could not be read: %s", reason(err))
		return
	}
	d := parseDoveconf(told)
	e.dovecot = &d
}

// checkAccess judges what Dovecot's userdbs and passdbs say, if anybody asks
// them, and enters its locks.
func (e *examination) checkAccess() {
	d := e.dovecot
	if d == nil {
		return
	}
	if !d.logins() && !slices.Contains(e.agents, dovecotLDA) && !slices.Contains(e.agents, dovecotLMTP) {
		e.find(dovecotName, Note, "idle", "", "serves neither IMAP nor POP3, and delivers nothing that was found")
		return
	}
	e.locks("Dovecot (mbox_write_locks)", dovecotLocks(d.values["mbox_write_locks"]), true)
	e.locks("Dovecot (mbox_read_locks)", dovecotLocks(d.values["mbox_read_locks"]), false)
	e.checkUserdb(d)
	if d.logins() {
		e.checkPassdb(d)
	}
	e.checkNames()
	if slices.Contains(e.agents, dovecotLDA) {
		e.checkLDASockets(d)
	}
	if d.values["auth_cache_size"] != "0" && e.config.Doveadm == "" {
		e.find(dovecotName, Do, "auth-cache", "Set auth_cache_size = 0, or the key doveadm, which flushes it around each move.",
			"auth_cache_size = %s: who logs in after a flip is led to his mbox for a while", d.values["auth_cache_size"])
	}
}

// checkLDASockets looks whether dovecot-lda, as the recipient, reaches the
// servers that it asks.
func (e *examination) checkLDASockets(d *dovecot) {
	for _, socket := range []string{"service/auth/unix_listener/auth-userdb", "service/stats/unix_listener/stats-writer"} {
		if mode := d.values[socket+"/mode"]; !strings.HasSuffix(mode, "666") && !strings.HasSuffix(mode, "777") {
			e.find(dovecotName, Do, "lda-sockets", "Give it mode 0666.", "%s has mode %s: dovecot-lda runs as the recipient, can't ask there, and defers all mail", filepath.Base(socket), mode)
			e.suggest("dovecot-lda.md", "/etc/dovecot/conf.d/91-lda.conf")
		}
	}
}

// script is the first Lua database of a kind whose file is like a recipe's.
func (e *examination) script(list []database, file string) (at int, like likeness) {
	for i, b := range list {
		name := b.file()
		if name == "" {
			continue
		}
		text, err := e.system.read(name)
		if err != nil {
			e.find(dovecotName, Unknown, "not-told", "", "%s could not be read: %s", name, reason(err))
			return i, alike
		}
		if like := likeScript(text, e.snippet("dovecot.md", file), e.semaphoreMark()); like != unlike {
			return i, like
		}
	}
	return 0, unlike
}

const (
	userdbConf   = "/etc/dovecot/conf.d/90-mailferry.conf"
	userdbScript = "/etc/dovecot/mailferry.lua"
	passdbConf   = "/etc/dovecot/conf.d/89-mailferry-passdb.conf"
	passdbScript = "/etc/dovecot/mailferry-hold.lua"
)

// authConf includes, as Debian has it, files with passdbs and userdbs, which come
// before those of the recipe.
const authConf = "/etc/dovecot/conf.d/10-auth.conf"

var authIncludes = regexp.MustCompile(`^!include(_try)? +auth-(system|sql|ldap|passwdfile|checkpassword|static|dict)\.`)

// replaced is an advice on files that are included before the recipe's; "" if
// none is seen.
func (e *examination) replaced() string {
	text, err := e.system.read(authConf)
	if err != nil {
		return "" // the configuration may lie elsewhere
	}
	includes := slices.DeleteFunc(rules(text), func(line string) bool { return !authIncludes.MatchString(line) })
	if len(includes) == 0 {
		return ""
	}
	return "Comment out " + strings.Join(includes, ", ") + " in " + authConf + ": it comes first, and the recipe replaces it."
}

func sentences(list ...string) string { return strings.TrimSpace(strings.Join(list, " ")) }

func (e *examination) checkUserdb(d *dovecot) {
	list := d.databases("userdb")
	at, like := e.script(list, userdbScript)
	switch {
	case like == unlike:
		e.find(dovecotName, Do, "userdb", sentences("Add the userdbs of the recipe.", e.replaced()), "no userdb reads the semaphore: %s, whatever it says", d.values["mail_location"])
		e.checkLocation(d.values["mail_location"])
	case like == alike:
		e.find(dovecotName, Unknown, "userdb-other", "Compare it with the recipe.", "%s is not the recipe's: whether it does what that does can't be told", list[at].file())
	case list[at].internalfail != "return-fail":
		e.find(dovecotName, Do, "userdb-hold", "Set result_internalfail = return-fail in it.", "the userdb of %s makes no hold: what another userdb says stands, and mail goes astray", list[at].file())
	case slices.ContainsFunc(list[:at], func(b database) bool { return !strings.HasPrefix(b.success, "continue") }):
		e.find(dovecotName, Do, "userdb-order", sentences(e.replaced(), "Set result_success = continue-ok in those that stay before it."), "the userdb of %s is never asked: one before it ends the search", list[at].file())
	default:
		e.find(dovecotName, Fine, "userdb", "", "%s leads to where the semaphore says", list[at].file())
		return
	}
	e.suggest("dovecot.md", userdbConf, userdbScript)
}

func (e *examination) checkPassdb(d *dovecot) {
	list := d.databases("passdb")
	at, like := e.script(list, passdbScript)
	switch {
	case like == unlike:
		e.find(dovecotName, Do, "passdb", sentences("Add the passdb of the recipe, before the others.", e.replaced()), "no passdb reads the semaphore: a held user's login fails late, and some clients see their connection end without a word")
	case like == alike:
		e.find(dovecotName, Unknown, "passdb-other", "Compare it with the recipe.", "%s is not the recipe's: whether it does what that does can't be told", list[at].file())
	case at > 0:
		e.find(dovecotName, Do, "passdb-order", sentences(e.replaced(), "Let it be the first."), "the passdb of %s stands behind others", list[at].file())
	case list[at].internalfail != "return-fail":
		e.find(dovecotName, Do, "passdb-hold", "Set result_internalfail = return-fail in it.", "the passdb of %s refuses nobody: the next one lets held users in", list[at].file())
	default:
		e.find(dovecotName, Fine, "passdb", "", "%s refuses held users for the moment", list[at].file())
		return
	}
	e.suggest("dovecot.md", passdbConf, passdbScript)
}

// checkLocation compares where Dovecot looks for mboxes with where the site has
// them.
func (e *examination) checkLocation(location string) {
	rest, ok := strings.CutPrefix(location, "mbox:")
	if !ok {
		e.find(dovecotName, Unknown, "spool-other", "", "mail_location = %s: whether it shows the mboxes of this site can't be told", location)
		return
	}
	parts := strings.Split(rest, ":")
	inbox := parts[0] + "/inbox"
	for _, p := range parts[1:] {
		if path, ok := strings.CutPrefix(p, "INBOX="); ok {
			inbox = path
		}
	}
	if path, ok := templateOf(inbox); ok {
		e.sameSpool(dovecotName, path)
	} else {
		e.find(dovecotName, Unknown, "spool-other", "", "mail_location = %s: whether its INBOX is %s can't be told", location, e.config.Spool)
	}
	if path, ok := templateOf(parts[0]); ok && !slices.Contains(e.config.Folders, path) {
		e.find(dovecotName, Do, "folders-other", "Put it into folders, if it holds mail.", "its folders are in %s, and folders of the configuration is %s", path, strings.Join(e.config.Folders, ", "))
	}
}
