package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestWhatPostfixNeeds(t *testing.T) {
	t.Parallel()
	const agent = "mailbox_command = /usr/local/bin/mailferry-deliver\n"
	for name, c := range map[string]struct {
		mainCf string
		finds  []string
	}{
		"its own delivery":               {"", []string{"do: no-semaphore: mailbox_command is empty"}},
		"its own to another spool":       {"mail_spool_directory = /srv/mail\n", []string{"do: no-semaphore", "Postfix: do: spool-other: its mboxes are /srv/mail/{user}, and spool of the configuration is /var/mail/{user}"}},
		"its own into homes":             {"home_mailbox = Mail/inbox\n", []string{"do: no-semaphore", "spool-other: its mboxes are {home}/Mail/inbox"}},
		"its own into Maildirs":          {"home_mailbox = Maildir/\n", []string{"do: no-semaphore"}},
		"virtual(8) by other locks":      {agent + "local_transport = virtual\nvirtual_mailbox_lock = flock\n", []string{"do: no-semaphore", "locks-disjoint: Postfix's virtual(8) by flock, mailferry"}},
		"without dotlocks":               {"mailbox_delivery_lock = flock\n", []string{"do: no-semaphore", "locks-disjoint: Postfix by flock, mailferry by dotlock, fcntl"}},
		"a table before the agent":       {agent + "mailbox_command_maps = hash:/etc/x\nmailbox_transport_maps = socketmap:inet:127.0.0.1:9:x\n", []string{"do: table: mailbox_command_maps", "do: table: mailbox_transport_maps"}},
		"an agent that is not there":     {"mailbox_command = /opt/mailferry-deliver\n", []string{"do: agent-missing: mailbox_command = /opt/mailferry-deliver"}},
		"an agent in a PATH":             {"mailbox_command = mailferry-deliver\n", []string{"do: agent-path"}},
		"an agent in a shell":            {"mailbox_command = /usr/local/bin/mailferry-deliver -a \"$EXTENSION\"\n", []string{"do: shell"}},
		"exec gives way":                 {"mailbox_command = exec /usr/local/bin/mailferry-deliver -a \"$EXTENSION\"\n", nil},
		"procmail that bounces":          {"mailbox_command = /usr/bin/procmail -a $EXTENSION\n", []string{"do: shell", "do: bounces", "do: rules-missing"}},
		"a strange agent":                {"mailbox_command = /usr/bin/strange\n", []string{"unknown: strange-agent: mailbox_command = /usr/bin/strange"}},
		"LMTP to a port":                 {"mailbox_transport = lmtp:inet:localhost:24\n", []string{"unknown: strange-agent: mailbox_transport = lmtp:inet:localhost:24: which program listens"}},
		"LMTP to a strange socket":       {"mailbox_transport = lmtp:unix:private/strange\n", []string{"unknown: strange-agent: mailbox_transport = lmtp:unix:private/strange: an agent that is not known"}},
		"a service that is not there":    {"mailbox_transport = cyrus\n", []string{"unknown: no-service"}},
		"a pipe to maildrop":             {"mailbox_transport = maildrop:\n", []string{"unknown: pipe", "maildrop: do: rules-missing"}},
		"a pipe to something":            {"mailbox_transport = strange:\n", []string{"unknown: strange-agent"}},
		"local_transport is another":     {agent + "local_transport = smtp:[192.0.2.1]\n", []string{"unknown: transport: local_transport = smtp:[192.0.2.1]: smtp(8) takes the mail elsewhere"}},
		"local_transport is virtual":     {agent + "local_transport = virtual\n", []string{"do: no-semaphore: local_transport = virtual"}},
		"virtual mailboxes":              {agent + "virtual_mailbox_domains = example.org\n", []string{"do: no-semaphore: virtual_transport = virtual"}},
		"transport_maps is only noted":   {agent + "transport_maps = hash:/etc/x\n", nil},
		"what main.cf refers to, put in": {"x = lmtp:unix\nmailbox_transport = $x:private/strange\n", []string{"unknown: strange-agent: mailbox_transport = lmtp:unix:private/strange"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, postfixName, "procmail", "maildrop")
			h.add("/etc/postfix/main.cf", c.mainCf)
			h.finds(c.finds...)
		})
	}
}

