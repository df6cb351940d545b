package doctor

import (
	"path/filepath"
	"strings"

	"mailferry/docs/routing"
	"mailferry/internal/account"
)

// recipe returns what a recipe writes, with this site's places in it: the
// documents have the defaults.
func (e *examination) recipe(name string) []routing.Snippet {
	list, err := routing.Snippets(name)
	if err != nil {
		panic("bug: " + err.Error())
	}
	places := adapter(e.config.Places(), e.config.Text("layout"))
	for i := range list {
		list[i].Text = places.Replace(list[i].Text)
	}
	return list
}

// snippet is the one of a recipe for a file.
func (e *examination) snippet(recipe, file string) string {
	for _, s := range e.recipe(recipe) {
		if s.File == file {
			return s.Text
		}
	}
	panic("bug: " + recipe + " has no " + file)
}

// adapter puts a site's places into snippets. With the defaults it changes
// nothing.
func adapter(p account.Places, layout string) *strings.Replacer {
	mail := p.Maildir
	pairs := []string{
		"/var/lib/mailferry/semaphores/$LOGNAME", shell(p.Semaphore),
		"/var/lib/mailferry/semaphores/", strings.TrimSuffix(p.Semaphore, "{user}"),
		"$HOME/.mailstate.lock", shell(p.Gate),
		"$HOME/Maildir", shell(mail),
		"maildir:~/Maildir", "maildir:" + dovecotPath(mail) + dovecotLayout(layout),
	}
	if len(p.Folders) > 0 {
		pairs = append(pairs, "mbox:~/mail:INBOX=/var/mail/%u", "mbox:"+dovecotPath(p.Folders[0])+":INBOX="+dovecotPath(p.Spool))
	}
	return strings.NewReplacer(pairs...)
}

// adaptable reports whether snippets can have the places of a site. What they
// can't say is a user's number, and a semaphore whose file is not named after
// him.
func adaptable(p account.Places) bool {
	dir, named := strings.CutSuffix(p.Semaphore, "{user}")
	for _, t := range append([]string{p.Gate, p.Maildir, p.Spool}, p.Folders...) {
		if strings.Contains(t, "{uid}") {
			return false
		}
	}
	return named && strings.HasSuffix(dir, "/") && !strings.Contains(dir, "{") && len(p.Folders) <= 1
}

// shell is a template in rules of procmail and maildrop.
func shell(template string) string {
	return strings.NewReplacer("{home}", "$HOME", "{user}", "$LOGNAME").Replace(template)
}

// dovecotPath is a template in a mail location.
func dovecotPath(template string) string {
	if rest, ok := strings.CutPrefix(template, "{home}/"); ok {
		template = "~/" + rest
	}
	return strings.NewReplacer("{home}", "~", "{user}", "%u").Replace(template)
}

func dovecotLayout(layout string) string {
	if layout == "fs" {
		return ":LAYOUT=fs"
	}
	return ""
}

// templateOf is the template that a path of Dovecot's means; false if it has a
// variable that a template has not.
func templateOf(path string) (string, bool) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = "%h/" + rest
	}
	path = strings.NewReplacer("%h", "{home}", "%u", "{user}", "%n", "{user}", "%{home}", "{home}", "%{user}", "{user}").Replace(path)
	return path, !strings.Contains(path, "%")
}

// commonDir is the directory that all users have in common in a template;
// false if it is below their homes, or each has a directory of his own.
func commonDir(template string) (string, bool) {
	dir := filepath.Dir(template)
	return dir, !strings.Contains(dir, "{")
}
