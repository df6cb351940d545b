package main

import (
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestEachPlantedFaultIsFound(t *testing.T) {
	fset := token.NewFileSet()
	sources, err := load("testdata/planted", nil, fset)
	if err != nil {
		t.Fatal(err)
	}
	got := newGraph(sources).faults(fset, rules{
		entry:  "planted/safefs.AsUser",
		inside: []string{"planted/inside"},
		exceptions: []exception{
			{"planted/inside.Allowed", "os.ReadFile", "the kernel's"},
			{"planted/inside.Print", goStatement, "it has none"},
		},
	})
	const path = "a path leads where the user wants"
	want := []string{
		"inside/inside.go:10: os.Remove: " + path + "; in planted/inside.Uncalled",
		"site/site.go:28: go statement: the goroutine runs as root; in work of planted/site.literal",
		"site/site.go:34: os.Open: " + path + "; in planted/site.helper, from work of planted/site.literal",
		"site/site.go:38: (*os/exec.Cmd).Run: a program can regain root; in planted/site.deeper, from planted/site.helper, from work of planted/site.literal",
		"site/site.go:38: os/exec.Command: a program can regain root; in planted/site.deeper, from planted/site.helper, from work of planted/site.literal",
		"site/site.go:44: (*sync.WaitGroup).Go: the goroutine runs as root; in planted/site.work",
		"site/site.go:56: time.AfterFunc: the function runs as root; in work of planted/site.throughWrappers",
		"site/site.go:64: runtime.UnlockOSThread: the thread would go on as the user, with other work; in (planted/site.account).run",
		"site/site.go:74: os.WriteFile: " + path + "; in (planted/site.toDisk).write, from work of planted/site.throughInterface",
		"site/site.go:84: context.AfterFunc: the function runs as root; in planted/site.table, from work of planted/site.throughTable",
		"site/site.go:48: planted/safefs.AsUser: work inside of work; in planted/site.asUser, from work of planted/site.nested",
		"site/site.go:94: what planted/site.unknown runs as the user can't be told: pass a function or a literal",
		"the exception for go statement in planted/inside.Print is needed no more",
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestForbiddenNames(t *testing.T) {
	for name, want := range map[string]bool{
		goStatement:                                   true,
		"os.Open":                                     true,
		"os.Getpid":                                   false,
		"os.OpenFile":                                 true,
		"(*os.File).Chown":                            false, // of a descriptor
		"(*os.Root).Open":                             false,
		"golang.org/x/sys/unix.Open":                  true,
		"golang.org/x/sys/unix.Openat":                false,
		"golang.org/x/sys/unix.Setgroups":             false, // this thread's alone
		"syscall.Setgroups":                           true,
		"golang.org/x/sync/errgroup.WithContext":      true,
		"(*golang.org/x/sync/errgroup.Group).Go":      true,
		"golang.org/x/sync/semaphore.NewWeighted":     false,
		"(*os/exec.Cmd).Start":                        true,
		"path/filepath.WalkDir":                       true,
		"path/filepath.Join":                          false,
		"(mailferry/maildir.Folders).Open":            false,
		interfaceMark + "Open(name string) os.Create": false,
	} {
		if got := forbidden(name) != ""; got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