func TestWhatLMTPNeeds(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName)
	h.apply("postfix-lmtp.md")
	h.add("/etc/postfix/main.cf", "queue_directory = /var/spool/postfix\nlmtp_line_length_limit = 998\n")
	r := h.finds("do: line-length", "do: not-running: nobody listens at /var/spool/postfix/private/mailferry")
	if len(r.Snippets) != 1 || r.Snippets[0].Text != "mailbox_transport = lmtp:unix:private/mailferry\nlmtp_line_length_limit = 0\n" {
		t.Errorf("%+v", r.Snippets)
	}
}

func TestMasterCfCountsMoreThanMainCf(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName)
	h.apply("postfix.md")
	h.write("/etc/postfix/master.cf", masterCf+"other unix - n n - - local\n  -o mailbox_command=/usr/bin/other\n")
	h.finds()
	h.write("/etc/postfix/master.cf", strings.Replace(masterCf, "- - local\n", "- - local\n  -o mailbox_command=/usr/bin/strange\n", 1))
	h.finds("unknown: strange-agent: mailbox_command = /usr/bin/strange")
}

func TestAPostfixThatIsBrokenIsNotGuessed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postfixName)
	h.must(os.Remove(h.path("/etc/postfix/main.cf")))
	r := h.finds("Postfix: unknown: not-told: its configuration could not be read")
	if len(r.Snippets) > 0 {
		t.Errorf("%+v", r.Snippets)
	}
}

func TestCommandsAreReadAsPostfixDoes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		agent       agent
		shell, exec bool
		t           bool
	}{
		"/usr/local/bin/mailferry-deliver":            {ours, false, false, false},
		`exec "/usr/bin/procmail" -t -a "$EXTENSION"`: {procmail, true, true, true},
		"/usr/bin/procmail -Yt":                       {procmail, false, false, true},
		"/usr/bin/procmail -a -t":                     {procmail, false, false, false},
		"/usr/bin/procmail -at":                       {procmail, false, false, false},
		"/usr/bin/maildrop":                           {maildrop, false, false, false},
		"/usr/lib/dovecot/deliver":                    {dovecotLDA, false, false, false},
		"/usr/bin/deliver":                            {strangeAgent, false, false, false},
		"cat > /dev/null":                             {strangeAgent, true, false, false},
		"exec":                                        {strangeAgent, true, true, false},
		"":                                            {strangeAgent, false, false, false},
		"/usr/local/bin/mailferry-deliver --lmtp /run/x":   {strangeAgent, false, false, false},
		"IFS=' ' && exec /usr/bin/procmail -f- || exit 75": {strangeAgent, true, false, false},
	} {
		c := mailboxCommand(text)
		if c.agent() != want.agent || c.shell != want.shell || c.exec != want.exec || c.flagged('t', procmailValues) != want.t {
			t.Errorf("%q: %q, %+v", text, c.agent(), c)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(`procmail -a "$EXTENSION"`)
	f.Add("exec")
	f.Add("- -t -")
	f.Fuzz(func(t *testing.T, text string) {
		c := mailboxCommand(text)
		c.agent()
		if c.flagged('t', procmailValues) && !strings.Contains(text, "t") {
			t.Errorf("%q", text)
		}
		if c.exec && !c.shell || slices.Contains(c.words, "") {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzPostconf(f *testing.F) {
	f.Add("mail_version = 3.7.11\nmailbox_command = \nlocal/unix/mailbox_command = x\nlocal unix - n n - - local")
	f.Add("maildrop unix - n n - - pipe flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient}\n = \n=\nlocal/unix/ = x")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Split(text, "\n")
		for name, value := range parsePostconf(lines) {
			if name == "" || strings.TrimSpace(value) != value {
				t.Errorf("%q = %q", name, value)
			}
		}
		for name, s := range parseMaster(lines) {
			if name == "" || s.command == "" {
				t.Errorf("%q %+v", name, s)
			}
			s.argv()
		}
		for name := range overrides(lines, "local") {
			if name == "" {
				t.Error("no name")
			}
		}
	})
}
