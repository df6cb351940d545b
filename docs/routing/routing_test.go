package routing

import (
	"strings"
	"testing"
)

func TestRecipesHaveTheirFiles(t *testing.T) {
	entries, err := docs.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]string{}
	for _, e := range entries {
		list, err := Snippets(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			files[e.Name()] = append(files[e.Name()], s.File)
			if s.Recipe != e.Name() || strings.HasPrefix(s.Text, " ") || !strings.HasSuffix(s.Text, "\n") || strings.HasSuffix(s.Text, "\n\n") {
				t.Errorf("%+v", s)
			}
		}
	}
	for recipe, want := range map[string]string{
		"postfix.md":      "/etc/postfix/main.cf",
		"postfix-lmtp.md": "/etc/postfix/main.cf /etc/systemd/system/mailferry-lmtp.service",
		"procmail.md":     "/etc/procmailrc /etc/postfix/main.cf",
		"maildrop.md":     "/etc/maildroprc /etc/postfix/main.cf",
		"exim.md":         "/etc/exim4/conf.d/transport/30_mailferry",
		"sendmail.md":     "/etc/mail/sendmail.mc",
		"dovecot.md":      "/etc/dovecot/conf.d/90-mailferry.conf /etc/dovecot/mailferry.lua /etc/dovecot/conf.d/89-mailferry-passdb.conf /etc/dovecot/mailferry-hold.lua",
		"dovecot-lmtp.md": "/etc/postfix/main.cf /etc/dovecot/conf.d/91-lmtp.conf",
		"dovecot-lda.md":  "/etc/postfix/main.cf /etc/dovecot/conf.d/91-lda.conf",
	} {
		if got := strings.Join(files[recipe], " "); got != want {
			t.Errorf("%s has %s, want %s", recipe, got, want)
		}
	}
	if _, err := Snippets("none.md"); err == nil {
		t.Error("a recipe that is not there")
	}
}

func FuzzSnippets(f *testing.F) {
	f.Add("In `/etc/x`:\n\n    a\n\n      b\n\nEnd\n")
	f.Add("`/etc/x`:\n\n")
	f.Add("`/`:\n\n    \n\n    x\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range snippets("x.md", text) {
			if !strings.HasPrefix(s.File, "/") || !strings.HasSuffix(s.Text, "\n") {
				t.Errorf("%+v", s)
			}
		}
	})
}
