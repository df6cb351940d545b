package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mailferry/maildir"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mailferry": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("no condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitcode,
			"look":     look,
			"planted":  planted,
		},
	})
}

// exitcode runs a command that must end with that code:
//
//	exitcode N command args...
func exitcode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%q: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%q: exit code %d, want %d", args[1:], got, want)
	}
}

// look prints a Maildir: directories that are folders, the files in them, and
// what the lists say. Unique names become the message's number in their order.
//
//	look DIR
func look(ts *testscript.TestScript, neg bool, args []string) {
	root := ts.MkAbs(args[0])
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || d.Name() == "new" || d.Name() == "tmp" {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.Name() != "cur" {
			return showFiles(ts, path, rel)
		}
		return showMessages(ts, path, rel)
	}))
}

func showFiles(ts *testscript.TestScript, dir, rel string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintln(ts.Stdout(), filepath.Join(rel, e.Name()))
		for line := range strings.Lines(string(content)) {
			fmt.Fprint(ts.Stdout(), "\t", shortUIDLine(line))
		}
	}
	return nil
}

// shortUIDLine leaves out of a line of a uidlist what differs from run to run.
func shortUIDLine(line string) string {
	if head, _, ok := strings.Cut(line, " G"); ok && strings.HasPrefix(line, "3 V") {
		return head + "\n"
	}
	head, _, _ := strings.Cut(line, " :")
	return strings.TrimSuffix(head, "\n") + "\n"
}

func showMessages(ts *testscript.TestScript, cur, rel string) error {
	entries, err := os.ReadDir(cur) // in order of name, as all have one length
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		fmt.Fprintln(ts.Stdout(), rel)
	}
	for i, e := range entries {
		name, err := maildir.ParseName(e.Name())
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		_, sizes, _ := strings.Cut(name.Unique, ",")
		_, flags, _ := strings.Cut(e.Name(), maildir.InfoPrefix)
		fmt.Fprintf(ts.Stdout(), "%s/#%d,%s:2,%s %s\n", rel, i+1, sizes, flags, info.ModTime().UTC().Format("2006-01-02 15:04:05"))
	}
	return nil
}

// planted writes a file whose name has escapes.
//
//	planted NAME CONTENT
func planted(ts *testscript.TestScript, neg bool, args []string) {
	name, err := strconv.Unquote(`"` + args[0] + `"`)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name), []byte(ts.ReadFile(args[1])), 0o600))
}
