package doctor

import (
	"regexp"
	"slices"
	"strings"
)

const eximName = "Exim"

// driver is a router or transport of Exim, with its options as exim -bP has
// them: "name = value", and "name" or "no_name" for booleans.
type driver struct {
	name   string
	values map[string]string // booleans are "true" and "false"
}

// parseDrivers reads what exim -bP routers, or transports, says.
func parseDrivers(lines []string, kind string) (list []driver) {
	for _, line := range lines {
		if name, ok := strings.CutSuffix(line, " "+kind+":"); ok && name != "" && !strings.ContainsAny(name, " =") {
			list = append(list, driver{name, map[string]string{}})
			continue
		}
		if len(list) == 0 || line == "" {
			continue
		}
		values := list[len(list)-1].values
		name, value, valued := strings.Cut(line, " =")
		if bare, negated := strings.CutPrefix(line, "no_"); !valued && negated {
			values[bare] = "false"
		} else if !valued {
			values[line] = "true"
		} else {
			values[name] = strings.TrimSpace(value)
		}
	}
	return list
}

func (d driver) is(option string) bool { return d.values[option] == "true" }

var versionWord = regexp.MustCompile(`\d+(\.\d+)+`)

// versionIn is the first version number in the first line of what a program
// says; "" if there is none.
func versionIn(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return versionWord.FindString(lines[0])
}

func (e *examination) askExim() {
	path := e.system.find(eximPaths)
	if path == "" {
		return
	}
	version, err := e.ask(eximPaths, "-bV")
	e.Programs = append(e.Programs, Program{eximName, versionIn(version), path})
	var routers, transports []string
	if err == nil {
		routers, err = e.ask(eximPaths, "-bP", "routers")
	}
	if err == nil {
		transports, err = e.ask(eximPaths, "-bP", "transports")
	}
	if err != nil {
		e.find(eximName, Unknown, "not-told", "", "its configuration could not be read: %s", reason(err))
		return
	}
	e.checkExim(parseDrivers(routers, "router"), parseDrivers(transports, "transport"))
}

// checkExim judges the transports that routers give mail to. Those that only
// .forward files reach are rules of users.
func (e *examination) checkExim(routers, transports []driver) {
	used := false
	for _, r := range routers {
		name := r.values["transport"]
		if name == "" {
			continue
		}
		i := slices.IndexFunc(transports, func(t driver) bool { return t.name == name })
		if i < 0 {
			e.find(eximName, Unknown, "transport", "", "router %s: transport = %s is looked up for each message", r.name, name)
			continue
		}
		used = e.eximTransport(r, transports[i]) || used
	}
	if !used {
		e.find(eximName, Note, "no-mailboxes", "", "no router gives mail to mailboxes of this host")
	}
}

// eximTransport judges one, and tells whether it goes into mailboxes.
func (e *examination) eximTransport(r, t driver) bool {
	place := "router " + r.name + ", transport " + t.name
	switch t.values["driver"] {
	case "pipe":
		e.eximPipe(place, t)
	case "appendfile":
		e.delivers(eximName, place, builtin)
		e.suggest("exim.md")
		e.locks(eximName, eximLocks(t), true)
		e.eximFile(t)
	case "lmtp":
		if socket := t.values["socket"]; socket != "" && !strings.Contains(socket, "$") {
			e.delivers(eximName, place, e.listener(socket))
		} else {
			e.delivers(eximName, place, strangeAgent)
		}
	default: // smtp, autoreply
		return false
	}
	return true
}

// eximFile compares where appendfile writes with where this site's mboxes are.
func (e *examination) eximFile(t driver) {
	file := strings.NewReplacer("${local_part}", "{user}", "$local_part_data", "{user}", "$local_part", "{user}", "$home", "{home}").Replace(t.values["file"])
	switch {
	case file == "" || strings.Contains(file, "$"):
		e.find(eximName, Unknown, "spool-other", "", "transport %s: whether it writes to %s can't be told", t.name, e.config.Spool)
	default:
		e.sameSpool(eximName, file)
	}
}

// eximPipe compares a pipe transport with the recipe's. Another program than
// the recipe's has its own way with From_ lines.
func (e *examination) eximPipe(place string, t driver) {
	c := command{text: t.values["command"], words: strings.Fields(t.values["command"])}
	a := c.agent()
	e.delivers(eximName, place+", "+c.text, a)
	if a == strangeAgent {
		return
	}
	if a == ours {
		e.callsOurs(place, c.program())
	}
	var other []string
	for _, line := range rules(e.snippet("exim.md", "/etc/exim4/conf.d/transport/30_mailferry")) {
		name, want, ok := strings.Cut(line, " =")
		if want = strings.TrimSpace(want); !ok || name == "command" || a != ours && strings.HasPrefix(name, "message_") {
			continue
		}
		if t.values[name] != want {
			other = append(other, strings.TrimSpace(name+" = "+want))
		}
	}
	if t.is("use_shell") {
		other = append(other, "use_shell = false")
	}
	if len(other) > 0 {
		e.find(eximName, Do, "bounces", "Set them: "+strings.Join(other, ", "), "%s lacks settings of the recipe: mail may bounce, or be altered", place)
		e.suggest("exim.md")
	}
}
