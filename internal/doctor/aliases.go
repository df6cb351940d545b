package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"mailferry/internal/host"
)

// rootMail looks whether somebody gets the mail of root and postmaster if what
// delivers follows semaphores, which root has none of.
func (p *postfix) rootMail() {
	if !slices.ContainsFunc(p.agents, func(a agent) bool { return a != builtin }) {
		return
	}
	maps := strings.FieldsFunc(p.values["alias_maps"], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	late := fmt.Sprintf("mail for root, and for all others below min-uid %d, is deferred until it expires", p.config.MinUID)
	if len(maps) == 0 {
		p.find(postfixName, Note, "root-mail", "Set alias_maps, with an alias for root.", "there are no aliases: %s, unless it is sent elsewhere before", late)
		return
	}
	const advice = "Add an alias, as in root: alice, and run newaliases."
	if p.aliased("root", maps) == no {
		p.find(postfixName, Do, "root-mail", advice, "root has no alias in %s: %s", p.values["alias_maps"], late)
	}
	if p.aliased("postmaster", maps) == no {
		p.find(postfixName, Do, "root-mail", advice, "postmaster has no alias in %s: his mail bounces if there is no such user", p.values["alias_maps"])
	}
}

// truth is what is known of something.
type truth int

const (
	unsure truth = iota
	no
	yes
)

// aliased asks the tables that are files.
func (p *postfix) aliased(name string, maps []string) truth {
	answer := no
	for _, table := range maps {
		table = strings.TrimPrefix(table, "proxy:")
		if kind, _, _ := strings.Cut(table, ":"); strings.HasPrefix(table, "/") || slices.Contains([]string{"hash", "btree", "cdb", "dbm", "lmdb", "sdbm", "texthash", "regexp", "pcre"}, kind) {
			_, err := p.ask(postaliasPaths, "-q", name, table)
			if err == nil {
				return yes
			}
			if f := (*host.Failed)(nil); errors.As(err, &f) && f.Exit == 1 && !strings.Contains(f.Said, "fatal: ") {
				continue // it has no such alias
			}
			p.find(postfixName, Unknown, "not-told", "", "an alias could not be looked up: %s", reason(err))
		} else {
			p.find(postfixName, Unknown, "root-mail", "Ask postalias -q root, and postmaster.", "%s is not asked here: whether root has an alias can't be told", table)
		}
		answer = unsure
	}
	return answer
}
