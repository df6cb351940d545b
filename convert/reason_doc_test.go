package convert

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// An admin finds every reason that a report gives, beside the codes of findings, in
// docs/migrating.md, as the first cell of a row.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/migrating.md")
	if err != nil {
		t.Fatal(err)
	}
	reasons := reasonConstants(t)
	if reasons["reasonBusy"] != "busy" || reasons["reasonUnready"] != "not-ready" {
		t.Fatalf("the constants are not found: %q", reasons)
	}
	for name, reason := range reasons {
		if !strings.Contains(string(text), "\n| `"+reason+"` | ") {
			t.Errorf("%s: no row of docs/migrating.md begins with `%s`", name, reason)
		}
	}
}

// reasonConstants are the constants of this package called reason and something, by
// name.
func reasonConstants(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
				addReasons(t, g, found)
			}
		}
	}
	return found
}

func addReasons(t *testing.T, g *ast.GenDecl, found map[string]string) {
	t.Helper()
	for _, spec := range g.Specs {
		v := spec.(*ast.ValueSpec)
		for i, id := range v.Names {
			if !strings.HasPrefix(id.Name, "reason") {
				continue
			}
			lit, ok := v.Values[i].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is no string", id.Name)
			}
			s, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[id.Name] = s
		}
	}
}
