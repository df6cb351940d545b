package doctor

import "strings"

// postfixAsked are the parameters that postconf is asked for with what they
// refer to put in. mailbox_command is not among them: local(8) puts in what is
// in it, for each message.
var postfixAsked = []string{
	"mail_version", "queue_directory", "local_transport", "transport_maps", "virtual_mailbox_domains", "virtual_transport",
	"mailbox_transport_maps", "mailbox_transport", "mailbox_command_maps", "home_mailbox", "mail_spool_directory",
	"mailbox_delivery_lock", "virtual_mailbox_lock", "lmtp_line_length_limit", "multi_instance_directories",
	"recipient_delimiter", "command_time_limit", "alias_maps",
}

// parsePostconf reads "name = value" lines of postconf(1).
func parsePostconf(lines []string) map[string]string {
	values := map[string]string{}
	for _, line := range lines {
		if name, value, ok := strings.Cut(line, " ="); ok && name != "" {
			values[name] = strings.TrimSpace(value)
		}
	}
	return values
}

// service is a line of master.cf.
type service struct {
	command string // program of the daemon directory
	args    string
}

// parseMaster reads what postconf -M says, and returns the services by "name".
// Those that listen on the network are left out: no transport is named so.
func parseMaster(lines []string) map[string]service {
	services := map[string]service{}
	for _, line := range lines {
		if f := strings.Fields(line); len(f) >= 8 && f[1] != "inet" {
			services[f[0]] = service{f[7], strings.Join(f[8:], " ")}
		}
	}
	return services
}

// argv is the command of a pipe(8) service; false if it has none.
func (s service) argv() (command, bool) {
	_, text, ok := strings.Cut(s.args, "argv=")
	return command{text: text, words: strings.Fields(text)}, ok
}

// overrides are the parameters that a service has otherwise than main.cf, of
// what postconf -P says.
func overrides(lines []string, service string) map[string]string {
	values := map[string]string{}
	for name, value := range parsePostconf(lines) {
		if parameter, ok := strings.CutPrefix(name, service+"/unix/"); ok && parameter != "" {
			values[parameter] = value
		}
	}
	return values
}
