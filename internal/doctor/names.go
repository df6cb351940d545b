package doctor

import (
	"fmt"
	"slices"
	"strings"

	"mailferry/maildir"
)

// checkNames looks whether folders keep their names at a flip, by each protocol
// that has such names: settings may differ.
func (e *examination) checkNames() {
	found := len(e.Findings)
	protocols := e.namers()
	for _, protocol := range protocols {
		told, err := e.ask(doveconfPaths, "-S", "-f", "protocol="+protocol, "namespace", "mail_plugins")
		if err != nil {
			e.find(dovecotName, Unknown, "not-told", "", "its configuration for %s could not be read: %s", protocol, reason(err))
			continue
		}
		e.checkNamesOf(parseDoveconf(told), protocol)
	}
	if len(protocols) > 0 && found == len(e.Findings) {
		e.find(dovecotName, Fine, "names", "", "folders keep their names at a flip")
	}
}

// namers are the protocols in use by which folders have names.
func (e *examination) namers() (list []string) {
	for _, p := range []struct {
		name string
		used bool
	}{
		{"imap", e.dovecot.serves("imap")},
		{"lmtp", slices.Contains(e.agents, dovecotLMTP)},
		{"lda", slices.Contains(e.agents, dovecotLDA)},
	} {
		if p.used {
			list = append(list, p.name)
		}
	}
	return list
}

// checkNamesOf judges the settings of one protocol. With layout fs the separator
// is that of mbox anyway (dovecot mailbox-list-fs.c).
func (e *examination) checkNamesOf(d dovecot, protocol string) {
	layout := e.config.Layout
	if layout.Layout != maildir.MaildirPP {
		return
	}
	for _, namespace := range d.unseparated() {
		e.find(dovecotName, Do, "separator", "Set separator = / in it before anybody is moved, as docs/routing/dovecot.md has it.",
			"%s has no separator: that is / for mboxes and . for Maildirs, so folders get other names at the flip", namespace)
	}
	plugins := strings.FieldsFunc(d.values["mail_plugins"], func(r rune) bool { return r == ' ' || r == ',' })
	if layout.Escape && !slices.Contains(plugins, "listescape") {
		e.find(dovecotName, Do, "listescape", "Add listescape to mail_plugins, in 10-mail.conf, before files that add to it for a protocol.",
			"layout is listescape, and for %s mail_plugins = %s: folders with a dot in their names get others at the flip", protocol, d.values["mail_plugins"])
	}
}

// unseparated are the namespaces that users' mail is in and that take the
// separator of the driver. Without any, Dovecot makes one.
func (d dovecot) unseparated() (names []string) {
	list := strings.Fields(d.values["namespace"])
	for _, n := range list {
		of := func(name string) string { return d.values["namespace/"+n+"/"+name] }
		moves := of("type") == "private" && of("disabled") != "yes" && (of("inbox") == "yes" || of("location") == "")
		switch {
		case !moves || of("separator") != "":
		case of("name") == "":
			names = append(names, fmt.Sprintf("the namespace with prefix = %q", of("prefix")))
		default:
			names = append(names, "namespace "+of("name"))
		}
	}
	if len(list) == 0 {
		names = append(names, "the namespace that Dovecot makes, as none is configured,")
	}
	return names
}
