// Package site has one of each fault in what runs as a user, and the same
// things where they may be.
package site

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"planted/inside"
	"planted/safefs"
)

// Root may do all of it.
func Root() {
	go inside.Print(os.Stdout)
	os.Remove("x")
	exec.Command("true").Run()
	runtime.UnlockOSThread()
}

func literal() error {
	go Root()
	return safefs.AsUser(1, func() error {
		go func() {}()
		return helper()
	})
}

func helper() error {
	os.Open("x")
	return deeper()
}

func deeper() error { return exec.Command("true").Run() }

func named() error { return safefs.AsUser(1, work) }

func work() error {
	var group sync.WaitGroup
	group.Go(func() {})
	return nil
}

func asUser(name string, work func() error) error { return safefs.AsUser(len(name), work) }

func guarded(work func() error) error {
	return asUser("x", func() error { return work() })
}

func throughWrappers() error {
	return guarded(func() error {
		time.AfterFunc(0, func() {})
		return nil
	})
}

type account struct{}

func (account) run() error {
	runtime.UnlockOSThread()
	return nil
}

func method() error { return asUser("x", account{}.run) }

type writer interface{ write(name string) error }

type toDisk struct{}

func (toDisk) write(name string) error { return os.WriteFile(name, nil, 0o600) }

type toNothing struct{}

func (toNothing) write(bool) error { os.Remove("never"); return nil }

func throughInterface(w writer) error {
	return asUser("x", func() error { return w.write("x") })
}

var table = map[string]func(){"exit": func() { context.AfterFunc(context.Background(), func() {}) }}

func throughTable() error {
	return asUser("x", func() error { table["exit"](); return nil })
}

func nested() error {
	return asUser("x", func() error { return asUser("y", inside.Allowed) })
}

func unknown(works []func() error) error { return asUser("x", works[0]) }
