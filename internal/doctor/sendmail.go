package doctor

import "strings"

const sendmailName = "sendmail"

const sendmailCf = "/etc/mail/sendmail.cf"

// lookForSendmail reads sendmail's configuration, which Postfix and Exim don't have.
func (e *examination) lookForSendmail() {
	text, err := e.system.read(sendmailCf)
	if err != nil {
		e.find(sendmailName, Unknown, "not-told", "", "%s could not be read: %s", sendmailCf, reason(err))
		return
	}
	if text == "" {
		return
	}
	e.Programs = append(e.Programs, Program{Name: sendmailName, Path: sendmailCf})
	c, ok := localMailer(text)
	if !ok {
		e.find(sendmailName, Unknown, "strange-agent", "", "%s has no mailer local", sendmailCf)
		return
	}
	place := "Mlocal, " + c.text
	if strings.Contains(c.program(), "mail.local") {
		e.delivers(sendmailName, place, builtin)
		e.suggest("sendmail.md")
		return
	}
	e.delivers(sendmailName, place, c.agent())
	if c.agent() == ours {
		e.callsOurs(place, c.program())
	}
}

// localMailer is the program of Mlocal, with its arguments; false if there is
// no such mailer, or it goes to a socket.
func localMailer(cf string) (command, bool) {
	for _, line := range strings.Split(strings.ReplaceAll(cf, "\n\t", " "), "\n") {
		rest, ok := strings.CutPrefix(line, "Mlocal,")
		if !ok {
			continue
		}
		var c command
		for rest != "" {
			var field string
			field, rest, _ = strings.Cut(rest, ",")
			name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			switch value = strings.TrimSpace(value); {
			case name == "P":
				c.words = append([]string{value}, c.words...)
			case name == "A":
				if args := strings.Fields(value); len(args) > 0 {
					c.words = append(c.words, args[1:]...)
				}
			}
		}
		c.text = strings.Join(c.words, " ")
		return c, len(c.words) > 0
	}
	return command{}, false
}
