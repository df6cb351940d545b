package main

import (
	"strings"
	"testing"
)

// Sites whose procmail or maildrop filters already let the agent do the delivery.
func TestTheAgentAsTheLastStepOfAFilter(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"procmail": {
			"/etc/postfix/main.cf": "mailbox_command = /usr/bin/procmail -t\n",
			"/etc/procmailrc": `DROPPRIVS=yes
:0 w
| /usr/local/bin/mailferry-deliver

EXITCODE=75
:0
/dev/null
`,
		},
		"maildrop": {
			"/etc/postfix/main.cf": "mailbox_command = /usr/bin/maildrop\n",
			"/etc/maildroprc":      "to \"| /usr/local/bin/mailferry-deliver\"\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newHost(t)
			p := startPostfix(g, files)
			g.try(p)
			if text := g.read("/var/mail/alice"); strings.Count(text, "From x@example.org  ") != 2 || strings.Count(text, "\nReturn-Path: <x@example.org>\n") != 2 {
				t.Errorf("the sender is lost: %q", text)
			}
			if strings.Contains(p.log(), "status=bounced") {
				t.Errorf("mail has bounced:\n%s", p.log())
			}
		})
	}
}
