package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const debians = `mail_location = mbox:~/mail:INBOX=/var/mail/%u
mail_privileged_group = mail
passdb {
  driver = pam
}
userdb {
  driver = passwd
}
`

func TestWhatDovecotNeeds(t *testing.T) {
	t.Parallel()
	replaced := func(file, old, new string) func(h *house) {
		return func(h *house) {
			before, err := os.ReadFile(h.path(file))
			h.must(err)
			if !strings.Contains(string(before), old) {
				h.Fatalf("%s has no %q", file, old)
			}
			h.write(file, strings.Replace(string(before), old, new, 1))
		}
	}
	conf := func(text string) func(h *house) {
		return func(h *house) { h.write("/etc/dovecot/conf.d/99-more.conf", text) }
	}
	for name, c := range map[string]struct {
		change func(h *house)
		finds  []string
	}{
		"nothing":                        {func(h *house) {}, nil},
		"a cache":                        {conf("auth_cache_size = 1M\n"), []string{"do: auth-cache: auth_cache_size = 1 M"}},
		"a cache that is flushed":        {func(h *house) { conf("auth_cache_size = 1M\n")(h); h.set("doveadm", "/usr/bin/doveadm") }, nil},
		"only dotlock_try":               {conf("mbox_write_locks = dotlock_try\n"), []string{"locks-disjoint: Dovecot (mbox_write_locks) by , Dovecot (mbox_read_locks) by fcntl", "locks-disjoint: Dovecot (mbox_write_locks) by , mailferry"}},
		"other locks than procmail":      {conf("mbox_write_locks = flock\n"), []string{"locks-disjoint: Dovecot (mbox_write_locks) by flock, Dovecot (mbox_read_locks) by fcntl", "locks-disjoint: Dovecot (mbox_write_locks) by flock, mailferry"}},
		"a userdb that holds nobody":     {replaced(userdbConf, "blocking=yes\n  result_internalfail = return-fail", "blocking=yes"), []string{"do: userdb-hold"}},
		"a userdb that is never asked":   {replaced(userdbConf, "continue-ok", "return-ok"), []string{"do: userdb-order"}},
		"a script of one's own":          {replaced(userdbScript, "64", "65"), []string{"unknown: userdb-other"}},
		"a script that is not there":     {func(h *house) { h.must(os.Remove(h.path(userdbScript))) }, []string{"do: userdb:", "do: folders-other", "spool-other"}},
		"a script that others may write": {func(h *house) { h.must(os.Chmod(h.path(userdbScript), 0o666)) }, []string{"unknown: not-told: /etc/dovecot/mailferry.lua could not be read", "unknown: userdb-other"}},
		"comments and indentation":       {replaced(userdbScript, "local places", "-- where\n  local places"), nil},
		"a passdb that lets in":          {replaced(passdbConf, "blocking=yes\n  result_internalfail = return-fail", "blocking=yes"), []string{"do: passdb-hold"}},
		"a passdb behind others":         {func(h *house) { h.write("/etc/dovecot/conf.d/10-pam.conf", "passdb {\n  driver = pam\n}\n") }, []string{"do: passdb-order"}},
		"no passdb":                      {func(h *house) { h.write(passdbConf, "passdb {\n driver = pam\n}\n") }, []string{"do: passdb:"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName, dovecotName)
			h.apply("postfix.md", "dovecot.md")
			h.write("/etc/dovecot/conf.d/98-logins.conf", logins+"mail_location = mbox:~/Other:INBOX=/srv/%u\n")
			c.change(h)
			h.finds(c.finds...)
		})
	}
}

// included is how Debian has its passdb and userdb.
func (h *house) included() {
	h.write(authConf, "auth_mechanisms = plain\n#!include auth-sql.conf.ext\n!include auth-system.conf.ext\n")
	h.write("/etc/dovecot/conf.d/auth-system.conf.ext", debians)
}

func TestDebiansIncludedDatabasesAreToBeCommentedOut(t *testing.T) {
	t.Parallel()
	const want = "Comment out !include auth-system.conf.ext in " + authConf + ": "
	for name, c := range map[string]struct {
		recipes []string
		codes   []string
	}{
		"as Debian has it":          {[]string{"postfix.md"}, []string{"userdb", "passdb"}},
		"with the recipe beside it": {[]string{"postfix.md", "dovecot.md"}, []string{"userdb-order", "passdb-order"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName, dovecotName)
			h.write("/etc/dovecot/conf.d/99-logins.conf", logins)
			h.included()
			h.apply(c.recipes...)
			r := h.examine()
			for _, code := range c.codes {
				if i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Code == code && f.Severity == Do }); i < 0 || !strings.Contains(r.Findings[i].Advice, want) {
					t.Errorf("%s does not say %q: %+v", code, want, r.Findings)
				}
			}
		})
	}
	h := newHouse(t, postfixName, dovecotName)
	h.write("/etc/dovecot/conf.d/99-logins.conf", logins)
	h.included()
	h.write(authConf, "#!include auth-system.conf.ext\n")
	h.apply("postfix.md", "dovecot.md")
	h.tells(h.finds(), "Dovecot: fine: userdb", "Dovecot: fine: passdb")
}

