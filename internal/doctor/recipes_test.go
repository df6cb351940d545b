package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// timer does what systemctl enable does.
func (h *house) timer() { h.write("/etc/systemd/system/"+sweepTimer, "") }

// sockets makes what servers would.
func (h *house) sockets() {
	h.add("/etc/postfix/main.cf", "queue_directory = /var/spool/postfix\n")
	h.write("/var/spool/postfix/private/mailferry", "")
	h.write("/var/spool/postfix/private/dovecot-lmtp", "")
}

const logins = "protocols = $protocols imap pop3\n"

func TestEachRecipeIsFine(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		installed []string
		recipes   []string
		tells     []string
	}{
		"mailferry-deliver": {[]string{postfixName}, []string{"postfix.md"}, []string{"Postfix: fine: gate: mailbox_command = /usr/local/bin/mailferry-deliver"}},
		"our LMTP server":   {[]string{postfixName}, []string{"postfix-lmtp.md"}, []string{"Postfix: fine: gate: mailbox_transport = lmtp:unix:private/mailferry"}},
		"procmail":          {[]string{postfixName, "procmail"}, []string{"procmail.md"}, []string{"procmail: fine: rules", "locks: fine: locks: procmail by dotlock, fcntl; mailferry by dotlock, fcntl"}},
		"maildrop":          {[]string{postfixName, "maildrop"}, []string{"maildrop.md"}, []string{"maildrop: fine: rules"}},
		"Dovecot LMTP":      {[]string{postfixName, dovecotName}, []string{"dovecot.md", "dovecot-lmtp.md"}, []string{"Postfix: note: window: mailbox_transport", "Dovecot: fine: userdb"}},
		"dovecot-lda":       {[]string{postfixName, dovecotName}, []string{"dovecot.md", "dovecot-lda.md"}, []string{"Postfix: note: window: mailbox_command = exec", "sweep: fine"}},
		"with logins":       {[]string{postfixName, dovecotName}, []string{"dovecot.md", "postfix.md"}, []string{"Dovecot: fine: passdb", "locks: fine"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, c.installed...)
			h.timer()
			h.sockets()
			h.apply(c.recipes...)
			if name == "with logins" {
				h.write("/etc/dovecot/conf.d/99-logins.conf", logins)
			}
			r := h.finds()
			h.tells(r, append(c.tells, "spool: fine", "mailferry-deliver: fine", "semaphores: fine")...)
			if len(r.Snippets) > 0 {
				t.Errorf("snippets %+v", r.Snippets)
			}
		})
	}
}

func TestRecipesHaveThePlacesOfTheSite(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName, dovecotName, "procmail", "maildrop")
	h.timer()
	h.set("semaphore", "/srv/says/{user}")
	h.set("gate", "/srv/gates/{user}.lock")
	h.set("maildir", "{home}/mails")
	h.set("folders", "{home}/Mail")
	h.set("spool", "/var/spool/mbox/{user}")
	h.set("layout", "fs")
	h.dir("/srv/says", 0o755)
	h.dir("/var/spool/mbox", 0o1777)
	h.apply("dovecot.md", "procmail.md")
	h.write("/etc/dovecot/conf.d/99-logins.conf", logins)
	h.tells(h.finds("procmail: do: spool-other"), "procmail: fine: rules", "Dovecot: fine: userdb") // procmail was built with /var/mail
	e := &examination{system: h.system, config: h.load()}
	for file, want := range map[string]string{
		"procmail.md /etc/procmailrc":                "LOCKFILE=/srv/gates/$LOGNAME.lock\nINCLUDERC=/srv/says/$LOGNAME\n",
		"maildrop.md /etc/maildroprc":                "to \"$HOME/mails\"",
		"dovecot.md /etc/dovecot/mailferry.lua":      `"mbox:~/Mail:INBOX=/var/spool/mbox/%u",` + "\n  [\"MAILSTATE=maildir\\n\"] = \"maildir:~/mails:LAYOUT=fs\"",
		"dovecot.md /etc/dovecot/mailferry-hold.lua": `io.open("/srv/says/" .. req.user, "r")`,
	} {
		recipe, path, _ := strings.Cut(file, " ")
		if text := e.snippet(recipe, path); !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", file, want, text)
		}
	}
}

func TestPlacesThatRecipesCanNotHaveAreTold(t *testing.T) {
	t.Parallel()
	for key, text := range map[string]string{"semaphore": "/srv/{user}/state", "gate": "/srv/{uid}/x", "folders": "{home}/a,{home}/b"} {
		h := newHouse(t)
		h.set(key, text)
		h.tells(h.examine(), "configuration: unknown: places")
	}
}

var codes = regexp.MustCompile(`(?:Do|Unknown), "([a-z-]+)"|bad\("([a-z-]+)"`)

func TestCodesAreExplained(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/routing/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range codes.FindAllStringSubmatch(string(source), -1) {
			if code := m[1] + m[2]; !strings.Contains(string(text), "`"+code+"`") {
				t.Errorf("%s: %s is not in docs/routing/README.md", name, code)
			}
		}
	}
}
