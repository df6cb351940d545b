package doctor

import (
	"maps"
	"path/filepath"
	"strings"
)

const postfixName = "Postfix"

// postfix is what its configuration says.
type postfix struct {
	*examination
	values   map[string]string // of main.cf, and of local(8) in master.cf over it
	services map[string]service
}

func (e *examination) askPostfix() {
	path := e.system.find(postconfPaths)
	if path == "" {
		return
	}
	p := postfix{examination: e}
	err := p.load()
	e.Programs = append(e.Programs, Program{postfixName, p.values["mail_version"], path})
	if err != nil {
		e.find(postfixName, Unknown, "not-told", "", "its configuration could not be read: %s", reason(err))
		return
	}
	p.check()
	p.limits()
	p.rootMail()
}

// load asks Postfix what its configuration says.
func (p *postfix) load() error {
	expanded, err := p.ask(postconfPaths, append([]string{"-x"}, postfixAsked...)...)
	if err != nil {
		return err
	}
	p.values = parsePostconf(expanded)
	raw, err := p.ask(postconfPaths, "mailbox_command")
	if err != nil {
		return err
	}
	maps.Copy(p.values, parsePostconf(raw))
	master, err := p.ask(postconfPaths, "-M")
	if err != nil {
		return err
	}
	p.services = parseMaster(master)
	set, err := p.ask(postconfPaths, "-P")
	if err != nil {
		return err
	}
	maps.Copy(p.values, overrides(set, "local"))
	return nil
}

// setting is a parameter as main.cf has it.
func (p *postfix) setting(name string) string { return name + " = " + p.values[name] }

// check follows a message to a local user through the settings, in the order
// of local(8).
func (p *postfix) check() {
	p.checkAround()
	switch name, _, _ := strings.Cut(p.values["local_transport"], ":"); {
	case name != "" && p.services[name].command != "local":
		p.transport("local_transport")
	case p.values["mailbox_transport"] != "":
		p.before("mailbox_transport_maps")
		p.transport("mailbox_transport")
	case p.values["mailbox_command"] != "":
		p.before("mailbox_transport_maps")
		p.before("mailbox_command_maps")
		p.command()
	default:
		p.before("mailbox_transport_maps")
		p.before("mailbox_command_maps")
		p.builtin()
	}
}

// before reports a table that may send a user's mail elsewhere.
func (p *postfix) before(name string) {
	if p.values[name] != "" {
		p.find(postfixName, Do, "table", "Empty it, or see that nobody in it is moved: a table is asked by one process, and another locks later.",
			"%s comes before what delivers to all others", p.setting(name))
	}
}

// checkAround looks at what else may route mail.
func (p *postfix) checkAround() {
	if p.values["transport_maps"] != "" {
		p.find(postfixName, Note, "transport-maps", "See that no address of a mailbox is in it.",
			"%s is asked before all of this; what it says is not looked at", p.setting("transport_maps"))
	}
	if p.values["multi_instance_directories"] != "" {
		p.find(postfixName, Unknown, "instances", "", "%s: other instances are not looked at", p.setting("multi_instance_directories"))
	}
	if p.values["virtual_mailbox_domains"] != "" {
		p.find(postfixName, Note, "virtual", "", "%s: mail to these goes through virtual_transport", p.setting("virtual_mailbox_domains"))
		p.transport("virtual_transport")
	}
}

// transport judges a setting of the form "service:nexthop".
func (p *postfix) transport(name string) {
	service, nexthop, _ := strings.Cut(p.values[name], ":")
	s, ok := p.services[service]
	place := p.setting(name)
	switch {
	case !ok:
		p.find(postfixName, Unknown, "no-service", "", "%s: master.cf has no service %q", place, service)
	case s.command == "lmtp":
		p.lmtp(place, nexthop)
	case s.command == "local", s.command == "virtual":
		p.delivers(postfixName, place, builtin)
		p.locks("Postfix's "+s.command+"(8)", postfixLocks(p.values[map[string]string{"local": "mailbox_delivery_lock", "virtual": "virtual_mailbox_lock"}[s.command]]), true)
	case s.command == "pipe":
		c, _ := s.argv()
		p.delivers(postfixName, place+", "+c.text, c.agent())
		if c.agent() != strangeAgent {
			p.pipeTime(place, service, c)
			p.find(postfixName, Unknown, "pipe", "Use mailbox_command, as the recipe has it.", "%s: there is no tested recipe for a pipe(8) service", place)
		}
	default:
		p.find(postfixName, Unknown, "transport", "", "%s: %s(8) takes the mail elsewhere", place, s.command)
	}
}

