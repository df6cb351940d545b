package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"mailferry/internal/account"
	"mailferry/internal/config"
)

// loaded is what a command line selects.
type loaded struct {
	config   *config.Config
	accounts []account.Account
	stderr   string
}

// names are the selected users, with a ? behind those who can't be worked on.
func (l loaded) names() string {
	var names []string
	for _, a := range l.accounts {
		if a.Problem != nil {
			a.Name += "?"
		}
		names = append(names, a.Name)
	}
	return strings.Join(names, " ")
}

// load runs a command that has the flags of a site, in a directory of its own.
func load(t *testing.T, stdin string, args ...string) (loaded, error) {
	t.Helper()
	var (
		f      siteFlags
		l      loaded
		stderr bytes.Buffer
	)
	cmd := &cobra.Command{
		Use: "plan", SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		PersistentPreRunE: fromEnvironment,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			l.config, l.accounts, err = f.load(cmd, args)
			return err
		},
	}
	f.add(cmd, "chunk", "nice", "users")
	f.addUsers(cmd)
	cmd.SetArgs(args)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetErr(&stderr)
	err := cmd.ExecuteContext(context.Background())
	l.stderr = stderr.String()
	return l, err
}

// inSite goes to a directory with a configuration and users.
func inSite(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, content := range map[string]string{
		"mailferry.toml": "users = \"file:" + dir + "/users\"\nchunk = 7\n",
		"users":          "root:0:0:/root\ntoor:0:0:/root\ndaemon:1:1:/usr/sbin\nbob:1001:1001:/home/bob\nalice:1000:1000:/home/alice\nal:1000:1000:/home/al\nnobody:65534:65534:/nonexistent\nbad:1002:1002:home\n",
		"list":           "# pickier ones first\nbob\nzoe # gone\nalice\nbob\n",
		"conf.d/w.toml":  "[wave.pilot]\nusers = [\"alice\", \"bob\"]\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("MAILFERRY_CONFIG", "mailferry.toml")
}

func TestSelectionOfUsers(t *testing.T) {
	inSite(t)
	for name, c := range map[string]struct {
		args  string
		stdin string
		want  string
		warn  string
	}{
		"by name, in this order, once":          {"bob alice bob", "", "bob alice", ""},
		"names that nobody has are listed":      {"zoe bob ../etc", "", "zoe? bob ../etc?", ""},
		"root and system users, when named":     {"root toor daemon nobody", "", "root toor daemon nobody", ""},
		"all from min-uid, in database order":   {"--all", "", "bob alice al bad?", ""},
		"from a list, in its order":             {"--users-from list", "", "bob zoe? alice", "line 5: bob is in line 2 already\n"},
		"from standard input":                   {"--users-from -", "al\r\nbob", "al bob", ""},
		"of a wave":                             {"--wave pilot", "", "alice bob", ""},
		"nobody, when the list is empty":        {"--users-from -", "# none\n", "", ""},
		"by a name that begins like an option":  {"-- -x", "", "-x?", ""},
		"with --all taken back":                 {"--all=false bob", "", "bob", ""},
		"by name, whatever the file says of it": {"--users file:" + abs(t, "users") + " alice", "", "alice", ""},
	} {
		got, err := load(t, c.stdin, strings.Fields(c.args)...)
		if err != nil || got.names() != c.want || got.stderr != c.warn {
			t.Errorf("%s: %q, error %v, stderr %q, want %q", name, got.names(), err, got.stderr, c.want)
		}
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSelectionsThatAreNone(t *testing.T) {
	inSite(t)
	for args, want := range map[string]string{
		"":                               "plan: which users? Name them, or use --all, --users-from FILE or --wave NAME",
		"--all bob":                      "plan: names, --all, --users-from and --wave exclude each other",
		"--all --wave pilot":             "plan: names, --all, --users-from and --wave exclude each other",
		"--wave plot":                    `--wave: no wave "plot"; the nearest is "pilot"`,
		"--users-from absent":            "--users-from: open absent: no such file or directory",
		"--users-from users":             "", // names nobody, and is refused user by user
		"--all --chunk none":             `--chunk: "none" is no number`,
		"--all --nice=perhaps":           `--nice: "perhaps": choose true or false`,
		"--all --users file:/absent":     "users: open /absent: no such file or directory",
		"--all --users ldap":             `--users: "ldap": choose passwd, or file: and the path`,
		"--all --config absent.toml":     "stat absent.toml: no such file or directory",
		"--all --state relative":         `--state: "relative" is no absolute path`,
		"--users-from . --config list":   "list:2: ",
		"--users-from conf.d":            "conf.d: read conf.d: is a directory",
		"--users-from list --users-from": "flag needs an argument",
	} {
		got, err := load(t, "", strings.Fields(args)...)
		var usage usageError
		switch {
		case want == "" && (err != nil || !strings.HasSuffix(got.names(), "?")):
			t.Errorf("%q: %q, error %v", args, got.names(), err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v\nwant %s", args, err, want)
		case err != nil && !errors.As(err, &usage) && !strings.Contains(want, "flag needs"):
			t.Errorf("%q: %v is no usage error", args, err)
		}
	}
}

func TestTheCommandLineCountsMoreThanTheEnvironment(t *testing.T) {
	inSite(t)
	t.Setenv("MAILFERRY_CHUNK", "8")
	t.Setenv("MAILFERRY_NICE", "true")
	t.Setenv("MAILFERRY_WAVE", "pilot")
	for args, want := range map[string]struct {
		names string
		chunk int
		nice  bool
	}{
		"":                       {"alice bob", 8, true},
		"--chunk 9 --nice=false": {"alice bob", 9, false},
		"al":                     {"al", 8, true},
		"--users-from list":      {"bob zoe? alice", 8, true},
		"--all --nice":           {"bob alice al bad?", 8, true},
	} {
		got, err := load(t, "", strings.Fields(args)...)
		if err != nil {
			t.Fatal(err)
		}
		if got.names() != want.names || got.config.Chunk != want.chunk || got.config.Nice != want.nice {
			t.Errorf("%q: %q, chunk %d, nice %v, want %+v", args, got.names(), got.config.Chunk, got.config.Nice, want)
		}
	}
	t.Setenv("MAILFERRY_CHUNK", "")
	t.Setenv("MAILFERRY_ALL", "yes please")
	if got, err := load(t, ""); err == nil || !strings.Contains(err.Error(), `MAILFERRY_ALL: "yes please"`) {
		t.Errorf("%q, error %v", got.names(), err)
	}
	t.Setenv("MAILFERRY_ALL", "")
	if got, err := load(t, ""); err != nil || got.config.Chunk != 7 {
		t.Errorf("an empty variable does not count as unset: %+v, error %v", got.config, err)
	}
}

func TestCollisionsWithUsersWhoWereNotSelected(t *testing.T) {
	inSite(t)
	got, err := load(t, "", "alice", "bob")
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := got.accounts[0].Collisions, got.accounts[1].Collisions
	if len(alice) != 1 || alice[0].Users != [2]string{"alice", "al"} || alice[0].Path != "1000" || bob != nil {
		t.Errorf("alice: %v, bob: %v", alice, bob)
	}
	if a := got.accounts[0]; a.Spool != "/var/mail/alice" || a.Maildir != "/home/alice/Maildir" {
		t.Errorf("%+v", a)
	}
}

// What config describe names, the verbs take that go by it.
func TestEachKeyHasItsFlag(t *testing.T) {
	help := func(verb string) string {
		var out bytes.Buffer
		if code := run(t.Context(), []string{verb, "--help"}, &out, &out); code != exitDone {
			t.Fatalf("%s --help: exit code %d: %s", verb, code, out.String())
		}
		return out.String()
	}
	migrate := help("migrate")
	for _, k := range config.Keys() {
		if !strings.Contains(migrate, " --"+k.Flag()+" ") {
			t.Errorf("migrate has no --%s", k.Flag())
		}
	}
	for _, verb := range []string{"cutover", "rollback", "recover"} {
		text := help(verb)
		for _, k := range config.Keys() {
			if strings.HasPrefix(k.Name, "hooks.") && !strings.Contains(text, " --"+k.Flag()+" ") {
				t.Errorf("%s runs hooks, and has no --%s", verb, k.Flag())
			}
		}
	}
}
