// Command aswork [packages] checks what runs with a user's identity: whatever a
// function that is passed to safefs.AsUser refers to, over all packages given
// (./...), and all of the packages that are made to work there. None of it may
// leave the thread, for another one is root's: no goroutine, no program, no
// second identity. Nor may it name files by path, which a user redirects.
//
// It follows names: declared functions, methods, literals within them, package
// variables, and for the method of an interface all methods of the module that
// have its name and signature. It does not follow a function that comes out of
// a struct or a local variable; where such a one is passed to AsUser itself,
// that is a finding.
package main

import (
	"fmt"
	"go/token"
	"os"
)

func main() {
	fset := token.NewFileSet()
	sources, err := load(".", os.Args[1:], fset)
	if err != nil {
		fmt.Fprintln(os.Stderr, "aswork:", err)
		os.Exit(1)
	}
	faults := newGraph(sources).faults(fset, ours)
	for _, f := range faults {
		fmt.Println("aswork:", f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}
