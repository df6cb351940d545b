package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mailferry/internal/mailgen"
)

// demoOptions are enough users for four chunks of 50, and for every problem that
// mailgen can make to have its user. They have half the mail of an office, for
// nobody likes to wait.
var demoOptions = mailgen.SiteOptions{
	Users: 200, Seed: demoSeed, Problems: 0.2,
	Load: mailgen.Load{
		Messages: func(r *rand.Rand) int { return (mailgen.Office.Messages(r) + 1) / 2 },
		Size:     mailgen.Office.Size,
	},
}

// demoSite shows the main job as the admin of a server would do it.
func demoSite(cmd *cobra.Command, dir string, o mailgen.SiteOptions) error {
	if err := os.Chmod(dir, 0o755); err != nil { // users go through it
		return err
	}
	site, err := mailgen.Site(dir, o)
	if err != nil {
		return fmt.Errorf("%w; TMPDIR says where the made-up server lies", err)
	}
	t := &tour{cmd: cmd, site: site, users: map[string]bool{}}
	for _, u := range site.Users {
		t.users[u.Name] = true
	}
	return t.walk()
}

// tour shows a made-up mail server being migrated.
type tour struct {
	cmd   *cobra.Command
	site  *mailgen.SiteSummary
	users map[string]bool // by name
}

func (t *tour) walk() error {
	t.begin()
	for _, step := range []struct {
		about string
		verb  string
		flags string
		most  int // users that are shown of a list
	}{
		{"Every user gets a semaphore that says mbox. From then on delivery agents can ask it.", "enroll", "", 3},
		{"What stands in the way of whom, and how long will it take? A plan changes nothing.", "plan", "", 8},
		{"The overnight run. Users with a finding that says refuse are left as they are.", "migrate", " --chunk 50", 12},
		{"Is everything there? Maildirs against parked mboxes, message by message.", "verify", "", 8},
		{"How do the users stand now?", "status", "", 8},
	} {
		t.say("\n%s", step.about)
		if err := t.show(step.verb, step.flags+" --users-from names", step.most); err != nil {
			return err
		}
	}
	return t.end()
}

// begin tells what server it is.
func (t *tour) begin() {
	problems, mailboxes := 0, 0
	for _, u := range t.site.Users {
		mailboxes += len(u.Mailboxes)
		if u.Code != "" {
			problems++
		}
	}
	t.say("A made-up mail server in %s: %s, %s, %s, %s.\nWith %d of the users something is the matter.",
		t.site.Dir, plural(len(t.site.Users), "user"), plural(mailboxes, "mailbox"), plural(t.site.Messages, "message"), size(t.site.Bytes), problems)
}

// end shows what became of the first user.
func (t *tour) end() error {
	user := t.site.Users[0].Name
	state, err := os.ReadFile(filepath.Join(t.site.Dir, "semaphores", user))
	if err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(t.site.Dir, "spool", user) + "*")
	if err != nil {
		return err
	}
	t.say("\nWhat agents read, and where the old mail waits for the end of the soak:")
	t.say("$ cat semaphores/%s\n%s$ ls spool/%s*\n%s", user, state, user, t.local(strings.Join(names, "\n")))
	return nil
}

func (t *tour) say(format string, args ...any) {
	fmt.Fprintf(t.cmd.OutOrStdout(), format+"\n", args...)
}

// local is a text as one would see it in the folder of the site.
func (t *tour) local(text string) string { return strings.ReplaceAll(text, t.site.Dir+"/", "") }

// show runs a verb as if it were typed in the folder of the site, and shows
// what it prints, of lists the beginning.
func (t *tour) show(verb, flags string, most int) error {
	t.say("$ mailferry %s --config mailferry.toml%s", verb, flags)
	args := append([]string{verb, "--config", t.site.Config}, strings.Fields(flags)...)
	for i, arg := range args {
		if arg == "names" {
			args[i] = t.site.NamesFile
		}
	}
	var out bytes.Buffer
	code := run(t.cmd.Context(), args, &out, t.cmd.ErrOrStderr())
	_, err := io.WriteString(t.cmd.OutOrStdout(), t.shorten(t.local(out.String()), most))
	if err == nil && code != exitDone && code != exitSkipped {
		err = outcome(code)
	}
	return err
}

// shorten leaves out of each list all but the first entry of each of the first
// users, and says how many entries it left out.
func (t *tour) shorten(text string, most int) string {
	var b strings.Builder
	list, left, shown := "", 0, false
	users := map[string]bool{} // of the list
	end := func() {
		if left > 0 {
			fmt.Fprintf(&b, "... and %d more\n", left)
		}
	}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "  ") { // what is indented belongs to the entry before
			user, kind := t.entry(line)
			if kind != list {
				end()
				list, left, users = kind, 0, map[string]bool{}
			}
			shown = kind == "" || !users[user] && len(users) < most
			users[user] = true
			if !shown {
				left++
			}
		}
		if shown {
			b.WriteString(line)
		}
	}
	end()
	return b.String()
}

// entry tells of which user a line speaks, and in which kind of list: a table
// or sentences. What is no entry of a list has the kind "".
func (t *tour) entry(line string) (user, kind string) {
	at := strings.IndexAny(line, ": ")
	if at < 0 || !t.users[line[:at]] {
		return "", ""
	}
	return line[:at], line[at : at+1]
}