// lmtp judges a delivery to an LMTP server.
func (p *postfix) lmtp(place, nexthop string) {
	socket, ok := strings.CutPrefix(nexthop, "unix:")
	if !ok {
		p.find(postfixName, Unknown, "strange-agent", "", "%s: which program listens on a port can't be told", place)
		return
	}
	if !strings.HasPrefix(socket, "/") {
		socket = filepath.Join(p.values["queue_directory"], socket)
	}
	a := p.listener(socket)
	p.delivers(postfixName, place, a)
	if a != oursLMTP {
		return
	}
	p.delimiters()
	if p.values["lmtp_line_length_limit"] != "0" {
		p.find(postfixName, Do, "line-length", "Set lmtp_line_length_limit = 0.",
			"%s: Postfix breaks longer lines, and alters those messages", p.setting("lmtp_line_length_limit"))
		p.suggest("postfix-lmtp.md", "/etc/postfix/main.cf")
	}
}

// delimiters compares those that Postfix splits addresses at with the server's,
// which gets whole addresses.
func (p *postfix) delimiters() {
	theirs, ours := p.values["recipient_delimiter"], "+"
	if text, ok := p.server.option("--recipient-delimiter"); ok {
		ours = text
	}
	if strings.Trim(theirs, ours) != "" {
		p.find(postfixName, Do, "delimiter", "Start the server so: ExecStart=/usr/local/bin/mailferry-deliver --lmtp SOCKET --recipient-delimiter "+theirs,
			"%s, and %s begins extensions with %q only: mail for other ones is deferred until it expires", p.setting("recipient_delimiter"), lmtpUnit, ours)
	}
}

// procmail's and dovecot-lda's options that have a value.
const (
	procmailValues = "afdmpr"
	ldaValues      = "acdfmopr"
)

// command judges mailbox_command.
func (p *postfix) command() {
	place := p.setting("mailbox_command")
	c := mailboxCommand(p.values["mailbox_command"])
	a := c.agent()
	p.delivers(postfixName, place, a)
	recipe := map[agent]string{procmail: "procmail.md", maildrop: "maildrop.md", dovecotLDA: "dovecot-lda.md", ours: "postfix.md"}[a]
	bad := func(code, advice, format string) {
		p.find(postfixName, Do, code, advice, format, place)
		if recipe != "" {
			p.suggest(recipe, "/etc/postfix/main.cf")
		}
	}
	if c.shell && !c.exec {
		bad("shell", "Write exec before it, or do without quotes and variables.",
			"%s: a shell stands between, and an agent that is killed is a bounce then, not a deferral")
	}
	switch {
	case a == procmail && !c.flagged('t', procmailValues):
		bad("bounces", "Call it as procmail -t.", "%s: without -t, what fails for the moment bounces")
	case a == dovecotLDA && !c.flagged('d', ldaValues):
		bad("no-userdb", `Call it with -d "$USER".`, "%s: without -d it asks no userdb, and sees no semaphore")
	case a == ours:
		p.callsOurs(place, c.program())
		p.timeLimit(place, "command_time_limit", c)
	}
}

// builtin judges local(8)'s own delivery.
func (p *postfix) builtin() {
	p.delivers(postfixName, "mailbox_command is empty", builtin)
	p.suggest("postfix.md")
	p.locks(postfixName, postfixLocks(p.values["mailbox_delivery_lock"]), true)
	switch home := p.values["home_mailbox"]; {
	case home == "":
		p.sameSpool(postfixName, filepath.Join(p.values["mail_spool_directory"], "{user}"))
	case strings.HasSuffix(home, "/"):
		p.find(postfixName, Note, "maildirs", "", "%s: it delivers into Maildirs already", p.setting("home_mailbox"))
	default:
		p.sameSpool(postfixName, "{home}/"+home)
	}
}