func TestDebiansDovecotGetsTheWholeRecipe(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, dovecotName, "procmail")
	h.apply("procmail.md")
	h.write("/etc/dovecot/conf.d/10-debian.conf", logins+debians)
	r := h.finds("Dovecot: do: userdb: no userdb reads the semaphore: mbox:~/mail:INBOX=/var/mail/%u", "do: passdb:",
		"locks: do: lock-order: procmail by dotlock, fcntl, Dovecot (mbox_write_locks) by fcntl, dotlock",
		"Dovecot: do: separator: the namespace that Dovecot makes")
	var files []string
	for _, s := range r.Snippets {
		files = append(files, s.File)
	}
	if got := strings.Join(files, " "); got != strings.Join([]string{userdbConf, userdbScript, passdbConf, passdbScript}, " ") {
		t.Errorf("snippets for %s", got)
	}
}

func TestWhatTheLDANeeds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, dovecotName)
	h.timer()
	h.apply("dovecot.md", "dovecot-lda.md")
	h.must(os.Remove(h.path("/etc/dovecot/conf.d/91-lda.conf")))
	h.finds("do: lda-sockets: stats-writer has mode 0660")
	h.dir("/var/mail", 0o2775)
	h.must(os.Chown(h.path("/var/mail"), 0, 8))
	h.add("/etc/postfix/main.cf", "mailbox_command = /usr/lib/dovecot/dovecot-lda\n")
	h.finds("do: lda-sockets", "do: dotlocks: it runs as the recipient", "do: no-userdb: mailbox_command = /usr/lib/dovecot/dovecot-lda")
}

func TestADovecotThatIsBrokenIsNotGuessed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, dovecotName)
	h.apply("postfix-lmtp.md")
	h.add("/etc/postfix/main.cf", "mailbox_transport =\nmailbox_command = exec /usr/lib/dovecot/dovecot-lda -d \"$USER\"\n")
	h.write("/etc/dovecot/dovecot.conf", "nonsense {\n")
	h.finds("Dovecot: unknown: not-told: its configuration could not be read", "Postfix: unknown: strange-agent: mailbox_command")
}

func TestWhereDovecotListens(t *testing.T) {
	t.Parallel()
	d := parseDoveconf([]string{
		"base_dir=/run/dovecot", "protocols= imap lmtp", "service/lmtp/unix_listener=lmtp \\svar\\sprivate\\sx",
		"service/lmtp/unix_listener/lmtp/path=lmtp", "service/lmtp/unix_listener/\\svar\\sprivate\\sx/path=/var/private/x",
	})
	for socket, want := range map[string]bool{"/run/dovecot/lmtp": true, "/var/private/x": true, "/var/private/y": false, "lmtp": false} {
		if d.listens(socket) != want {
			t.Errorf("%s: %t", socket, !want)
		}
	}
	d.values["protocols"] = "imap"
	if d.listens("/var/private/x") {
		t.Error("a server that is not enabled")
	}
}

func FuzzDoveconf(f *testing.F) {
	f.Add("protocols= imap lmtp\nuserdb=0 1\nuserdb/1/driver=lua\nuserdb/1/args=file=/x blocking=yes\nmail_location=mbox:~/mail:INBOX=/var/mail/%u\n")
	f.Add("service/lmtp/unix_listener=a\nservice/lmtp/unix_listener/a/path=\nbase_dir=\nuserdb= = =\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		d := parseDoveconf(strings.Split(text, "\n"))
		for _, kind := range []string{"userdb", "passdb"} {
			for _, b := range d.databases(kind) {
				if b.file() != "" && (b.driver != "lua" || !strings.Contains(b.args, "file="+b.file())) {
					t.Errorf("%+v", b)
				}
			}
		}
		d.listens("/x")
		if path, ok := templateOf(d.values["mail_location"]); ok && strings.Contains(path, "%") {
			t.Errorf("%q", path)
		}
	})
}
