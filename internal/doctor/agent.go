package doctor

import (
	"path"
	"slices"
	"strings"
)

// agent is a way in which mail gets into mailboxes.
type agent string

const (
	ours         agent = "mailferry-deliver"
	oursLMTP     agent = "mailferry-deliver --lmtp"
	procmail     agent = "procmail"
	maildrop     agent = "maildrop"
	dovecotLDA   agent = "dovecot-lda"
	dovecotLMTP  agent = "Dovecot LMTP"
	builtin      agent = "the MTA itself" // local(8), virtual(8), appendfile, mail.local
	strangeAgent agent = ""               // one that is not known
)

// command is a command line of a configuration.
type command struct {
	text  string
	shell bool // /bin/sh reads it
	exec  bool // and gives way to the program
	words []string
}

// directChars are those that Postfix runs a command with by itself; all others
// make it call a shell (postfix global/exec_command.c).
const directChars = "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t"

// mailboxCommand reads a command of local(8).
func mailboxCommand(text string) command {
	c := command{text: text, words: strings.Fields(text)}
	c.shell = strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(directChars, r) })
	if len(c.words) > 0 && c.words[0] == "exec" {
		c.shell, c.exec, c.words = true, true, c.words[1:] // exec is the shell's
	}
	return c
}

// program is the path of the program; "" if there is none.
func (c command) program() string {
	if len(c.words) == 0 {
		return ""
	}
	return strings.Trim(c.words[0], `"'`)
}

// agent is which of those that are known it calls.
func (c command) agent() agent {
	switch name := path.Base(c.program()); {
	case name == "mailferry-deliver" && slices.Contains(c.words, "--lmtp"):
		return strangeAgent // a server, not a delivery
	case name == "mailferry-deliver":
		return ours
	case name == "procmail":
		return procmail
	case name == "maildrop":
		return maildrop
	case name == "dovecot-lda", name == "deliver" && strings.Contains(c.program(), "dovecot"):
		return dovecotLDA
	}
	return strangeAgent
}

// option is the value of an option with a long name; false if it is not there.
func (c command) option(name string) (value string, ok bool) {
	for i, word := range c.words {
		if word == name && i+1 < len(c.words) {
			return strings.Trim(c.words[i+1], `"'`), true
		}
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return strings.Trim(value, `"'`), true
		}
	}
	return "", false
}

// flagged reports whether it has an option of one letter, alone or among
// others; values takes the letters behind which a word ends with a value.
func (c command) flagged(letter rune, values string) bool {
	for i := 1; i < len(c.words); i++ {
		word, is := strings.CutPrefix(strings.Trim(c.words[i], `"'`), "-")
		if !is {
			continue
		}
		for j, r := range word {
			if r == letter {
				return true
			}
			if strings.ContainsRune(values, r) {
				if j == len(word)-1 {
					i++ // the next word is its value
				}
				break
			}
		}
	}
	return false
}

// delivers enters an agent that delivers mail of users, by what an MTA's
// configuration says in place.
func (e *examination) delivers(mta, place string, a agent) {
	if a != strangeAgent && !slices.Contains(e.agents, a) {
		e.agents = append(e.agents, a)
	}
	if mta != sendmailName { // which calls it as root (flag S of Mlocal)
		e.asUser = append(e.asUser, a)
	}
	switch a {
	case ours, oursLMTP:
		e.find(mta, Fine, "gate", "", "%s: takes the gate, which closes the race", place)
	case procmail, maildrop:
		e.find(mta, Note, "rules", "", "%s: %s delivers, by its rules", place, a)
	case dovecotLDA, dovecotLMTP:
		e.windowed(mta, place, a)
	case builtin:
		e.find(mta, Do, "no-semaphore", "Deliver with mailferry-deliver: mail that comes after a flip goes into a new mbox otherwise.",
			"%s: %s delivers, which reads no semaphore and takes no gate", place, a)
	case strangeAgent:
		e.find(mta, Unknown, "strange-agent", "Deliver with one of the recipes, or see that it compares the semaphore's line, takes the gate before, and exits with 75 for all else.",
			"%s: an agent that is not known here: whether it reads the semaphore and takes the gate can't be told", place)
	}
}

// windowed enters one of Dovecot's agents. Whether it follows the semaphore is
// for its userdb to say.
func (e *examination) windowed(mta, place string, a agent) {
	if e.dovecot == nil {
		e.find(mta, Unknown, "strange-agent", "", "%s: %s delivers, but Dovecot's configuration could not be read", place, a)
		return
	}
	e.window = true
	e.find(mta, Note, "window", "For none at all, deliver with mailferry-deliver, and keep Dovecot for IMAP and POP3.",
		"%s: %s can't take the gate: it looks up where a mailbox is, and locks later. What falls between lies at the old place, until sweep takes it", place, a)
}
